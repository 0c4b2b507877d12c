"""What is to be told to somebody outside: written down first, then told until it was taken.

The journal and its courier are those of the notifier (tandem/notify), on an asyncio loop in a thread of its own: no call
waits for a disk or for anybody's server.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Generic

import aiohttp

from tandem.notify.courier import Courier, Metrics, R
from tandem.notify.journal import Journal, JournalInUseError, N

CLOSE_S = 2.0
IN_USE_S = 1.0
"""Between two looks at a journal that another process still has."""
MAX_PENDING = 1000
"""Notices that wait for the journal to be opened; the newest count."""

_log = logging.getLogger(__name__)


class Outbox(Generic[N, R]):
    """Of one kind of notice. Where there are no recipients nothing runs. ``journal`` is a folder of this worker's own.

    ``concerns`` says whether a recipient is to be told; ``tell`` makes one attempt and raises DeliveryError.
    """

    def __init__(
        self,
        name: str,
        journal: Path,
        read: Callable[[str], N],
        recipients: Mapping[str, R],
        concerns: Callable[[R, N], bool],
        tell: Callable[[R, N, aiohttp.ClientSession], Awaitable[None]],
        metrics: Metrics,
        *,
        keep_days: int,
        give_up_hours: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._folder = journal
        self._read = read
        self._recipients = recipients
        self._concerns = concerns
        self._tell = tell
        self._metrics = metrics
        self._keep_days = keep_days
        self._give_up_hours = give_up_hours
        self._now = now
        self._loop: asyncio.AbstractEventLoop | None = None
        self._courier: Courier[N, R] | None = None
        self._stop = asyncio.Event()
        self._pending: deque[N] = deque(maxlen=MAX_PENDING)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=name, daemon=True)
        self._ready = threading.Event()

    def start(self) -> None:
        if self._recipients:
            self._thread.start()

    def put(self, notice: N) -> None:
        """Have it told. Never waits; from any thread."""
        if self._recipients:
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
            names = [name for name, recipient in self._recipients.items() if self._concerns(recipient, notice)]
            self._courier.add(notice, notice.id, names)

    async def _open_journal(self) -> Journal[N]:
        """Once the esl_app before this one has let go of it."""
        while True:
            try:
                return Journal(self._folder, self._read, self._now)
            except JournalInUseError as error:
                _log.warning("%s: nobody is told yet: %s", self._name, error)
                await asyncio.sleep(IN_USE_S)

    async def _run(self) -> None:
        journal = await self._open_journal()
        if journal.failure:
            _log.error("%s: the journal cannot be kept on disk, it is in memory alone: %s", self._name, journal.failure)
        async with aiohttp.ClientSession() as http:
            self._courier = Courier(
                journal,
                self._recipients,
                lambda recipient, notice: self._tell(recipient, notice, http),
                self._metrics,
                keep_days=self._keep_days,
                give_up_hours=self._give_up_hours,
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
