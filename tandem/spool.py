"""Where rows wait on disk: JSON lines in segments, each written and fsync'd once, deleted once the database has them.

``FOLDER/PROCESS/00000001.jsonl``: every process has a folder of its own and holds ``flock`` on its ``lock`` file. The
kernel frees that lock however the process ends; another process for the same FOLDER then adopts what is left. Lines are
bytes without newline; what is in them is the Recorder's business.
"""

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SEGMENT_BYTES = 1 << 20
MEMORY_BYTES = 16 << 20
"""Kept in memory at most while the disk takes nothing."""
SET_ASIDE_BYTES = 10 << 20
SET_ASIDE = "set-aside.jsonl"


@dataclass
class Segment:
    """Some lines in order, in a file, or in memory where the disk refused them."""

    path: Path | None
    data: bytes = b""
    size: int = 0
    """Bytes."""
    rows: int = 0
    """Lines appended by this process; 0 for a file left by another."""
    held: bool = False
    """Had to wait for the database."""

    def lines(self) -> list[bytes]:
        """All lines, a torn last one included. Raises OSError."""
        data = self.data if self.path is None else self.path.read_bytes()
        return [line for line in data.split(b"\n") if line]


class Spool:
    """Segments of one process, oldest first. One thread appends, one takes; both may be the same.

    ``limit`` bounds the bytes on disk, what was adopted included: beyond it the oldest are kept and new lines refused.
    A folder that cannot be written is no error here: lines are then held in memory, up to MEMORY_BYTES, and ``failure``
    says why.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.failure: OSError | None = None
        self._folder = folder
        self._limit = limit
        self._guard = threading.Lock()
        self._segments: deque[Segment] = deque()
        self._locks: dict[Path, int] = {}
        self._own: Path | None = None
        self._active: int | None = None
        self._next = 1
        self._taken: Segment | None = None
        self._holding = False

    @property
    def empty(self) -> bool:
        """Nothing waits, and nothing that was taken is still to be done."""
        with self._guard:
            return not self._segments and self._taken is None

    @property
    def rows_in_memory(self) -> int:
        """Lines that no other process can take over."""
        with self._guard:
            waiting = [*self._segments, *([self._taken] if self._taken else [])]
            return sum(segment.rows for segment in waiting if segment.path is None)

    @property
    def size(self) -> int:
        """Bytes that wait, in memory or on disk."""
        with self._guard:
            return self._size()

    def append(self, lines: Sequence[bytes]) -> tuple[int, int]:
        """Keep ``lines`` durably; how many were kept (the rest found the spool full), and how many of them are held."""
        with self._guard:
            kept = self._fitting(lines, self._limit - self._size())
            if kept:
                try:
                    self._append_to_disk(lines[:kept])
                    self.failure = None
                except OSError as error:
                    self.failure = error
                    self._seal()
                    kept = self._append_to_memory(lines[:kept])
            return kept, kept if self._holding else 0

    def take(self) -> Segment | None:
        """The oldest segment, for :meth:`done` later; nothing is appended to it any more. None where none waits."""
        with self._guard:
            if not self._segments:
                return None
            if len(self._segments) == 1:
                self._seal()
            self._taken = self._segments.popleft()
            return self._taken

    def done(self, segment: Segment) -> None:
        """Delete a segment taken. Raises OSError where its file cannot be deleted."""
        with self._guard:
            self._taken = None
            if segment.path is None:
                return
            segment.path.unlink(missing_ok=True)
            folder = segment.path.parent
            if folder != self._own and not any(s.path and s.path.parent == folder for s in self._segments):
                self._leave(folder)

    def hold(self) -> int:
        """The database is away: mark what waits and what is appended from now; how many lines were newly marked."""
        with self._guard:
            self._holding = True
            waiting = [*([self._taken] if self._taken else []), *self._segments]
            newly = sum(segment.rows for segment in waiting if not segment.held)
            for segment in waiting:
                segment.held = True
            return newly

    def release(self) -> None:
        """The database is back: what is appended from now has not waited."""
        with self._guard:
            self._holding = False
            self._seal()

    def adopt(self) -> int:
        """Take over what processes that are gone have left for this folder; bytes taken over. Raises OSError."""
        with self._guard:
            if not self._folder.is_dir():
                return 0
            adopted: list[Segment] = []
            with self._exclusively():
                for folder in sorted(path for path in self._folder.iterdir() if path.is_dir()):
                    if folder not in self._locks and self._lock(folder):
                        left = sorted(folder.glob("*.jsonl"))
                        adopted += [Segment(path, size=path.stat().st_size, held=True) for path in left]
                        if not left:
                            self._remove(folder)
            self._segments.extendleft(reversed(adopted))
            return sum(segment.size for segment in adopted)

    def set_aside(self, line: bytes) -> None:
        """Keep a line that no database takes for a person to look at, within SET_ASIDE_BYTES. Raises OSError."""
        path = self._folder / SET_ASIDE
        self._folder.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.stat().st_size + len(line) < SET_ASIDE_BYTES:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                _write_all(file, line + b"\n")
                os.fsync(file)
            finally:
                os.close(file)

    def abandon(self, segment: Segment) -> None:
        """Leave a segment taken where it is, to the next process or to a person."""
        with self._guard:
            self._taken = None

    def close(self) -> None:
        """Leave what still waits to the next process. Raises OSError."""
        with self._guard:
            self._seal()
            for folder in list(self._locks):
                self._leave(folder)

    def _size(self) -> int:
        return sum(segment.size for segment in self._segments) + (self._taken.size if self._taken else 0)

    @staticmethod
    def _fitting(lines: Sequence[bytes], room: int) -> int:
        for index, line in enumerate(lines):
            room -= len(line) + 1
            if room < 0:
                return index
        return len(lines)

    def _append_to_disk(self, lines: Sequence[bytes]) -> None:
        if self._own is None:
            self._own = self._settle()
        data = b"".join(line + b"\n" for line in lines)
        if self._active is not None and self._segments and self._segments[-1].size + len(data) > SEGMENT_BYTES:
            self._seal()
        if self._active is None:
            path = self._own / f"{self._next:08d}.jsonl"
            self._active = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._next += 1
            self._segments.append(Segment(path, held=self._holding))
            _sync_folder(self._own)
        segment = self._segments[-1]
        try:
            _write_all(self._active, data)
            os.fsync(self._active)
        except OSError:
            os.ftruncate(self._active, segment.size)
            raise
        segment.size += len(data)
        segment.rows += len(lines)

    def _append_to_memory(self, lines: Sequence[bytes]) -> int:
        held = sum(segment.size for segment in self._segments if segment.path is None)
        kept = self._fitting(lines, MEMORY_BYTES - held)
        data = b"".join(line + b"\n" for line in lines[:kept])
        if kept:
            self._segments.append(Segment(None, data, len(data), kept, self._holding))
        return kept

    def _seal(self) -> None:
        if self._active is not None:
            os.close(self._active)
            self._active = None

    def _settle(self) -> Path:
        """A folder of this process's own, locked."""
        folder = self._folder / f"{time.time_ns():020d}-{os.getpid()}"
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._exclusively():
            folder.mkdir(mode=0o700)
            self._lock(folder)
        _sync_folder(self._folder)
        return folder

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """One process at a time makes, adopts or removes folders, so that none is removed under another's hands."""
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _lock(self, folder: Path) -> bool:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._locks[folder] = lock
        return True

    def _leave(self, folder: Path) -> None:
        with self._exclusively():
            if any(folder.glob("*.jsonl")):
                os.close(self._locks.pop(folder))
            else:
                self._remove(folder)

    def _remove(self, folder: Path) -> None:
        (folder / "lock").unlink(missing_ok=True)
        folder.rmdir()
        os.close(self._locks.pop(folder))


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    """A new file survives a power cut only when its folder is on disk too."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
