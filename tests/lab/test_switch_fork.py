"""The parts of the fork: playout with its prebuffer, kill and marks; frames on their way out; the connection."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator

import numpy as np
import pytest
import soxr
from websockets.asyncio.server import serve

from lab.switch.audio_fork import AudioFork, ForkRequest
from lab.switch.channel import Channel
from lab.switch.event import EventBus
from lab.switch.fork_connection import ConnectFailed, ForkConnection
from lab.switch.fork_playout import ForkPlayout
from lab.switch.jitter import Playout, Smoother
from lab.switch.media import Media
from lab.switch.profile import CallerProfile
from lab.switch.sound import FrameResampler
from tests.lab.esl_client import PATIENCE_S, until

SILENCE = np.zeros(160, np.int16)


class Marks(list[tuple[str, str]]):
    def __call__(self, name: str, cleared: bool) -> None:
        self.append((name, "cleared" if cleared else "played"))


def playout(rate: int = 8000, channel_rate: int = 8000) -> tuple[ForkPlayout, Marks]:
    marks = Marks()
    return ForkPlayout(rate, channel_rate, marks), marks


def pcm(value: int, samples: int) -> bytes:
    return np.full(samples, value, "<i2").tobytes()


def played(line: ForkPlayout, frames: int) -> np.ndarray:
    return np.concatenate([line.mix(SILENCE) for _ in range(frames)])


@pytest.mark.parametrize(
    ("rate", "channel_rate", "first", "later"),
    [(8000, 8000, 1280, 640), (16000, 8000, 2560, 1280), (24000, 8000, 3840, 1920), (16000, 16000, 1280, 640)],
)
def test_audio_waits_until_enough_is_there_and_goes_on_as_a_whole(rate, channel_rate, first, later):
    line, _ = playout(rate, channel_rate)
    line.receive(pcm(1000, first - 1))
    assert not line.buffered
    line.receive(pcm(1000, 1))
    whole = line.buffered
    assert whole > 0
    line.receive(pcm(1000, later - 1))
    assert line.buffered == whole
    line.receive(pcm(1000, 1))
    assert line.buffered > whole


def test_an_odd_byte_waits_for_the_next_frame():
    line, _ = playout()
    data = np.arange(1280, dtype="<i2").tobytes()
    line.receive(data[:1001])
    line.receive(data[1001:])
    assert np.array_equal(played(line, 8), np.arange(1280))


def test_sound_is_mixed_into_what_is_written_and_clipped():
    line, _ = playout()
    line.receive(pcm(30000, 1280))
    assert (line.mix(np.full(160, 10000, np.int16)) == 32767).all()
    assert (line.mix(np.full(160, -10000, np.int16)) == 20000).all()


def test_kill_drops_the_playout_with_the_next_frame_but_not_the_prebuffer():
    line, _ = playout()
    line.receive(pcm(1000, 1280))
    line.receive(pcm(2000, 100))
    line.kill()
    assert not line.mix(SILENCE).any() and not line.buffered
    line.receive(pcm(3000, 540))
    heard = played(line, 5)
    assert (heard[:100] == 2000).all() and (heard[100:640] == 3000).all() and not heard[640:].any()


def test_a_mark_is_reported_when_the_audio_before_it_was_played():
    line, marks = playout()
    line.receive(pcm(1000, 1280))
    line.mark("end")
    line.receive(pcm(1000, 640))
    played(line, 8)
    assert marks == []
    played(line, 1)
    assert marks == [("end", "played")]


def test_a_mark_behind_all_audio_is_reported_at_once():
    line, marks = playout()
    line.mark("idle")
    line.mix(SILENCE)
    assert marks == [("idle", "played")]


def test_kill_clears_the_marks_and_clear_marks_forgets_them():
    line, marks = playout()
    line.mark("one")
    line.receive(pcm(1000, 1280))
    line.mark("two")
    line.kill()
    line.mix(SILENCE)
    assert marks == [("one", "cleared"), ("two", "cleared")]
    line.mark("three")
    line.receive(pcm(1000, 640))
    line.clear_marks()
    played(line, 10)
    assert len(marks) == 2


def test_marks_are_bounded():
    line, marks = playout()
    for number in range(40):
        line.mark(str(number))
    line.kill()
    line.mix(SILENCE)
    assert len(marks) == 30


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_frames_become_frames_of_another_rate(rate):
    tone = (8000 * np.sin(2 * np.pi * 400 * np.arange(8000) / 8000)).astype(np.int16)
    resampler = FrameResampler(8000, rate)
    frames = [resampler.process(frame) for frame in tone.reshape(-1, 160)]
    assert {len(frame) for frame in frames} == {rate // 50}
    back = soxr.resample(np.concatenate(frames), rate, 8000)
    lags = [np.corrcoef(tone[: -400 or None][:7000], back[lag : lag + 7000])[0, 1] for lag in range(400)]
    assert max(lags) > 0.99


# A channel's media


def test_frames_that_come_unevenly_are_given_out_evenly():
    smoother = Smoother(3)
    frames = [np.full(160, value, np.int16) for value in range(6)]
    given = []
    for arriving in ([0], [], [1, 2], [], [3], [4], [5], [], []):
        for value in arriving:
            assert smoother.put(frames[value])
        taken = smoother.take()
        given.append(None if taken is None else int(taken[0]))
    assert given == [None, None, 0, 1, 2, 3, 4, 5, None]
    assert [smoother.put(frame) for frame in frames] == [True, True, True, False, False, False]
    assert len(smoother) == 3


def given_out(*ticks: list[int], depth: int = 2) -> list[int | None]:
    """What a playout gives at each tick, after these frames (numbered by their time) have come."""
    buffer = Playout(depth)
    given: list[int | None] = []
    for arriving in ticks:
        for number in arriving:
            buffer.put(np.full(160, number, np.int16), (0xFFFFFF00 + 160 * number) & 0xFFFFFFFF)
        taken = buffer.take()
        given.append(None if taken is None else int(taken[0]))
    return given


@pytest.mark.parametrize(
    ("ticks", "given"),
    [
        ([[0], [1], [2], [3]], [None, 0, 1, 2]),
        ([[0, 1], [], [2, 3], []], [0, 1, 2, 3]),
        ([[0, 1], [], [], [2, 3], [4]], [0, 1, None, 3, 4]),
        ([[0, 1], [], [4], [5], [6], []], [0, 1, None, None, 4, 5]),
        ([[0], [], [], [], []], [None, None, 0, None, None]),
        ([[0, 1], [200], [201], []], [0, 1, 200, 201]),
    ],
    ids=["in time", "uneven", "late", "paused", "alone", "after a long pause"],
)
def test_a_bridge_keeps_the_time(ticks, given):
    assert given_out(*ticks) == given


def test_a_way_that_has_become_longer_is_accepted():
    ticks = [[0, 1], [2], [3]] + [[]] * 10 + [[number] for number in range(4, 30)]
    given = given_out(*ticks)
    assert given[-5:] == list(range(given[-5], given[-5] + 5)) and given[-1] >= 27


def test_a_lone_frame_does_not_wait_for_ever():
    smoother = Smoother(3)
    smoother.put(SILENCE)
    assert [smoother.take() is None for _ in range(4)] == [True, True, False, True]


def test_packets_of_any_length_become_frames_of_20_ms():
    _, media, _ = make_fork("ws://127.0.0.1:9")
    heard: list[np.ndarray] = []
    media.readers.append(lambda frame, sent: heard.append(frame) if sent else None)
    samples = np.arange(960, dtype=np.int16)
    for start in range(0, 960, 240):
        media._on_frame(samples[start : start + 240])
    for _ in range(9):
        media.tick()
    assert np.array_equal(np.concatenate(heard), samples)


# On a channel


class FakeStream:
    on_frame = on_digit = source = latest = None
    rate = 8000

    def close(self) -> None:
        pass


def make_fork(url: str, mix: str = "mono", rate: int = 8000, **options: int) -> tuple[AudioFork, Media, list[str]]:
    bus = EventBus(switchname="w", address="127.0.0.1")
    said: list[str] = []
    bus.subscribe(lambda event: said.append(event.subclass or event.name))
    profile = CallerProfile(direction="inbound", uuid="u", channel_name="c", destination_number="1")
    channel = Channel(bus, profile, 1)
    media = Media(channel, FakeStream())
    return AudioFork(channel, media, ForkRequest(url, mix, rate, "audio_fork", "{}", 8000), **options), media, said


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, list[str | bytes]]]:
    heard: list[str | bytes] = []

    async def listen(connection) -> None:
        async for message in connection:
            heard.append(message)

    async with serve(listen, "127.0.0.1", 0, compression=None) as running:
        yield f"ws://127.0.0.1:{running.sockets[0].getsockname()[1]}", heard


async def test_metadata_goes_first_and_each_frame_is_sent(server):
    url, heard = server
    fork, media, said = make_fork(url)
    fork.start()
    await until(lambda: "mod_audio_fork::connect" in said, lambda: str(said))
    for value in range(1, 4):
        fork.read(np.full(160, value, np.int16))
    await until(lambda: len(heard) == 4, lambda: str(heard))
    assert heard == ["{}", pcm(1, 160), pcm(2, 160), pcm(3, 160)]
    media.remove_bug(fork)
    assert said[-1] == "MEDIA_BUG_STOP"


async def test_now_and_then_two_frames_come_as_one(server):
    url, heard = server
    fork, _media, said = make_fork(url, double_frame_every=3)
    fork.start()
    await until(lambda: "mod_audio_fork::connect" in said, lambda: str(said))
    for value in range(6):
        fork.read(np.full(160, value, np.int16))
    await until(lambda: len(heard) == 5, lambda: str(heard))
    assert [len(frame) for frame in heard[1:]] == [320, 320, 640, 320]
    fork.close()


async def test_stereo_has_the_caller_left_and_what_the_caller_hears_right(server):
    url, heard = server
    fork, _media, said = make_fork(url, "stereo")
    fork.start()
    await until(lambda: "mod_audio_fork::connect" in said, lambda: str(said))
    fork.read(np.full(160, 5, np.int16))
    fork.write(np.full(160, 7, np.int16))
    await until(lambda: len(heard) == 2, lambda: str(heard))
    assert np.array_equal(np.frombuffer(heard[1], "<i2").reshape(-1, 2), np.tile([5, 7], (160, 1)))
    fork.close()


async def test_paused_sends_nothing_and_graceful_shutdown_an_empty_frame(server):
    url, heard = server
    fork, _media, said = make_fork(url)
    fork.start()
    await until(lambda: "mod_audio_fork::connect" in said, lambda: str(said))
    fork.paused = True
    fork.read(SILENCE)
    fork.paused = False
    fork.graceful_shutdown()
    fork.read(SILENCE)
    fork.send_text("too late")
    await until(lambda: len(heard) == 3, lambda: str(heard))
    assert heard == ["{}", b"", b""]
    fork.close()


async def test_a_server_that_does_not_read_is_buffered_for_two_seconds():
    reading = asyncio.Event()
    writers = []

    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b": ")[1] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            + accept
            + b"\r\nSec-WebSocket-Protocol: audio.drachtio.org\r\n\r\n"
        )
        reader._transport.pause_reading()
        await reading.wait()

    stuck = await asyncio.start_server(never_read, "127.0.0.1", 0, limit=1024)
    fork, _media, said = make_fork(f"ws://127.0.0.1:{stuck.sockets[0].getsockname()[1]}")
    fork.start()
    await until(lambda: "mod_audio_fork::connect" in said, lambda: str(said))
    loud = np.full(160, 1, np.int16)

    async def overrun() -> None:
        while "mod_audio_fork::buffer_overrun" not in said:
            for _ in range(2000):
                fork.read(loud)
            await asyncio.sleep(0)

    await asyncio.wait_for(overrun(), PATIENCE_S)
    assert said.count("mod_audio_fork::buffer_overrun") == 1
    fork.close()
    reading.set()
    for writer in writers:
        writer.close()
    stuck.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "HS: ws upgrade response not 101"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "HS: ws upgrade unauthorized"),
    ],
)
async def test_a_refused_handshake_is_named_as_libwebsockets_names_it(answer, reason):
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    connection = ForkConnection(on_text=print, on_binary=print, on_dropped=print, buffer_bytes=100)
    with pytest.raises(ConnectFailed, match=reason):
        await connection.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    server.close()


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1", "ws://no.such.host.invalid/"])
async def test_an_unusable_url_raises_what_the_module_never_reports(url):
    connection = ForkConnection(on_text=print, on_binary=print, on_dropped=print, buffer_bytes=100)
    with pytest.raises(LookupError):
        await connection.connect(url)
