"""Decisions of the agent that the switch carries out: transfers and hanging up.

Each waits until what the agent said has been heard, then goes to esl_app as a command on the fork. A caller who speaks
before that has not agreed: the decision is withdrawn, and the model told so. What comes of a transfer comes back as a
notice, and is told to the model as the result of its call.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import orjson

from media_fork.clock import Clock, Timer
from media_fork.tools import Result
from tandem.outcome import TransferOutcome
from tandem.seam import MAX_ID, MAX_TEXT, Command, HangUp, Transfer, TransferState

OUTCOME_S: Final = 180.0
"""A transfer of which nothing was heard for so long has failed; ring times are bounded far below."""
INTERRUPTED: Final = Result(
    "interrupted",
    orjson.dumps(
        {
            "outcome": "interrupted",
            "detail": "Not carried out: the caller spoke before. Call the tool again if they still want it.",
        }
    ).decode(),
)
ANOTHER: Final = Result(
    "refused",
    orjson.dumps({"outcome": "failed", "detail": "Another transfer is under way; wait for its result."}).decode(),
)


@dataclass
class Decision:
    """One tool call that is the switch's to carry out."""

    id: str
    """The function call's call_id."""
    destination: str | None
    """Of a transfer; None for a hang-up."""
    reason: str
    number: str = ""
    """Of a transfer to no destination."""
    summary: str = ""
    """For who takes the call."""
    sent: bool = False
    heard: bool = True
    """What was said before it."""
    timer: Timer | None = field(default=None, repr=False)


class Decisions:
    """One conversation's. ``send`` puts a command on the fork; ``settle`` is told what the model is to be told, and
    whether it is to respond to that."""

    def __init__(
        self,
        clock: Clock,
        heard_within_ms: int,
        is_playing: Callable[[], bool],
        send: Callable[[Command], None],
        settle: Callable[[str, Result, bool], None],
    ) -> None:
        self._clock = clock
        self._heard_within_s = heard_within_ms / 1000
        self._is_playing = is_playing
        self._send = send
        self._settle = settle
        self._open: dict[str, Decision] = {}

    @property
    def is_open(self) -> bool:
        """Something is decided and not yet done."""
        return bool(self._open)

    def transfer(self, call_id: str, destination: str, reason: str, number: str = "", summary: str = "") -> None:
        """The agent wants the caller put through. One transfer at a time."""
        if any(decision.destination is not None for decision in self._open.values()):
            self._settle(call_id, ANOTHER, True)
        else:
            destination, reason, number, summary = (text[:MAX_TEXT] for text in (destination, reason, number, summary))
            self._begin(Decision(call_id, destination, reason, number, summary))

    def hang_up(self, call_id: str, reason: str) -> None:
        """The agent wants to end the call."""
        self._begin(Decision(call_id, None, reason[:MAX_TEXT]))

    def heard(self) -> None:
        """An utterance has been heard to its end."""
        if not self._is_playing():
            self._send_waiting(heard=True)

    def interrupted(self) -> None:
        """The caller speaks while the agent was to be heard out."""
        for decision in [decision for decision in self._open.values() if not decision.sent]:
            self._end(decision, INTERRUPTED, respond=False)

    def repeat(self) -> None:
        """Send what is under way once more: whoever it was sent to is gone."""
        for decision in [decision for decision in self._open.values() if decision.sent]:
            self._carry_out(decision, decision.heard)

    def on_state(self, state: TransferState) -> bool:
        """A notice from esl_app. False where no transfer of that id is under way."""
        decision = self._open.get(state.id)
        if decision is None or not decision.sent or decision.destination is None:
            return False
        if state.outcome is not None:
            self._conclude(decision, state.outcome, state.detail)
        else:
            # Somebody else is being rung: that takes its own time.
            _cancel(decision)
            self._await_outcome(decision)
        return True

    def close(self) -> None:
        """The call or the model is gone."""
        for decision in self._open.values():
            _cancel(decision)
        self._open.clear()

    def _begin(self, decision: Decision) -> None:
        if not 0 < len(decision.id) <= MAX_ID:
            self._settle(decision.id, Result("refused", '{"error":"call_id is not usable"}'), False)
            return
        self._open[decision.id] = decision
        if self._is_playing():
            when = self._clock.now() + self._heard_within_s
            decision.timer = self._clock.call_at(when, lambda: self._send_waiting(heard=False))
        else:
            self._carry_out(decision, heard=True)

    def _send_waiting(self, heard: bool) -> None:
        for decision in [decision for decision in self._open.values() if not decision.sent]:
            self._carry_out(decision, heard)

    def _carry_out(self, decision: Decision, heard: bool) -> None:
        _cancel(decision)
        decision.sent, decision.heard = True, heard
        if decision.destination is None:
            self._send(HangUp(id=decision.id, reason=decision.reason, heard=heard))
            return
        self._await_outcome(decision)
        self._send(
            Transfer(
                id=decision.id,
                destination=decision.destination,
                number=decision.number,
                summary=decision.summary,
                reason=decision.reason,
                heard=heard,
            )
        )

    def _await_outcome(self, decision: Decision) -> None:
        decision.timer = self._clock.call_at(
            self._clock.now() + OUTCOME_S,
            lambda: self._conclude(decision, TransferOutcome.FAILED, "no result came of it"),
        )

    def _conclude(self, decision: Decision, outcome: TransferOutcome, detail: str) -> None:
        output = orjson.dumps({"outcome": outcome.value, "detail": detail}).decode()
        self._end(decision, Result(outcome.value, output), respond=outcome is not TransferOutcome.ANSWERED)

    def _end(self, decision: Decision, result: Result, respond: bool) -> None:
        _cancel(decision)
        del self._open[decision.id]
        self._settle(decision.id, result, respond)


def _cancel(decision: Decision) -> None:
    if decision.timer is not None:
        decision.timer.cancel()
        decision.timer = None
