"""Jobs as durable workflows (DBOS): a call is placed when it may be, and again where it is worth it, over every restart.

    job ID: run ID.0 ─▶ run ID.1 ─▶ ...   each on the queue `tenants`, delayed until its time, so many of a tenant at once
             └─ ID.0-call                 on the queue of its trunk, so many a second: placed by a worker, and followed

A run that is not the last one enqueues the next. Steps that were done are not done again after a restart: a call that was
placed is followed, not placed a second time, since the worker knows it by its id.
"""

import time
import uuid
from collections.abc import Callable
from typing import Any

from dbos import DBOS, DBOSConfiguredInstance, SetEnqueueOptions, SetWorkflowID

from dialler import plan as planning
from dialler.asked import Job
from dialler.cells import NO_WORKER, Cells
from tandem.settings import Settings

TENANTS = "tenants"
POLL_S = 0.25
WORKER_WITHIN_S = 30.0
"""For a worker to have room."""


def trunk_queue(trunk: str) -> str:
    return f"trunk-{trunk}"


def register_queues(settings: Settings) -> None:
    """Once a process, after DBOS was launched: the bounds are those of the configuration."""
    DBOS.register_queue(
        TENANTS,
        partition_concurrency=settings.outbound.max_calls,
        polling_interval_sec=POLL_S,
        on_conflict="always_update",
    )
    for name, trunk in settings.trunks.items():
        a_second = trunk.calls_per_second_out or trunk.preset.calls_per_second_out
        DBOS.register_queue(
            trunk_queue(name),
            limiter={"limit": a_second, "period": 1.0} if a_second else None,
            polling_interval_sec=POLL_S,
            on_conflict="always_update",
        )


@DBOS.dbos_class()
class Jobs(DBOSConfiguredInstance):
    """One a process, made before DBOS is launched."""

    def __init__(self, settings: Settings, cells: Cells, now: Callable[[], float] = time.time) -> None:
        super().__init__("jobs")
        self._settings = settings
        self._cells = cells
        self._now = now

    def add(self, job: Job) -> str:
        """Keep it. The job's id; asked for twice it is there once."""
        id = job.id or f"job-{uuid.uuid4().hex[:12]}"
        asked = job.model_copy(update={"id": id})
        start = max(self._now(), job.not_before)
        planned = planning.plan(self._settings, asked, self._now())
        at = planned.at or self._now()
        self._enqueue(asked.model_dump(), 0, 0, start + job.give_up_after_seconds, at, planned.tenant)
        return id

    def state(self, id: str) -> dict[str, Any] | None:
        """Of a job: ``waiting`` until ``at``, ``calling``, ``done``, ``cancelled`` or ``failed``; its result once it is done."""
        latest = None
        number = 0
        while (found := DBOS.get_workflow_status(f"{id}.{number}")) is not None:
            latest, number = found, number + 1
        if latest is None:
            return None
        states = {"ENQUEUED": "waiting", "DELAYED": "waiting", "PENDING": "calling", "SUCCESS": "done"}
        state = states.get(latest.status, "cancelled" if latest.status == "CANCELLED" else "failed")
        result = latest.output if state == "done" else {}
        return {"id": id, "state": state, "run": number - 1} | (result or {})

    def cancel(self, id: str) -> bool:
        """No further attempt; a call under way is ended. False where there is no such job, or it is over."""
        state = self.state(id)
        if state is None or state["state"] not in ("waiting", "calling"):
            return False
        run = f"{id}.{state['run']}"
        DBOS.cancel_workflow(run)
        DBOS.cancel_workflow(f"{run}-call")
        for worker in self._settings.workers:
            self._cells.end(worker, run)
        return True

    def _enqueue(self, job: dict[str, Any], number: int, made: int, give_up_at: float, at: float, tenant: str) -> None:
        delay_s = at - self._now()
        with SetWorkflowID(f"{job['id']}.{number}"):
            with SetEnqueueOptions(
                queue_partition_key=tenant or "default", delay_seconds=delay_s if delay_s > 0 else None
            ):
                DBOS.enqueue_workflow(TENANTS, self.run, job, number, made, give_up_at)

    @DBOS.workflow()
    def run(self, job: dict[str, Any], number: int, made: int, give_up_at: float) -> dict[str, Any]:
        """One run of a job; ``made`` attempts were made before. What came of the job, or ``{"next": NUMBER}``."""
        now, refused, trunk, tenant, at = self.planned(job)
        if refused:
            return {"outcome": "refused", "cause": refused, "attempts": made}
        if at > now:
            return self._later(job, number, made, give_up_at, at, tenant, {"outcome": "refused", "cause": "too_late"})
        id = f"{job['id']}.{number}"
        with SetWorkflowID(f"{id}-call"):
            handle = DBOS.enqueue_workflow(trunk_queue(trunk), self.call, id, job)
        result = handle.get_result()
        ended = self.moment()
        if planning.is_not_now(result):
            return self._later(job, number, made, give_up_at, ended + planning.LATER_S, tenant, result)
        made += 1
        wanted = Job.model_validate(job)
        if planning.is_worth_retrying(result) and made < wanted.attempts:
            return self._later(job, number, made, give_up_at, ended + wanted.retry_seconds, tenant, result)
        return _over(result, made)

    def _later(
        self,
        job: dict[str, Any],
        number: int,
        made: int,
        give_up_at: float,
        at: float,
        tenant: str,
        result: dict[str, Any],
    ) -> dict[str, Any]:
        """Another run, unless it would come too late; then it stays with ``result``."""
        if at > give_up_at:
            return _over(result, made)
        self._enqueue(job, number + 1, made, give_up_at, at, tenant)
        return {"next": number + 1, "attempts": made}

    @DBOS.workflow()
    def call(self, id: str, job: dict[str, Any]) -> dict[str, Any]:
        """A call placed by a worker, and what came of it."""
        worker = self.worker()
        if not worker:
            return {"refused": NO_WORKER, "message": "no worker takes calls", "status": 503}
        placed = self.placed(worker, id, Job.model_validate(job).call())
        return placed if "refused" in placed else self.followed(worker, id)

    @DBOS.step()
    def planned(self, job: dict[str, Any]) -> tuple[float, str, str, str, float]:
        now = self._now()
        planned = planning.plan(self._settings, Job.model_validate(job), now)
        return now, planned.refused, planned.trunk, planned.tenant, planned.at

    @DBOS.step()
    def moment(self) -> float:
        return self._now()

    @DBOS.step()
    def worker(self) -> str:
        """One with room, which is waited for; empty where there is none."""
        deadline = time.monotonic() + WORKER_WITHIN_S
        while (found := self._cells.with_room()) is None and time.monotonic() < deadline:
            time.sleep(1.0)
        return found or ""

    @DBOS.step()
    def placed(self, worker: str, call: str, asked: dict[str, Any]) -> dict[str, Any]:
        return self._cells.place(worker, call, asked)

    @DBOS.step()
    def followed(self, worker: str, call: str) -> dict[str, Any]:
        return self._cells.follow(worker, call, lambda _: False)


def _over(result: dict[str, Any], made: int) -> dict[str, Any]:
    if "refused" in result:
        return {"outcome": "refused", "cause": result["refused"], "message": result["message"], "attempts": made}
    shown = ("call", "outcome", "cause", "answered_by")
    return {key: result.get(key) for key in shown} | {"attempts": made}
