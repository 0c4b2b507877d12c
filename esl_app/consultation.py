"""Consult, then bridge: the target is dialled on a leg of its own while the caller hears ringing and keeps the agent.

Only when the target has answered does the agent leave. Whatever ends this early, a busy line, a caller who hangs up, an
exception, ends the target's leg too.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from esl_app.dialling import dial_string, in_words, outcome_of
from esl_app.happenings import Answered, Bridged, Dialled, Happening, LegEnded, Parked, Ringing
from esl_app.inbound import Dialling, Inbound, SwitchAway
from esl_app.leg import HungUp, Leg
from esl_app.protocol import COMMAND_FAILURES, CommandFailed
from tandem.dial_policy import Allowed, refusal_of_edge
from tandem.outcome import TransferOutcome
from tandem.settings import Edge

SILENCE_S = 1.5
"""Without 180 or 183 the caller hears ringing after this all the same."""
PARK_S = 2.0
BRIDGE_S = 3.0
LAST_EVENTS_S = 0.3
"""Events of a leg come in 20 ms ticks, and by another way than the results of commands."""

_RING_CADENCES = {
    "double": "%(400,200,400,450);%(400,2000,400,450)",
    "north_american": "%(2000,4000,440,480)",
    "european": "%(1000,4000,425)",
}
_DOUBLE_RING = frozenset({"AU", "GB", "HK", "IE", "IN", "NZ", "SG", "ZA"})
_NORTH_AMERICAN_RING = frozenset({"CA", "PR", "US"})


@dataclass(frozen=True)
class Attempt:
    """How it went. ``target``: the leg that the caller is now connected with; None where it came to nothing."""

    outcome: TransferOutcome
    detail: str
    sip_status: int | None = None
    target: Dialling | None = None


class _Failed(Exception):
    def __init__(self, outcome: TransferOutcome, sip_status: int | None = None, detail: str = "") -> None:
        self.attempt = Attempt(outcome, detail or in_words(outcome, sip_status), sip_status)
        super().__init__(self.attempt.detail)


class Consultation:
    """One attempt to connect the caller on ``leg`` with a destination.

    ``meanwhile`` is given whatever happens that is not the target's; ``ringing`` is called once it rings; ``hand_over`` when
    it answered, right before the bridge: the agent leaves there.
    """

    def __init__(
        self,
        leg: Leg,
        inbound: Inbound,
        edge: Edge,
        *,
        home_country: str,
        meanwhile: Callable[[Happening], None],
        ringing: Callable[[], None],
        hand_over: Callable[[], None],
    ) -> None:
        self._leg = leg
        self._inbound = inbound
        self._edge = edge
        self._meanwhile = meanwhile
        self._ringing = ringing
        self._hand_over = hand_over
        self._channel = str(uuid.uuid4())
        self._tone = f"tone_stream://{_RING_CADENCES[_cadence(home_country)]};loops=-1"
        self._tone_on = False
        self._rang = False
        self._answered = False

    def run(self, allowed: Allowed, call: str, tenant: str, caller_id: str) -> Attempt:
        """Dial, wait at most ``allowed.ring_seconds``, bridge. Raises HungUp, and what ``meanwhile`` raises."""
        target = dial_string(
            self._edge,
            channel=self._channel,
            number=allowed.dial,
            trunk=allowed.trunk,
            tenant=tenant,
            call=call,
            caller_id=caller_id,
            ring_seconds=allowed.ring_seconds,
        )
        dialling: Dialling | None = None
        cause = "NORMAL_CLEARING"
        attempt: Attempt | None = None
        try:
            self._leg.session.watch(self._channel)
            dialling = self._inbound.dial(self._channel, call, target, self._leg.put)
            self._await_answer(allowed.ring_seconds)
            try:
                self._bridge()
            except HungUp as gone:
                # The target had answered: that it was for nothing is the caller's doing.
                if gone.lost:
                    raise
            attempt = Attempt(TransferOutcome.ANSWERED, in_words(TransferOutcome.ANSWERED), None, dialling)
        except _Failed as failure:
            attempt = failure.attempt
            cause = "NO_ANSWER" if attempt.outcome is TransferOutcome.NO_ANSWER else cause
        except (SwitchAway, *COMMAND_FAILURES) as error:
            self._see_caller_leave()
            self._leg.log.error("transfer to %s failed: %s", allowed.name, error)
            attempt = Attempt(TransferOutcome.FAILED, in_words(TransferOutcome.FAILED))
        finally:
            if dialling is not None and not (attempt and attempt.target):
                self._inbound.end(dialling, cause)
        if attempt.target is None:
            self._ring_tone(False)
            self._unwatch()
        return attempt

    def _await_answer(self, ring_seconds: int) -> None:
        started = self._leg.clock()
        deadline = started + ring_seconds
        failure = ""
        while True:
            until = deadline if self._tone_on else min(deadline, started + SILENCE_S)
            match self._leg.next(until):
                case None if self._leg.clock() < deadline:
                    self._ring_tone(True)
                case None if failure:
                    raise _Failed(outcome_of(failure, None, self._rang))
                case None:
                    raise _Failed(TransferOutcome.NO_ANSWER if self._rang else TransferOutcome.UNREACHABLE)
                case Ringing(self._channel):
                    self._rings()
                case Answered(self._channel):
                    self._answered = True
                    return
                case Dialled(self._channel, result) if result:
                    # The leg's own events say more, and come by another way.
                    failure = result
                    deadline = min(deadline, self._leg.clock() + LAST_EVENTS_S)
                case other if other is not None:
                    self._target_or(other)

    def _rings(self) -> None:
        self._ring_tone(True)
        if not self._rang:
            self._rang = True
            self._ringing()

    def _bridge(self) -> None:
        self._until(Parked(self._channel), PARK_S)
        self._ring_tone(False)
        self._hand_over()
        self._leg.session.api("uuid_bridge", self._leg.uuid, self._channel)
        self._until(Bridged(self._leg.uuid), BRIDGE_S)

    def _until(self, wanted: Happening, within_s: float) -> None:
        deadline = self._leg.clock() + within_s
        while (happening := self._leg.next(deadline)) != wanted:
            if happening is None:
                raise _Failed(TransferOutcome.FAILED)
            self._target_or(happening)

    def _see_caller_leave(self) -> None:
        """A command that failed may have failed because the caller was going. Raises HungUp if so."""
        deadline = self._leg.clock() + LAST_EVENTS_S
        while (happening := self._leg.next(deadline)) is not None:
            if getattr(happening, "channel", None) != self._channel:
                self._meanwhile(happening)

    def _target_or(self, happening: Happening) -> None:
        match happening:
            case LegEnded(self._channel) if self._answered:
                raise _Failed(TransferOutcome.FAILED)
            case LegEnded(self._channel, cause, sip_status, refusal):
                if refused := refusal_of_edge(refusal):
                    raise _Failed(refused.outcome, sip_status, refused.detail)
                raise _Failed(outcome_of(cause, sip_status, self._rang), sip_status)
            case _ if not self._answered:
                # Once the target is there, what the agent decided before counts no more.
                self._meanwhile(happening)

    def _ring_tone(self, on: bool) -> None:
        """Mix ringing into what the caller hears. A media bug of its own: neither a barge-in nor a playback ends it."""
        if on == self._tone_on:
            return
        self._tone_on = on
        words = ("start", self._tone, "0", "mux") if on else ("stop", self._tone)
        try:
            self._leg.session.api("uuid_displace", self._leg.uuid, *words)
        except CommandFailed as error:
            self._leg.log.warning("no ringing for the caller: %s", error)

    def _unwatch(self) -> None:
        try:
            self._leg.session.unwatch(self._channel)
        except CommandFailed as error:
            self._leg.log.warning("events of a leg that is over will keep coming: %s", error)


def _cadence(country: str) -> str:
    if country in _NORTH_AMERICAN_RING:
        return "north_american"
    return "double" if country in _DOUBLE_RING else "european"
