"""Somebody on call is woken: the first is sent word and rung, after a time the next, until one takes it upon them.

    alert ID ─▶ page ID.0: word by the webhook, a call; ANSWER_WITHIN later page ID.1 beside it, and so on, round after round
                  key 1, the agent's tool, or the API ─▶ claim ID.taken: the first one it is started for has it, all others learn whose it is

That only one has it the database decides: a workflow is there once under its id, with the arguments it was first started with.
"""

import json
import time
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

from dbos import DBOS, DBOSConfiguredInstance, SetWorkflowID, WorkflowHandle

from dialler.asked import Alert
from dialler.cells import Cells
from tandem.notify.channels import SIGNATURE, signature
from tandem.placing import Contact, OnCall
from tandem.settings import Settings

TAKEN = "taken"
NOBODY = ""
WEBHOOK_S = 10.0
LAST_CHANCE_S = 2.0
"""For an acknowledgement that is on its way when the last one's time is over."""


@DBOS.dbos_class()
class Escalations(DBOSConfiguredInstance):
    """One a process, made before DBOS is launched."""

    def __init__(self, settings: Settings, cells: Cells, now: Callable[[], float] = time.time) -> None:
        super().__init__("escalations")
        self._settings = settings
        self._cells = cells
        self._now = now

    def add(self, alert: Alert) -> str:
        """Begin to wake people. The escalation's id; asked for twice it is there once. Raises KeyError for an unknown ``on_call``."""
        self._settings.on_call[alert.on_call]
        id = alert.id or f"alert-{uuid.uuid4().hex[:12]}"
        with SetWorkflowID(id):
            DBOS.start_workflow(self.escalate, id, alert.on_call, alert.text)
        return id

    def state(self, id: str) -> dict[str, Any] | None:
        status = DBOS.get_workflow_status(id)
        if status is None:
            return None
        taken = DBOS.get_workflow_status(f"{id}.{TAKEN}")
        by = taken.output if taken is not None and taken.status == "SUCCESS" else None
        states = {"PENDING": "waking", "SUCCESS": "over", "CANCELLED": "cancelled"}
        return {"id": id, "state": states.get(status.status, "failed"), "acknowledged_by": by} | (status.output or {})

    def acknowledge(self, id: str, by: str) -> str:
        """``by`` takes it, unless somebody has: who has it now."""
        with SetWorkflowID(f"{id}.{TAKEN}"):
            holder = DBOS.start_workflow(self.claim, by).get_result()
        if holder == by:
            DBOS.send(id, holder, TAKEN)
        return holder

    @DBOS.workflow()
    def claim(self, by: str) -> str:
        """There is one of an escalation."""
        return by

    @DBOS.workflow()
    def escalate(self, id: str, on_call: str, text: str) -> dict[str, Any]:
        configured = self._settings.on_call[on_call]
        pages: list[tuple[str, str]] = []
        holder = NOBODY
        for turn in range(configured.rounds * len(configured.contacts)):
            index = turn % len(configured.contacts)
            call = f"{id}.{turn}"
            worker = self.worker()
            pages.append((worker, call))
            with SetWorkflowID(call):
                DBOS.start_workflow(self.page, id, on_call, index, worker, call, text)
            holder = DBOS.recv(TAKEN, timeout_seconds=configured.answer_within_seconds) or NOBODY
            if holder:
                break
        if not holder:
            holder = DBOS.recv(TAKEN, timeout_seconds=LAST_CHANCE_S) or NOBODY
        for worker, call in pages:
            self.released(worker, call, holder)
        return {"acknowledged_by": holder or None, "woken": len(pages)}

    @DBOS.workflow()
    def page(self, id: str, on_call: str, index: int, worker: str, call: str, text: str) -> str:
        """One contact is sent word and rung. How that went, in a word."""
        contact = self._settings.on_call[on_call].contacts[index]
        self.sent_word(id, on_call, index, text)
        if not worker:
            return "no_worker"
        if self._holder(id):
            return TAKEN
        placed = self.placed(worker, call, on_call, index, text)
        if "refused" in placed:
            return str(placed["refused"])
        # Somebody may have taken it before this call was there to be released.
        if holder := self._holder(id):
            self.let_be(worker, call, holder)
            return TAKEN
        state = self.answered(worker, call)
        if not state.get("acknowledged"):
            return str(state["outcome"])
        with SetWorkflowID(f"{id}.{TAKEN}"):
            holder = DBOS.start_workflow(self.claim, contact.name).get_result()
        if holder == contact.name:
            self.told(worker, call, f"{contact.name} has taken it. Tell them that it is theirs now, and hang up.")
            DBOS.send(id, holder, TAKEN)
        else:
            self.told(worker, call, _taken_by(holder))
        return TAKEN

    def _holder(self, id: str) -> str:
        """Who has it; empty while nobody has."""
        if DBOS.get_workflow_status(f"{id}.{TAKEN}") is None:
            return NOBODY
        claimed: WorkflowHandle[str] = DBOS.retrieve_workflow(f"{id}.{TAKEN}")
        return claimed.get_result()

    @DBOS.step()
    def worker(self) -> str:
        return self._cells.with_room() or ""

    @DBOS.step()
    def sent_word(self, id: str, on_call: str, index: int, text: str) -> str:
        """To the webhook, for an SMS. A webhook that fails wakes nobody, and stops no call."""
        configured = self._settings.on_call[on_call]
        if configured.webhook is None:
            return "none"
        try:
            self._post(configured, configured.contacts[index], id, on_call, text)
        except OSError as error:
            DBOS.logger.error("webhook of on_call %s: %s", on_call, error)
            return f"failed: {error}"
        return "sent"

    def _post(self, configured: OnCall, contact: Contact, id: str, on_call: str, text: str) -> None:
        assert configured.webhook is not None
        told = {"escalation": id, "on_call": on_call, "contact": contact.name, "sms": contact.sms, "text": text}
        body = json.dumps(told).encode()
        secret = configured.webhook.secret.get_secret_value()
        headers = {"Content-Type": "application/json", SIGNATURE: signature(secret, int(self._now()), body)}
        request = urllib.request.Request(configured.webhook.url, body, headers)
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(request, timeout=WEBHOOK_S):
            pass

    @DBOS.step()
    def placed(self, worker: str, call: str, on_call: str, index: int, text: str) -> dict[str, Any]:
        configured = self._settings.on_call[on_call]
        contact = configured.contacts[index]
        asked = {
            "to": contact.dial,
            "agent": configured.agent,
            "trunk": configured.trunk,
            "ring_seconds": configured.ring_seconds,
            "context": f"You wake {contact.name}, who is on call for {on_call}. What has happened: {text}"
            " Tell them, and ask whether they take it: by pressing 1, or by saying so.",
            "acknowledge": True,
            "purpose": "on_call",
        }
        return self._cells.place(worker, call, {key: value for key, value in asked.items() if value is not None})

    @DBOS.step()
    def answered(self, worker: str, call: str) -> dict[str, Any]:
        """Once they acknowledged, or the call is over."""
        return self._cells.follow(worker, call, lambda state: state["acknowledged"] is not None)

    @DBOS.step()
    def told(self, worker: str, call: str, text: str) -> bool:
        return self._cells.tell(worker, call, text)

    @DBOS.step()
    def released(self, worker: str, call: str, holder: str) -> None:
        """As :meth:`let_be`, but for who has acknowledged: their own page tells them."""
        if worker and not self._state(worker, call).get("acknowledged"):
            self._let_be(worker, call, holder)

    @DBOS.step()
    def let_be(self, worker: str, call: str, holder: str) -> None:
        """Who still rings need not any more; who talks learns who has it."""
        self._let_be(worker, call, holder)

    def _let_be(self, worker: str, call: str, holder: str) -> None:
        state = self._state(worker, call)
        if state["outcome"] is not None:
            return
        if not (holder and state.get("state") == "answered" and self._cells.tell(worker, call, _taken_by(holder))):
            self._cells.end(worker, call)

    def _state(self, worker: str, call: str) -> dict[str, Any]:
        return self._cells.follow(worker, call, lambda _: True)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is signed for one place goes to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _taken_by(holder: str) -> str:
    return f"{holder} has taken it already. Tell them so, thank them, and hang up."
