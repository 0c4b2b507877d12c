"""Consult, then bridge: targets are rung on legs of their own while the caller hears ringing and keeps the agent.

Only when a target has answered does the agent leave. Whatever ends this early, a busy line, a caller who hangs up, an
exception, ends the targets' legs too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from esl_app.briefing import Briefing
from esl_app.context import Carried
from esl_app.dialling import ORPHAN_S, caller_id, dial_string, in_words
from esl_app.happenings import Bridged, Happening, LegEnded
from esl_app.hold import Hold
from esl_app.hunt import Candidate, Hunt, Target
from esl_app.inbound import Dialling, SwitchAway
from esl_app.leg import LAST_EVENTS_S, HungUp
from esl_app.line import Line
from esl_app.protocol import COMMAND_FAILURES
from esl_app.ringing import RingTone
from tandem.destinations import TransferMethod
from tandem.dial_policy import Allowed
from tandem.hunting import Plan
from tandem.outcome import TransferOutcome
from tandem.seam import Ended

BRIDGE_S = 3.0


@dataclass(frozen=True)
class Attempt:
    """How it went. ``target``: the leg that the caller is now connected with, of the destination ``reached``; None where it
    came to nothing.
    """

    outcome: TransferOutcome
    detail: str
    sip_status: int | None = None
    target: Dialling | None = None
    reached: str | None = None


class _NotConnected(Exception):
    """A target answered, and the two could not be connected."""


class Consultation:
    """One attempt to connect the caller with somebody of ``plan``. ``told`` is given how it
    goes, in words: whenever a target begins to ring, and when the caller is on hold.

    ``carried``: what goes along to those whose trunks are told.
    """

    def __init__(self, line: Line, plan: Plan, told: Callable[[str], None], carried: Carried | None = None) -> None:
        self._line = line
        self._carried = carried
        self._leg = line.leg
        self._plan = plan
        self._told = told
        # Without an agent there is nobody to brief: a fallback is simply connected.
        self._is_warm = plan.method is TransferMethod.WARM and carried is not None
        self._tone = RingTone(line.leg, line.settings.policy.home_country)
        self._hold = Hold(line.music, line.fork)
        self._hunt = Hunt(
            line.leg,
            line.services.inbound,
            line.arrival.call,
            [self._candidate(allowed) for allowed in plan.targets],
            plan.ring,
            plan.ring_seconds,
            meanwhile=line.meanwhile,
            ringing=self._rings,
        )

    def run(self) -> Attempt:
        """Ring, and bridge with who answers. Raises HungUp, and what Line.meanwhile raises."""
        connected: Target | None = None
        try:
            target = self._taken()
            if target is None:
                failure = self._hunt.failure()
                return Attempt(failure.outcome, self._hunt.in_words(), failure.sip_status)
            self._bridge(target)
            connected = target
            return Attempt(
                TransferOutcome.ANSWERED,
                in_words(TransferOutcome.ANSWERED),
                target=target.dialling,
                reached=target.name,
            )
        except _NotConnected:
            return Attempt(TransferOutcome.FAILED, in_words(TransferOutcome.FAILED))
        except (SwitchAway, *COMMAND_FAILURES) as error:
            self._see_caller_leave()
            self._leg.log.error("transfer to %s failed: %s", self._plan.name, error)
            return Attempt(TransferOutcome.FAILED, in_words(TransferOutcome.FAILED))
        finally:
            self._hunt.close(keep=connected)
            if connected is None:
                self._let_be()

    def _candidate(self, allowed: Allowed) -> Candidate:
        arrival, settings = self._line.arrival, self._line.settings
        return Candidate(
            allowed.name,
            partial(
                dial_string,
                settings.edge,
                number=allowed.dial,
                trunk=allowed.trunk,
                tenant=arrival.tenant,
                call=arrival.call,
                caller_id=caller_id(settings.trunks[allowed.trunk], arrival.number, arrival.caller),
                ring_seconds=allowed.ring_seconds,
                headers=self._carried.headers(settings.trunks[allowed.trunk].context) if self._carried else {},
                park_seconds=ORPHAN_S + settings.transfers.briefing_seconds if self._is_warm else ORPHAN_S,
                is_spoken_to=self._is_warm,
            ),
            allowed.ring_seconds,
        )

    def _taken(self) -> Target | None:
        """Who answered and, in a warm transfer, takes the call."""
        while (target := self._hunt.answered()) is not None:
            if not self._is_warm:
                return target
            outcome = self._brief(target)
            if outcome is TransferOutcome.ANSWERED:
                return target
            self._leg.log.info("%s does not take the call: %s", target.name, outcome.value)
            self._hunt.reject(target, outcome)
            self._hold.stop()
        return None

    def _brief(self, target: Target) -> TransferOutcome:
        """The caller is on hold, and the agent of no use to anybody, until it is known whether the target takes the call."""
        assert self._carried is not None
        self._tone.stop()
        self._told("they answered and are being told who is calling; the caller is on hold")
        self._hold.start()
        within_s = self._line.settings.transfers.briefing_seconds
        return Briefing(self._line, target, self._carried).run(within_s)

    def _rings(self, really: bool) -> None:
        self._tone.start()
        if really:
            self._told("ringing")

    def _let_be(self) -> None:
        """The caller stays with the agent, if there is one, or is gone. Raises nothing."""
        if self._leg.over:
            return
        try:
            self._tone.stop()
            self._hold.stop()
        except COMMAND_FAILURES as error:
            self._leg.log.warning("what the caller hears is left as it is: %s", error)

    def _bridge(self, target: Target) -> None:
        """Raises _NotConnected."""
        self._tone.stop()
        self._line.fork.stop(Ended(why="transferred"))
        self._hold.stop()
        try:
            try:
                # Connected, the call needs no event socket: FreeSWITCH would take it off the bridge when that is lost.
                self._leg.session.set(socket_resume="false")
                self._leg.session.api("uuid_bridge", self._leg.uuid, target.channel)
            except COMMAND_FAILURES:
                self._see_caller_leave()
                raise
            self._until(Bridged(self._leg.uuid), target, BRIDGE_S)
        except HungUp as gone:
            # The target had answered: that it was for nothing is the caller's doing.
            if gone.lost:
                raise

    def _until(self, wanted: Happening, target: Target, within_s: float) -> None:
        deadline = self._leg.clock() + within_s
        while (happening := self._leg.next(deadline)) != wanted:
            if happening is None or (isinstance(happening, LegEnded) and happening.channel == target.channel):
                raise _NotConnected

    def _see_caller_leave(self) -> None:
        """A command that failed may have failed because the caller was going. Raises HungUp if so."""
        deadline = self._leg.clock() + LAST_EVENTS_S
        while (happening := self._leg.next(deadline)) is not None:
            self._line.meanwhile(happening)
