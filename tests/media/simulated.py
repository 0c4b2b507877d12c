"""Simulated time, and FreeSWITCH's output as lws_glue.cpp and the core's 20 ms media timer make it."""

import heapq
import itertools
from collections.abc import Callable

import numpy as np


class SimulatedTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class SimulatedClock:
    """A media_fork.clock.Clock whose time goes on only by ``run_until``."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._pending: list[tuple[float, int, SimulatedTimer, Callable[[], object]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    def unix(self) -> float:
        return 1_700_000_000.0 + self._now

    def call_at(self, when: float, callback: Callable[[], object]) -> SimulatedTimer:
        timer = SimulatedTimer()
        heapq.heappush(self._pending, (max(when, self._now), next(self._order), timer, callback))
        return timer

    def run_until(self, when: float) -> None:
        while self._pending and self._pending[0][0] <= when:
            at, _, timer, callback = heapq.heappop(self._pending)
            if not timer.cancelled:
                self._now = max(self._now, at)
                callback()
        self._now = max(self._now, when)

    def run_for(self, seconds: float) -> None:
        self.run_until(self._now + seconds)

    @property
    def idle(self) -> bool:
        return all(timer.cancelled for _, _, timer, _ in self._pending)


class SwitchOutput:
    """What the caller hears: the prebuffer (1280 samples once, then 640), the playout buffer, frames of 20 ms."""

    def __init__(self, clock: SimulatedClock, rate: int = 8000, phase: float = 0.0) -> None:
        self._clock = clock
        self._frame = rate // 50
        self._prebuffer = np.zeros(0, np.int16)
        self._threshold = 1280
        self._buffer = np.zeros(0, np.int16)
        self._clear = False
        self.heard = np.zeros(0, np.int16)
        self.starved = 0
        clock.call_at(clock.now() + phase, self._tick)

    def send(self, l16: bytes) -> None:
        self._prebuffer = np.concatenate((self._prebuffer, np.frombuffer(l16, "<i2")))
        if len(self._prebuffer) >= self._threshold:
            self._threshold = 640
            self._buffer = np.concatenate((self._buffer, self._prebuffer))
            self._prebuffer = self._prebuffer[:0]

    def kill(self) -> None:
        self._clear = True

    @property
    def held(self) -> int:
        """Samples in its buffers, not yet heard."""
        return len(self._prebuffer) + len(self._buffer)

    def _tick(self) -> None:
        frame = np.zeros(self._frame, np.int16)
        if self._clear:
            self._buffer = self._buffer[:0]
            self._clear = False
        else:
            taken, self._buffer = self._buffer[: self._frame], self._buffer[self._frame :]
            frame[: len(taken)] = taken
            self.starved += 0 < len(taken) < self._frame
        self.heard = np.concatenate((self.heard, frame))
        self._clock.call_at(self._clock.now() + 0.020, self._tick)
