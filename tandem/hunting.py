"""Whom a name stands for when a caller is to be put through: one destination, or a ring group's members under the dial policy."""

from collections.abc import Sequence
from dataclasses import dataclass

from tandem import dial_policy
from tandem.destinations import Ring, RingGroup, TransferMethod
from tandem.dial_policy import Allowed, Refused
from tandem.settings import Settings


@dataclass(frozen=True)
class Plan:
    """Who is to be rung, and how. ``targets``: those that the policy allows, at least one, each for its own ring_seconds."""

    name: str
    targets: tuple[Allowed, ...]
    method: TransferMethod
    ring: Ring
    ring_seconds: int
    """For all of them together."""


def decide(
    settings: Settings,
    agent: str,
    name: str,
    caller_trunk: str = "",
    *,
    number: str = "",
    tenant: str = "default",
    now: float,
) -> Plan | Refused:
    """Whether ``agent`` may transfer a call of ``tenant`` from ``caller_trunk`` at ``now`` (Unix seconds) to the name that it said,
    or to a number of its own; as dial_policy.decide, ring groups among the names.
    """
    configured = settings.agents.get(agent)
    if name in settings.ring_groups and configured is not None and name in configured.destinations:
        return resolve(settings, name, caller_trunk, tenant=tenant, now=now)
    decision = dial_policy.decide(settings, agent, name, caller_trunk, number=number, tenant=tenant, now=now)
    return decision if isinstance(decision, Refused) else _alone(decision)


def resolve(
    settings: Settings, name: str, caller_trunk: str = "", *, tenant: str = "default", now: float
) -> Plan | Refused:
    """What ringing ``name`` means, whoever asks. A group is refused where all of its members are, for the first one's cause."""
    group = settings.ring_groups.get(name)
    if group is None:
        decision = dial_policy.resolve(settings, name, caller_trunk, tenant=tenant, now=now)
        return decision if isinstance(decision, Refused) else _alone(decision)
    decisions = [dial_policy.resolve(settings, member, tenant=tenant, now=now) for member in group.members]
    allowed = tuple(decision for decision in decisions if isinstance(decision, Allowed))
    if not allowed:
        return next(decision for decision in decisions if isinstance(decision, Refused))
    return Plan(name, allowed, _method(settings, group, allowed, caller_trunk), group.ring, group.ring_seconds)


def _alone(allowed: Allowed) -> Plan:
    return Plan(allowed.name, (allowed,), allowed.method, Ring.ALL, allowed.ring_seconds)


def _method(settings: Settings, group: RingGroup, allowed: Sequence[Allowed], caller_trunk: str) -> TransferMethod:
    """Never REFER for a group; nor Replaces under a rule that counts calls, for a call that left us cannot be counted."""
    trunk = settings.trunks.get(caller_trunk)
    method = group.transfer or (trunk.transfer if trunk else TransferMethod.BRIDGE)
    rules = [settings.policy.rule(each.rule) for each in allowed]
    counted = any(rule is not None and rule.max_calls is not None for rule in rules)
    if method is TransferMethod.REFER or (counted and method is TransferMethod.REPLACES):
        return TransferMethod.BRIDGE
    return method
