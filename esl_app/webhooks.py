"""How transfers ended, told to the operator's webhooks: written down first, then sent until it was taken.

The journal and its deliveries are those of the notifier (tandem/notify), on an asyncio loop in a thread of its own: no call
waits for a disk or for anybody's server.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import aiohttp
from prometheus_client import REGISTRY
from pydantic import BaseModel, ConfigDict

from esl_app.arrival import Arrival
from tandem.notify.channels import PATIENCE_S, DeliveryError, post
from tandem.notify.courier import Courier, Metrics
from tandem.notify.journal import Journal, JournalInUseError
from tandem.outcome import TransferOutcome
from tandem.rows import TransferRecord
from tandem.webhooks import Transfers, TransferWebhook

VERSION = 1
CLOSE_S = 2.0
IN_USE_S = 1.0
"""Between two looks at a journal that another process still has."""
MAX_PENDING = 1000
"""Notices that wait for the journal to be opened; the newest count."""
METRICS = Metrics("tandem_transfer_webhook", REGISTRY)

_log = logging.getLogger(__name__)


class Event(StrEnum):
    TRANSFER = "transfer"


class TransferNotice(BaseModel):
    """The body of a webhook. Times are ISO 8601, UTC; ``time`` is the transfer's end."""

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    id: str
    """The same each time that this notice is sent."""
    event: Event = Event.TRANSFER
    time: datetime
    started: datetime
    worker: str
    tenant: str
    call: str
    sip_call_id: str
    trunk: str
    agent: str
    caller: str
    number: str
    destination: str
    answered_by: str | None
    method: str
    outcome: TransferOutcome
    detail: str
    status: int | None
    """SIP status, where there was one."""
    heard: bool
    reason: str
    summary: str


def notice_of(row: TransferRecord, arrival: Arrival, worker: str) -> TransferNotice:
    """Of a transfer that has ended."""
    assert row.outcome is not None and row.ended_at is not None
    return TransferNotice(
        id=f"{row.call}-{row.id}",
        time=datetime.fromtimestamp(row.ended_at, UTC),
        started=datetime.fromtimestamp(row.started_at, UTC),
        worker=worker,
        tenant=arrival.tenant,
        call=row.call,
        sip_call_id=arrival.sip_call_id,
        trunk=arrival.trunk,
        agent=arrival.agent,
        caller=arrival.caller,
        number=arrival.number,
        destination=row.destination,
        answered_by=row.answered_by,
        method=row.method,
        outcome=row.outcome,
        detail=row.detail,
        status=row.sip_status,
        heard=row.heard,
        reason=row.reason,
        summary=row.summary,
    )


class Webhooks:
    """One process's. Where nobody is to be told nothing runs. ``journal`` is a folder of this worker's own."""

    def __init__(self, settings: Transfers, journal: Path, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._folder = journal
        self._now = now
        self._loop: asyncio.AbstractEventLoop | None = None
        self._courier: Courier[TransferNotice, TransferWebhook] | None = None
        self._stop = asyncio.Event()
        self._pending: deque[TransferNotice] = deque(maxlen=MAX_PENDING)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="transfer-webhooks", daemon=True)
        self._ready = threading.Event()

    def start(self) -> None:
        if self._settings.webhooks:
            self._thread.start()

    def put(self, notice: TransferNotice) -> None:
        """Have it told. Never waits; from any thread."""
        if self._settings.webhooks:
            self._pending.append(notice)
            if self._ready.is_set() and self._loop is not None:
                self._loop.call_soon_threadsafe(self._write_down)

    def close(self) -> None:
        """What is not told yet stays in the journal. Blocks at most CLOSE_S."""
        if self._ready.is_set() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(CLOSE_S)

    def _write_down(self) -> None:
        assert self._courier is not None
        while self._pending:
            notice = self._pending.popleft()
            hooks = self._settings.webhooks.items()
            self._courier.add(notice, notice.id, [name for name, hook in hooks if notice.outcome in hook.outcomes])

    async def _open_journal(self) -> Journal[TransferNotice]:
        """Once the esl_app before this one has let go of it."""
        while True:
            try:
                return Journal(self._folder, TransferNotice.model_validate_json, self._now)
            except JournalInUseError as error:
                _log.warning("webhooks are not told of transfers yet: %s", error)
                await asyncio.sleep(IN_USE_S)

    async def _run(self) -> None:
        journal = await self._open_journal()
        if journal.failure:
            _log.error("the journal of transfers cannot be kept on disk, it is in memory alone: %s", journal.failure)
        async with aiohttp.ClientSession() as http:

            async def tell(hook: TransferWebhook, notice: TransferNotice) -> None:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await post(hook.url, hook.secret.get_secret_value(), notice, http, int(self._now()))
                except TimeoutError as error:
                    raise DeliveryError(f"no answer in {PATIENCE_S:.0f} s") from error
                except (aiohttp.ClientError, OSError) as error:
                    raise DeliveryError(f"{type(error).__name__}: {error}") from error

            self._courier = Courier(
                journal,
                self._settings.webhooks,
                tell,
                METRICS,
                keep_days=self._settings.keep_days,
                give_up_hours=self._settings.give_up_hours,
                now=self._now,
            )
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            self._write_down()
            carrying = asyncio.create_task(self._courier.carry())
            await self._stop.wait()
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)
        journal.close()
