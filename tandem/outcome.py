"""The closed vocabularies of a call's end: how calls, transfers and refusals may turn out.

Every record, metric label and SIP ``Reason`` text uses these values and no others.
"""

from enum import StrEnum


class Outcome(StrEnum):
    """How a call ended. Exactly one per call."""

    CALLER_HUNG_UP = "caller_hung_up"
    AGENT_HUNG_UP = "agent_hung_up"
    TRANSFERRED = "transferred"
    FELL_BACK = "fell_back"
    """Model or media plane lost in mid-call; the caller reached the number's fallback."""
    ABANDONED = "abandoned"
    """The caller gave up before answer (CANCEL)."""
    REFUSED = "refused"
    """Refused before answer; ``cause`` is a RefusalCause."""
    FAILED = "failed"
    """Answered, then lost, and the fallback was not reached either."""
    CONTROLLER_LOST = "controller_lost"
    """esl_app died during the call; closed when it came back."""

    CALLEE_HUNG_UP = "callee_hung_up"
    """Of a call that we placed: whoever was called ended it."""
    NOT_REACHED = "not_reached"
    """Of a call that we placed: not answered; ``cause`` is a TransferOutcome, or who ended it before that."""
    MACHINE_ANSWERED = "machine_answered"
    """Of a call that we placed: hung up on a machine or a fax, which ``cause`` tells."""
    MESSAGE_LEFT = "message_left"
    """Of a call that we placed: a machine has recorded the message."""


class Answerer(StrEnum):
    """Who answered a call that we placed."""

    HUMAN = "human"
    MACHINE = "machine"
    """A voicemail or an announcement."""
    FAX = "fax"
    SILENCE = "silence"
    """Nobody speaks."""


class AnswerRule(StrEnum):
    """What decided who answered."""

    BRIEF_SPEECH = "brief_speech"
    LONG_SPEECH = "long_speech"
    BEEP = "beep"
    FAX_TONE = "fax_tone"
    NO_SPEECH = "no_speech"
    SILENCE_AFTER_GREETING = "silence_after_greeting"
    AGENT = "agent"
    """The agent noticed, and said so by its tool."""


class RefusalCause(StrEnum):
    """Why a call was refused before answer. See ``SIP_STATUS`` for what the caller's side is told."""

    MODEL_UNAVAILABLE = "model_unavailable"
    MEDIA_UNAVAILABLE = "media_unavailable"
    """media_fork did not answer, or the fork could not be connected."""
    AT_CAPACITY = "at_capacity"
    DRAINING = "draining"
    UNKNOWN_AGENT = "unknown_agent"
    BAD_CALL = "bad_call"
    """The call lacks what the edge must have given it (no X-Tandem-Call, for one)."""
    CONTROLLER_ERROR = "controller_error"


class TransferOutcome(StrEnum):
    """How a transfer ended, as told to the agent and the record."""

    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    REJECTED = "rejected"
    """The target declined (603, 403, 486 from policy of the far end, ...)."""
    UNREACHABLE = "unreachable"
    """404, 480, 5xx, timeout before ringing."""
    DECLINED = "declined"
    """Of a warm transfer: who answered did not want the call."""
    VOICEMAIL = "voicemail"
    """A voicemail or an announcement answered."""
    NOT_ACCEPTED = "not_accepted"
    """Somebody answered, but did not say whether they take the call."""
    TARGET_HUNG_UP = "target_hung_up"
    """Who answered hung up while they were told who is calling."""
    REFUSED_BY_POLICY = "refused_by_policy"
    UNKNOWN_DESTINATION = "unknown_destination"
    CALLER_HUNG_UP = "caller_hung_up"
    NOT_CONFIRMED = "not_confirmed"
    """REFER accepted with 202, but no final NOTIFY came."""
    FAILED = "failed"


class ActionOutcome(StrEnum):
    """What came of something else that the agent asked the switch for."""

    DONE = "done"
    REFUSED = "refused"
    """Not allowed, or not possible now."""
    FAILED = "failed"


class RecordingState(StrEnum):
    """What has become of a recording."""

    RECORDING = "recording"
    WAITING = "waiting"
    """It ended, and is yet to be encrypted."""
    STORED = "stored"
    NOT_MADE = "not_made"
    """Nothing was recorded: no consent, or FreeSWITCH could not; ``cause`` tells which."""
    LOST = "lost"
    """Nothing can be read of what was recorded."""
    PURGED = "purged"


class Consent(StrEnum):
    """What a recording rests on."""

    NOT_NEEDED = "not_needed"
    """By the configuration."""
    NOT_ASKED = "not_asked"
    ANNOUNCED = "announced"
    """The caller heard the announcement to its end and stayed."""
    GIVEN = "given"
    REFUSED = "refused"


class PlacingRefusal(StrEnum):
    """Why a call that somebody asked for was not placed, beside the refusals of the dial policy."""

    UNKNOWN_AGENT = "unknown_agent"
    UNKNOWN_TRUNK = "unknown_trunk"
    TRUNK_OF_ANOTHER_TENANT = "trunk_of_another_tenant"
    CALLER_ID_NOT_APPROVED = "caller_id_not_approved"
    UNKNOWN_MESSAGE = "unknown_message"
    """There is no such file among ``outbound.messages``, or none was named."""
    OUTSIDE_CALLING_HOURS = "outside_calling_hours"
    DO_NOT_CALL = "do_not_call"
    DATABASE_AWAY = "database_away"
    """Whether the number may be called could not be looked up."""
    ALREADY_PLACED = "already_placed"
    """There was a call of this id before."""
    TENANT_AT_CAPACITY = "tenant_at_capacity"
    AT_CAPACITY = "at_capacity"
    TRUNK_TOO_BUSY = "trunk_too_busy"
    """More calls wait for their turn on this trunk than can be placed soon."""
    DRAINING = "draining"
    SWITCH_AWAY = "switch_away"


SIP_STATUS: dict[RefusalCause, tuple[int, str]] = {
    RefusalCause.MODEL_UNAVAILABLE: (503, "NORMAL_TEMPORARY_FAILURE"),
    RefusalCause.MEDIA_UNAVAILABLE: (503, "NORMAL_TEMPORARY_FAILURE"),
    RefusalCause.AT_CAPACITY: (503, "NORMAL_TEMPORARY_FAILURE"),
    RefusalCause.DRAINING: (503, "NORMAL_TEMPORARY_FAILURE"),
    RefusalCause.CONTROLLER_ERROR: (503, "NORMAL_TEMPORARY_FAILURE"),
    RefusalCause.UNKNOWN_AGENT: (404, "UNALLOCATED_NUMBER"),
    RefusalCause.BAD_CALL: (603, "CALL_REJECTED"),
}
"""SIP status seen by the caller's side, and the FreeSWITCH hangup cause that makes it (observed mapping)."""
