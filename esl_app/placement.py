"""What is asked for when a call is to be placed, and whether it may be: policy, caller ID, calling hours, do-not-call list.

Every refusal names its cause. The number is the dial policy's to judge; nothing is dialled around it.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from esl_app.api import ApiError
from tandem import calling_hours, dial_policy
from tandem.fields import Name
from tandem.outcome import PlacingRefusal
from tandem.seam import MAX_CONTEXT, Placed
from tandem.settings import Settings, Trunk, TrunkKind

ID = r"[A-Za-z0-9._-]{8,64}"
MAX_RING_S = 120
HOLD_MARGIN_S = 30
"""Beyond the ringing: for the turn on the trunk, and the answer."""


class OnMachine(StrEnum):
    """What becomes of a call that a machine answers."""

    HANG_UP = "hang_up"
    MESSAGE = "message"
    """A recorded message is left, once the machine records."""
    AGENT = "agent"
    """The agent leaves the message in its own words, once the machine records."""


class Purpose(StrEnum):
    CALL = "call"
    ON_CALL = "on_call"
    """Somebody who is on call is woken: neither calling hours nor the do-not-call list hold."""


class Asked(BaseModel):
    """The body of ``POST /v1/calls``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Annotated[str, Field(min_length=1, max_length=64)]
    """As people write it; what it means is the dial policy's."""
    agent: Name
    call: Annotated[str, Field(pattern=f"^{ID}$")] | None = None
    """The call's id, where the client gives one: asked twice it is placed once."""
    trunk: Name | None = None
    """Default: the first that ``routes`` has for the number."""
    tenant: Name | None = None
    """Default: the trunk's."""
    caller_id: Annotated[str, Field(max_length=16)] | None = None
    """Default: the first of the trunk's ``caller_ids``."""
    ring_seconds: Annotated[int, Field(ge=5, le=MAX_RING_S)] = 30
    context: Annotated[str, Field(max_length=MAX_CONTEXT)] = ""
    answer_detection: bool = True
    on_machine: OnMachine = OnMachine.HANG_UP
    message: Name | None = None
    """NAME.wav of ``outbound.messages``."""
    acknowledge: bool = False
    """Key 1, or the agent on the person's word, acknowledges."""
    purpose: Purpose = Purpose.CALL


@dataclass(frozen=True)
class Placement:
    """A call that may be placed."""

    call: str
    number: str
    """As it is dialled."""
    trunk: str
    tenant: str
    caller_id: str
    asked: Asked
    message: Path | None

    def placed(self) -> Placed:
        return Placed(
            hold_ms=(self.asked.ring_seconds + HOLD_MARGIN_S) * 1000,
            context=self.asked.context,
            detect=self.asked.answer_detection,
            acknowledge=self.asked.acknowledge,
        )


def refusal(cause: PlacingRefusal, message: str, status: Literal[403, 409, 422, 429, 503] = 403) -> ApiError:
    return ApiError(status, cause.value, message)


def judge(settings: Settings, asked: Asked, call: str, now: float) -> Placement:
    """What would be dialled, at ``now`` (Unix seconds). Raises ApiError with the cause. Not judged: the do-not-call list."""
    if asked.agent not in settings.agents:
        raise refusal(PlacingRefusal.UNKNOWN_AGENT, f"there is no agent named {asked.agent!r}", 422)
    if asked.trunk is not None and asked.trunk not in settings.trunks:
        raise refusal(PlacingRefusal.UNKNOWN_TRUNK, f"there is no trunk named {asked.trunk!r}", 422)
    tenant = asked.tenant or (settings.trunks[asked.trunk].tenant if asked.trunk else "default")
    decision = dial_policy.decide_number(settings, asked.to, tenant=tenant, trunk=asked.trunk or "", now=now)
    if isinstance(decision, dial_policy.Refused):
        raise ApiError(403, decision.refusal.value, f"the dial policy refuses {asked.to!r}: {decision.detail}")
    trunk = settings.trunks[decision.trunk]
    if trunk.tenant != tenant:
        message = f"trunk {decision.trunk!r} is tenant {trunk.tenant!r}'s, not {tenant!r}'s"
        raise refusal(PlacingRefusal.TRUNK_OF_ANOTHER_TENANT, message)
    caller_id = _caller_id(settings, decision.trunk, trunk, asked.caller_id)
    if asked.purpose is Purpose.CALL:
        _check_hours(settings, decision.dial, now)
    return Placement(call, decision.dial, decision.trunk, tenant, caller_id, asked, _message(settings, asked))


def approved_caller_ids(settings: Settings, trunk: Trunk) -> list[str]:
    """What may be shown on ``trunk``: its ``caller_ids``; to a PBX that has none, this site's own numbers."""
    if trunk.caller_ids or trunk.kind is not TrunkKind.PBX:
        return trunk.caller_ids
    return list(settings.numbers)


def _caller_id(settings: Settings, name: str, trunk: Trunk, wanted: str | None) -> str:
    approved = approved_caller_ids(settings, trunk)
    if wanted is None and approved:
        return approved[0]
    if wanted is None or wanted not in approved:
        message = f"{wanted or 'no number'} is approved for trunk {name!r}; expected one of its caller_ids"
        raise refusal(PlacingRefusal.CALLER_ID_NOT_APPROVED, message.replace("no number is", "none is"))
    return wanted


def _check_hours(settings: Settings, number: str, now: float) -> None:
    zones = calling_hours.zones(number, settings.policy.time_zone)
    if not calling_hours.is_open(settings.outbound.windows, zones, now):
        windows = ", ".join(settings.outbound.windows)
        message = f"it is not the time to call {number}: {windows} in {', '.join(zones)}"
        raise refusal(PlacingRefusal.OUTSIDE_CALLING_HOURS, message)


def _message(settings: Settings, asked: Asked) -> Path | None:
    if asked.on_machine is not OnMachine.MESSAGE:
        return None
    if asked.message is None or not asked.answer_detection:
        raise refusal(PlacingRefusal.UNKNOWN_MESSAGE, "on_machine: message needs a message and answer_detection", 422)
    file = settings.outbound.messages / f"{asked.message}.wav"
    if not file.is_file():
        raise refusal(PlacingRefusal.UNKNOWN_MESSAGE, f"there is no {asked.message}.wav in outbound.messages", 422)
    return file
