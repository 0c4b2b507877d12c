"""The streaming half of mod_audio_fork: binary frames of the server, mixed into what the switch writes to the caller.

Samples wait in a prebuffer until enough are there (1280 the first time, 640 later, times the downscale factor), then go on
as a whole, resampled to the channel's rate, to the playout buffer, from which each written frame takes its share. ``killAudio`` empties the
playout buffer but not the prebuffer: the last partial chunk of what was killed comes out before the next utterance.

A mark is a sample of value 0xFFFF in that stream, as in the module, with what follows from it: a mark is put in front of the next
binary frame, one that finds no audio is reported at once, resampling garbles it, and a real sample of -1 may pass for one.
"""

from collections import deque
from collections.abc import Callable

import numpy as np
import soxr

from lab.codec import Frame
from lab.switch.sound import Samples

MARKER = -1
"""0xFFFF as int16."""
MAX_MARKS = 30
FIRST_PREBUFFER = 1280
"""Samples: 160 ms at 8 kHz."""
PREBUFFER = 640
"""80 ms."""
_EMPTY: Samples = np.zeros(0, dtype=np.int16)


class ForkPlayout:
    """Audio on its way from the fork's server to the caller.

    ``rate``: Hz of what the server sends; ``channel_rate``: of what is written.
    """

    def __init__(self, rate: int, channel_rate: int, send_mark: Callable[[str, bool], None]) -> None:
        self._factor = max(1, rate // channel_rate)
        self._resampler = (
            soxr.ResampleStream(rate, channel_rate, 1, dtype="int16", quality="MQ") if rate != channel_rate else None
        )
        self._send_mark = send_mark
        self._threshold = FIRST_PREBUFFER * self._factor
        self._odd_byte = b""
        self._prebuffer = _EMPTY
        self._playout: deque[Samples] = deque()
        self._clear = False
        self._inventory: deque[str] = deque()
        """Marks for which no audio came yet."""
        self._in_use: deque[str] = deque()
        self._cleared: deque[str] = deque()
        """Marks still in the audio that must not be reported any more."""

    @property
    def buffered(self) -> int:
        """Samples ready to be played."""
        return sum(len(chunk) for chunk in self._playout)

    def receive(self, data: bytes) -> None:
        """A binary frame: little-endian int16, any length; an odd last byte waits for the next frame."""
        data = self._odd_byte + data
        self._odd_byte = data[len(data) & ~1 :]
        samples = np.frombuffer(data[: len(data) & ~1], dtype="<i2").astype(np.int16)
        marks = np.full(len(self._inventory), MARKER, dtype=np.int16)
        self._in_use.extend(self._inventory)
        self._inventory.clear()
        self._prebuffer = np.concatenate((self._prebuffer, marks, samples))
        if len(self._prebuffer) < self._threshold:
            return
        self._threshold = PREBUFFER * self._factor
        whole = len(self._prebuffer) // self._factor * self._factor
        ready, self._prebuffer = self._prebuffer[:whole], self._prebuffer[whole:]
        if self._resampler is not None:
            ready = self._resampler.resample_chunk(ready)
        self._playout.append(ready)

    def mark(self, name: str) -> None:
        """Report when the audio received so far has been played. Above MAX_MARKS outstanding it is ignored."""
        if len(self._inventory) + len(self._in_use) < MAX_MARKS:
            self._inventory.append(name)

    def clear_marks(self) -> None:
        """Forget all marks without a report."""
        self._cleared.extend((*self._in_use, *self._inventory))
        self._inventory.clear()
        self._in_use.clear()

    def kill(self) -> None:
        """Drop what waits to be played, with the next frame that is written."""
        self._clear = True

    def empty(self) -> None:
        """Drop it at once, marks left as they are."""
        self._playout.clear()

    def mix(self, frame: Frame) -> Frame:
        """Add the next 20 ms to a frame that is about to be written."""
        if self._clear:
            self._drop()
            return frame
        taken = self._take(len(frame))
        if self._in_use or self._cleared:
            taken = self._without_marks(taken)
        elif not len(taken) and self._inventory:
            self._send_mark(self._inventory.popleft(), False)
        if not len(taken):
            return frame
        mixed = frame.astype(np.int32)
        mixed[: len(taken)] += taken
        return np.clip(mixed, -32768, 32767).astype(np.int16)

    def _drop(self) -> None:
        self._playout.clear()
        self._clear = False
        for name in (*self._in_use, *self._inventory):
            self._send_mark(name, True)
        self._cleared.extend(self._in_use)
        self._in_use.clear()
        self._inventory.clear()

    def _take(self, count: int) -> Samples:
        pieces: list[Samples] = []
        while count and self._playout:
            chunk = self._playout.popleft()
            pieces.append(chunk[:count])
            if len(chunk) > count:
                self._playout.appendleft(chunk[count:])
            count -= len(pieces[-1])
        return np.concatenate(pieces) if pieces else _EMPTY

    def _without_marks(self, samples: Samples) -> Samples:
        marked = samples == MARKER
        for _ in range(int(marked.sum())):
            if self._cleared:
                self._cleared.popleft()
            elif self._in_use:
                self._send_mark(self._in_use.popleft(), False)
        return np.asarray(samples[~marked], dtype=np.int16)
