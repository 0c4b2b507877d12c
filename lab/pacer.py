"""One 20 ms timer for all RTP streams of a process, tied to the monotonic clock so that it does not drift."""

import asyncio
from collections.abc import Callable
from typing import Protocol

PERIOD_S = 0.02
CATCH_UP = 25
"""Ticks that are made up for at once after a stall (500 ms); those beyond are skipped."""


class Timers(Protocol):
    """The part of an event loop that a pacer uses."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle: ...


class Pacer:
    """Calls every registered function once in 20 ms, on average exactly. Runs while there is something to call."""

    def __init__(self, timers: Timers | None = None) -> None:
        """``timers``: the running event loop where None."""
        self.skipped = 0
        """Ticks lost to stalls too long to make up for."""
        self._ticks: dict[object, Callable[[], None]] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._timers = timers

    def add(self, owner: object, tick: Callable[[], None]) -> None:
        """Begin to call ``tick``; at once would bunch streams that start together, so at the next period."""
        self._ticks[owner] = tick
        if self._handle is None:
            timers = self._timers or asyncio.get_running_loop()
            self._due = timers.time() + PERIOD_S
            self._handle = timers.call_at(self._due, self._run)

    def remove(self, owner: object) -> None:
        """Stop calling ``owner``'s function."""
        self._ticks.pop(owner, None)
        if not self._ticks and self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        timers = self._timers or asyncio.get_running_loop()
        behind = int((timers.time() - self._due) / PERIOD_S)
        if behind > CATCH_UP:
            self.skipped += behind - CATCH_UP
            self._due += (behind - CATCH_UP) * PERIOD_S
            behind = CATCH_UP
        due = 1 + max(0, behind)
        self._due += due * PERIOD_S
        self._handle = timers.call_at(self._due, self._run)
        for _ in range(due):
            for owner, tick in list(self._ticks.items()):
                self._call(owner, tick)

    def _call(self, owner: object, tick: Callable[[], None]) -> None:
        try:
            tick()
        except BaseException:
            # Whoever fails is called no more; the loop reports it, and the others go on at the next period.
            self.remove(owner)
            raise
