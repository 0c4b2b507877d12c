"""The rows of the records: what is kept of a call. Times are Unix seconds, UTC; durations are milliseconds.

A row replaces the stored one with the same key, whole. Text that no database takes (NUL, lone surrogates) is replaced
by U+FFFD and text beyond MAX_TEXT characters is cut, so that nothing a caller or a model said makes a row unwritable.
"""

import math
import re
from numbers import Real
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tandem.outcome import Answerer, AnswerRule, Consent, Outcome, RecordingState, TransferOutcome
from tandem.recording import RecordingFormat

MAX_TEXT = 65536
MAX_KEY = 256
_MAX_INTEGER = 2**31 - 1
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _storable(value: Any) -> Any:
    return _UNSTORABLE.sub("\ufffd", value[:MAX_TEXT]) if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    if isinstance(value, Real) and math.isfinite(value):
        return max(-_MAX_INTEGER, min(_MAX_INTEGER, round(float(value))))
    return value


Text = Annotated[str, BeforeValidator(_storable)]
Key = Annotated[Text, Field(min_length=1, max_length=MAX_KEY)]
Time = Annotated[float, Field(allow_inf_nan=False)]
Integer = Annotated[int, BeforeValidator(_whole)]
"""32 bits, as the column: rounded, and clamped to what fits."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    table: ClassVar[str]


class CallRecord(_Row):
    """One row a call id, written by esl_app. ``outcome`` is None while the call lives.

    The edge may try a call at several workers: each writes its attempt under the same id, and the attempt that took the
    call stays whatever the order of arrival (see tandem.database).
    """

    table: ClassVar[str] = "calls"

    id: Key
    worker: Text
    trunk: Text
    tenant: Text
    caller: Text
    number: Text
    agent: Text
    verified: Text
    codec: Text
    sip_call_id: Text
    started_at: Time
    answered_at: Time | None = None
    ended_at: Time | None = None
    outcome: Outcome | None = None
    cause: Text = ""
    """Why it was refused (a RefusalCause) or lost, in one word or a few; else empty."""
    sip_status: Integer | None = None
    transferred_to: Text | None = None
    direction: Literal["in", "out"] = "in"
    """``out``: we placed it; then ``caller`` is the number we showed, ``number`` whom we called."""
    answered_by: Answerer | None = None
    """Of a call that we placed: a human or a machine, where that was to be found out."""
    answer_rule: AnswerRule | None = None
    """What decided that."""
    detected_ms: Integer | None = None
    """When, since the answer."""
    joined_ms: Integer | None = None
    """Of a call that we placed: from its answer until the agent heard it."""


class TurnRecord(_Row):
    """One utterance of either side, by Realtime item id, written by media_fork."""

    table: ClassVar[str] = "turns"

    call: Key
    item: Key
    who: Literal["caller", "agent"]
    text: Text
    started_at: Time
    ended_at: Time | None = None
    duration_ms: Integer
    heard_ms: Integer | None = None
    """How much of the agent's audio the caller has heard; None for the caller's own turns."""
    interrupted: bool = False


class ToolCallRecord(_Row):
    """One function call of the model, by call_id, written by media_fork."""

    table: ClassVar[str] = "tool_calls"

    call: Key
    id: Key
    name: Text
    arguments: Text
    result: Text
    started_at: Time
    ended_at: Time | None = None
    status: Text


class TransferRecord(_Row):
    """One transfer, written by esl_app. ``outcome`` is None while it is under way."""

    table: ClassVar[str] = "transfers"

    call: Key
    id: Key
    destination: Text
    method: Text
    """As it was carried out: a refused REFER is on record as the bridge that followed."""
    answered_by: Text | None = None
    """The destination that answered: of a ring group one of its members."""
    heard: bool = True
    """Whether the caller had heard all that the agent said before."""
    reason: Text = ""
    summary: Text = ""
    """As the agent put them, for who takes the call."""
    key_digest: Text | None = None
    """SHA-256 of the key that the call carried for the screen-pop."""
    key_expires_at: Time | None = None
    outcome: TransferOutcome | None = None
    detail: Text = ""
    sip_status: Integer | None = None
    started_at: Time
    ended_at: Time | None = None


class TimingRecord(_Row):
    """How quickly one response came (``turn``) or was cut (``barge_in``), written by media_fork."""

    table: ClassVar[str] = "timings"

    call: Key
    item: Key
    kind: Literal["turn", "barge_in"]
    speech_ended_at: Time | None = None
    committed_at: Time | None = None
    first_model_audio_at: Time | None = None
    first_audio_out_at: Time | None = None
    response_ms: Integer | None = None
    """From the caller's end of speech to the first audio out."""
    cut_ms: Integer | None = None
    """From the model's speech_started to killAudio sent."""
    heard_ms: Integer | None = None


class RecordingRecord(_Row):
    """One recording of a call, by its number in the call; written by the archive (tandem.archive)."""

    table: ClassVar[str] = "recordings"

    call: Key
    id: Key
    worker: Text
    tenant: Text
    agent: Text
    state: RecordingState
    cause: Text = ""
    """Why it was not made, was lost or was purged; else empty."""
    consent: Consent
    consent_at: Time | None = None
    started_at: Time
    ended_at: Time | None = None
    pauses: Text = "[]"
    """JSON: what was left out, as [from, to] in ms since it began; silence is in its place. ``to`` may be null."""
    duration_ms: Integer | None = None
    format: RecordingFormat
    file: Text = ""
    """Where it is kept, under ``recordings.folder``."""
    bytes: Annotated[int, Field(ge=0)] | None = None
    """Of the file."""
    sha256: Text = ""
    """Of the file, hex."""
    keep_until: Time
    purged_at: Time | None = None


class LostCalls(_Row):
    """Ends as ``controller_lost`` every live call of ``worker`` started by ``now`` and not in ``except_ids``.

    Put by esl_app when it starts. It takes its place in the order of rows, so that calls which a killed esl_app left in
    the spool are closed too, even where the database comes back only later.
    """

    table: ClassVar[str] = "lost_calls"

    worker: Text
    except_ids: tuple[Key, ...] = ()
    now: Time


Row = CallRecord | TurnRecord | ToolCallRecord | TransferRecord | TimingRecord | RecordingRecord | LostCalls
ROWS: dict[str, type[Row]] = {
    row.table: row
    for row in (CallRecord, TurnRecord, ToolCallRecord, TransferRecord, TimingRecord, RecordingRecord, LostCalls)
}
