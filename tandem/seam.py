"""The words spoken between the planes: the session request, the fork's JSON frames, and their encodings.

Three seams, all versioned together by living in this one file:

* ``POST /v1/sessions`` (esl_app → media_fork): :class:`SessionRequest` → :class:`SessionReply` or :class:`SessionRefusal`.
* :data:`Command` (media_fork → esl_app): ``{"type": "json", "data": {...}}`` text frames on the fork's WebSocket, raised by
  mod_audio_fork as ``CUSTOM mod_audio_fork::json`` whose body is the whole message.
* :data:`Notice` (esl_app → media_fork): text frames made with ``uuid_audio_fork UUID send_text``.

The fork's first text frame is :class:`Hello`, the metadata of ``uuid_audio_fork start``.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from tandem.outcome import ActionOutcome, Answerer, AnswerRule, TransferOutcome


def _whole(text: str) -> str:
    return text.replace("\0", "\ufffd")


Said = Annotated[str, AfterValidator(_whole)]
"""What a model said, its NULs replaced: FreeSWITCH cuts a string there, and what came of it might be a name or a number."""
MAX_TEXT = 2048
MAX_ID = 128
MAX_CONTEXT = 8192


class Seam(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Codec(StrEnum):
    """The codec on the wire to the caller; decides what the model is sent."""

    PCMU = "PCMU"
    PCMA = "PCMA"
    L16 = "L16"
    """Anything wideband: the fork runs at 16 kHz and the model at 24 kHz PCM."""


class Placed(Seam):
    """What a session must know of a call that we place."""

    hold_ms: int = Field(ge=1000, le=300_000)
    """How long the session waits for its fork: as long as the call may ring."""
    context: str = Field(default="", max_length=MAX_CONTEXT)
    """What this call is about, told to the model beside the agent's instructions."""
    detect: bool = False
    """Find out who answered, and greet nobody but a human, or a line on which nobody speaks."""
    acknowledge: bool = False
    """Offer the tool ``acknowledge``."""


class Briefing(Seam):
    """What a colleague is to be told of a caller who is on hold: the session is theirs, and its call id is a briefing's."""

    caller: str = Field(default="", max_length=MAX_ID)
    reason: str = Field(default="", max_length=MAX_TEXT)
    summary: str = Field(default="", max_length=MAX_TEXT)


class SessionRequest(Seam):
    """Who is calling, for ``POST /v1/sessions``. Numbers are E.164 where the edge knew them, else as dialled."""

    call: str = Field(min_length=1, max_length=MAX_ID)
    """The call's opaque token (X-Tandem-Call)."""
    agent: str = Field(min_length=1, max_length=MAX_ID)
    caller: str = Field(max_length=MAX_ID)
    number: str = Field(max_length=MAX_ID)
    """The number dialled."""
    codec: Codec
    trunk: str = Field(default="", max_length=MAX_ID)
    tenant: str = Field(default="default", max_length=MAX_ID)
    verified: str = Field(default="", max_length=MAX_ID)
    """STIR/SHAKEN status as the edge read it."""
    placed: Placed | None = None
    """None: the call came in."""
    briefing: Briefing | None = None
    """None: it is the caller whom the agent talks to."""


class SessionReply(Seam):
    """201: the model is ready. Open the fork at ``url`` within ``expires_in_ms``; the token in it works once."""

    session: str
    url: str
    rate: Literal[8000, 16000]
    """Sample rate of the fork both ways, Hz."""
    expires_in_ms: int


class SessionRefusal(Seam):
    """Any other status: 503 model_unavailable, at_capacity or draining; 404 unknown_agent; 422 bad_call."""

    cause: str
    """A value of :class:`tandem.outcome.RefusalCause`."""
    message: str


class Hello(Seam):
    """Metadata of ``uuid_audio_fork start``: binds the connection to the call that reserved it."""

    call: str
    session: str


class Transfer(Seam):
    """The agent asks for a transfer. Sent once what it said has been heard (or the bound ran out: ``heard`` is false)."""

    command: Literal["transfer"] = "transfer"
    id: str = Field(min_length=1, max_length=MAX_ID)
    destination: Said = Field(max_length=MAX_TEXT)
    """What the model said: a name to look up, nothing that is ever dialled."""
    number: Said = Field(default="", max_length=MAX_TEXT)
    """What it said in place of a name, where it may: to be judged by the dial policy."""
    reason: str = Field(default="", max_length=MAX_TEXT)
    summary: str = Field(default="", max_length=MAX_TEXT)
    """In words for who takes the call: who is calling, what for, what was said so far."""
    heard: bool = True


class HangUp(Seam):
    """The agent ends the call. Sent once its farewell has been heard (or the bound ran out)."""

    command: Literal["hang_up"] = "hang_up"
    id: str = Field(min_length=1, max_length=MAX_ID)
    reason: str = Field(default="", max_length=MAX_TEXT)
    heard: bool = True


class WhoAnswered(Seam):
    """Who answered a call that we placed, as far as one can hear; a later one corrects an earlier one."""

    command: Literal["who_answered"] = "who_answered"
    who: Answerer
    rule: AnswerRule
    ready: bool = False
    """A machine that now records what is said."""


class Acknowledge(Seam):
    """The person called takes it upon them, as the agent understood."""

    command: Literal["acknowledge"] = "acknowledge"
    id: str = Field(min_length=1, max_length=MAX_ID)


class ModelLost(Seam):
    """The model is gone in mid-call and will not come back; esl_app takes the caller to the fallback."""

    command: Literal["model_lost"] = "model_lost"
    cause: str = Field(max_length=MAX_TEXT)


class Answer(StrEnum):
    """What became of a briefing."""

    TAKES = "takes"
    DECLINES = "declines"
    MACHINE = "machine"
    """A voicemail or an announcement has answered."""


class Verdict(Seam):
    """What the colleague who is being briefed says to it."""

    command: Literal["verdict"] = "verdict"
    answer: Answer


class RecordingAction(StrEnum):
    START = "start"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    CONSENT_GIVEN = "consent_given"
    """The caller agrees to being recorded."""
    CONSENT_REFUSED = "consent_refused"


class Record(Seam):
    """The agent wants the recording begun, ended, paused, or tells what the caller said to it. Answered by Acted."""

    command: Literal["record"] = "record"
    id: str = Field(min_length=1, max_length=MAX_ID)
    action: RecordingAction


class SendDtmf(Seam):
    """The agent presses keys. Answered by Acted, once they are sent."""

    command: Literal["send_dtmf"] = "send_dtmf"
    id: str = Field(min_length=1, max_length=MAX_ID)
    digits: str = Field(pattern=r"^[0-9*#A-DwW]{1,64}$")


class Hold(Seam):
    """The caller waits, or waits no more. Not answered: media_fork knows how long."""

    command: Literal["hold"] = "hold"
    id: str = Field(min_length=1, max_length=MAX_ID)
    on: bool
    music: bool = True


class Private(Seam):
    """Something confidential is keyed in, or no more: nothing is recorded meanwhile, whatever else was asked for."""

    command: Literal["private"] = "private"
    id: str = Field(min_length=1, max_length=MAX_ID)
    on: bool


class Present(Seam):
    """The answer to Resumed. Every command that is not done with follows it, once more."""

    command: Literal["present"] = "present"


Action = Record | SendDtmf
"""A command that esl_app carries out at once, and answers with Acted."""
Command = Annotated[
    Transfer | HangUp | WhoAnswered | Acknowledge | Verdict | ModelLost | Present | Action | Hold | Private,
    Field(discriminator="command"),
]


class ForkMessage(Seam):
    """What mod_audio_fork carries to ESL: type ``json`` is raised as an event with the whole message as its body."""

    type: Literal["json"] = "json"
    data: Command


class Dtmf(Seam):
    notice: Literal["dtmf"] = "dtmf"
    digit: str = Field(pattern=r"^[0-9*#A-D]$")
    duration_ms: int = Field(ge=0, le=60_000)


class TransferState(Seam):
    """Progress and end of a transfer. ``outcome`` is None while ringing, then final, once."""

    notice: Literal["transfer"] = "transfer"
    id: str = Field(max_length=MAX_ID)
    outcome: TransferOutcome | None = None
    detail: str = Field(default="", max_length=MAX_TEXT)
    """In words for the agent: ``the line is busy``; SIP status where there was one."""


class Acted(Seam):
    """What came of an action, once for each."""

    notice: Literal["acted"] = "acted"
    id: str = Field(max_length=MAX_ID)
    outcome: ActionOutcome
    detail: str = Field(default="", max_length=MAX_TEXT)
    """In words for the agent."""


class Tell(Seam):
    """Something that the agent should know, and speak about."""

    notice: Literal["tell"] = "tell"
    text: str = Field(min_length=1, max_length=MAX_TEXT)


class Ended(Seam):
    """The call leaves the agent; sent as the final text of ``uuid_audio_fork stop``."""

    notice: Literal["ended"] = "ended"
    why: str = Field(max_length=MAX_ID)


class Resumed(Seam):
    """Another esl_app has the call: what was sent to the one before it may never have been heard."""

    notice: Literal["resumed"] = "resumed"


Notice = Dtmf | TransferState | Acted | Tell | Ended | Resumed

FORK_MESSAGE: TypeAdapter[ForkMessage] = TypeAdapter(ForkMessage)
NOTICE: TypeAdapter[Notice] = TypeAdapter(Annotated[Notice, Field(discriminator="notice")])


class LiveEventKind(StrEnum):
    """What happened in a conversation, for those who watch (``GET /v1/events``, server-sent events)."""

    SESSION_READY = "session_ready"
    FORK_CONNECTED = "fork_connected"
    CALLER_SPEAKING = "caller_speaking"
    CALLER_SAID = "caller_said"
    AGENT_SPEAKING = "agent_speaking"
    """First audio of an utterance left for the caller."""
    AGENT_SAID = "agent_said"
    """An utterance is over (heard to the end, or cut): ``text``, ``heard_ms``."""
    BARGE_IN = "barge_in"
    """Playout was cut: ``heard_ms``, ``cut_ms`` from the model's speech_started to killAudio sent."""
    TURN = "turn"
    """``response_ms``: caller's end of speech to first audio out."""
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    DTMF = "dtmf"
    MODEL_LOST = "model_lost"
    MODEL_RESUMED = "model_resumed"
    """Another model took over, and knows the conversation so far."""
    SESSION_ENDED = "session_ended"


class LiveEvent(Seam):
    at: float
    """Unix time, s."""
    call: str
    event: LiveEventKind
    text: str = ""
    data: dict[str, str | int | float | bool | None] = {}
