"""Keys that the caller presses, gathered into what they mean to say."""

from collections.abc import Callable
from typing import Final

from media_fork.clock import Clock, Timer

PAUSE_S: Final = 1.5
"""After this long without another key the number is complete."""
TERMINATOR: Final = "#"
MAX_DIGITS: Final = 32


class Keypad:
    """One call's. ``enter`` is given the digits when they are complete: after PAUSE_S, at #, or at MAX_DIGITS."""

    def __init__(self, clock: Clock, enter: Callable[[str], None]) -> None:
        self._clock = clock
        self._enter = enter
        self._digits = ""
        self._timer: Timer | None = None

    def press(self, digit: str) -> None:
        """One key: 0-9, *, #, A-D. A # ends the number and is no part of it, unless it stands alone."""
        self.close()
        if digit != TERMINATOR or not self._digits:
            self._digits += digit
        if digit == TERMINATOR or len(self._digits) >= MAX_DIGITS:
            self._complete()
        else:
            self._timer = self._clock.call_at(self._clock.now() + PAUSE_S, self._complete)

    def take(self) -> str:
        """The keys that are not complete; nothing more comes of them here."""
        self.close()
        digits, self._digits = self._digits, ""
        return digits

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _complete(self) -> None:
        self._enter(self.take())
