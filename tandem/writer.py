"""Commits rows to the database: in batches, patiently while it is away, and without the row that it will never take."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from prometheus_client import Counter, Gauge
from pydantic import ValidationError
from sqlalchemy import Connection, Engine

from tandem import database
from tandem.outcome import Consent, RecordingState
from tandem.recording import RecordingFormat
from tandem.rows import (
    ROWS,
    CallRecord,
    LostCalls,
    RecordingRecord,
    Row,
    TimingRecord,
    ToolCallRecord,
    TransferRecord,
    TurnRecord,
)

BATCH_ROWS = 500
RETRY_S = (0.1, 5.0)
"""First and longest pause before the database is tried again."""
TRIES = 3
"""A row is set aside when it alone failed this often and the database took harmless rows right after each time."""

WRITTEN = Counter("tandem_records_written_total", "Rows committed to the database.", ["table"])
LOST = Counter("tandem_records_lost_total", "Rows that will not be in the database.", ["reason"])
AWAY = Gauge("tandem_records_database_away", "1 while the database cannot be written.")

_log = logging.getLogger("tandem.records")
_HARMLESS: tuple[Row, ...] = (
    CallRecord(
        id="tandem-probe",
        worker="",
        trunk="",
        tenant="",
        caller="",
        number="",
        agent="",
        verified="",
        codec="",
        sip_call_id="",
        started_at=0,
    ),
    TurnRecord(call="tandem-probe", item="1", who="agent", text="", started_at=0, duration_ms=0),
    ToolCallRecord(call="tandem-probe", id="1", name="", arguments="", result="", started_at=0, status=""),
    TransferRecord(call="tandem-probe", id="1", destination="", method="", started_at=0),
    TimingRecord(call="tandem-probe", item="1", kind="turn"),
    RecordingRecord(
        call="tandem-probe",
        id="1",
        worker="",
        tenant="",
        agent="",
        state=RecordingState.NOT_MADE,
        consent=Consent.NOT_ASKED,
        started_at=0,
        format=RecordingFormat.WAV,
        keep_until=0,
    ),
)
"""Written and rolled back, to tell a database that is away from a row that is at fault."""


@dataclass
class _Entry:
    line: bytes
    row: Row
    failed: int = 0


class Writer:
    """Writes lines of the spool, in order, from one thread. ``set_aside(line)`` keeps what cannot be written.

    ``closing`` ends a pause so that the database is tried at once; ``give_up`` ends the trying.
    """

    def __init__(
        self,
        engine: Engine,
        closing: threading.Event,
        give_up: threading.Event,
        away: Callable[[], None],
        back: Callable[[], None],
        set_aside: Callable[[bytes], None],
    ) -> None:
        self._engine = engine
        self._closing = closing
        self._give_up = give_up
        self._on_away = away
        self._on_back = back
        self._set_aside = set_aside
        self._migrated = False
        self._away = False
        self._pause = RETRY_S[0]

    def prepare(self) -> None:
        """Migrate, and find out at once whether the database can be written."""
        error = self._try(_HARMLESS, keep=False)
        if error is not None:
            self._note_away(error)

    def write(self, lines: Sequence[bytes]) -> bool:
        """Return once every line is committed or set aside; False where it gave up."""
        entries = deque(entry for entry in map(self._parse, lines) if entry)
        batch = BATCH_ROWS
        while entries:
            chosen = [entries[index] for index in range(min(batch, len(entries)))]
            error = self._try([entry.row for entry in chosen])
            if error is None:
                for _ in chosen:
                    entries.popleft()
                batch = min(BATCH_ROWS, batch * 2)
                continue
            unusable = self._try(_HARMLESS, keep=False)
            if unusable is not None:
                if not self._wait(unusable):
                    return False
            elif len(chosen) > 1:
                batch = len(chosen) // 2
            else:
                chosen[0].failed += 1
                if chosen[0].failed == TRIES:
                    self._refuse(entries.popleft().line, chosen[0].row.table, database.cause(error))
        return True

    def _parse(self, line: bytes) -> _Entry | None:
        try:
            table, row = orjson.loads(line)
            return _Entry(line, ROWS[table].model_validate(row))
        except (ValueError, TypeError, KeyError, ValidationError) as error:
            self._refuse(line, "unknown", f"not a row of this version: {str(error).splitlines()[0]}")
            return None

    def _try(self, rows: Sequence[Row], keep: bool = True) -> Exception | None:
        try:
            if not self._migrated:
                database.upgrade(self._engine)
                self._migrated = True
            with self._engine.connect() as connection, connection.begin() as transaction:
                _write(connection, rows)
                if not keep:
                    transaction.rollback()
        except Exception as error:  # noqa: BLE001 whatever a driver raises, the rows are not written and must wait
            return error
        if self._away:
            self._away = False
            self._pause = RETRY_S[0]
            AWAY.set(0)
            _log.warning("the records' database is back")
            self._on_back()
        if keep:
            for row in rows:
                WRITTEN.labels(row.table).inc()
        return None

    def _wait(self, error: Exception) -> bool:
        """Pause while the database is away; False to give up."""
        self._note_away(error)
        if self._closing.is_set():
            return not self._give_up.wait(RETRY_S[0])
        self._closing.wait(self._pause)
        self._pause = min(self._pause * 2, RETRY_S[1])
        return True

    def _note_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            AWAY.set(1)
            _log.error("the records' database cannot be written, rows wait in the spool: %s", database.cause(error))
            self._on_away()

    def _refuse(self, line: bytes, table: str, cause: str) -> None:
        LOST.labels("set_aside").inc()
        _log.error("a row of %s cannot be written and was set aside: %s", table, cause)
        try:
            self._set_aside(line)
        except OSError as error:
            _log.error("nor could it be kept on disk: %s", error)


def _write(connection: Connection, rows: Sequence[Row]) -> None:
    """Upserts by table; rows of one table in order, and all before a LostCalls ahead of it."""
    by_table: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if isinstance(row, LostCalls):
            _upsert(connection, by_table)
            database.close_lost(connection, row.worker, row.except_ids, row.now)
            by_table = {}
        else:
            by_table.setdefault(row.table, []).append(row.model_dump(mode="json"))
    _upsert(connection, by_table)


def _upsert(connection: Connection, by_table: dict[str, list[dict[str, Any]]]) -> None:
    for table in sorted(by_table):
        database.upsert(connection, table, by_table[table])
