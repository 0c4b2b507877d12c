"""RTP (RFC 3550) with the codecs of lab.codec and telephone-event (RFC 4733): paced sending, receiving with a record of every packet."""

import asyncio
import random
import secrets
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import NamedTuple

from lab import clock as lab_clock
from lab.codec import CODECS, FRAME_TIMESTAMPS, PCMU, Frame
from lab.pacer import Pacer
from lab.telephone_event import Digit, EventReceiver, payloads
from lab.transaction import Address

__all__ = ["Digit", "Frame", "MalformedPacket", "Packet", "RtpStream", "parse"]

RECORDED_PACKETS = 180_000
"""An hour at 50 packets a second: what a recording stream keeps."""

_Step = tuple[bool, bytes | None]
"""Whether this is an event's first packet, and its payload; None in the pause between events."""

_HEADER = struct.Struct("!BBHII")
_VERSION = 2
_MAX_PACKET = 2048
_READ_AT_ONCE = 50
"""Packets taken from the socket in one go: a second of them, so that a process short of time catches up."""
_RTCP_TYPES = range(192, 224)
"""Second byte of RTCP packets that share the port (RFC 5761)."""


class MalformedPacket(ValueError):
    """Bytes that are no RTP packet; the text says why."""


class Packet(NamedTuple):
    """One RTP packet as it arrived."""

    time: float
    """Unix time of arrival, seconds, never stepping back."""
    sequence: int
    timestamp: int
    payload_type: int
    payload: bytes
    marker: bool
    ssrc: int


def parse(data: bytes, time: float) -> Packet:
    """One datagram as an RTP packet, extension and padding taken off. Raises MalformedPacket."""
    if len(data) < _HEADER.size:
        raise MalformedPacket(f"{len(data)} bytes are too few")
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if first >> 6 != _VERSION:
        raise MalformedPacket(f"version {first >> 6}")
    if second in _RTCP_TYPES:
        raise MalformedPacket("RTCP")
    start, end = _HEADER.size + 4 * (first & 0x0F), len(data)
    if first & 0x10:
        if end < start + 4:
            raise MalformedPacket("cut off in the extension")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if first & 0x20 and end > start:
        end -= data[-1]
    if start > end:
        raise MalformedPacket("cut off")
    return Packet(time, sequence, timestamp, second & 0x7F, data[start:end], bool(second & 0x80), ssrc)


class RtpStream:
    """One symmetric RTP port: it sends from where it receives. Made by open()."""

    def __init__(self, bound: socket.socket, *, pacer: Pacer, clock: lab_clock.Clock, record: bool) -> None:
        self.local: Address = bound.getsockname()
        self.remote: Address | None = None
        self.codec: str | None = None
        self.rate = PCMU.rate
        """Hz of the audio of frames both ways: the codec's."""
        self.source: Callable[[], Frame | None] | None = None
        """Pulled every 20 ms: as much audio to send, or None for no packet at all (the timestamp runs on)."""
        self.on_frame: Callable[[Frame], None] | None = None
        """Each received packet of the negotiated codec, decoded, when it arrives (any length, mostly 20 ms)."""
        self.on_digit: Callable[[Digit], None] | None = None
        self.on_sent: Callable[[Frame], None] | None = None
        """Each frame that was sent as audio."""
        self.latest: Packet | None = None
        """The last packet received; within on_frame, that of the frame."""
        self.packets: list[Packet] = []
        """What was received, when recording."""
        self.counters: Counter[str] = Counter()
        """sent, received, malformed, unknown_payload, on_hold, unrecorded, socket_error."""
        self._pacer = pacer
        self._now = clock
        self._record = record
        self._latch = False
        self._sends = True
        self._receives = True
        self._payload_type = 0
        self._event_type: int | None = None
        self._encode, self._decode = PCMU.encoder(), PCMU.decoder()
        self._ssrc = secrets.randbits(32)
        self._sequence = secrets.randbits(16)
        self._timestamp = secrets.randbits(32)
        self._silent = True
        self._events: deque[tuple[Iterator[_Step], asyncio.Future[None]]] = deque()
        self._event_start: int | None = None
        self._receiver = EventReceiver()
        self._socket: socket.socket | None = bound

    @classmethod
    async def open(
        cls,
        address: str,
        ports: range = range(0),
        *,
        pacer: Pacer,
        record: bool = True,
        clock: lab_clock.Clock = lab_clock.now,
    ) -> "RtpStream":
        """Bind an even port of ``ports``, or any free one where that is empty. Raises OSError when all are taken.

        ``record`` keeps the packets that arrive, up to an hour of them.
        """
        even = range(ports.start + ports.start % 2, ports.stop, 2)
        begin = random.randrange(len(even)) if even else 0
        for port in chain(even[begin:], even[:begin]) if even else (0,):
            bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            bound.setblocking(False)
            try:
                bound.bind((address, port))
                break
            except OSError:
                bound.close()
        else:
            raise OSError(f"no free RTP port on {address} in {ports.start}..{ports.stop - 1}")
        stream = cls(bound, pacer=pacer, clock=clock, record=record)
        asyncio.get_running_loop().add_reader(bound, stream._readable, bound)
        return stream

    def start(
        self,
        codec: str,
        payload_type: int,
        remote: Address,
        *,
        telephone_event: int | None = None,
        latch: bool = False,
    ) -> None:
        """Begin to send and receive, or change after a new answer.

        ``codec``: a name of lab.codec.CODECS. ValueError for another, or a payload type beyond 127. ``latch``: send to where packets really come from, once they come.
        """
        if codec not in CODECS:
            raise ValueError(f"no codec {codec!r} here; expected one of {', '.join(CODECS)}")
        if not all(0 <= number <= 127 for number in (payload_type, telephone_event or 0)):
            raise ValueError(f"payload types {payload_type} and {telephone_event} are not in 0..127")
        if codec != self.codec:
            self.codec, self.rate = codec, CODECS[codec].rate
            self._encode, self._decode = CODECS[codec].encoder(), CODECS[codec].decoder()
        self._payload_type = payload_type
        self._event_type = telephone_event
        self._latch = latch
        self.remote = remote
        if self._socket is not None:
            self._pacer.add(self, self._tick)

    def hold(self, *, send: bool, receive: bool) -> None:
        """SDP direction. Not sending: ``source`` is not pulled. Not receiving: packets are recorded, but not heard."""
        self._sends, self._receives = send, receive

    def close(self) -> None:
        """Stop and release the port. Digits still to be sent are dropped."""
        self._pacer.remove(self)
        while self._events:
            _, sent = self._events.popleft()
            if not sent.done():
                sent.set_result(None)
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    # Out

    async def send_digits(self, digits: str, *, duration_ms: int = 160, pause_ms: int = 80) -> None:
        """Send RFC 4733 events, audio suppressed meanwhile; returns once the last is sent, or the stream closed.

        ValueError: a character is no digit. RuntimeError: telephone-event was not negotiated.
        """
        if self._event_type is None:
            raise RuntimeError("telephone-event was not negotiated for this call")
        events: list[Iterator[bytes | None]] = []
        for digit in digits:
            events += [iter(list(payloads(digit, duration_ms))), repeat(None, round(pause_ms / 20))]
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._events.append((chain.from_iterable(_marked(event) for event in events), sent))
        await sent

    def _tick(self) -> None:
        self._timestamp = (self._timestamp + FRAME_TIMESTAMPS) & 0xFFFFFFFF
        if not self._sends or self.remote is None:
            self._silent = True
            return
        frame = self.source() if self.source is not None else None
        if self._events and self._send_event():
            return
        if frame is None:
            self._silent = True
            return
        self._send(self._payload_type, self._timestamp, self._encode(frame), self._silent)
        self._silent = False
        if self.on_sent is not None:
            self.on_sent(frame)

    def _send_event(self) -> bool:
        """Send the next packet of the digits in hand. False in the pause between them."""
        steps, sent = self._events[0]
        step = next(steps, None)
        if step is None:
            self._events.popleft()
            if not sent.done():
                sent.set_result(None)
            return False
        first, payload = step
        if payload is None:
            return False
        if first or self._event_start is None:
            self._event_start = self._timestamp
        assert self._event_type is not None
        self._send(self._event_type, self._event_start, payload, first)
        self._silent = True
        return True

    def _send(self, payload_type: int, timestamp: int, payload: bytes, marker: bool) -> None:
        if self._socket is None or self.remote is None:
            return
        self._sequence = (self._sequence + 1) & 0xFFFF
        second = payload_type | (0x80 if marker else 0)
        header = _HEADER.pack(_VERSION << 6, second, self._sequence, timestamp, self._ssrc)
        try:
            self._socket.sendto(header + payload, self.remote)
        except OSError:
            self.counters["socket_error"] += 1
            return
        self.counters["sent"] += 1

    # In

    def _readable(self, bound: socket.socket) -> None:
        for _ in range(_READ_AT_ONCE):
            try:
                data, source = bound.recvfrom(_MAX_PACKET)
            except BlockingIOError:
                return
            except OSError:
                self.counters["socket_error"] += 1
                return
            self._receive(data, source)
            if self._socket is None:
                return

    def _receive(self, data: bytes, source: Address) -> None:
        try:
            packet = parse(data, self._now())
        except MalformedPacket:
            self.counters["malformed"] += 1
            return
        self.counters["received"] += 1
        self.latest = packet
        if self._record:
            if len(self.packets) < RECORDED_PACKETS:
                self.packets.append(packet)
            else:
                self.counters["unrecorded"] += 1
        if self.codec is None:
            return
        if self._latch and source != self.remote:
            self.remote = source
        if not self._receives:
            self.counters["on_hold"] += 1
        elif packet.payload_type == self._event_type:
            self._report(self._receiver.receive(packet.timestamp, packet.payload))
        elif packet.payload_type == self._payload_type:
            self._report(self._receiver.audio(packet.timestamp))
            if self.on_frame is not None:
                self.on_frame(self._decode(packet.payload))
        else:
            self.counters["unknown_payload"] += 1

    def _report(self, digits: list[Digit]) -> None:
        for digit in digits:
            if self.on_digit is not None:
                self.on_digit(digit)


def _marked(event: Iterator[bytes | None]) -> Iterator[_Step]:
    """Each packet of an event with whether it is the first."""
    return zip(chain((True,), repeat(False)), event, strict=False)
