"""What the stages of a call share: its leg and fork, its record, and what may happen at any of its times."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from esl_app import actions, keys
from esl_app.arrival import Arrival
from esl_app.fork import Fork
from esl_app.happenings import Decision, Digit, ForkDown, Happening, LegEnded
from esl_app.inbound import Dialling, Inbound
from esl_app.leg import HungUp, Leg, TimedOut
from esl_app.media import MediaFork
from esl_app.message import Message
from esl_app.music import Music
from esl_app.protocol import COMMAND_FAILURES
from esl_app.recording import Recording
from esl_app.session import Session
from esl_app.webhooks import TransferNotice
from tandem.outcome import Outcome, TransferOutcome
from tandem.rows import CallRecord, Row
from tandem.seam import Dtmf, HangUp, Hold, ModelLost, Private, Record, SendDtmf, Transfer, TransferState
from tandem.settings import Settings

HANGUP_S = 3.0
"""From a kill to its hangup event."""

BROKEN = (*COMMAND_FAILURES, TimedOut)
"""What a command to FreeSWITCH, or the wait for what it should bring, may raise other than HungUp."""


class Recorder(Protocol):
    @property
    def is_full(self) -> bool: ...

    def put(self, row: Row) -> None: ...


@dataclass(frozen=True)
class Services:
    """What all calls of a process share."""

    settings: Settings
    worker: str
    media_fork: MediaFork
    inbound: Inbound
    recorder: Recorder
    tell: Callable[[TransferNotice], None]
    """Has the operator's webhooks told how a transfer ended."""
    message_left: Callable[[Message], None]
    """Has those told who are to have a caller's message."""
    now: Callable[[], float] = field(default=time.time)
    """Unix seconds, for the records."""
    lines: "dict[str, Line]" = field(default_factory=dict)
    """Calls under way, by their ids."""


@dataclass(frozen=True)
class Ending:
    """How a call ended, for its record."""

    outcome: Outcome
    cause: str = ""
    sip_status: int | None = None
    transferred_to: str | None = None


class ConversationLost(Exception):
    """Model or fork is gone for good. ``what``: a value of metrics.FALLBACKS' label."""

    def __init__(self, what: str, reason: str) -> None:
        self.what = what
        super().__init__(reason)


class AgentHangsUp(Exception):
    """The agent wants to end the call. ``heard``: the caller has heard all that it said."""

    def __init__(self, heard: bool = True) -> None:
        self.heard = heard
        super().__init__()


class Line:
    """One call's. ``arrival`` and the record are there once :meth:`arrived` was called."""

    def __init__(self, session: Session, services: Services) -> None:
        self.session = session
        self.services = services
        self.settings = services.settings
        self.leg = Leg(session)
        self.fork = Fork(self.leg)
        self.music = Music(self.leg, services.settings.freeswitch.prompts)
        self.lost: ConversationLost | None = None
        """The conversation's loss, found out where it could not be acted upon."""
        self._arrival: Arrival | None = None
        self._record: CallRecord | None = None
        self._recording: Recording | None = None

    @property
    def recording(self) -> Recording:
        assert self._recording is not None
        return self._recording

    @property
    def arrival(self) -> Arrival:
        assert self._arrival is not None
        return self._arrival

    # The record

    def arrived(self, arrival: Arrival, record: CallRecord | None = None) -> None:
        """Put the call on record, live; ``record`` is what is there already of one that we placed, or took over."""
        self._arrival = arrival
        self.leg.log.extra = {"call": arrival.call}
        self._record = record or arrival.record(self.services.worker, self.services.now())
        self.services.recorder.put(self._record)
        self._recording = Recording(self.leg, self.settings, self.services.worker, arrival, self.services.now)
        self.services.lines[arrival.call] = self

    def forget(self) -> None:
        """The call is over, and its record as it will stay."""
        if self._arrival is not None and self.services.lines.get(self._arrival.call) is self:
            del self.services.lines[self._arrival.call]
        if self._recording is not None:
            self._recording.end()

    @property
    def record(self) -> CallRecord | None:
        return self._record

    @property
    def is_answered(self) -> bool:
        return self._record is not None and self._record.answered_at is not None

    @property
    def is_over(self) -> bool:
        """Whether the record has its outcome."""
        return self._record is not None and self._record.outcome is not None

    @property
    def put_through_to(self) -> str | None:
        """The destination's name, once caller and target are connected."""
        return self._record.transferred_to if self._record else None

    def note(self, **changes: Any) -> None:
        """Change the record and have it written; nothing where the call never was on record."""
        if self._record is not None:
            self._record = self._record.model_copy(update=changes)
            self.services.recorder.put(self._record)

    # What may happen at any time

    def meanwhile(self, happening: Happening) -> None:
        """Whatever a stage of the conversation does not wait for itself. Raises AgentHangsUp."""
        match happening:
            case Digit(digit=digit, duration_ms=duration_ms):
                self.fork.tell(Dtmf(digit=digit, duration_ms=duration_ms))
            case Decision(HangUp(heard=heard)):
                raise AgentHangsUp(heard)
            case Decision(ModelLost(cause=cause)):
                self.lost = ConversationLost("model", cause)
            case Decision(Transfer(id=id)):
                another = "another transfer is under way"
                self.fork.tell(TransferState(id=id, outcome=TransferOutcome.FAILED, detail=another))
            case Decision(Record() as wanted):
                self.fork.tell(actions.record(self.recording, wanted))
            case Decision(SendDtmf() as wanted):
                keys.send(self.leg, self.fork, self.arrival.telephone_event, wanted)
            case Decision(Private(on=on)):
                self.recording.keep_private(on)
            case Decision(Hold(on=on, music=music)):
                if on and music:
                    self.music.start()
                else:
                    self.music.stop()
            case ForkDown(reason=reason) if self.fork.live:
                self.fork.lost()
                self._end_asides()
                self.lost = ConversationLost("fork", reason)

    def _end_asides(self) -> None:
        """The agent is gone: nobody else will have the caller wait no more, or take back what was private."""
        self.music.stop()
        self.recording.keep_private(False)

    # Ends

    def hang_up(self) -> None:
        """End the caller's leg, and see it end."""
        if self.leg.over:
            return
        try:
            self.session.api("uuid_kill", self.leg.uuid, "NORMAL_CLEARING")
            self.leg.until_hung_up(HANGUP_S)
        except HungUp:
            return
        except BROKEN as error:
            self.leg.log.warning("hanging up: %s", error)

    def talk(self, target: Dialling, name: str) -> None:
        """Caller and ``target`` are connected. Returns when both legs have ended, by whomever."""
        self.note(transferred_to=name)
        self._end_asides()
        self.recording.put_through()
        try:
            while True:
                happening = self.leg.next()
                if isinstance(happening, LegEnded) and happening.channel == target.channel:
                    break
            self.hang_up()
        except HungUp as gone:
            if gone.lost:
                self.leg.log.warning("lost sight of a call that was put through")
                return
        self.services.inbound.end(target)
