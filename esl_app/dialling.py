"""Dial strings for FreeSWITCH's originate, made of checked parts only, and what the end of a leg so dialled means.

In a dial string a comma, a brace or an apostrophe begins something else. Every part is matched against what it may be, digits
and names, and nothing that a model or a caller's display said is among them.
"""

import re
from collections.abc import Mapping

from tandem.callee import FEATURE_CODE
from tandem.outcome import TransferOutcome
from tandem.settings import Edge, Trunk

PROFILE = "tandem"
"""Name of FreeSWITCH's Sofia profile."""
ORPHAN_S = 6
"""A leg that was answered and is parked hangs up by itself after this: nobody came back for it."""
RING_MARGIN_S = 3
"""FreeSWITCH's own bound of ringing, beyond ours, which is exact."""

SEND_SILENCE = "-1"
"""Digital silence while idle: a parked channel then writes media, into which the fork's audio is mixed unchanged."""
MEDIA_TIMEOUT_MS = "300000"
MEDIA_HOLD_TIMEOUT_MS = "1800000"
"""Without RTP, and without RTP on hold, the call is over: as in freeswitch/dialplan.xml.j2."""

_CALL = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NUMBER = re.compile(r"\+?[0-9]{1,15}")
_DIALLED = re.compile(rf"{_NUMBER.pattern}|{FEATURE_CODE}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HEADER = re.compile(r"User-to-User|X-Context-[A-Za-z]{1,32}")
_HEADER_VALUE = re.compile(r"[A-Za-z0-9._~%;=-]{1,1000}")
_ANONYMOUS = "anonymous"


def dial_string(
    edge: Edge,
    *,
    channel: str,
    number: str,
    trunk: str,
    tenant: str,
    call: str,
    caller_id: str,
    ring_seconds: int,
    headers: Mapping[str, str] | None = None,
    park_seconds: int = ORPHAN_S,
    is_spoken_to: bool = False,
) -> str:
    """A leg to ``number`` over ``trunk``, by way of the edge's first socket, with ``headers`` of its INVITE.

    It hangs up by itself when nobody has come back for it ``park_seconds`` after its answer. ``is_spoken_to``: it will have a
    fork while it is parked. Raises ValueError for a part of the wrong form.
    """
    variables = {
        "origination_uuid": _checked(_UUID, channel),
        "origination_caller_id_number": _checked(_NUMBER, caller_id) if caller_id else _ANONYMOUS,
        "origination_caller_id_name": caller_id or _ANONYMOUS,
        "sip_h_X-Tandem-Call": _checked(_CALL, call),
        "sip_h_X-Tandem-Trunk": _checked(_NAME, trunk),
        "sip_h_X-Tandem-Tenant": _checked(_NAME, tenant),
        "originate_timeout": str(ring_seconds + RING_MARGIN_S),
        "park_timeout": f"{park_seconds}:NORMAL_CLEARING",
        "ignore_early_media": "true",
        "ignore_display_updates": "true",
        "hangup_after_bridge": "true",
    }
    if is_spoken_to:
        variables |= {"send_silence_when_idle": SEND_SILENCE, "playback_terminators": "none"}
    for name, value in (headers or {}).items():
        variables[f"sip_h_{_checked(_HEADER, name)}"] = _checked(_HEADER_VALUE, value)
    return _leg(edge, variables, number)


def placed_dial_string(
    edge: Edge, *, channel: str, number: str, trunk: str, tenant: str, call: str, caller_id: str, ring_seconds: int
) -> str:
    """As :func:`dial_string`, for a call that has no caller: G.711, and prepared for the fork before it is answered."""
    variables = {
        "origination_uuid": _checked(_UUID, channel),
        "origination_caller_id_number": _checked(_NUMBER, caller_id),
        "origination_caller_id_name": caller_id,
        "sip_h_X-Tandem-Call": _checked(_CALL, call),
        "sip_h_X-Tandem-Trunk": _checked(_NAME, trunk),
        "sip_h_X-Tandem-Tenant": _checked(_NAME, tenant),
        "originate_timeout": str(ring_seconds + RING_MARGIN_S),
        "absolute_codec_string": "'PCMU,PCMA'",
        "send_silence_when_idle": SEND_SILENCE,
        "playback_terminators": "none",
        "media_timeout": MEDIA_TIMEOUT_MS,
        "media_hold_timeout": MEDIA_HOLD_TIMEOUT_MS,
        "ignore_early_media": "true",
        "ignore_display_updates": "true",
        "hangup_after_bridge": "true",
    }
    return _leg(edge, variables, number)


def _leg(edge: Edge, variables: Mapping[str, str], number: str) -> str:
    """By way of the edge's first socket."""
    socket = edge.listen[0]
    host = f"[{socket.address}]" if ":" in socket.address else socket.address
    uri = f"sip:{_checked(_DIALLED, number)}@{host}:{socket.port};transport={socket.transport.value}"
    assignments = ",".join(f"{name}={value}" for name, value in variables.items())
    return f"{{{assignments}}}sofia/{PROFILE}/{uri}"


def caller_id(trunk: Trunk, number: str, caller: str) -> str:
    """The number to present on ``trunk``: the caller's own, or where the trunk allows only some, the number that was
    called if it is one of them, else the first. Empty: anonymous.
    """
    if not trunk.caller_ids:
        return caller if _NUMBER.fullmatch(caller) else ""
    return next((allowed for allowed in trunk.caller_ids if allowed in (caller, number)), trunk.caller_ids[0])


def is_call_id(text: str) -> bool:
    """Whether ``text`` may be a call's id: it becomes part of headers and file names."""
    return _CALL.fullmatch(text) is not None


def _checked(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"{text!r} cannot be part of a dial string; expected {pattern.pattern}")
    return text


_BUSY = frozenset({486, 600})
_DECLINED = frozenset({401, 403, 407, 433, 603, 607, 608})
_AFTER_RINGING = frozenset({408, 480, 487})
_CAUSES = {
    "USER_BUSY": TransferOutcome.BUSY,
    "CALL_REJECTED": TransferOutcome.REJECTED,
    "NO_ANSWER": TransferOutcome.NO_ANSWER,
    "ORIGINATOR_CANCEL": TransferOutcome.NO_ANSWER,
    "ALLOTTED_TIMEOUT": TransferOutcome.NO_ANSWER,
}
_IN_WORDS = {
    TransferOutcome.ANSWERED: "they answered",
    TransferOutcome.BUSY: "the line is busy",
    TransferOutcome.NO_ANSWER: "there is no answer",
    TransferOutcome.REJECTED: "the call was declined",
    TransferOutcome.UNREACHABLE: "they cannot be reached",
    TransferOutcome.DECLINED: "they answered, but do not want to take the call now",
    TransferOutcome.VOICEMAIL: "a voicemail answered",
    TransferOutcome.NOT_ACCEPTED: "somebody answered, but did not take the call",
    TransferOutcome.TARGET_HUNG_UP: "they hung up before they took the call",
    TransferOutcome.NOT_CONFIRMED: "the transfer was not confirmed",
    TransferOutcome.FAILED: "the transfer failed",
}


def outcome_of(cause: str, sip_status: int | None, rang: bool) -> TransferOutcome:
    """What it means that a leg ended with FreeSWITCH's ``cause`` and the final response ``sip_status`` before it was answered."""
    if sip_status in _BUSY:
        return TransferOutcome.BUSY
    if sip_status in _DECLINED:
        return TransferOutcome.REJECTED
    if sip_status in _AFTER_RINGING and rang:
        return TransferOutcome.NO_ANSWER
    if sip_status is not None:
        return TransferOutcome.UNREACHABLE
    return _CAUSES.get(cause, TransferOutcome.UNREACHABLE)


def outcome_of_status(sip_status: int) -> TransferOutcome:
    """What a final sipfrag of a REFER says."""
    if 200 <= sip_status < 300:
        return TransferOutcome.ANSWERED
    return outcome_of("", sip_status, rang=sip_status in _AFTER_RINGING)


def in_words(outcome: TransferOutcome, sip_status: int | None = None) -> str:
    """For the agent to tell the caller."""
    words = _IN_WORDS.get(outcome, outcome.value.replace("_", " "))
    return f"{words} (SIP {sip_status})" if sip_status and outcome is not TransferOutcome.ANSWERED else words
