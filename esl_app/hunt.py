"""A hunt: the targets of a transfer are rung, all at once or one after the other, each on a leg of its own, until one answers.

Whoever answers first has the call, though others answer in the same moment. A leg that did not win is ended, in whatever state
it is, and told that the call was completed elsewhere (RFC 3326), so that no phone shows it as missed.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from esl_app.dialling import in_words, outcome_of
from esl_app.happenings import Answered, Dialled, Happening, LegEnded, Parked, Ringing
from esl_app.inbound import Dialling, Inbound
from esl_app.leg import LAST_EVENTS_S, Leg
from esl_app.metrics import DIAL_REFUSED
from esl_app.protocol import COMMAND_FAILURES
from tandem.destinations import Ring
from tandem.dial_policy import refusal_of_edge
from tandem.outcome import TransferOutcome

SILENCE_S = 1.5
"""Without 180 or 183 the caller hears ringing after this all the same."""
PARK_S = 2.0
"""From a target's answer to its leg being ready."""
ELSEWHERE = "LOSE_RACE"
"""FreeSWITCH's cause for a leg that another one was quicker than."""
UNANSWERED = "NO_ANSWER"
_RANK = (
    TransferOutcome.DECLINED,
    TransferOutcome.NOT_ACCEPTED,
    TransferOutcome.TARGET_HUNG_UP,
    TransferOutcome.VOICEMAIL,
    TransferOutcome.NO_ANSWER,
    TransferOutcome.BUSY,
    TransferOutcome.REJECTED,
    TransferOutcome.UNREACHABLE,
    TransferOutcome.REFUSED_BY_POLICY,
    TransferOutcome.FAILED,
)
"""Which of several targets' failures stands for all of them."""


class DialString(Protocol):
    def __call__(self, *, channel: str) -> str: ...


@dataclass(frozen=True)
class Candidate:
    """Who may be rung: its destination's name, how to dial it on a channel of a given UUID, and for how long it may ring."""

    name: str
    dial_string: DialString
    ring_seconds: int


@dataclass(frozen=True)
class Failure:
    """Why a target was not reached; ``detail`` in words for the agent."""

    name: str
    outcome: TransferOutcome
    detail: str
    sip_status: int | None = None


class Target:
    """One candidate's leg."""

    def __init__(self, candidate: Candidate, deadline: float) -> None:
        self.name = candidate.name
        self.channel = str(uuid.uuid4())
        self.deadline = deadline
        self.dialling: Dialling | None = None
        self.rang = False
        self.answered = False
        self.failure = ""
        """FreeSWITCH's cause, where its dialling failed."""


class Hunt:
    """One attempt to find somebody for the caller on ``leg``. Close it, whatever came of it.

    ``meanwhile`` is given whatever happens that is no target's, unless one has just answered. ``ringing`` is called whenever
    a target begins to ring, or is as good as ringing because it said nothing for SILENCE_S.
    """

    def __init__(
        self,
        leg: Leg,
        inbound: Inbound,
        call: str,
        candidates: Sequence[Candidate],
        ring: Ring,
        ring_seconds: int,
        *,
        meanwhile: Callable[[Happening], None],
        ringing: Callable[[bool], None],
    ) -> None:
        self._leg = leg
        self._inbound = inbound
        self._call = call
        self._waiting = list(candidates)
        self._in_order = ring is Ring.IN_ORDER
        self._meanwhile = meanwhile
        self._ringing = ringing
        self._told_to_ring = False
        self._live: dict[str, Target] = {}
        """By channel: being rung, or the one that answered."""
        self._began = leg.clock()
        """To ring, for the first time or after somebody did not take the call."""
        self._deadline = self._began + ring_seconds
        self.failures: list[Failure] = []
        """In order of time."""

    def answered(self) -> Target | None:
        """Ring until somebody answers; then the others are ended. None where nobody is left to be rung, or time is up.

        Call it again to go on with those not rung yet, once the last one was rejected. Raises HungUp, SwitchAway, what Session's commands raise, and what
        ``meanwhile`` raises.
        """
        self._told_to_ring = False
        self._began = self._leg.clock()
        while self._dial():
            match self._leg.next(self._next_deadline()):
                case None:
                    self._time_passed()
                case Ringing(channel) if channel in self._live:
                    self._rings(self._live[channel])
                case Answered(channel) if channel in self._live:
                    target = self._live[channel]
                    target.answered = True
                    target.deadline = self._leg.clock() + PARK_S
                case Parked(channel) if channel in self._live:
                    return self._won(self._live[channel])
                case Dialled(channel, failure) if channel in self._live and failure:
                    # The leg's own events say more, and come by another way.
                    target = self._live[channel]
                    target.failure = failure
                    target.deadline = min(target.deadline, self._leg.clock() + LAST_EVENTS_S)
                case LegEnded(channel) as ended if channel in self._live:
                    self._ended(self._live[channel], ended)
                case other if other is not None and not any(target.answered for target in self._live.values()):
                    # Once a target is there, what the agent decided before counts no more.
                    self._meanwhile(other)
        return None

    def give_up(self, target: Target, cause: str = "NORMAL_CLEARING") -> None:
        """End a target's leg, whatever its state."""
        if self._live.pop(target.channel, None) is None:
            return
        if target.dialling is not None:
            self._inbound.end(target.dialling, cause)
        if self._leg.over:
            return
        try:
            self._leg.session.unwatch(target.channel)
        except COMMAND_FAILURES as error:
            self._leg.log.warning("events of a leg that is over will keep coming: %s", error)

    def reject(self, target: Target, outcome: TransferOutcome) -> None:
        """Who answered does not take the call. The time that they took to say so is none of the group's."""
        self._deadline += self._leg.clock() - target.deadline + PARK_S
        self._fail(target, outcome)

    def close(self, keep: Target | None = None) -> None:
        """End every leg but that of ``keep``. Raises nothing: the legs end even where their caller's socket is gone."""
        for target in [target for target in self._live.values() if target is not keep]:
            self.give_up(target)

    def failure(self) -> Failure:
        """What stands for all of the failures."""
        return min(self.failures, key=lambda failure: _RANK.index(failure.outcome))

    def in_words(self) -> str:
        """All failures, for the agent: of several targets each by its name."""
        if len(self.failures) == 1:
            return self.failures[0].detail
        return "; ".join(f"{each.name}: {each.detail}" for each in self.failures)

    # Dialling

    def _dial(self) -> bool:
        """Have those rung whose turn it is. False where nobody rings and nobody is left."""
        while self._waiting and not (self._in_order and self._live):
            candidate = self._waiting.pop(0)
            now = self._leg.clock()
            if now >= self._deadline:
                self._waiting.clear()
                break
            target = Target(candidate, min(now + candidate.ring_seconds, self._deadline))
            self._live[target.channel] = target
            self._leg.session.watch(target.channel)
            dial_string = candidate.dial_string(channel=target.channel)
            target.dialling = self._inbound.dial(target.channel, self._call, dial_string, self._leg.put)
        return bool(self._live)

    def _next_deadline(self) -> float:
        deadlines = [target.deadline for target in self._live.values()]
        return min(deadlines if self._told_to_ring else [*deadlines, self._began + SILENCE_S])

    def _time_passed(self) -> None:
        now = self._leg.clock()
        if not self._told_to_ring and now >= self._began + SILENCE_S:
            self._told_to_ring = True
            self._ringing(False)
        for target in self._overdue(now):
            if target.answered:
                self._fail(target, TransferOutcome.FAILED)
            elif target.failure:
                self._fail(target, outcome_of(target.failure, None, target.rang))
            elif target.rang:
                self._fail(target, TransferOutcome.NO_ANSWER, cause=UNANSWERED)
            else:
                self._fail(target, TransferOutcome.UNREACHABLE)

    def _overdue(self, now: float) -> Iterator[Target]:
        return iter([target for target in self._live.values() if target.deadline <= now])

    def _rings(self, target: Target) -> None:
        if not target.rang:
            target.rang = self._told_to_ring = True
            self._ringing(True)

    def _won(self, target: Target) -> Target:
        for other in [other for other in self._live.values() if other is not target]:
            self.give_up(other, ELSEWHERE)
        return target

    def _ended(self, target: Target, ended: LegEnded) -> None:
        if target.answered:
            self._fail(target, TransferOutcome.FAILED)
        elif refused := refusal_of_edge(ended.refusal):
            DIAL_REFUSED.labels(refused.refusal.value).inc()
            self._fail(target, refused.outcome, ended.sip_status, detail=refused.detail)
        else:
            outcome = outcome_of(ended.cause, ended.sip_status, target.rang)
            self._fail(target, outcome, ended.sip_status)

    def _fail(
        self,
        target: Target,
        outcome: TransferOutcome,
        sip_status: int | None = None,
        cause: str = "NORMAL_CLEARING",
        detail: str = "",
    ) -> None:
        self.failures.append(Failure(target.name, outcome, detail or in_words(outcome, sip_status), sip_status))
        self.give_up(target, cause)
