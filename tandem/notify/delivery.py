"""From the mailbox to the journal, and from there to each recipient, again and again until it has taken it."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tandem.notify import notice as notices
from tandem.notify.channels import DeliveryError, tell
from tandem.notify.journal import Delivery, Journal
from tandem.notify.mailbox import Mailbox, MailboxError
from tandem.notify.notice import Notice, NoticeError
from tandem.recipients import Event, Notify, Recipient
from tandem.settings import Emergency

POLL_S = 0.1
"""Between two looks into the mailbox."""
AWAY_S = 1.0
"""The same while Kamailio is away."""
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 300.0
TIDY_S = 3600.0

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
        self.lost = Counter(
            "tandem_notify_lost_total", "Notices forgotten before somebody was told.", registry=self.registry
        )
        self.deliveries = Counter(
            "tandem_notify_deliveries_total",
            "Attempts to tell somebody.",
            ["recipient", "result"],
            registry=self.registry,
        )
        self.waiting = Gauge(
            "tandem_notify_waiting", "Notices that somebody is still to be told.", ["recipient"], registry=self.registry
        )
        self.edge_up = Gauge("tandem_notify_edge_up", "1: the edge can be asked.", registry=self.registry)
        self.delay = Histogram(
            "tandem_notify_delay_seconds",
            "From the call to somebody being told of it.",
            ["recipient"],
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600),
            registry=self.registry,
        )
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
        journal: Journal,
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
        self._http = http
        self._metrics = metrics
        self._now = now
        self._chance = chance
        self._news = {name: asyncio.Event() for name in self._settings.recipients}
        self.edge_up = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within it, it works. At the end attempts under way are broken off: the journal has what is still to be told."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._fetch()), group.create_task(self._tidy())]
            tasks += [group.create_task(self._tell(*item)) for item in self._settings.recipients.items()]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    def waiting(self) -> dict[str, int]:
        """Notices that each recipient is still to be told."""
        waiting = self._journal.waiting()
        for name in self._settings.recipients:
            self._metrics.waiting.labels(name).set(waiting.get(name, 0))
        return waiting

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
        if self._journal.add(notice, same, wanted):
            self._metrics.notices.labels(notice.event.value).inc()
            _log.info("%s: to tell %s", notice.event.value, ", ".join(wanted) or "nobody", extra={"call": notice.call})
            for name in wanted:
                self._news[name].set()
        # What is not on disk stays with the edge as well, for the next notifier.
        if self._journal.failure is None:
            await self._mailbox.done(number)

    async def _tell(self, name: str, recipient: Recipient) -> None:
        while True:
            delivery = self._journal.next(name)
            if delivery is None:
                self._news[name].clear()
                try:
                    async with asyncio.timeout(FIRST_RETRY_S):
                        await self._news[name].wait()
                except TimeoutError:
                    pass
                continue
            await self._attempt(delivery, recipient)

    async def _attempt(self, delivery: Delivery, recipient: Recipient) -> None:
        notice = delivery.notice
        age = self._now() - notice.time.timestamp()
        extra = {"call": notice.call, "recipient": delivery.recipient, "attempt": delivery.attempts + 1}
        try:
            await tell(recipient, notice, self._http, self._now)
        except DeliveryError as error:
            if age > self._settings.give_up_hours * 3600:
                self._count(delivery, "given_up")
                self._journal.give_up(delivery, str(error))
                _log.error("%s: given up: %s", notice.event.value, error, extra=extra)
                return
            self._count(delivery, "failed")
            pause = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(delivery.attempts, 16)) * (0.5 + self._chance() / 2)
            self._journal.later(delivery, pause, str(error))
            _log.warning("%s: not told, again in %.1f s: %s", notice.event.value, pause, error, extra=extra)
            return
        self._journal.told(delivery)
        self._count(delivery, "told")
        self._metrics.delay.labels(delivery.recipient).observe(max(0.0, self._now() - notice.time.timestamp()))
        _log.info("%s: told", notice.event.value, extra=extra)

    def _count(self, delivery: Delivery, result: str) -> None:
        self._metrics.deliveries.labels(delivery.recipient, result).inc()

    async def _tidy(self) -> None:
        while True:
            if lost := self._journal.tidy(self._settings.keep_days):
                self._metrics.lost.inc(lost)
                _log.error("the journal is full: %d notices forgotten untold", lost)
            await asyncio.sleep(TIDY_S)
