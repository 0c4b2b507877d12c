"""The writing side of the records: rows are put by a plane's hot path and written by threads of their own.

    put() ──queue──▶ spooling thread ──fsync──▶ segments on disk ──▶ writing thread ──▶ database

Every row goes through the disk, so that there is one way for good days and bad. The spooling thread never waits for the
database: a row is on disk within 0.5 s of put() (GATHER_S and a disk's sync) as long as the disk writes, whatever the
database does, and a killed process loses no more than that. A segment is deleted once the database has committed it; a
crash between the two writes it again, which the upsert makes harmless.
"""

import logging
import queue
import sys
import threading
import time
from collections.abc import Sequence

import orjson
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import SQLAlchemyError

from tandem import database, settings
from tandem.rows import Row
from tandem.spool import Segment, Spool
from tandem.writer import BATCH_ROWS, LOST, Writer

QUEUE_ROWS = 20000
"""Rows that may wait for the spooling thread: some seconds of a stalled disk."""
GATHER_S = 0.25
"""Rows that come this soon after one another share a segment: every wake-up takes the interpreter from the hot path."""
ADOPT_EVERY_S = 30.0
FULL = 0.9
"""Share of spool_mb."""
GIVE_UP_S = 0.5
"""What close() adds to its time so that the writing thread leaves the spool in order."""

SPOOLED = Counter("tandem_records_spooled_total", "Rows that had to wait on disk because the database was away.")
REPLAYED = Counter("tandem_records_replayed_total", "Rows committed (or set aside) after they had waited on disk.")
WAITING = Gauge("tandem_records_waiting_bytes", "Bytes that wait for the database.")

_log = logging.getLogger("tandem.records")


class Recorder:
    """Writes rows in the background. One per process; ``component`` (esl_app, media_fork) names its part of the spool.

    Native threads: usable under asyncio, and under gevent as long as ``threading`` is not monkey-patched.
    Raises ValueError for a ``settings.url`` that is no database URL, RuntimeError under a monkey-patched ``threading``.
    """

    def __init__(self, settings: settings.Records, worker: str, component: str = "tandem") -> None:
        _require_native_threads()
        try:
            self._engine = database.connect(settings.url, f"tandem-{component}")
        except SQLAlchemyError as error:
            raise ValueError(f"records.url cannot be used: {error}") from error
        self._limit = settings.spool_mb << 20
        self._spool = Spool(settings.spool / worker / component, self._limit)
        self._queue: queue.SimpleQueue[Row | threading.Event | None] = queue.SimpleQueue()
        self._more = threading.Event()
        self._closing = threading.Event()
        self._give_up = threading.Event()
        self._closed = False
        self._writer = Writer(
            self._engine, self._closing, self._give_up, self._away, self._spool.release, self._spool.set_aside
        )
        self._spooling = threading.Thread(target=self._spool_rows, name="records-spool", daemon=True)
        self._writing = threading.Thread(target=self._write_segments, name="records-write", daemon=True)
        self._spooling.start()
        self._writing.start()

    @property
    def is_full(self) -> bool:
        """There is hardly room for what a call would put: the database has been away for long."""
        return self._spool.size > FULL * self._limit

    def put(self, row: Row) -> None:
        """Have ``row`` written. Never blocks or raises; from any thread. After close() the row is lost and counted."""
        if self._closed or self._queue.qsize() >= QUEUE_ROWS:
            LOST.labels("closed" if self._closed else "queue_full").inc()
        else:
            self._queue.put(row)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was put before is in the database (or set aside); False where time ran out. Blocks."""
        deadline = time.monotonic() + timeout_s
        spooled = threading.Event()
        self._queue.put(spooled)
        if not spooled.wait(timeout_s):
            return False
        while not self._spool.empty and time.monotonic() < deadline:
            time.sleep(0.005)
        return self._spool.empty

    def close(self, timeout_s: float) -> bool:
        """Write what was put, then stop. True where the database has everything in time; else the rest is on disk for
        the next process. Blocks, while the database is away for all of ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._spooling.join(max(0.0, deadline - time.monotonic()))
        self._closing.set()
        self._more.set()
        self._writing.join(max(0.0, deadline - time.monotonic()))
        self._give_up.set()
        self._writing.join(GIVE_UP_S)
        return not self._writing.is_alive() and self._spool.empty

    def _spool_rows(self) -> None:
        going = True
        while going:
            rows: list[Row] = []
            flushed: list[threading.Event] = []
            item = self._queue.get()
            if isinstance(item, Row) and not self._closed:
                time.sleep(GATHER_S)
            while True:
                if item is None:
                    going = False
                elif isinstance(item, threading.Event):
                    flushed.append(item)
                else:
                    rows.append(item)
                if len(rows) == BATCH_ROWS or self._queue.empty():
                    break
                item = self._queue.get()
            if rows:
                self._append(rows)
            for event in flushed:
                event.set()

    def _append(self, rows: Sequence[Row]) -> None:
        failed_before = self._spool.failure is not None
        kept, held = self._spool.append([orjson.dumps([row.table, row.model_dump(mode="json")]) for row in rows])
        if self._spool.failure and not failed_before:
            _log.error("records cannot be spooled to disk and are held in memory: %s", self._spool.failure)
        SPOOLED.inc(held)
        if kept < len(rows):
            LOST.labels("spool_full").inc(len(rows) - kept)
            _log.error("the spool of records is full, %d rows lost; bring the database back", len(rows) - kept)
        WAITING.set(self._spool.size)
        self._more.set()

    def _away(self) -> None:
        SPOOLED.inc(self._spool.hold())

    def _write_segments(self) -> None:
        self._writer.prepare()
        adopt_at = 0.0
        while True:
            closing = self._closing.is_set()
            if time.monotonic() >= adopt_at:
                adopt_at = time.monotonic() + ADOPT_EVERY_S
                self._adopt()
            segment = self._spool.take()
            if segment is not None:
                if not self._write(segment):
                    break
            elif closing:
                break
            else:
                self._more.wait(max(0.0, adopt_at - time.monotonic()))
                self._more.clear()
        self._leave()

    def _write(self, segment: Segment) -> bool:
        """Have a segment written and delete it; False where it stays for the next process."""
        try:
            lines = segment.lines()
        except OSError as error:
            LOST.labels("unreadable").inc(max(1, segment.rows))
            _log.error("%s of the spool cannot be read and is left there: %s", segment.path, error)
            self._spool.abandon(segment)
            return True
        if not self._writer.write(lines):
            return False
        if segment.held:
            REPLAYED.inc(len(lines))
        try:
            self._spool.done(segment)
        except OSError as error:
            _log.error("a segment of the spool is written but cannot be deleted: %s", error)
        WAITING.set(self._spool.size)
        return True

    def _adopt(self) -> None:
        try:
            adopted = self._spool.adopt()
        except OSError as error:
            _log.error("what other processes left in the spool cannot be taken over: %s", error)
        else:
            if adopted:
                _log.warning("%d bytes of records that a process before this one left are being written", adopted)

    def _leave(self) -> None:
        LOST.labels("never_spooled").inc(self._spool.rows_in_memory)
        try:
            self._spool.close()
        except OSError as error:
            _log.error("the spool cannot be closed: %s", error)
        self._engine.dispose()


def _require_native_threads() -> None:
    """Under gevent's patched threads a slow disk or database would stop every call of the process."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        raise RuntimeError("the Recorder needs native threads; do not monkey-patch threading")
