"""Time from outside: one object for the three things that a call asks of it."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """``now`` runs evenly, in seconds from anywhere; ``unix`` is the time of day."""

    def now(self) -> float: ...

    def unix(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Run ``callback`` when now() is ``when``, give or take the millisecond that an event loop's timers resolve."""


class LoopClock:
    """The clock of the running event loop, with its timers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_later = loop.call_later
        self.now = time.monotonic
        self.unix = time.time

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        return self._call_later(max(0.0, when - self.now()), callback)
