"""What was said on a line and when: audio laid on the lab's clock, int16.

Positions count in RTP's clock, 8000 a second, whatever the rate of the audio.
"""

import numpy as np
import soxr

from lab.codec import RTP_CLOCK, Frame
from lab.rtp import Packet

LATE = 800
"""Timestamps (100 ms) behind its place at which audio is laid where it arrived: a jitter buffer would have run dry."""
EARLY = 8000
"""Timestamps (1 s) ahead of its place at which audio is laid where it arrived: a jitter buffer would have overflowed."""
MAX_FRAMES = 180_000
"""An hour of 20 ms frames."""


class Timeline:
    """Frames at positions; position 0 is Unix time 0, so that all lines share one clock."""

    def __init__(self) -> None:
        self._frames: dict[int, list[tuple[int, Frame]]] = {}
        """By their rate: a line's codec may change."""
        self._count = 0
        self.dropped = 0
        """Frames beyond MAX_FRAMES."""

    def place(self, position: int, frame: Frame, rate: int) -> None:
        """Lay a frame of ``rate`` Hz with its first sample at ``position``."""
        if self._count < MAX_FRAMES:
            self._count += 1
            self._frames.setdefault(rate, []).append((position, frame))
        else:
            self.dropped += 1

    def samples(self, origin: float, rate: int) -> Frame:
        """All from Unix time ``origin`` on, in one array of ``rate`` Hz whose sample 0 is ``origin``; zero where nothing is.

        Frames of that rate stand there bit for bit, others resampled.
        """
        start = position_at(origin)
        lines = [_line(frames, start, own, rate) for own, frames in self._frames.items()]
        if len(lines) == 1:
            return lines[0]
        sum_of_all = np.zeros(max(map(len, lines), default=0), np.int32)
        for line in lines:
            sum_of_all[: len(line)] += line
        return np.clip(sum_of_all, -32768, 32767).astype(np.int16)


def _line(frames: list[tuple[int, Frame]], start: int, own: int, rate: int) -> Frame:
    """Frames of one rate, laid out at their ``own``, given back at ``rate``."""
    samples_a_tick = own // RTP_CLOCK
    end = max((position - start) * samples_a_tick + len(frame) for position, frame in frames)
    line = np.zeros(max(0, end), np.int16)
    for position, frame in frames:
        offset = (position - start) * samples_a_tick
        if offset >= 0:
            line[offset : offset + len(frame)] = frame
        elif offset + len(frame) > 0:
            line[: offset + len(frame)] = frame[-offset:]
    return line if own == rate else resampled(line, own, rate)


def resampled(audio: Frame, rate_in: int, rate_out: int) -> Frame:
    """The whole of ``audio`` at another rate, without delay."""
    return np.asarray(soxr.resample(audio, rate_in, rate_out), dtype=np.int16)


def position_at(time: float) -> int:
    """Position of a Unix time."""
    return round(time * RTP_CLOCK)


class Arrival:
    """Where received packets belong: by their RTP timestamps, tied to when the first of them arrived.

    Tied anew at another SSRC, and where timestamps and clock have come apart by more than LATE or EARLY.
    """

    def __init__(self) -> None:
        self._ssrc: int | None = None
        self._timestamp = 0
        self._position = 0

    def position(self, packet: Packet) -> int:
        arrived = position_at(packet.time)
        if packet.ssrc == self._ssrc:
            step = ((packet.timestamp - self._timestamp + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
            expected = self._position + step
            if -EARLY <= arrived - expected <= LATE:
                self._timestamp, self._position = packet.timestamp, expected
                return expected
        self._ssrc, self._timestamp, self._position = packet.ssrc, packet.timestamp, arrived
        return arrived
