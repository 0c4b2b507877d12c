"""What may be dialled on behalf of a model, a caller or a job: names are looked up, numbers are judged, nothing else is dialled.

A model never dials. It names a destination, or a number where its agent's ``free_numbers`` have a rule for it;
:func:`decide` finds what that means, and refuses what the policy forbids even where the configuration would have it.
Emergency numbers are refused always and in every spelling. docs/dial-policy.md has the order of evaluation.

The edge judges by the same expressions and rules, rendered, whatever a worker dials and the targets of REFER: see
kamailio/policy.cfg. It alone counts calls against the rules' caps; what it refuses comes back by :func:`refusal_of_edge`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from tandem import callee, edge, weekly
from tandem.callee import Callee
from tandem.destinations import Destination, TransferMethod
from tandem.dial_rules import Action, Kind, Opening, Rule
from tandem.outcome import TransferOutcome
from tandem.settings import Settings, TrunkKind

FREE_RING_SECONDS = 25
"""For a number without a destination that would say how long it may ring."""
_FREE = re.compile(r"\+?[0-9(][0-9 ().-]{0,30}|" + callee.FEATURE_CODE)
"""What an agent may write for a number: nothing that means anything in a URI or a dial string."""


class Refusal(StrEnum):
    """Why a destination or number is not dialled. The edge has the same words for what it refuses."""

    UNKNOWN_DESTINATION = "unknown_destination"
    FREE_NUMBER = "free_number"
    """No rule lets this agent name this number itself."""
    EMERGENCY = "emergency"
    NOT_A_NUMBER = "not_a_number"
    OWN_NUMBER = "own_number"
    """One of this site's own numbers: the call would come back here."""
    FEATURE_CODE = "feature_code"
    PREMIUM = "premium_number"
    INTERNATIONAL = "international_number"
    RULE = "refused_by_rule"
    NO_GATEWAY = "no_gateway"
    TOO_MANY_CALLS = "too_many_calls"
    """As many as its rule allows are up; found out by the edge alone."""
    TOO_MANY_CALLS_PER_HOUR = "too_many_calls_per_hour"


_IN_WORDS = {
    Refusal.UNKNOWN_DESTINATION: "there is no such destination",
    Refusal.FREE_NUMBER: "numbers other than the destinations are not allowed",
    Refusal.EMERGENCY: "emergency numbers are not allowed",
    Refusal.NOT_A_NUMBER: "that is not a number that can be called",
    Refusal.OWN_NUMBER: "our own numbers are not allowed",
    Refusal.FEATURE_CODE: "feature codes are not allowed",
    Refusal.PREMIUM: "premium numbers are not allowed",
    Refusal.INTERNATIONAL: "international numbers are not allowed",
    Refusal.RULE: "that number is not allowed, or not at this time",
    Refusal.NO_GATEWAY: "there is no line to it",
    Refusal.TOO_MANY_CALLS: "as many calls to such numbers as are allowed are up; it may be possible later",
    Refusal.TOO_MANY_CALLS_PER_HOUR: "as many calls to such numbers as are allowed were made in the last hour",
}
_OF_EDGE = {"emergency_from_worker": Refusal.EMERGENCY} | {
    refusal.value: refusal
    for refusal in Refusal
    if refusal not in (Refusal.UNKNOWN_DESTINATION, Refusal.FREE_NUMBER, Refusal.NO_GATEWAY, Refusal.EMERGENCY)
}
_CLOSED = {
    Opening.OWN_NUMBER: Refusal.OWN_NUMBER,
    Opening.FEATURE_CODE: Refusal.FEATURE_CODE,
    Opening.PREMIUM: Refusal.PREMIUM,
    Opening.INTERNATIONAL: Refusal.INTERNATIONAL,
}
"""What is refused unless a rule opens it, in the order in which the cause is told."""


@dataclass(frozen=True)
class Allowed:
    """What may be dialled. ``dial`` is E.164, an extension of digits or a feature code, fit for a Request-URI's user part."""

    name: str
    """Of the destination; of a number without one, the number."""
    dial: str
    trunk: str
    method: TransferMethod
    ring_seconds: int
    rule: str = ""
    """That allowed it. Empty: none had to."""


@dataclass(frozen=True)
class Refused:
    refusal: Refusal
    detail: str
    """In words that an agent may repeat."""

    @property
    def outcome(self) -> TransferOutcome:
        if self.refusal is Refusal.UNKNOWN_DESTINATION:
            return TransferOutcome.UNKNOWN_DESTINATION
        return TransferOutcome.REFUSED_BY_POLICY


@dataclass(frozen=True)
class Judgement:
    """What the policy says of a number: why not, or (``refusal`` None) that it may, and the rule that decided, if one did."""

    refusal: Refusal | None
    rule: Rule | None = None


def decide(
    settings: Settings,
    agent: str,
    destination: str,
    caller_trunk: str = "",
    *,
    number: str = "",
    tenant: str = "default",
    now: float,
) -> Allowed | Refused:
    """Whether ``agent`` may transfer a call of ``tenant`` from ``caller_trunk`` at ``now`` (Unix seconds).

    Either to the destination it named, which must match exactly; or, where it named none, to a number of its own.
    """
    configured = settings.agents.get(agent)
    if number and not destination:
        decision = decide_number(settings, number, tenant=tenant, agent=agent, now=now)
        return decision if isinstance(decision, Refused) else _transferable(settings, decision, None, caller_trunk)
    if configured is None or destination not in configured.destinations:
        return refused(Refusal.UNKNOWN_DESTINATION)
    return resolve(settings, destination, caller_trunk, tenant=tenant, now=now)


def resolve(
    settings: Settings, destination: str, caller_trunk: str = "", *, tenant: str = "default", now: float
) -> Allowed | Refused:
    """What dialling ``destination`` means, whoever asks: an agent by :func:`decide`, or a number's fallback."""
    found = settings.destinations.get(destination)
    if found is None:
        return refused(Refusal.UNKNOWN_DESTINATION)
    judgement = judge(settings, found.dial, trunk=found.trunk, tenant=tenant, now=now)
    if judgement.refusal is not None:
        return refused(judgement.refusal)
    if not _has_gateway(settings, found.trunk):
        return refused(Refusal.NO_GATEWAY)
    allowed = _allowed(destination, found.dial, found.trunk, found.ring_seconds, judgement)
    return _transferable(settings, allowed, found, caller_trunk)


def resolve_ever(settings: Settings, destination: str, now: float) -> Allowed | Refused:
    """What dialling ``destination`` means for some tenant at some hour of the week from ``now``; refused where it never is allowed."""
    tenants = dict.fromkeys(trunk.tenant for trunk in settings.trunks.values())
    first: Allowed | Refused | None = None
    for hour in range(weekly.WEEK // 60):
        for tenant in tenants:
            decision = resolve(settings, destination, tenant=tenant, now=now + hour * 3600)
            if isinstance(decision, Allowed):
                return decision
            first = first or decision
    return first or refused(Refusal.UNKNOWN_DESTINATION)


def decide_number(
    settings: Settings, number: str, *, tenant: str = "default", trunk: str = "", agent: str = "", now: float
) -> Allowed | Refused:
    """Whether ``number``, as somebody wrote it, may be called for ``tenant`` at ``now`` (Unix seconds).

    ``trunk``: over which; empty: of those that ``routes`` has for it, in order, the first that the rules allow it over; for an
    extension those of the PBXs. ``agent``: whose model named the number, so that one of its ``free_numbers`` must allow it;
    empty: the operator, or a program of theirs.

    What is allowed is dialled in E.164 where it is such a number; its ``method`` is bridge.
    """
    if not (number.isascii() and _FREE.fullmatch(number)):
        return refused(Refusal.NOT_A_NUMBER)
    try:
        found = callee.read(settings, number)
    except callee.Emergency:
        return refused(Refusal.EMERGENCY)
    except callee.NotANumber:
        return refused(Refusal.NOT_A_NUMBER)
    dial = found.number or found.dialled
    refusal = Refusal.NO_GATEWAY
    for candidate in [trunk] if trunk else _trunks_for(settings, found):
        if not _has_gateway(settings, candidate):
            continue
        judgement = weigh(found, trunk=candidate, tenant=tenant, now=now)
        if judgement.refusal is None and agent and not _is_free(settings, agent, judgement.rule):
            judgement = Judgement(Refusal.FREE_NUMBER)
        if judgement.refusal is None:
            return _allowed(dial, dial, candidate, FREE_RING_SECONDS, judgement)
        if refusal is Refusal.NO_GATEWAY:
            refusal = judgement.refusal
    return refused(refusal)


def judge(settings: Settings, dialled: str, *, trunk: str = "", tenant: str = "default", now: float) -> Judgement:
    """What the policy says of ``dialled`` (digits as dialled, E.164, or a URI), were it dialled over ``trunk`` for ``tenant``."""
    try:
        found = callee.read(settings, dialled)
    except callee.Emergency:
        return Judgement(Refusal.EMERGENCY)
    except callee.NotANumber:
        return Judgement(Refusal.NOT_A_NUMBER)
    return weigh(found, trunk=trunk, tenant=tenant, now=now)


def weigh(found: Callee, *, trunk: str, tenant: str, now: float) -> Judgement:
    """The first rule that fits decides. Where none does: what is closed is refused, everything else allowed."""
    policy = found.settings.policy
    closed = [opening for opening in _CLOSED if found.has(Kind(opening)) and opening not in policy.opens]
    for rule in policy.rules:
        if not _fits(rule, found, trunk, tenant, now):
            continue
        if rule.action is Action.REFUSE:
            return Judgement(Refusal.RULE, rule)
        if set(closed) <= set(rule.opens):
            return Judgement(None, rule)
    return Judgement(_CLOSED[closed[0]] if closed else None)


def refused(refusal: Refusal) -> Refused:
    return Refused(refusal, _IN_WORDS[refusal])


def refusal_of_edge(cause: str) -> Refused | None:
    """The policy's refusal that the edge told a worker in X-Tandem-Refused; None where ``cause`` is another or none."""
    return refused(_OF_EDGE[cause]) if cause in _OF_EDGE else None


def _fits(rule: Rule, found: Callee, trunk: str, tenant: str, now: float) -> bool:
    if rule.prefixes and not (found.number or "").startswith(tuple(rule.prefixes)):
        return False
    if rule.kinds and not any(map(found.has, rule.kinds)):
        return False
    if (rule.trunks and trunk not in rule.trunks) or (rule.tenants and tenant not in rule.tenants):
        return False
    if not rule.times:
        return True
    minute = weekly.minute_of_week(now, rule.time_zone or found.settings.policy.time_zone)
    return any(minute in span for span in weekly.spans(rule.times))


def _is_free(settings: Settings, agent: str, rule: Rule | None) -> bool:
    configured = settings.agents.get(agent)
    return configured is not None and rule is not None and rule.name in configured.free_numbers


def _trunks_for(settings: Settings, found: Callee) -> list[str]:
    if found.number is not None:
        return edge.outside_trunks(settings, found.number)
    return [name for name, trunk in settings.trunks.items() if trunk.kind is TrunkKind.PBX]


def _has_gateway(settings: Settings, trunk: str) -> bool:
    return trunk in settings.trunks and bool(settings.trunks[trunk].gateways)


def _allowed(name: str, dial: str, trunk: str, ring_seconds: int, judgement: Judgement) -> Allowed:
    rule = judgement.rule.name if judgement.rule else ""
    return Allowed(name, dial, trunk, TransferMethod.BRIDGE, ring_seconds, rule)


def _transferable(settings: Settings, allowed: Allowed, destination: Destination | None, caller_trunk: str) -> Allowed:
    """With the method of transfer: never REFER under a rule that counts calls, for a call that left us cannot be counted."""
    trunk = settings.trunks.get(caller_trunk)
    method = (destination and destination.transfer) or (trunk.transfer if trunk else TransferMethod.BRIDGE)
    rule = settings.policy.rule(allowed.rule)
    if rule is not None and rule.max_calls is not None and method is not TransferMethod.WARM:
        method = TransferMethod.BRIDGE
    return Allowed(allowed.name, allowed.dial, allowed.trunk, method, allowed.ring_seconds, allowed.rule)
