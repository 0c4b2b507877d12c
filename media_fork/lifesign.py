"""A sound of life: while a caller waits, for a model that takes over, for a slow answer or tool, a soft tone says that the line
is still there."""

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np

from media_fork.carriage import Carriage
from media_fork.clock import Clock, Timer

AFTER_S: Final = 1.2
"""Without a model and without a sound, the first tone."""
SLOW_S: Final = 4.0
"""From the caller's turn, or a tool's begin, the first tone where nothing has come of it."""
EVERY_S: Final = 2.5
NOTE_S: Final = 0.16
NOTES_HZ: Final = (523.25, 659.26)
AMPLITUDE: Final = 2600
"""About -22 dBFS: under a voice."""


@cache
def tone(carriage: Carriage) -> bytes:
    """Two short notes that swell and fade, in the model's format."""
    rate = carriage.model_rate
    time = np.arange(round(NOTE_S * rate)) / rate
    swell = np.sin(np.pi * time / NOTE_S) ** 2
    notes = [AMPLITUDE * swell * np.sin(2 * np.pi * hertz * time) for hertz in NOTES_HZ]
    return carriage.encode(np.concatenate(notes).astype("<i2").tobytes())


class LifeSign:
    """One conversation's. ``is_awaited``: the caller waits for something to be said. ``play`` has the tone played."""

    def __init__(
        self,
        clock: Clock,
        is_awaited: Callable[[], bool],
        is_playing: Callable[[], bool],
        play: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._is_awaited = is_awaited
        self._is_playing = is_playing
        self._play = play
        self._timer: Timer | None = None

    def start(self, after_s: float) -> None:
        """The caller may begin to wait: the first tone comes ``after_s`` from now, should they still wait."""
        self.stop()
        self._timer = self._clock.call_at(self._clock.now() + after_s, self._on_timer)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if not self._is_awaited():
            return
        if self._is_playing():
            self.start(AFTER_S)
        else:
            self._play()
            self.start(EVERY_S)
