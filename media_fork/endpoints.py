"""The model's endpoints, and what is known of their health: the first that is ready has the call.

They are asked in order, each when the one before it has failed or is late (``next_after_ms``), and all within
``ready_within_ms``. One that failed is passed over until it has rested, then tried by one call before the others follow;
where none else is to be had it is asked all the same.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

from media_fork.batches import Batches
from media_fork.breaker import Breaker
from media_fork.clock import Clock
from media_fork.metrics import Metrics
from media_fork.realtime import ModelUnavailableError, Realtime, place
from tandem.realtime import Endpoint, RealtimeModel

Update = Callable[[Endpoint], dict[str, Any]]
"""The session.update for an endpoint."""

FAILURES: Final = 1
"""In a row, after which an endpoint rests."""

_log = logging.getLogger(__name__)


class _Place:
    def __init__(self, endpoint: Endpoint, breaker: Breaker) -> None:
        self.endpoint = endpoint
        self.breaker = breaker


class Endpoints:
    """Of one process, shared by its calls."""

    def __init__(self, settings: RealtimeModel, clock: Clock, metrics: Metrics, batches: Batches) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._counts = metrics.counts
        self._batches = batches
        self._places = [
            _Place(endpoint, Breaker(clock, FAILURES, settings.rest_seconds)) for endpoint in settings.endpoints
        ]
        secure = any(endpoint.url.startswith("wss:") for endpoint in settings.endpoints)
        self._ssl: ssl.SSLContext | None = ssl.create_default_context() if secure else None

    @property
    def are_resting(self) -> bool:
        """Each of them failed, and none is to be tried yet."""
        return all(found.breaker.rest_s > 0 for found in self._places)

    async def open(self, update: Update, within_s: float | None = None) -> Realtime:
        """A model that is ready. Raises ModelUnavailableError when none was in time."""
        began = self._clock.now()
        ready_s = self._settings.ready_within_ms / 1000
        ends = began + (ready_s if within_s is None else min(within_s, ready_s))
        places = self._in_order()
        asked: dict[asyncio.Task[Realtime], _Place] = {}
        failure: ModelUnavailableError | None = None
        try:
            while True:
                left = ends - self._clock.now()
                place_ = next(places, None) if left > 0 else None
                if place_ is not None:
                    asked[asyncio.ensure_future(self._ask(place_, update, left))] = place_
                elif not asked:
                    raise failure or ModelUnavailableError("timeout", "no time left")
                # Each of them ends by itself in time.
                patience = None if place_ is None else self._settings.next_after_ms / 1000
                done, _ = await asyncio.wait(asked, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    asked_place = asked.pop(task)
                    try:
                        model = task.result()
                    except ModelUnavailableError as error:
                        failure = error
                        self._failed(asked_place, error.cause, str(error))
                        continue
                    self._passed(asked_place, asked)
                    self._metrics.ready_seconds.observe(self._clock.now() - began)
                    return model
        finally:
            await _break_off(asked)

    def failed(self, endpoint: Endpoint, cause: str, message: str) -> None:
        """A model of this endpoint was lost in mid-call."""
        for found in self._places:
            if found.endpoint is endpoint:
                self._failed(found, cause, message)

    async def _ask(self, found: _Place, update: Update, within_s: float) -> Realtime:
        model = Realtime(found.endpoint, update(found.endpoint), self._counts, self._batches)
        secure = found.endpoint.url.startswith("wss:")
        await model.open(self._ssl if secure else None, within_s)
        return model

    def _in_order(self) -> Iterator[_Place]:
        passed_over = []
        for found in self._places:
            if found.breaker.admits():
                yield found
            else:
                passed_over.append(found)
        yield from passed_over

    def _passed(self, ready: _Place, late: dict[asyncio.Task[Realtime], _Place]) -> None:
        """``ready`` was ready before those that were asked beside it; what was asked before it was too slow."""
        self._counts.add("models_opened", place(ready.endpoint))
        ready.breaker.succeeded()
        for other in late.values():
            if self._places.index(other) < self._places.index(ready):
                self._failed(other, "late", "another was ready before it")
            else:
                other.breaker.untried()

    def _failed(self, found: _Place, cause: str, message: str) -> None:
        self._counts.add("endpoint_failures", place(found.endpoint))
        found.breaker.failed()
        if len(self._places) > 1:
            rest_s = found.breaker.rest_s
            _log.warning("%s rests for %.0f s: %s: %s", place(found.endpoint), rest_s, cause, message)


async def _break_off(asked: dict[asyncio.Task[Realtime], _Place]) -> None:
    """End the attempts that are no longer of use, and what one of them may have opened meanwhile."""
    for task, found in asked.items():
        task.cancel()
        found.breaker.untried()
    for result in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(result, Realtime):
            result.close()
