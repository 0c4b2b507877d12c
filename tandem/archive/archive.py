"""The archive of one worker: looks for what has ended, seals it, puts it on record, and purges what has had its time."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tandem.archive import notes, seal
from tandem.archive.wav import BadWav, inspect
from tandem.outcome import RecordingState
from tandem.recording import Recordings
from tandem.rows import RecordingRecord

SCAN_S = 1.0
SETTLE_S = 2.0
"""A file that FreeSWITCH has not written to for so long is complete: it writes at least twice a second."""
RETRY_S = 30.0
"""What could not be sealed is tried again after this."""
PURGE_S = 600.0
LAST_S = 60.0
"""After ``stop``, for what has ended and is not sealed yet."""

_log = logging.getLogger(__name__)


class Archive:
    """``put`` has a row written. :meth:`run` until ``stop`` is set, and all that has ended by then is sealed, one at a time.

    There must be no other archive of the same worker.
    """

    def __init__(
        self,
        recordings: Recordings,
        worker: str,
        put: Callable[[RecordingRecord], None],
        stop: threading.Event,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._root = recordings.folder
        self._incoming = notes.incoming(recordings.folder, worker)
        self._kept = notes.kept(recordings.folder, worker)
        self._whom = seal.recipients(recordings)
        self._put = put
        self._stop = stop
        self._now = now
        self._seen: dict[Path, tuple[int, RecordingRecord]] = {}
        """Notes in incoming that are on record, and when they were changed."""
        self._retry_at: dict[Path, float] = {}

    def run(self) -> None:
        purge_at = 0.0
        while not self._stop.is_set():
            try:
                self.scan()
                if self._now() >= purge_at:
                    purge_at = self._now() + PURGE_S
                    self.purge()
            except OSError as error:
                _log.error("recordings cannot be looked after: %s", error)
            self._stop.wait(SCAN_S)
        give_up_at = self._now() + LAST_S
        while self._is_waited_for() and self._now() < give_up_at:
            self.scan()
            time.sleep(SCAN_S)

    def _is_waited_for(self) -> bool:
        return any(row.state is RecordingState.WAITING for _, row in self._seen.values())

    def scan(self) -> None:
        """Take every recording in incoming as far as it can be taken now. Raises OSError where there is no such folder."""
        paths = sorted(self._incoming.glob(f"*{notes.SUFFIX}"))
        for gone in self._seen.keys() - set(paths):
            del self._seen[gone]
        for path in paths:
            if self._now() < self._retry_at.get(path, 0):
                continue
            try:
                self._take(path)
                self._retry_at.pop(path, None)
            except FileNotFoundError:
                continue
            except (OSError, notes.NoteError, seal.SealError) as error:
                self._retry_at[path] = self._now() + RETRY_S
                _log.error("a recording waits unencrypted, tried again in %g s: %s", RETRY_S, error)

    def _take(self, path: Path) -> None:
        changed = path.stat().st_mtime_ns
        seen_at, row = self._seen.get(path, (None, None))
        if row is None or seen_at != changed:
            row = notes.read(path)
            self._put(row)
            self._seen[path] = (changed, row)
        audio = path.with_suffix(".wav")
        if row.state is RecordingState.NOT_MADE:
            audio.unlink(missing_ok=True)
            self._forget(path)
        elif row.state is RecordingState.WAITING and self._is_settled(audio):
            self._keep(row, path, audio)

    def _is_settled(self, audio: Path) -> bool:
        try:
            return self._now() - audio.stat().st_mtime > SETTLE_S
        except FileNotFoundError:
            return True

    def _keep(self, row: RecordingRecord, path: Path, audio: Path) -> None:
        """Seal, and only then forget the original: a crash in between is made good by doing it once more."""
        try:
            wav = inspect(audio)
        except (FileNotFoundError, BadWav) as error:
            self._lose(row, path, f"{error if isinstance(error, BadWav) else 'there is no file'}")
            return
        if not wav.size:
            self._lose(row, path, "is empty")
            return
        folder = self._kept / notes.day(row)
        notes.make(folder)
        target = folder / f"{notes.stem(row)}.{row.format.value}{seal.SUFFIX}"
        size, sha256 = seal.seal(wav, row.format, target, self._whom)
        stored = row.model_copy(
            update={
                "state": RecordingState.STORED,
                "duration_ms": wav.duration_ms,
                "file": target.relative_to(self._root).as_posix(),
                "bytes": size,
                "sha256": sha256,
            }
        )
        notes.write(folder, stored)
        notes.sync(folder)
        audio.unlink()
        self._forget(path)
        self._put(stored)
        _log.info("recording %s stored: %s", row.id, stored.file, extra={"call": row.call})

    def _lose(self, row: RecordingRecord, path: Path, cause: str) -> None:
        """Nothing can be made of it. What is there of the file stays, beside a note that the next scans leave alone."""
        _log.error("recording %s is lost: %s", row.id, cause, extra={"call": row.call})
        audio = path.with_suffix(".wav")
        if audio.exists():
            audio.rename(audio.with_suffix(".lost"))
        self._forget(path)
        self._put(row.model_copy(update={"state": RecordingState.LOST, "cause": cause}))

    def _forget(self, path: Path) -> None:
        path.unlink()
        self._seen.pop(path, None)

    def purge(self) -> None:
        """Delete what has had its time. Raises OSError where nothing can be deleted."""
        for path, row in kept_notes(self._kept):
            if self._stop.is_set():
                return
            if row.keep_until <= self._now():
                self._put(purge(path, row, "its time is over", self._now()))


def kept_notes(folder: Path) -> Iterator[tuple[Path, RecordingRecord]]:
    """Every note in a worker's folder of kept recordings, oldest day first; what is none is logged and passed over."""
    for path in sorted(folder.glob(f"*/*{notes.SUFFIX}")):
        try:
            yield path, notes.read(path)
        except FileNotFoundError:
            continue
        except notes.NoteError as error:
            _log.error("not a note of a recording: %s", error)


def purge(path: Path, row: RecordingRecord, cause: str, now: float) -> RecordingRecord:
    """Delete a kept recording and its note, and the day's folder with the last of it. Returns what to put on record.

    Raises OSError.
    """
    (path.parent / Path(row.file).name).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    if not any(path.parent.iterdir()):
        path.parent.rmdir()
    _log.info("recording %s purged: %s", row.id, cause, extra={"call": row.call})
    return row.model_copy(update={"state": RecordingState.PURGED, "cause": cause, "file": "", "purged_at": now})
