"""The workers, as the dialler has them place calls: which has room, and what comes of a call, whatever dies meanwhile."""

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from tandem.client import Client, ClientError, worker_client
from tandem.records import Records, RecordsError
from tandem.settings import Settings

POLL_S = 0.5
GONE_S = 20.0
"""A worker that says nothing of a call for so long has lost it."""
LONGEST_CALL_S = 4 * 3600.0
HEALTH_S = 2.0
NO_WORKER = "no_worker"
LOST = "lost"


class Cells:
    """Blocking: for the threads of workflows."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def with_room(self) -> str | None:
        """The worker with the smallest share of its calls up; None where none takes any."""
        loads: dict[str, float] = {}
        for name, worker in self._settings.workers.items():
            host = f"[{worker.loopback}]" if ":" in worker.loopback else worker.loopback
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                with opener.open(
                    f"http://{host}:{self._settings.esl_app.metrics_port}/healthz", timeout=HEALTH_S
                ) as reply:
                    health = json.load(reply)
            except (OSError, ValueError):
                continue
            if health.get("switch") and health["calls"] < health["max_calls"]:
                loads[name] = health["calls"] / health["max_calls"]
        return min(loads, key=lambda name: loads[name]) if loads else None

    def place(self, worker: str, call: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The call's state, or ``{"refused": cause, "message": ..., "status": ...}``."""
        try:
            return dict(self._client(worker).ask("POST", "/v1/calls", asked | {"call": call}))
        except ClientError as error:
            if error.cause == "already_placed":
                return self._on_record(call)
            return {"refused": error.cause, "message": str(error), "status": error.status}

    def follow(self, worker: str, call: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Its state once ``until`` holds or it has ended."""
        deadline = time.monotonic() + LONGEST_CALL_S
        heard = time.monotonic()
        while time.monotonic() < deadline:
            try:
                state = dict(self._client(worker).ask("GET", f"/v1/calls/{call}"))
            except ClientError as error:
                if error.status == 404 or time.monotonic() - heard > GONE_S:
                    return self._on_record(call)
            else:
                heard = time.monotonic()
                if state["outcome"] or until(state):
                    return state
            time.sleep(POLL_S)
        return {"outcome": LOST, "cause": "too_long", "call": call}

    def tell(self, worker: str, call: str, text: str) -> bool:
        """False where no agent is on the line."""
        try:
            self._client(worker).ask("POST", f"/v1/calls/{call}/tell", {"text": text})
        except ClientError:
            return False
        return True

    def end(self, worker: str, call: str) -> None:
        """Where it is still there."""
        try:
            self._client(worker).ask("DELETE", f"/v1/calls/{call}")
        except ClientError:
            return

    def _client(self, worker: str) -> Client:
        return worker_client(self._settings, worker)

    def _on_record(self, call: str) -> dict[str, Any]:
        """What the database has of a call whose worker has forgotten it."""
        try:
            with Records(self._settings.records.url) as records:
                story = records.call(call)
        except RecordsError as error:
            return {"outcome": LOST, "cause": str(error), "call": call}
        if story is None or story.call.outcome is None:
            return {"outcome": LOST, "cause": "", "call": call}
        return {"outcome": story.call.outcome.value, "cause": story.call.cause, "call": call}
