"""When a job's call is placed next, and whether it is worth another attempt."""

from dataclasses import dataclass
from typing import Any

from dialler.asked import Job
from tandem import calling_hours, dial_policy
from tandem.settings import Settings

LATER_S = 10.0
"""Before a call is asked for again that could not be placed just now."""
NOT_NOW = frozenset(
    {
        "tenant_at_capacity",
        "trunk_too_busy",
        "at_capacity",
        "draining",
        "switch_away",
        "database_away",
        "unreachable",
        "no_worker",
        "model_unavailable",
        "media_unavailable",
        "controller_error",
        "too_many_calls",
        "too_many_calls_per_hour",
        "outside_calling_hours",
        "timeout",
    }
)
"""Refusals that say nothing about the call itself."""
WORTH_RETRYING = frozenset({"busy", "no_answer", "unreachable"})


@dataclass(frozen=True)
class Plan:
    """``refused``: the cause, for good. Else over which trunk, and from when on (Unix seconds)."""

    refused: str = ""
    trunk: str = ""
    tenant: str = ""
    at: float = 0.0


def plan(settings: Settings, job: Job, now: float) -> Plan:
    """The dial policy is asked again by the worker, and by the edge; here it tells the trunk, and spares hopeless attempts."""
    tenant = job.tenant or (settings.trunks[job.trunk].tenant if job.trunk in settings.trunks else "default")
    decision = dial_policy.decide_number(settings, job.to, tenant=tenant, trunk=job.trunk or "", now=now)
    if isinstance(decision, dial_policy.Refused):
        return Plan(refused=decision.refusal.value)
    zones = calling_hours.zones(decision.dial, settings.policy.time_zone)
    at = calling_hours.next_open(settings.outbound.windows, zones, max(now, job.not_before))
    if at is None:
        return Plan(refused="outside_calling_hours")
    return Plan(trunk=decision.trunk, tenant=tenant, at=at)


def is_not_now(result: dict[str, Any]) -> bool:
    """Whether ``result`` of a call says no more than that it could not be placed at this time."""
    if "refused" in result:
        return result["refused"] in NOT_NOW
    return result["outcome"] == "refused" and result["cause"] in NOT_NOW


def is_worth_retrying(result: dict[str, Any]) -> bool:
    return result.get("outcome") == "not_reached" and result.get("cause") in WORTH_RETRYING
