"""Batches: under load the event loop serves what has come once a millisecond, not each frame as it comes.

To be woken costs more than a frame does: two switches of context, caches that have gone cold, and a wake-up of whoever
gets the frame next. So where frames are many the loop is put to sleep between batches, as a network card moderates its
interrupts, and what a batch has to send is sent together at its end. A frame waits for BATCH_S at most; where frames
are few none waits, and a loop that is busy for all of BATCH_S does not sleep.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from media_fork.clock import Clock
from media_fork.metrics import Counts

BATCH_S: Final = 0.001
LOOK_S: Final = 0.1
MANY: Final = 2.0
"""Frames from forks, on average, that make a batch worth while: with 20 ms a frame these are 40 calls."""
FEW: Final = 1.5
"""Below it batches end."""


class Batches:
    """The event loop's: ``call_soon`` is its own, ``sleep`` stops its thread and lets other threads run."""

    def __init__(
        self,
        clock: Clock,
        counts: Counts,
        call_soon: Callable[[Callable[[], None]], object],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._counts = counts
        self._call_soon = call_soon
        self._sleep = sleep
        self._frames = counts.leg_frames
        self._looked_at = clock.now()
        self._due = 0.0
        """When the next batch is to be served."""
        self._posted: deque[tuple[Callable[[bytes], None], bytes]] = deque()
        self.on = False
        self._look_later()

    def post(self, send: Callable[[bytes], None], message: bytes) -> None:
        """Have ``message`` sent by ``send`` at the end of the batch, or at once where there are no batches."""
        if self.on:
            self._posted.append((send, message))
        else:
            send(message)

    def flush(self) -> None:
        """Send what was posted, now: what is sent by another way is not to overtake it."""
        posted = self._posted
        while posted:
            send, message = posted.popleft()
            send(message)

    def _look(self) -> None:
        now, frames = self._clock.now(), self._counts.leg_frames
        a_batch = (frames - self._frames) / (now - self._looked_at) * BATCH_S
        self._looked_at, self._frames = now, frames
        self._look_later()
        if self.on:
            self.on = a_batch >= FEW
            self.flush()
        elif a_batch >= MANY:
            self.on = True
            self._due = now
            self._call_soon(self._next)

    def _look_later(self) -> None:
        self._clock.call_at(self._looked_at + LOOK_S, self._look)

    def _next(self) -> None:
        """Runs once in every turn of the loop, which then has something to do and does not wait for I/O itself."""
        if not self.on:
            return
        self._call_soon(self._next)
        self.flush()
        now = self._clock.now()
        if now < self._due:
            self._sleep(self._due - now)
            self._due += BATCH_S
        else:
            self._due = now + BATCH_S
