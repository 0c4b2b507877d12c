"""What is kept of calls: the rows, the :class:`Recorder` that writes them, and :class:`Records` that reads them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from tandem import database
from tandem.outcome import Outcome
from tandem.recorder import Recorder
from tandem.rows import (
    CallRecord,
    LostCalls,
    RecordingRecord,
    Row,
    TimingRecord,
    ToolCallRecord,
    TransferRecord,
    TurnRecord,
)

__all__ = [
    "CallRecord",
    "CallStory",
    "LostCalls",
    "Recorder",
    "RecordingRecord",
    "Records",
    "RecordsError",
    "Row",
    "TimingRecord",
    "ToolCallRecord",
    "TransferRecord",
    "TurnRecord",
]

_R = TypeVar("_R", CallRecord, TurnRecord, ToolCallRecord, TransferRecord, TimingRecord, RecordingRecord)


class RecordsError(Exception):
    """The records cannot be read: one line with the cause and what to do."""


class CallStory(BaseModel):
    """All that is kept of one call, each part in order of time."""

    model_config = ConfigDict(frozen=True)

    call: CallRecord
    turns: Sequence[TurnRecord]
    tool_calls: Sequence[ToolCallRecord]
    transfers: Sequence[TransferRecord]
    timings: Sequence[TimingRecord]
    recordings: Sequence[RecordingRecord] = ()


class Records:
    """The reading side. Blocking: not for the loop of a plane. Every method raises RecordsError.

    ``url`` is Settings.records.url. Nothing is created: a database that no Recorder or ``tandem db upgrade`` has made
    yet is an error.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = database.connect(url, "tandem-reader")
        except SQLAlchemyError as error:
            raise RecordsError(f"records.url cannot be used: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    def calls(
        self,
        limit: int = 50,
        since: float | None = None,
        before: float | None = None,
        outcome: Outcome | None = None,
        worker: str | None = None,
        live: bool = False,
    ) -> list[CallRecord]:
        """The newest calls first, at most ``limit``; ``since`` and ``before`` bound started_at (Unix seconds).

        ``live``: only calls without an outcome, under way or lost by an esl_app that was killed.
        """
        calls = database.TABLES["calls"]
        query = select(calls).order_by(calls.c.started_at.desc(), calls.c.id).limit(limit)
        if since is not None:
            query = query.where(calls.c.started_at >= since)
        if before is not None:
            query = query.where(calls.c.started_at < before)
        if outcome is not None:
            query = query.where(calls.c.outcome == outcome.value)
        if worker is not None:
            query = query.where(calls.c.worker == worker)
        if live:
            query = query.where(calls.c.outcome.is_(None))
        with self._reading() as connection:
            return _rows(connection, query, CallRecord)

    def of_key(self, key_digest: str, now: float) -> tuple[TransferRecord, CallStory] | None:
        """The transfer that carried a key, and its call; None where there is no such key, or it has expired at ``now``."""
        transfers = database.TABLES["transfers"]
        query = select(transfers).where(transfers.c.key_digest == key_digest, transfers.c.key_expires_at > now)
        with self._reading() as connection:
            found = _rows(connection, query, TransferRecord)
        story = self.call(found[0].call) if found else None
        return (found[0], story) if story else None

    def call(self, id: str) -> CallStory | None:
        """Everything about one call, or None where there is no such call."""
        calls = database.TABLES["calls"]
        with self._reading() as connection:
            found = _rows(connection, select(calls).where(calls.c.id == id), CallRecord)
            if not found:
                return None
            return CallStory(
                call=found[0],
                turns=_of_call(connection, id, TurnRecord, "started_at", "item"),
                tool_calls=_of_call(connection, id, ToolCallRecord, "started_at", "id"),
                transfers=_of_call(connection, id, TransferRecord, "started_at", "id"),
                timings=_of_call(connection, id, TimingRecord, "speech_ended_at", "item", "kind"),
                recordings=_of_call(connection, id, RecordingRecord, "started_at", "id"),
            )

    def recordings(
        self,
        limit: int = 50,
        since: float | None = None,
        before: float | None = None,
        call: str | None = None,
    ) -> list[RecordingRecord]:
        """The newest recordings first, at most ``limit``; ``since`` and ``before`` bound started_at (Unix seconds)."""
        table = database.TABLES["recordings"]
        query = select(table).order_by(table.c.started_at.desc(), table.c.call, table.c.id).limit(limit)
        if since is not None:
            query = query.where(table.c.started_at >= since)
        if before is not None:
            query = query.where(table.c.started_at < before)
        if call is not None:
            query = query.where(table.c.call == call)
        with self._reading() as connection:
            return _rows(connection, query, RecordingRecord)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        url = self._engine.url
        shown = url.render_as_string(hide_password=True)
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            raise RecordsError(f"{shown}: no such file yet; it appears with the first call, or by `tandem db upgrade`")
        try:
            with (
                self._engine.connect().execution_options(**{database.READING: True}) as connection,
                connection.begin(),
            ):
                yield connection
        except SQLAlchemyError as error:
            cause = database.cause(error)
            advice = "run `tandem db upgrade`" if "no such table" in cause or "does not exist" in cause else "is it up?"
            raise RecordsError(f"{shown}: {cause}; {advice}") from error


def _rows(connection: Connection, query: Any, row: type[_R]) -> list[_R]:
    return [row.model_validate(dict(found)) for found in connection.execute(query).mappings()]


def _of_call(connection: Connection, call: str, row: type[_R], *order: str) -> list[_R]:
    table = database.TABLES[row.table]
    query = select(table).where(table.c.call == call).order_by(*(table.c[name] for name in order))
    return _rows(connection, query, row)
