"""Everything that can happen to a call, typed: what the switch's events say, and what other greenlets report."""

import logging
from dataclasses import dataclass

from pydantic import ValidationError

from esl_app.metrics import INVALID_COMMANDS
from esl_app.protocol import Event
from tandem.seam import FORK_MESSAGE, Command, SessionReply

_SAMPLES_PER_MS = 8
"""DTMF-Duration counts samples at 8 kHz, whatever the codec."""
_MAX_DTMF_MS = 60_000
_DTMF_DIGITS = frozenset("0123456789*#ABCD")
_SHOWN = 200

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Digit:
    channel: str
    digit: str
    duration_ms: int


@dataclass(frozen=True)
class Decision:
    """What the agent, through media_fork, wants done."""

    command: Command


@dataclass(frozen=True)
class ForkUp:
    """The fork's WebSocket is open."""


@dataclass(frozen=True)
class ForkDown:
    """The fork could not connect, or lost its connection. ``connected`` tells which."""

    connected: bool
    reason: str


@dataclass(frozen=True)
class Ringing:
    """180 or 183 from a leg that is being dialled."""

    channel: str


@dataclass(frozen=True)
class Answered:
    channel: str


@dataclass(frozen=True)
class Parked:
    channel: str


@dataclass(frozen=True)
class Bridged:
    channel: str


@dataclass(frozen=True)
class LegEnded:
    """A channel has hung up. ``sip_status`` is the final response that ended a leg we dialled before its answer, ``refusal``
    the cause where it was the edge that refused it.
    """

    channel: str
    cause: str
    sip_status: int | None
    refusal: str = ""


@dataclass(frozen=True)
class Executed:
    """An application is done; ``identity`` is the one given to Session.execute, ``response`` e.g. ``FILE NOT FOUND``."""

    identity: str
    response: str


@dataclass(frozen=True)
class Recording:
    """What is said on a channel is being written to a file."""

    channel: str


@dataclass(frozen=True)
class Elsewhere:
    """A digit, or something of a fork, on another channel than the caller's."""

    channel: str
    happening: "Digit | Decision | ForkUp | ForkDown"


@dataclass(frozen=True)
class Briefed:
    """media_fork's answer to the request for a session that briefs who answered on ``channel``."""

    channel: str
    result: SessionReply | Exception


@dataclass(frozen=True)
class Dialled:
    """A dialling job is over: ``failure`` is empty or FreeSWITCH's cause, e.g. ``USER_BUSY``."""

    channel: str
    failure: str


@dataclass(frozen=True)
class ReferNotice:
    """A NOTIFY of a REFER's subscription: the SIP status of the new call, and whether the subscription is over."""

    channel: str
    status: int
    terminated: bool


@dataclass(frozen=True)
class Reserved:
    """media_fork's answer; an exception where there was none or it refused."""

    result: SessionReply | Exception


@dataclass(frozen=True)
class Lost:
    """The event socket is gone. ``cause`` as in Hardened.on_drop."""

    cause: str


Happening = (
    Digit
    | Decision
    | ForkUp
    | ForkDown
    | Ringing
    | Answered
    | Parked
    | Bridged
    | LegEnded
    | Executed
    | Recording
    | Elsewhere
    | Briefed
    | Dialled
    | ReferNotice
    | Reserved
    | Lost
)


def read(event: Event) -> Happening | None:
    """The meaning of one event; None where it has none here (and for JSON that is no command, which is counted)."""
    channel = event.get("Unique-ID")
    match event.name:
        case "DTMF":
            return _digit(event, channel)
        case "mod_audio_fork::json":
            return _decision(event)
        case "mod_audio_fork::connect":
            return ForkUp()
        case "mod_audio_fork::connect_failed":
            return ForkDown(connected=False, reason=event.data.strip()[:_SHOWN])
        case "mod_audio_fork::disconnect":
            return ForkDown(connected=True, reason="closed by media_fork")
        case "CHANNEL_PROGRESS" | "CHANNEL_PROGRESS_MEDIA":
            return Ringing(channel)
        case "CHANNEL_ANSWER":
            return Answered(channel)
        case "CHANNEL_PARK":
            return Parked(channel)
        case "CHANNEL_BRIDGE":
            return Bridged(channel)
        case "CHANNEL_HANGUP":
            refusal = event.get("variable_sip_rh_X-Tandem-Refused")
            return LegEnded(channel, event.get("Hangup-Cause"), _sip_status(event), refusal)
        case "CHANNEL_EXECUTE_COMPLETE":
            return Executed(event.get("Application-UUID"), event.get("Application-Response"))
        case "RECORD_START":
            return Recording(channel)
    return None


def _digit(event: Event, channel: str) -> Digit | None:
    digit, samples = event.get("DTMF-Digit").upper(), event.get("DTMF-Duration")
    if digit not in _DTMF_DIGITS:
        return None
    duration = int(samples) // _SAMPLES_PER_MS if samples.isascii() and samples.isdigit() else 0
    return Digit(channel, digit, min(duration, _MAX_DTMF_MS))


def _decision(event: Event) -> Decision | None:
    try:
        return Decision(FORK_MESSAGE.validate_json(event.data).data)
    except ValidationError as error:
        INVALID_COMMANDS.inc()
        _log.warning("no command in a JSON frame from media_fork: %s", error.errors(include_url=False)[0]["msg"])
        return None


def _sip_status(event: Event) -> int | None:
    candidates = (
        event.get("variable_sip_term_status"),
        event.get("variable_sip_invite_failure_status"),
        event.get("variable_proto_specific_hangup_cause").removeprefix("sip:"),
    )
    statuses = (int(text) for text in candidates if text.isascii() and text.isdigit() and len(text) == 3)
    return next((status for status in statuses if status >= 300), None)
