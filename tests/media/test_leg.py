"""The fork's listener against what may come to it. What is malformed costs at most its own connection."""

import asyncio
import base64
import json

import pytest
from websockets.exceptions import InvalidStatus

from media_fork.g711 import ulaw_to_l16
from tests.media.fork_client import QUIET, ForkClient

UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: audio.drachtio.org\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


async def raw(plane, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.fork_port)
    writer.write(request)
    return reader, writer


async def path_of(plane, reply) -> bytes:
    return plane.url(reply).split(str(plane.fork_port), 1)[1].encode()


async def refusal(url: str) -> int:
    with pytest.raises(InvalidStatus) as refused:
        await ForkClient.connect(url)
    return refused.value.response.status_code


async def test_the_subprotocol_of_mod_audio_fork_is_chosen(plane):
    fork, _ = await plane.call()
    assert fork.connection.subprotocol == "audio.drachtio.org"
    await fork.close()


async def test_a_client_without_subprotocol_is_admitted_by_its_token(plane):
    reply = await plane.reserve()
    reader, writer = await raw(plane, (UPGRADE % await path_of(plane, reply)).replace(b"audio.drachtio.org", b"chat"))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert b"Sec-WebSocket-Protocol" not in head
    writer.close()


@pytest.mark.parametrize(
    ("path", "status"), [("/", 404), ("/v1/fork/", 403), ("/v1/fork/guess", 403), ("/v1/fork/../x", 403)]
)
async def test_other_paths_and_tokens_are_turned_away(plane, path, status):
    assert await refusal(f"ws://127.0.0.1:{plane.fork_port}{path}") == status


async def test_a_token_shown_without_an_upgrade_is_not_used_up(plane):
    reply = await plane.reserve()
    path = await path_of(plane, reply)
    reader, _ = await raw(plane, b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    fork = await plane.fork(reply)
    await fork.close()


@pytest.mark.parametrize(
    "hello",
    [
        "",
        "hello",
        "[]",
        json.dumps({"call": "call-2", "session": "SESSION"}),
        json.dumps({"call": "call-1", "session": "other"}),
        json.dumps({"call": "call-1"}),
        json.dumps({"call": "call-1", "session": "SESSION", "more": 1}),
        "x" * 100_000,
        b"\0\0" * 160,
    ],
)
async def test_a_connection_that_does_not_say_hello_as_it_should_is_dropped_with_its_session(plane, model, hello):
    bystander, other = await plane.call(call="call-0")
    reply = await plane.reserve()
    fork = await ForkClient.connect(plane.url(reply))
    await fork.send(hello.replace("SESSION", reply["session"]) if isinstance(hello, str) else hello)
    assert (await fork.wait_closed())[0] == 1008
    session = await model.session(2)
    await session.until(lambda: session.closed, "close of the model's session")
    assert session.audio == b""
    await bystander.send(QUIET)
    await other.event("input_audio_buffer.append", 2)
    await bystander.close()


async def test_a_connection_that_sends_nothing_is_dropped(unstarted, model):
    unstarted.configure(media_fork={"first_frame_ms": 200})
    await unstarted.start()
    fork = await ForkClient.connect(unstarted.url(await unstarted.reserve()))
    assert (await fork.wait_closed())[0] == 1008
    session = await model.session()
    await session.until(lambda: session.closed, "close of the model's session")
    assert unstarted.counts.labelled("legs_refused") == {"silent": 1}
    await unstarted.stop()


async def test_a_connection_that_says_hello_and_no_more_is_dropped(unstarted):
    unstarted.configure(media_fork={"first_frame_ms": 200})
    await unstarted.start()
    reply = await unstarted.reserve()
    fork = await ForkClient.connect(unstarted.url(reply))
    await fork.hello("call-1", reply["session"])
    assert (await fork.wait_closed())[0] == 1008
    await unstarted.until(lambda: len(unstarted.sessions) == 0, "end of the session")
    assert unstarted.counts.labelled("legs_refused") == {"no_audio": 1}
    await unstarted.stop()


async def test_a_handshake_that_is_never_finished_ends_the_reservation(unstarted, model):
    unstarted.configure(media_fork={"first_frame_ms": 200})
    await unstarted.start()
    reply = await unstarted.reserve()
    request = (UPGRADE % await path_of(unstarted, reply)).replace(b"Version: 13", b"Version: 12")
    reader, _ = await raw(unstarted, request)
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    session = await model.session()
    await session.until(lambda: session.closed, "close of the model's session")
    assert len(unstarted.sessions) == 0
    await unstarted.stop()


async def test_frames_that_were_read_late_go_on_together_and_in_their_place(plane):
    fork, session = await plane.call()
    before = len(session.of("input_audio_buffer.append"))
    for code in (b"\x01", b"\x02", b"\x03"):
        await fork.send(ulaw_to_l16(code * 160))
    await fork.notice(notice="dtmf", digit="#", duration_ms=100)
    await fork.send(ulaw_to_l16(b"\x04" * 160))
    await session.until(lambda: session.audio.endswith(b"\x04" * 160), "last frame")
    appends = [base64.b64decode(event["audio"]) for event in session.of("input_audio_buffer.append")[before:]]
    assert appends == [b"\x01" * 160 + b"\x02" * 160 + b"\x03" * 160, b"\x04" * 160]
    assert [event["type"] for event in session.events][-4:] == [
        "input_audio_buffer.append",
        "conversation.item.create",
        "response.create",
        "input_audio_buffer.append",
    ]


async def test_under_load_audio_reaches_the_model_whole_and_in_order(plane):
    fork, session = await plane.call()
    before = len(session.audio)
    sent = bytearray()

    async def send(count: int) -> None:
        for _ in range(count):
            codes = bytes([len(sent) // 160 % 100]) * 160
            sent.extend(codes)
            await fork.send(ulaw_to_l16(codes))

    async with asyncio.timeout(10):
        while not plane.batches.on:
            await send(50)
            await asyncio.sleep(0.01)
    for _ in range(5):
        await send(20)
        await asyncio.sleep(0.002)
    await session.until(lambda: len(session.audio) - before == len(sent), "all audio")
    assert session.audio[before:] == sent
    await plane.until(lambda: not plane.batches.on, "end of batches")


async def test_texts_that_are_not_understood_are_counted_and_ignored(plane):
    fork, session = await plane.call()
    texts = [
        "not json",
        "{}",
        "[1,2]",
        '{"notice":"dtmf","digit":"E","duration_ms":1}',
        '{"notice":"dtmf","digit":"1","duration_ms":-1}',
        '{"notice":"later","x":1}',
        '{"notice":"dtmf","digit":"1","duration_ms":1,"more":1}',
        '{"type": "mark", "data": {"name":"m"}}',
        '{"notice":"ended","why":"' + "x" * 500 + '"}',
    ]
    for text in texts:
        await fork.send(text)
    await fork.send("y" * 1_000_000)
    await fork.send(QUIET)
    await session.event("input_audio_buffer.append", 2)
    assert plane.counts.labelled("leg_texts_ignored") == {"not_understood": len(texts), "too_long": 1}
    assert fork.closed is None
    await fork.close()


async def test_a_notice_of_a_transfer_nobody_asked_for_is_counted(plane):
    fork, _ = await plane.call()
    await fork.notice(notice="transfer", id="nobody", outcome="answered", detail="")
    await plane.until(lambda: plane.counts.labelled("leg_texts_ignored") == {"unknown_transfer": 1}, "the count")
    await fork.close()


async def test_a_text_in_fragments_is_one_text_and_audio_in_fragments_one_stream(plane):
    fork, session = await plane.call()
    await fork.connection.send(iter(['{"notice":"dtmf",', '"digit":"#",', '"duration_ms":100}']))
    assert (await session.event("conversation.item.create"))["item"]["content"][0]["text"] == "[DTMF] #"
    await fork.connection.send(iter([bytes(100), bytes(221), bytes(319)]))
    await session.until(lambda: len(session.audio) == 160 + 320, "the audio")
    await fork.connection.send(iter(["z" * 10_000] * 50))
    await plane.until(lambda: plane.counts.labelled("leg_texts_ignored") == {"too_long": 1}, "the count")
    await fork.close()


@pytest.mark.parametrize(
    "junk",
    [
        b"\x82\x05hello",  # not masked
        b"\x83\x80\0\0\0\0",  # reserved opcode
        b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",  # a length of 2^64 - 1
        b"\x82\xff\0\0\0\0\x7f\xff\xff\xff\0\0\0\0",  # a length of 2 GB
        b"\x09\x80\0\0\0\0",  # a fragmented ping
        b"\x88\x81\0\0\0\0x",  # a close of one byte
        b"\xff" * 5000,
    ],
)
async def test_broken_framing_costs_its_connection_and_no_other(plane, junk):
    bystander, other = await plane.call(call="call-0")
    reply = await plane.reserve()
    reader, writer = await raw(plane, UPGRADE % await path_of(plane, reply))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(junk)
    await asyncio.wait_for(reader.read(), 5)
    await plane.until(lambda: len(plane.sessions) == 1, "end of the broken session")
    await bystander.send(QUIET)
    await other.event("input_audio_buffer.append", 2)
    writer.close()
    await bystander.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\0\0\0\0\r\n\r\n",
        b"POST /v1/fork/x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /v1/fork/\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"INVITE sip:x SIP/2.0\r\nVia: y\r\n\r\n",
        b"A" * 40_000,
    ],
)
async def test_what_is_no_handshake_is_answered_or_closed(plane, request_bytes):
    reader, writer = await raw(plane, request_bytes)
    try:
        answer = await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        answer = b""
    assert answer == b"" or answer.split()[1] in (b"400", b"403", b"404")
    writer.close()
    fork, _ = await plane.call()
    await fork.close()


async def test_a_fork_that_stops_reading_makes_playout_wait_and_nothing_grows(plane):
    fork, session = await plane.call()
    conversation = next(iter(plane.sessions._by_id.values())).conversation
    conversation.on_fork_full(True)
    await session.say("resp_1", "item_1", b"\x10" * 4000)
    await plane.until(lambda: plane.counts.model_bytes == 4000, "the model's audio")
    assert fork.audio == b""
    conversation.on_fork_full(False)
    await fork.until(lambda: len(fork.audio) >= 8000, "audio")
    await fork.close()


async def test_a_model_that_stops_reading_costs_caller_audio_which_is_counted(plane):
    fork, session = await plane.call()
    session.connection.transport.pause_reading()
    before = plane.counts.leg_frames
    for _ in range(1500):
        await fork.send(bytes(32000))
        if plane.counts.caller_frames_dropped:
            break
    await plane.until(lambda: plane.counts.caller_frames_dropped > 0, "dropped frames")
    session.connection.transport.resume_reading()
    dropped = plane.counts.caller_frames_dropped
    await session.until(lambda: len(session.audio) >= 160 + 16000, "audio again")
    assert plane.counts.leg_frames > before
    assert dropped >= 1
    await fork.close()
