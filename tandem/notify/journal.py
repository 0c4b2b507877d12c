"""What is to be told and to whom, on disk: an SQLite file that survives the notifier and the machine's power.

Without a disk that takes it everything goes on in memory, and ``failure`` says why.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Generic, Protocol, TypeVar


class News(Protocol):
    """Something to be told: a pydantic model. ``id`` is the same each time it is told."""

    @property
    def id(self) -> str: ...

    @property
    def event(self) -> StrEnum: ...

    @property
    def time(self) -> datetime: ...

    @property
    def call(self) -> str: ...

    def model_dump_json(self) -> str: ...


N = TypeVar("N", bound=News)

MAX_NOTICES = 50_000
"""Kept at most, told or not; beyond it the oldest are forgotten."""
_SCHEMA = """
create table if not exists notices (
    id text primary key, same text not null unique, at real not null, body text not null) without rowid;
create table if not exists deliveries (
    notice text not null references notices on delete cascade, recipient text not null, state text not null,
    attempts integer not null, due real not null, error text not null, primary key (notice, recipient)) without rowid;
create index if not exists waiting on deliveries (recipient, due) where state = 'waiting';
"""


class JournalInUseError(Exception):
    """Another notifier has this journal."""


@dataclass(frozen=True)
class Delivery(Generic[N]):
    """A notice that one recipient is to be told."""

    notice: N
    recipient: str
    attempts: int
    """That failed so far."""


class Journal(Generic[N]):
    """``read`` makes a notice of its JSON; ``now`` is Unix seconds. Raises JournalInUseError."""

    def __init__(self, folder: Path, read: Callable[[str], N], now: Callable[[], float] = time.time) -> None:
        self.failure: Exception | None = None
        self._read = read
        self._now = now
        self._lock: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # SQLite gives its other files the mode of this one.
            os.close(os.open(folder / "journal.sqlite", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = self._open(str(folder / "journal.sqlite"))
            # Whoever starts a notifier may have mended what made it wait.
            with self._database as database:
                database.execute("update deliveries set due = 0 where state = 'waiting'")
        except BlockingIOError as error:
            raise JournalInUseError(f"{folder} is in use by another notifier") from error
        except (OSError, sqlite3.Error) as error:
            self._give_up_disk(error)

    def add(self, notice: N, same: str, recipients: Iterable[str]) -> bool:
        """Write down that ``recipients`` are to be told; False where that was written down before."""
        try:
            return self._add(notice, same, recipients)
        except sqlite3.Error as error:
            self._give_up_disk(error)
            return self._add(notice, same, recipients)

    def _add(self, notice: N, same: str, recipients: Iterable[str]) -> bool:
        with self._database as database:
            added = database.execute(
                "insert or ignore into notices values (?, ?, ?, ?)",
                (notice.id, same, notice.time.timestamp(), notice.model_dump_json()),
            ).rowcount
            if added:
                database.executemany(
                    "insert into deliveries values (?, ?, 'waiting', 0, 0, '')",
                    [(notice.id, recipient) for recipient in recipients],
                )
        return bool(added)

    def next(self, recipient: str) -> Delivery[N] | None:
        """What is due for a recipient: emergencies before tests, then the oldest. None where nothing is."""
        row = self._database.execute(
            "select body, attempts from deliveries join notices on id = notice where state = 'waiting' and recipient = ? "
            "and due <= ? order by json_extract(body, '$.test'), at limit 1",
            (recipient, self._now()),
        ).fetchone()
        return Delivery(self._read(row[0]), recipient, row[1]) if row else None

    def told(self, delivery: Delivery[N]) -> None:
        self._update(delivery, "told", 0, "")

    def later(self, delivery: Delivery[N], seconds: float, error: str) -> None:
        """It failed; it is due again in so many seconds."""
        self._update(delivery, "waiting", self._now() + seconds, error)

    def give_up(self, delivery: Delivery[N], error: str) -> None:
        self._update(delivery, "given up", 0, error)

    def _update(self, delivery: Delivery[N], state: str, due: float, error: str) -> None:
        values = (state, delivery.attempts + 1, due, error, delivery.notice.id, delivery.recipient)
        try:
            with self._database as database:
                database.execute(
                    "update deliveries set state = ?, attempts = ?, due = ?, error = ? where notice = ? and recipient = ?",
                    values,
                )
        except sqlite3.Error as error_:
            self._give_up_disk(error_)

    def waiting(self) -> dict[str, int]:
        """How many notices each recipient is still to be told."""
        rows = self._database.execute(
            "select recipient, count(*) from deliveries where state = 'waiting' group by recipient"
        )
        return dict(rows.fetchall())

    def tidy(self, keep_days: int) -> int:
        """Forget what was told so long ago, and the oldest beyond MAX_NOTICES; how many of these were not told."""
        before = self._now() - keep_days * 86400
        surplus = "select id from notices order by at desc limit -1 offset ?"
        try:
            with self._database as database:
                (lost,) = database.execute(
                    f"select count(*) from deliveries where state = 'waiting' and notice in ({surplus})", (MAX_NOTICES,)
                ).fetchone()
                database.execute(
                    "delete from notices where at < ? and id not in (select notice from deliveries where state = 'waiting')",
                    (before,),
                )
                database.execute(f"delete from notices where id in ({surplus})", (MAX_NOTICES,))
        except sqlite3.Error as error:
            self._give_up_disk(error)
            return 0
        return int(lost)

    def close(self) -> None:
        self._database.close()
        if self._lock is not None:
            os.close(self._lock)

    def _give_up_disk(self, error: Exception) -> None:
        """From now on in memory, with what can still be read."""
        memory = self._open(":memory:")
        if self.failure is None and hasattr(self, "_database"):
            try:
                self._database.backup(memory)
            except sqlite3.Error as unreadable:
                error = ExceptionGroup("the journal can neither be written nor read", [error, unreadable])
        self.failure = error
        self._database = memory

    @staticmethod
    def _open(place: str) -> sqlite3.Connection:
        database = sqlite3.connect(place)
        try:
            database.executescript("pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on;")
            database.executescript(_SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
        return database
