"""DTMF as RTP telephone-events (RFC 4733), 8 kHz clock, both ways."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

EVENTS = "0123456789*#ABCD"
"""A digit's event code is its place here."""
TICK = 160
"""Timestamp units between the packets of an event, 20 ms."""
END_PACKETS = 3
LOST_AFTER = 800
"""Timestamp units of audio behind an event without an end, after which it is taken as ended (100 ms)."""
_END = 0x80
_VOLUME = 10
_PAYLOAD = struct.Struct("!BBH")


@dataclass(frozen=True)
class Digit:
    """A finished event: ``digit`` is one of "0123456789*#ABCD"."""

    digit: str
    duration_ms: float


def payloads(digit: str, duration_ms: int) -> Iterator[bytes]:
    """An event's payloads, one for every 20 ms: growing durations, then the end three times (RFC 4733 section 2.5.1.4).

    Raises ValueError where ``digit`` is none.
    """
    if digit.upper() not in EVENTS or len(digit) != 1:
        raise ValueError(f"{digit!r} is no DTMF digit; expected one of {EVENTS}")
    event = EVENTS.index(digit.upper())
    ticks = max(2, round(duration_ms / 20))
    for tick in range(1, ticks):
        yield _PAYLOAD.pack(event, _VOLUME, tick * TICK)
    for _ in range(END_PACKETS):
        yield _PAYLOAD.pack(event, _END | _VOLUME, ticks * TICK)


class EventReceiver:
    """Turns a stream's telephone-event packets into digits, each once, however many of its packets arrive."""

    def __init__(self) -> None:
        self._open: tuple[int, int, int] | None = None
        """Timestamp, event and last duration of the event being received."""
        self._finished: int | None = None
        """Timestamp of the last event that was reported."""

    def receive(self, timestamp: int, payload: bytes) -> list[Digit]:
        """Digits that this packet completes: its own at its end, and one whose end packets were all lost."""
        if len(payload) < _PAYLOAD.size:
            return []
        event, flags, duration = _PAYLOAD.unpack_from(payload)
        if event >= len(EVENTS) or timestamp == self._finished:
            return []
        digits = []
        if self._open is not None and self._open[0] != timestamp:
            digits += self._close()
        self._open = (timestamp, event, duration)
        if flags & _END:
            digits += self._close()
        return digits

    def audio(self, timestamp: int) -> list[Digit]:
        """An audio packet came: where it lies well behind an event, that event's end packets were lost."""
        if self._open is None:
            return []
        behind = (timestamp - self._open[0] - self._open[2]) & 0xFFFFFFFF
        return self._close() if LOST_AFTER < behind < 1 << 31 else []

    def _close(self) -> list[Digit]:
        if self._open is None:
            return []
        timestamp, event, duration = self._open
        self._open, self._finished = None, timestamp
        return [Digit(EVENTS[event], duration / 8)]
