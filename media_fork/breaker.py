"""A circuit breaker: what failed is left alone for a while, then tried once before it is relied on again."""

from typing import Final

from media_fork.clock import Clock

MAX_REST_FACTOR: Final = 8
"""Each trial that fails doubles the rest, up to so many times the first."""


class Breaker:
    """Of one place elsewhere. So many failures in a row open it for ``rest_s``, after which one trial is admitted."""

    def __init__(self, clock: Clock, failures: int, rest_s: float) -> None:
        self._clock = clock
        self._most = failures
        self._rest_s = rest_s
        self._failures = 0
        self._factor = 1
        self._until: float | None = None
        """When its rest ends; None: closed."""
        self._trial = False

    @property
    def is_open(self) -> bool:
        """It failed, and has not succeeded since."""
        return self._until is not None

    @property
    def rest_s(self) -> float:
        """What is left of its rest."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock.now())

    def admits(self) -> bool:
        """Whether to try it now. A trial that is admitted is owed its end: ``succeeded``, ``failed`` or ``untried``."""
        if self._until is None:
            return True
        if self._trial or self._clock.now() < self._until:
            return False
        self._trial = True
        return True

    def succeeded(self) -> None:
        self._failures = 0
        self._factor = 1
        self._until = None
        self._trial = False

    def failed(self) -> None:
        self._failures += 1
        if self._failures < self._most and self._until is None:
            return
        if self._until is not None and self._trial:
            self._factor = min(2 * self._factor, MAX_REST_FACTOR)
        self._trial = False
        self._until = self._clock.now() + self._factor * self._rest_s

    def untried(self) -> None:
        """What was admitted came to no end that says anything."""
        self._trial = False
