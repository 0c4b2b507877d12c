"""Tells each recipient what the journal has for it, again and again until it has taken it."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tandem.notify.channels import DeliveryError
from tandem.notify.journal import Delivery, Journal, N

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 300.0
TIDY_S = 3600.0

R = TypeVar("R")
_log = logging.getLogger(__name__)


class Metrics:
    """What is counted of deliveries; ``prefix`` begins the names."""

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self.lost = Counter(f"{prefix}_lost_total", "Notices forgotten before somebody was told.", registry=registry)
        self.deliveries = Counter(
            f"{prefix}_deliveries_total", "Attempts to tell somebody.", ["recipient", "result"], registry=registry
        )
        self.waiting = Gauge(
            f"{prefix}_waiting", "Notices that somebody is still to be told.", ["recipient"], registry=registry
        )
        self.delay = Histogram(
            f"{prefix}_delay_seconds",
            "From what happened to somebody being told of it.",
            ["recipient"],
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600),
            registry=registry,
        )


class Courier(Generic[N, R]):
    """``tell`` makes one attempt and raises DeliveryError. ``carry`` runs until it is cancelled: the journal has what is left."""

    def __init__(
        self,
        journal: Journal[N],
        recipients: Mapping[str, R],
        tell: Callable[[R, N], Awaitable[None]],
        metrics: Metrics,
        *,
        keep_days: int,
        give_up_hours: int,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._journal = journal
        self._recipients = recipients
        self._tell = tell
        self._metrics = metrics
        self._keep_days = keep_days
        self._give_up_hours = give_up_hours
        self._now = now
        self._chance = chance
        self._news = {name: asyncio.Event() for name in recipients}

    def add(self, notice: N, same: str, names: Iterable[str]) -> bool:
        """Write down that the recipients ``names`` are to be told; False where that was written down before."""
        names = list(names)
        if not self._journal.add(notice, same, names):
            return False
        for name in names:
            self._news[name].set()
        return True

    def waiting(self) -> dict[str, int]:
        """Notices that each recipient is still to be told."""
        waiting = self._journal.waiting()
        for name in self._recipients:
            self._metrics.waiting.labels(name).set(waiting.get(name, 0))
        return waiting

    async def carry(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tidy())
            for name, recipient in self._recipients.items():
                group.create_task(self._serve(name, recipient))

    async def _serve(self, name: str, recipient: R) -> None:
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

    async def _attempt(self, delivery: Delivery[N], recipient: R) -> None:
        notice = delivery.notice
        what = notice.event.value
        age = self._now() - notice.time.timestamp()
        extra = {"call": notice.call, "recipient": delivery.recipient, "attempt": delivery.attempts + 1}
        try:
            await self._tell(recipient, notice)
        except DeliveryError as error:
            if age > self._give_up_hours * 3600:
                self._count(delivery, "given_up")
                self._journal.give_up(delivery, str(error))
                _log.error("%s: given up: %s", what, error, extra=extra)
                return
            self._count(delivery, "failed")
            pause = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(delivery.attempts, 16)) * (0.5 + self._chance() / 2)
            self._journal.later(delivery, pause, str(error))
            _log.warning("%s: not told, again in %.1f s: %s", what, pause, error, extra=extra)
            return
        self._journal.told(delivery)
        self._count(delivery, "told")
        self._metrics.delay.labels(delivery.recipient).observe(max(0.0, self._now() - notice.time.timestamp()))
        _log.info("%s: told", what, extra=extra)

    def _count(self, delivery: Delivery[N], result: str) -> None:
        self._metrics.deliveries.labels(delivery.recipient, result).inc()

    async def _tidy(self) -> None:
        while True:
            if lost := self._journal.tidy(self._keep_days):
                self._metrics.lost.inc(lost)
                _log.error("the journal is full: %d notices forgotten untold", lost)
            await asyncio.sleep(TIDY_S)
