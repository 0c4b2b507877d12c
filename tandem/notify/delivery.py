"""From the mailbox to the journal, and from there to each recipient, again and again until it has taken it."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Gauge

from tandem.notify import courier
from tandem.notify import notice as notices
from tandem.notify.channels import tell
from tandem.notify.courier import Courier
from tandem.notify.journal import Journal
from tandem.notify.mailbox import Mailbox, MailboxError
from tandem.notify.notice import Notice, NoticeError
from tandem.recipients import Event, Notify, Recipient
from tandem.settings import Emergency

POLL_S = 0.1
"""Between two looks into the mailbox."""
AWAY_S = 1.0
"""The same while Kamailio is away."""

_log = logging.getLogger(__name__)


class Metrics:
    """What /metrics says."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.notices = Counter(
            "tandem_notify_notices_total", "Notices fetched from the edge.", ["event"], registry=self.registry
        )
        self.unreadable = Counter(
            "tandem_notify_unreadable_total", "Notices that could not be read.", registry=self.registry
        )
        self.edge_up = Gauge("tandem_notify_edge_up", "1: the edge can be asked.", registry=self.registry)
        self.courier = courier.Metrics("tandem_notify", self.registry)
        for event in Event:
            self.notices.labels(event.value)


def concerns(recipient: Recipient, notice: Notice) -> bool:
    """Whether a recipient wants to be told."""
    return (
        notice.event in recipient.events
        and (not recipient.tenants or notice.tenant in recipient.tenants)
        and (not recipient.trunks or notice.trunk in recipient.trunks)
    )


class Notifier:
    """Fetches and tells until it is stopped."""

    def __init__(
        self,
        emergency: Emergency,
        journal: Journal[Notice],
        mailbox: Mailbox,
        http: aiohttp.ClientSession,
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._tests = emergency.tests
        self._settings: Notify = emergency.notify
        self._journal = journal
        self._mailbox = mailbox
        self._metrics = metrics
        self._courier: Courier[Notice, Recipient] = Courier(
            journal,
            self._settings.recipients,
            lambda recipient, notice: tell(recipient, notice, http, now),
            metrics.courier,
            keep_days=self._settings.keep_days,
            give_up_hours=self._settings.give_up_hours,
            now=now,
            chance=chance,
        )
        self.edge_up = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within it, it works. At the end attempts under way are broken off: the journal has what is still to be told."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._fetch()), group.create_task(self._courier.carry())]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    def waiting(self) -> dict[str, int]:
        """Notices that each recipient is still to be told."""
        return self._courier.waiting()

    async def _fetch(self) -> None:
        # The edge leaves nothing where there is nobody to tell.
        self._edge(not self._settings.recipients)
        while self._settings.recipients:
            try:
                async for number, text in self._mailbox.fetch():
                    await self._take(number, text)
                self._edge(True)
            except MailboxError as error:
                if self.edge_up:
                    _log.warning("the edge cannot be asked for notices: %s", error)
                self._edge(False)
            await asyncio.sleep(POLL_S if self.edge_up else AWAY_S)

    def _edge(self, up: bool) -> None:
        self.edge_up = up
        self._metrics.edge_up.set(up)

    async def _take(self, number: int, text: str) -> None:
        try:
            notice, same = notices.read(text, number, self._settings.site, self._tests)
        except NoticeError as error:
            self._metrics.unreadable.inc()
            _log.error("%s", error)
            await self._mailbox.done(number)
            return
        wanted = [name for name, recipient in self._settings.recipients.items() if concerns(recipient, notice)]
        if self._courier.add(notice, same, wanted):
            self._metrics.notices.labels(notice.event.value).inc()
            _log.info("%s: to tell %s", notice.event.value, ", ".join(wanted) or "nobody", extra={"call": notice.call})
        # What is not on disk stays with the edge as well, for the next notifier.
        if self._journal.failure is None:
            await self._mailbox.done(number)
