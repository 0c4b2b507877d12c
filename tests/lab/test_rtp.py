"""RTP as RFC 3550, 3551 and 4733 have it: paced, bit-exact, and laid on the clock where it belongs."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from lab import rtp
from lab.codec import Frame
from lab.pacer import CATCH_UP, PERIOD_S, Pacer
from lab.rtp import Packet, RtpStream
from lab.telephone_event import EVENTS, Digit, EventReceiver, payloads
from lab.timeline import EARLY, LATE, Arrival, Timeline
from media_fork import g711

PATIENCE_S = 10.0
CODES = np.arange(256, dtype=np.uint8)


@pytest_asyncio.fixture
async def stream() -> AsyncIterator[Callable[..., Awaitable[RtpStream]]]:
    made: list[RtpStream] = []

    async def open_stream(**options: Any) -> RtpStream:
        made.append(await RtpStream.open("127.0.0.1", pacer=Pacer(), **options))
        return made[-1]

    yield open_stream
    for one in made:
        one.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        await asyncio.sleep(0.005)


def connect(
    one: RtpStream, other: RtpStream, codec: str = "PCMU", payload_type: int = 0, event: int | None = 101
) -> None:
    one.start(codec, payload_type, other.local, telephone_event=event)
    other.start(codec, payload_type, one.local, telephone_event=event)


@pytest.mark.parametrize(
    ("codec", "payload_type", "decode"), [("PCMU", 0, g711.ulaw_decode), ("PCMA", 8, g711.alaw_decode)]
)
async def test_every_code_arrives_bit_exact(stream, codec: str, payload_type: int, decode):
    one, other = await stream(), await stream()
    codes = np.delete(CODES, 0x7F) if codec == "PCMU" else CODES
    spoken = np.resize(decode(codes.tobytes()), 320)
    frames = [spoken[:160], spoken[160:]]
    heard: list[Frame] = []
    other.on_frame = heard.append
    one.source = lambda: frames.pop(0) if frames else None
    connect(one, other, codec, payload_type)
    await until(lambda: len(heard) == 2, "two frames")
    assert (np.concatenate(heard) == spoken).all()
    assert [packet.payload_type for packet in other.packets] == [payload_type] * 2


async def test_g722_samples_at_16_khz_and_counts_at_8(stream):
    """RFC 3551 section 4.5.2."""
    one, other = await stream(), await stream()
    spoken = (8000 * np.sin(2 * np.pi * 5500 / 16000 * np.arange(3200))).astype(np.int16).reshape(-1, 320)
    frames = list(spoken)
    heard: list[Frame] = []
    other.on_frame = heard.append
    one.source = lambda: frames.pop(0) if frames else None
    connect(one, other, "G722", 9)
    assert one.rate == other.rate == 16000
    await until(lambda: len(heard) == 10, "ten frames")
    assert {len(packet.payload) for packet in other.packets} == {160}
    assert set(np.diff([packet.timestamp for packet in other.packets]) & 0xFFFFFFFF) == {160}
    spectrum = np.abs(np.fft.rfft(np.concatenate(heard)[1600:], 16000))
    assert spectrum.argmax() == pytest.approx(5500, abs=20)


async def test_no_frame_is_no_packet_while_the_timestamp_runs_on(stream):
    one, other = await stream(), await stream()
    silence = np.zeros(160, np.int16)
    script = [silence, silence, None, None, None, silence]
    one.source = lambda: script.pop(0) if script else None
    connect(one, other)
    await until(lambda: len(other.packets) == 3, "three packets")
    first, second, third = other.packets
    assert [packet.marker for packet in other.packets] == [True, False, True]
    assert (second.timestamp - first.timestamp) & 0xFFFFFFFF == 160
    assert (third.timestamp - second.timestamp) & 0xFFFFFFFF == 640
    assert (third.sequence - second.sequence) & 0xFFFF == 1


class ManualTime:
    """An event loop's clock that a test moves; what is due runs when the clock passes, however late."""

    def __init__(self) -> None:
        self.now = 5.0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Any:
        entry = (when, callback)
        self._due.append(entry)
        return SimpleNamespace(cancel=lambda: self._due.remove(entry))

    def pass_to(self, now: float) -> None:
        self.now = max(now, self.now)
        while due := [entry for entry in self._due if entry[0] <= self.now]:
            self._due.remove(due[0])
            due[0][1]()


def test_late_timers_do_not_make_the_pace_drift() -> None:
    clock, ticks = ManualTime(), []
    Pacer(clock).add("test", lambda: ticks.append(clock.now))
    for step in range(1, 501):
        clock.pass_to(5.0 + step * 0.0213)
    assert len(ticks) == int(500 * 0.0213 / PERIOD_S)


def test_a_stall_is_made_up_for_and_a_long_one_skipped() -> None:
    clock, ticks = ManualTime(), []
    pacer = Pacer(clock)
    pacer.add("test", lambda: ticks.append(clock.now))
    clock.pass_to(5.3001)
    assert (len(ticks), pacer.skipped) == (15, 0)
    clock.pass_to(7.3001)
    assert len(ticks) == 15 + CATCH_UP + 1 and pacer.skipped == 100 - CATCH_UP - 1
    clock.pass_to(7.3601)
    assert len(ticks) == 15 + CATCH_UP + 1 + 3


def test_one_that_fails_is_dropped_and_the_others_go_on() -> None:
    clock, ticks = ManualTime(), []
    pacer = Pacer(clock)

    def fails() -> None:
        raise RuntimeError("broken source")

    pacer.add("broken", fails)
    pacer.add("sound", lambda: ticks.append(clock.now))
    with pytest.raises(RuntimeError, match="broken source"):
        clock.pass_to(5.0201)
    clock.pass_to(5.1001)
    assert len(ticks) == 4


async def test_hold_sends_nothing_and_hears_nothing(stream):
    one, other = await stream(), await stream()
    heard: list[Frame] = []
    other.on_frame = heard.append
    one.source = lambda: np.zeros(160, np.int16)
    connect(one, other)
    await until(lambda: len(heard) > 2, "frames")
    other.hold(send=True, receive=False)
    count = len(heard)
    await until(lambda: other.counters["on_hold"] > 3, "packets not heard")
    assert len(heard) == count
    one.hold(send=False, receive=True)
    sent = one.counters["sent"]
    other.source = lambda: np.zeros(160, np.int16)
    await until(lambda: one.counters["received"] > 5, "the other side's packets")
    assert one.counters["sent"] == sent


async def test_latching_answers_to_where_packets_come_from(stream):
    behind_nat, other, elsewhere = await stream(), await stream(), await stream()
    behind_nat.source = other.source = lambda: np.zeros(160, np.int16)
    behind_nat.start("PCMU", 0, other.local)
    other.start("PCMU", 0, elsewhere.local, latch=True)
    await until(lambda: behind_nat.counters["received"] > 2, "packets at the true source")
    assert other.remote == behind_nat.local


async def test_digits_arrive_once_each_with_their_duration(stream):
    one, other = await stream(), await stream()
    digits: list[Digit] = []
    other.on_digit = digits.append
    one.source = lambda: np.zeros(160, np.int16)
    connect(one, other)
    await one.send_digits("1#D", duration_ms=100)
    await until(lambda: len(digits) == 3, "three digits")
    assert digits == [Digit("1", 100), Digit("#", 100), Digit("D", 100)]
    events = [packet for packet in other.packets if packet.payload_type == 101]
    starts = [packet.timestamp for packet in events if packet.marker]
    assert len(starts) == len({packet.timestamp for packet in events}) == 3
    ends = [packet for packet in events if packet.timestamp == starts[0] and packet.payload[1] & 0x80]
    assert [struct.unpack("!H", packet.payload[2:])[0] for packet in ends] == [800] * 3


async def test_digits_need_telephone_event_and_must_be_digits(stream):
    one, other = await stream(), await stream()
    connect(one, other, event=None)
    with pytest.raises(RuntimeError, match="not negotiated"):
        await one.send_digits("1")
    connect(one, other)
    with pytest.raises(ValueError, match="'x' is no DTMF digit"):
        await one.send_digits("1x")


async def test_closing_lets_go_of_who_waits_for_digits(stream):
    one, other = await stream(), await stream()
    connect(one, other)
    sending = asyncio.ensure_future(one.send_digits("0123456789"))
    await until(lambda: other.counters["received"] > 1, "the first event packets")
    one.close()
    await asyncio.wait_for(sending, PATIENCE_S)


@given(st.text(EVENTS, min_size=1, max_size=6), st.integers(40, 400), st.data())
def test_a_digit_survives_any_loss_that_leaves_one_packet_of_it(
    digits: str, duration_ms: int, data: st.DataObject
) -> None:
    receiver = EventReceiver()
    received = ""
    timestamp = 1000
    for digit in digits:
        packets = list(payloads(digit, duration_ms))
        kept = data.draw(st.sets(st.sampled_from(range(len(packets))), min_size=1))
        for place in sorted(kept):
            received += "".join(done.digit for done in receiver.receive(timestamp, packets[place]))
        timestamp += 8 * duration_ms + 1600
        received += "".join(done.digit for done in receiver.audio(timestamp - 160))
    assert received == digits


def test_audio_beside_an_event_does_not_end_it() -> None:
    receiver = EventReceiver()
    first, *_, last = payloads("5", 160)
    assert receiver.receive(1000, first) == []
    assert receiver.audio(1160) == []
    assert receiver.receive(1000, last) == [Digit("5", 160)]


@given(st.binary(max_size=80))
def test_any_bytes_are_a_packet_or_refused(data: bytes) -> None:
    try:
        packet = rtp.parse(data, 0.0)
    except rtp.MalformedPacket:
        return
    assert len(packet.payload) <= len(data) - 12


def test_csrc_extension_and_padding_are_not_payload() -> None:
    header = struct.pack("!BBHII", 0x80 | 0x20 | 0x10 | 1, 0x80 | 8, 5, 6, 7)
    packet = rtp.parse(header + b"CSRC" + b"\xbe\xde\x00\x01EXT!" + b"payload" + b"\0\0\3", 1.0)
    assert packet == Packet(1.0, 5, 6, 8, b"payload", True, 7)


@pytest.mark.parametrize(
    "data", [b"", b"\x80" * 11, b"\x00" * 12, b"\x80\xc8" + bytes(20), b"\x9f" + bytes(11), b"\x90" + bytes(13)]
)
def test_what_is_no_rtp_is_refused(data: bytes) -> None:
    with pytest.raises(rtp.MalformedPacket):
        rtp.parse(data, 0.0)


async def test_malformed_and_foreign_packets_are_counted_only(stream):
    one, other = await stream(), await stream()
    heard: list[Frame] = []
    other.on_frame = heard.append
    connect(one, other)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=other.local
    )
    transport.sendto(b"garbage")
    transport.sendto(struct.pack("!BBHII", 0x80, 96, 1, 1, 1) + b"x")
    transport.sendto(struct.pack("!BBHII", 0x80, 101, 1, 1, 1) + b"x")
    await until(lambda: other.counters["received"] == 2, "two packets")
    assert other.counters["malformed"] == 1 and other.counters["unknown_payload"] == 1 and heard == []
    transport.close()


async def test_a_full_port_range_is_named(stream):
    taken = await stream()
    port = taken.local[1]
    even = port - port % 2
    with pytest.raises(OSError, match=r"no free RTP port on 127\.0\.0\.1"):
        taken_too = await RtpStream.open("127.0.0.1", range(even, even + 2), pacer=Pacer())
        try:
            await RtpStream.open("127.0.0.1", range(even, even + 2), pacer=Pacer())
        finally:
            taken_too.close()


def packet(time: float, timestamp: int, ssrc: int = 1) -> Packet:
    return Packet(time, 0, timestamp & 0xFFFFFFFF, 0, b"", False, ssrc)


def test_jitter_does_not_tear_the_line() -> None:
    arrival = Arrival()
    places = [arrival.position(packet(100 + 0.02 * n + jitter, 0xFFFFFF00 + 160 * n)) for n, jitter in
              enumerate((0.0, 0.06, 0.01, -0.01, 0.09))]  # fmt: skip
    assert np.diff(places).tolist() == [160] * 4


def test_a_stalled_sender_is_laid_where_it_arrived() -> None:
    arrival = Arrival()
    first = arrival.position(packet(100.0, 0))
    assert arrival.position(packet(100.02 + LATE / 8000 + 0.01, 160)) == first + 160 + LATE + 80
    assert arrival.position(packet(100.02 + LATE / 8000 + 0.03, 320)) == first + 320 + LATE + 80


def test_a_leap_of_the_timestamp_or_another_source_is_laid_where_it_arrived() -> None:
    arrival = Arrival()
    first = arrival.position(packet(100.0, 0))
    assert arrival.position(packet(100.02, EARLY + 1000)) == first + 160
    assert arrival.position(packet(100.04, 5, ssrc=2)) == first + 320


@given(st.lists(st.tuples(st.integers(-400, 4000), st.integers(1, 160)), max_size=20))
def test_the_line_holds_what_was_placed_last(frames: list[tuple[int, int]]) -> None:
    line = Timeline()
    expected = np.zeros(5000, np.int16)
    for number, (place, length) in enumerate(frames, 1):
        line.place(8000 + place, np.full(length, number, np.int16), 8000)
        start, end = max(0, place), max(0, place + length)
        expected[start:end] = number
    samples = line.samples(1.0, 8000)
    assert (samples == expected[: len(samples)]).all() and not expected[len(samples) :].any()


def test_a_line_whose_codec_changed_is_whole_at_either_rate() -> None:
    line = Timeline()
    line.place(8000, np.full(8000, 1000, np.int16), 8000)
    line.place(16000, np.full(16000, 2000, np.int16), 16000)
    for rate in (8000, 16000):
        samples = line.samples(1.0, rate)
        assert len(samples) == 2 * rate
        # Away from the steps, around which a resampler rings.
        assert samples[rate // 10 : rate * 9 // 10] == pytest.approx(1000, abs=3)
        assert samples[rate * 11 // 10 : rate * 19 // 10] == pytest.approx(2000, abs=3)
