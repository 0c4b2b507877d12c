"""The recording of one call: whether it is made, what it rests on, and what is left out of it.

FreeSWITCH writes it (``uuid_record``, left what the caller says, right what they hear); a pause leaves silence in both. Beside
the audio lies a note with what there is to know of it, for the archive, which takes over where this ends (tandem.archive).
"""

import logging
from collections.abc import Callable
from pathlib import Path

import orjson
from gevent import get_hub
from gevent.lock import RLock

from esl_app.arrival import Arrival
from esl_app.leg import Leg, TimedOut
from esl_app.metrics import RECORDINGS
from esl_app.protocol import COMMAND_FAILURES
from esl_app.quoting import quote
from tandem.archive import notes
from tandem.archive.wav import BadWav, inspect
from tandem.outcome import Consent, RecordingState
from tandem.recording import ConsentBy, RecordingMode
from tandem.recording import Recording as Policy
from tandem.rows import RecordingRecord
from tandem.settings import Settings

BUFFER = "16384"
"""Bytes that FreeSWITCH holds back: half a second at 8 kHz, which is all that its crash costs."""
DAY_S = 86400
FORK_MARGIN_S = 2.0
"""Of the time that a session waits for its fork, what is left for the fork after an announcement."""

_log = logging.getLogger(__name__)


class NotRecorded(Exception):
    """What was asked for was not done. ``cause`` in one word, for programs; the message is for people."""

    def __init__(self, cause: str, message: str) -> None:
        self.cause = cause
        super().__init__(message)


class Recording:
    """One call's, from its arrival on. Methods may be called from any greenlet."""

    def __init__(self, leg: Leg, settings: Settings, worker: str, arrival: Arrival, now: Callable[[], float]) -> None:
        agent = settings.agents.get(arrival.agent)
        self._policy = agent.recording if agent is not None else Policy()
        self._settings = settings
        self._folder = notes.incoming(settings.recordings.folder, worker)
        self._kept = notes.kept(settings.recordings.folder, worker)
        self._worker = worker
        self._leg = leg
        self._arrival = arrival
        self._now = now
        self._consent = Consent.NOT_NEEDED if self._policy.consent is ConsentBy.NOTHING else Consent.NOT_ASKED
        self._consent_at: float | None = None
        self._made = 0
        self._row: RecordingRecord | None = None
        """Of what is being recorded."""
        self._pauses: list[list[int | None]] = []
        self._paused = False
        self._private = False
        self._lock = RLock()

    @property
    def state(self) -> str:
        """``off``, ``waiting`` (for the caller's consent, or for its start), ``recording``, ``paused``."""
        if self._row is not None:
            return "paused" if self._paused or self._private else "recording"
        return "off" if self._policy.mode is RecordingMode.OFF else "waiting"

    @property
    def consent(self) -> Consent:
        return self._consent

    # Before the conversation

    def announce(self, within_s: float) -> None:
        """Play the announcement, where there is to be one. Not heard to its end it counts for nothing. Raises HungUp."""
        if self._policy.mode is RecordingMode.OFF or self._policy.consent is not ConsentBy.ANNOUNCEMENT:
            return
        file = self._settings.freeswitch.prompts / self._policy.announcement
        try:
            heard = self._leg.play(str(file), within_s)
        except TimedOut:
            self._leg.session.api("uuid_break", self._leg.uuid, "all")
            self._leg.log.error("the announcement takes longer than the %.1f s that there are for it", within_s)
            heard = False
        if heard:
            self._agree(Consent.ANNOUNCED)

    def begin(self) -> None:
        """The agent is connected. FreeSWITCH records only what media bugs before its own have written: not earlier."""
        if self._policy.mode is not RecordingMode.ALWAYS or self._policy.consent is ConsentBy.ANSWER:
            return
        try:
            self.start()
        except NotRecorded as error:
            self._leg.log.error("the call is not recorded: %s", error)

    def take_over(self) -> None:
        """Go on with what an esl_app before this one began; the call has outlived it. What was paused stays so."""
        with self._lock:
            for row in get_hub().threadpool.apply(self._left):
                self._made = max(self._made, int(row.id))
                self._consent, self._consent_at = row.consent, row.consent_at
                if row.state is RecordingState.RECORDING:
                    self._row = row
                    self._pauses = orjson.loads(row.pauses)
                    self._paused = self._is_masked

    def _left(self) -> list[RecordingRecord]:
        """The call's recordings so far, in order, as their notes have them."""
        found = [*self._folder.glob(f"*{notes.SUFFIX}"), *self._kept.glob(f"*/*{notes.SUFFIX}")]
        rows = []
        for path in found:
            if path.name.startswith(f"{self._arrival.call}."):
                try:
                    rows.append(notes.read(path))
                except (notes.NoteError, FileNotFoundError) as error:
                    self._leg.log.error("a note of a recording cannot be read: %s", error)
        return sorted((row for row in rows if row.call == self._arrival.call), key=lambda row: int(row.id))

    # What the agent and the API may ask for

    def start(self) -> None:
        """Raises NotRecorded."""
        with self._lock:
            if self._policy.mode is RecordingMode.OFF:
                raise NotRecorded("off", "calls of this agent are not recorded")
            if self._row is not None:
                raise NotRecorded("recording", "the call is being recorded already")
            self._require_consent()
            row = self._new_row()
            self._note(row)
            try:
                self._leg.session.set(RECORD_STEREO="true", enable_file_write_buffering=BUFFER)
                self._record("start", row)
            except COMMAND_FAILURES as error:
                self._note(row.model_copy(update={"state": RecordingState.NOT_MADE, "cause": f"FreeSWITCH: {error}"}))
                RECORDINGS.labels("failed").inc()
                raise NotRecorded("failed", f"FreeSWITCH cannot record: {error}") from error
            self._row = row
            self._pauses = []
            RECORDINGS.labels("started").inc()
            self._leg.log.info("recording %s begins, consent: %s", row.id, row.consent.value)
            if self._private:
                self._mask()

    def stop(self) -> None:
        """Raises NotRecorded."""
        with self._lock:
            row = self._running()
            try:
                self._record("stop", row)
            except COMMAND_FAILURES as error:
                self._leg.log.warning("recording %s was over before its stop: %s", row.id, error)
            self._over(row)

    def pause(self) -> None:
        """Silence from now on. Raises NotRecorded."""
        with self._lock:
            self._running()
            self._paused = True
            self._mask()

    def resume(self) -> None:
        """Raises NotRecorded."""
        with self._lock:
            self._running()
            self._paused = False
            self._mask()

    def caller_answers(self, agrees: bool) -> None:
        """The agent has asked the caller. Raises NotRecorded where it was not to ask, or nothing can be recorded."""
        with self._lock:
            if self._policy.consent is not ConsentBy.ANSWER or self._policy.mode is RecordingMode.OFF:
                raise NotRecorded("not_asked", "the caller's consent is not the agent's to ask for")
            self._agree(Consent.GIVEN if agrees else Consent.REFUSED)
            if not agrees and self._row is not None:
                self.stop()
            elif agrees and self._row is None and self._policy.mode is RecordingMode.ALWAYS:
                self.start()

    # What the call does

    def keep_private(self, private: bool) -> None:
        """What is heard now is nobody's: silence, whatever else was asked for, until this is taken back."""
        with self._lock:
            self._private = private
            if self._row is not None:
                try:
                    self._mask()
                except NotRecorded as error:
                    self._leg.log.error("%s", error)

    def put_through(self) -> None:
        """The caller talks to somebody else than the agent."""
        with self._lock:
            if self._row is not None and not self._policy.after_transfer:
                self.stop()

    def end(self) -> None:
        """The call is over, and with it what FreeSWITCH wrote. Raises nothing."""
        with self._lock:
            if self._row is not None:
                self._over(self._row)
            elif not self._made and self._owes_a_note():
                row = self._new_row()
                cause = f"consent: {self._consent.value}"
                self._note(row.model_copy(update={"state": RecordingState.NOT_MADE, "cause": cause}))

    def _owes_a_note(self) -> bool:
        asked = self._consent in (Consent.GIVEN, Consent.REFUSED)
        return asked or (self._policy.mode is RecordingMode.ALWAYS and self._leg.was_answered)

    # How

    def _require_consent(self) -> None:
        if self._consent in (Consent.NOT_ASKED, Consent.REFUSED):
            raise NotRecorded("no_consent", f"without the caller's consent nothing is recorded ({self._consent.value})")

    def _agree(self, consent: Consent) -> None:
        self._consent, self._consent_at = consent, self._now()
        self._leg.log.info("consent to recording: %s", consent.value)

    def _running(self) -> RecordingRecord:
        if self._row is None:
            raise NotRecorded("not_recording", "the call is not being recorded")
        return self._row

    def _new_row(self) -> RecordingRecord:
        self._made += 1
        now = self._now()
        days = self._policy.keep_days or self._settings.recordings.keep_days
        return RecordingRecord(
            call=self._arrival.call,
            id=str(self._made),
            worker=self._worker,
            tenant=self._arrival.tenant,
            agent=self._arrival.agent,
            state=RecordingState.RECORDING,
            consent=self._consent,
            consent_at=self._consent_at,
            started_at=now,
            format=self._policy.format,
            keep_until=now + days * DAY_S,
        )

    def _record(self, verb: str, row: RecordingRecord) -> None:
        path = self._folder / f"{notes.stem(row)}.wav"
        self._leg.session.api("uuid_record", self._leg.uuid, verb, quote(str(path)))

    def _mask(self) -> None:
        """Silence or sound, as it should be now. Where FreeSWITCH does not obey, the recording ends instead. Raises NotRecorded."""
        row = self._running()
        silent = self._paused or self._private
        if silent == self._is_masked:
            return
        at_ms = round((self._now() - row.started_at) * 1000)
        try:
            self._record("mask" if silent else "unmask", row)
        except COMMAND_FAILURES as error:
            self.stop()
            raise NotRecorded("failed", f"FreeSWITCH cannot {'mask' if silent else 'unmask'}: {error}") from error
        if silent:
            self._pauses.append([at_ms, None])
        else:
            self._pauses[-1][1] = at_ms
        self._note(row)
        self._leg.log.info("recording %s is %s", row.id, self.state)

    @property
    def _is_masked(self) -> bool:
        return bool(self._pauses) and self._pauses[-1][1] is None

    def _over(self, row: RecordingRecord) -> None:
        self._row = None
        self._paused = False
        self._note(row.model_copy(update={"state": RecordingState.WAITING, "ended_at": self._now()}))

    def _note(self, row: RecordingRecord) -> None:
        """Write the note. Where that fails the audio stays in incoming, for people to find."""
        stamped = row.model_copy(update={"pauses": orjson.dumps(self._pauses).decode()})
        try:
            get_hub().threadpool.apply(notes.write, (self._folder, stamped))
        except OSError as error:
            self._leg.log.error("recording %s has no note: %s", row.id, error)


def prepare(settings: Settings, worker: str) -> None:
    """Make the folder, and tell which announcements will not do. Where FreeSWITCH has another file system than this process,
    that is its operator's.
    """
    recorded = {
        name: agent.recording
        for name, agent in settings.agents.items()
        if agent.recording.mode is not RecordingMode.OFF
    }
    if recorded:
        try:
            notes.make(notes.incoming(settings.recordings.folder, worker))
        except OSError as error:
            _log.error("no folder for recordings: %s", error)
    longest_ms = settings.media_fork.token_ms - round(1000 * FORK_MARGIN_S)
    for name, policy in recorded.items():
        if policy.consent is ConsentBy.ANNOUNCEMENT:
            file = settings.freeswitch.prompts / policy.announcement
            try:
                lasts_ms = inspect(file).duration_ms
            except (OSError, BadWav) as error:
                _log.error("calls of %s will not be recorded: %s: %s", name, file, error)
                continue
            if lasts_ms > longest_ms:
                _log.error("calls of %s will not be recorded: %s takes %d ms of %d", name, file, lasts_ms, longest_ms)


def adopt(folder: Path, before: float, now: float, is_lost: Callable[[str], bool]) -> None:
    """Recordings begun ``before`` that an esl_app before this one left running are over where ``is_lost`` says so of their call.

    Blocks for the disk. Raises OSError.
    """
    for path in folder.glob(f"*{notes.SUFFIX}"):
        try:
            row = notes.read(path)
        except (notes.NoteError, FileNotFoundError) as error:
            _log.error("a note of a recording cannot be read: %s", error)
            continue
        if row.state is RecordingState.RECORDING and row.started_at <= before and is_lost(row.call):
            notes.write(folder, row.model_copy(update={"state": RecordingState.WAITING, "ended_at": now}))
