"""Live events of all conversations, for those who watch: bounded, and free where nobody does."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from media_fork.clock import Clock
from media_fork.metrics import Counts
from tandem.seam import LiveEvent, LiveEventKind

QUEUED_EVENTS: Final = 1000
MAX_SUBSCRIBERS: Final = 16


class TooManySubscribersError(Exception):
    """There are MAX_SUBSCRIBERS already."""


class LiveEvents:
    """Publishers call ``publish``; each subscriber gets a queue of QUEUED_EVENTS, and misses what does not fit."""

    def __init__(self, counts: Counts, clock: Clock) -> None:
        self._counts = counts
        self._clock = clock
        self._subscribers: dict[asyncio.Queue[LiveEvent], str] = {}

    def publish(self, call: str, kind: LiveEventKind, text: str = "", **data: str | float | bool | None) -> None:
        if not self._subscribers:
            return
        event = LiveEvent(at=self._clock.unix(), call=call, event=kind, text=text, data=data)
        for queue, wanted in self._subscribers.items():
            if wanted in ("", call):
                try:
                    queue.put_nowait(event)
                except asyncio.QueueFull:
                    self._counts.events_dropped += 1

    @contextmanager
    def subscribe(self, call: str = "") -> Iterator[asyncio.Queue[LiveEvent]]:
        """Events from now on, of one call or of all. Raises TooManySubscribersError."""
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise TooManySubscribersError(f"{MAX_SUBSCRIBERS} are watching already")
        queue: asyncio.Queue[LiveEvent] = asyncio.Queue(QUEUED_EVENTS)
        self._subscribers[queue] = call
        try:
            yield queue
        finally:
            del self._subscribers[queue]
