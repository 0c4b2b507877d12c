"""Phones that speak, listen, hold, transfer and refuse, as the scenarios need them."""

import asyncio
import random

import numpy as np
import pytest

from lab import hearing, sdp
from lab.dialog import DialogEnded, End
from lab.phone import Call, Phone
from lab.transferee import Transferee, answers, reports
from media_fork import g711
from tests.lab.sip_peer import PATIENCE_S, RawPeer

NOISE = g711.ulaw_decode(np.random.default_rng(7).integers(0, 127, 4000, dtype=np.uint8).tobytes())
"""Half a second that G.711 carries exactly."""
TONE_HZ = 320.0
TONE = (6000 * np.sin(np.arange(3200) * 2 * np.pi * TONE_HZ / hearing.RATE)).astype(np.int16)


class Desk:
    """A phone that answers, and the calls it had."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self.calls: list[Call] = []
        self._came = asyncio.Event()
        phone.on_invite = self.on_invite

    @property
    def address(self):
        return (self.phone.address, self.phone.port)

    async def on_invite(self, call: Call) -> None:
        self.calls.append(call)
        self._came.set()
        await call.ringing()
        await call.answer()

    async def call(self) -> Call:
        await asyncio.wait_for(self._came.wait(), PATIENCE_S)
        return self.calls[0]


@pytest.fixture
async def caller(phone) -> Phone:
    return await phone("caller")


@pytest.fixture
async def desk(phone) -> Desk:
    return Desk(await phone("desk"))


async def connect(caller: Phone, desk: Desk, **options) -> tuple[Call, Call]:
    ours = await caller.invite("2001", proxy=desk.address, from_number="+12025550147", **options)
    await ours.wait_answered(PATIENCE_S)
    theirs = await desk.call()
    await theirs.wait_answered(PATIENCE_S)
    return ours, theirs


async def ends(call: Call, desk: Desk) -> None:
    await call.hangup()
    for other in desk.calls:
        await other.wait_ended(PATIENCE_S)


@pytest.mark.parametrize("codecs", [("PCMU",), ("PCMA",), ("PCMA", "PCMU")])
async def test_both_hear_each_other_bit_exact(caller, desk, codecs):
    ours, theirs = await connect(caller, desk, codecs=codecs)
    assert ours.codec == theirs.codec == codecs[0]
    exact = NOISE if codecs[0] == "PCMU" else g711.alaw_decode(g711.alaw_encode(NOISE))
    await asyncio.gather(ours.audio.play(exact), theirs.audio.play(exact[::-1].copy()))
    await asyncio.gather(ours.audio.wait_quiet(100, PATIENCE_S), theirs.audio.wait_quiet(100, PATIENCE_S))
    assert find(theirs.audio.heard(), exact) is not None
    assert find(ours.audio.heard(), exact[::-1]) is not None
    assert find(ours.audio.spoken(), exact) is not None
    await ends(ours, desk)


async def test_g722_carries_what_g711_cannot(phone):
    caller, desk = await phone("caller"), Desk(await phone("desk", codecs=("G722", "PCMU")))
    high = (8000 * np.sin(2 * np.pi * 5500 / 16000 * np.arange(16000))).astype(np.int16)
    ours, theirs = await connect(caller, desk, codecs=("G722", "PCMA"))
    assert ours.codec == theirs.codec == "G722"
    await asyncio.gather(ours.audio.play(high, rate=16000), theirs.audio.play(TONE))
    await asyncio.gather(ours.audio.wait_quiet(100, PATIENCE_S), theirs.audio.wait_quiet(100, PATIENCE_S))
    assert hearing.loud_seconds(theirs.audio.heard()) < 0.1, "5.5 kHz is beyond a line of 8 kHz"
    heard = theirs.audio.heard(rate=16000)
    assert np.abs(np.fft.rfft(heard[np.abs(heard) > 0][1600:14400], 16000)).argmax() == pytest.approx(5500, abs=20)
    assert hearing.tone_seconds(ours.audio.heard(), TONE_HZ) > 0.2, "8 kHz audio is played at the line's rate"
    await ends(ours, desk)


async def test_a_re_invite_may_change_the_codec(phone):
    caller, desk = await phone("caller"), Desk(await phone("desk", codecs=("G722", "PCMU")))
    ours, theirs = await connect(caller, desk, codecs=("PCMU",))
    assert (await ours.offer_again(("G722",))).code == 200
    assert ours.codec == theirs.codec == "G722"
    assert (await ours.offer_again(("PCMA",))).code == 488
    assert ours.codec == theirs.codec == "G722"
    await ours.audio.play(TONE)
    await theirs.audio.wait_quiet(100, PATIENCE_S)
    assert hearing.tone_seconds(theirs.audio.heard(), TONE_HZ) > 0.2
    await ends(ours, desk)


def find(line: np.ndarray, sought: np.ndarray) -> int | None:
    """Sample at which ``sought`` lies on ``line``, exactly."""
    place = line.tobytes().find(sought.tobytes())
    return None if place < 0 else place // 2


async def test_the_line_shows_when_something_was_said(caller, desk):
    ours, theirs = await connect(caller, desk)
    began = ours.audio.now()
    await ours.audio.play(TONE)
    ended = ours.audio.now()
    await theirs.audio.wait_quiet(100, PATIENCE_S)
    spoken = hearing.spans(ours.audio.spoken())
    assert len(spoken) == 1 and began - 0.02 <= spoken[0].start and spoken[0].end <= ended + 0.04
    assert spoken[0].seconds == pytest.approx(0.4, abs=0.021)
    heard = hearing.spans(theirs.audio.heard())
    assert len(heard) == 1 and heard[0].seconds == pytest.approx(0.4, abs=0.021)
    await ends(ours, desk)


async def test_stop_playing_cuts_at_once_and_says_so(caller, desk):
    ours, theirs = await connect(caller, desk)
    first, second = ours.audio.play(np.tile(TONE, 20)), ours.audio.play(TONE)
    await theirs.audio.wait_loud(PATIENCE_S)
    ours.audio.stop_playing()
    assert await first is False and await second is False
    await theirs.audio.wait_quiet(200, PATIENCE_S)
    assert hearing.loud_seconds(theirs.audio.heard()) < 7.9
    await ends(ours, desk)


async def test_silence_is_sent_while_nothing_is_played_unless_told_not_to(caller, desk):
    ours, theirs = await connect(caller, desk)
    await until_received(theirs, 5)
    ours.audio.comfort = False
    theirs.audio.stream.counters.clear()
    await ours.audio.wait_quiet(300, PATIENCE_S)
    assert theirs.audio.stream.counters["received"] <= 2
    await ends(ours, desk)


async def until_received(call: Call, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while call.audio.stream.counters["received"] < count:
            await asyncio.sleep(0.01)


async def test_digits_are_heard(caller, desk):
    ours, theirs = await connect(caller, desk)
    await ours.dtmf("12#*", duration_ms=60, pause_ms=40)
    await theirs.audio.wait_digits("12#*", PATIENCE_S)
    with pytest.raises(TimeoutError, match=r"received '12#\*'"):
        await theirs.audio.wait_digits("9", 0.05)
    await ends(ours, desk)


async def test_who_calls_whom_is_told(caller, desk):
    ours, theirs = await connect(caller, desk, from_name='Eve "x"', headers=[("X-A", "b")])
    assert (theirs.called, theirs.caller, theirs.caller_name, theirs.header("x-a")) == (
        "2001", "+12025550147", 'Eve "x"', "b",
    )  # fmt: skip
    assert ours.remote_media_address == "127.0.0.1"
    assert [response.code for response in ours.provisionals] == [100, 180] and ours.final_status == 200
    await ends(ours, desk)


async def test_hold_and_resume_from_either_side(caller, desk):
    ours, theirs = await connect(caller, desk)
    for holder, held in ((ours, theirs), (theirs, ours)):
        assert (await holder.hold()).code == 200
        assert held.local_sdp.direction == "recvonly"
        sent = held.audio.stream.counters["sent"]
        received = held.audio.stream.counters["received"]
        await until_received(held, received + 5)
        assert held.audio.stream.counters["sent"] == sent
        assert (await holder.resume()).code == 200
        assert held.local_sdp.direction == "sendrecv"
        await until_received(holder, holder.audio.stream.counters["received"] + 3)
    await ends(ours, desk)


async def test_hold_with_inactive_stops_both_ways(caller, desk):
    ours, theirs = await connect(caller, desk)
    await ours.hold("inactive")
    assert theirs.local_sdp.direction == "inactive"
    sent = ours.audio.stream.counters["sent"], theirs.audio.stream.counters["sent"]
    await ours.audio.wait_quiet(200, PATIENCE_S)
    assert (ours.audio.stream.counters["sent"], theirs.audio.stream.counters["sent"]) == sent
    await ends(ours, desk)


async def test_a_refused_hold_leaves_the_call_as_it_was(caller, desk):
    ours, theirs = await connect(caller, desk)
    theirs.handlers["INVITE"] = answers(488)
    assert (await ours.hold()).code == 488
    await until_received(theirs, theirs.audio.stream.counters["received"] + 3)
    assert (await theirs.hold()).code == 200
    assert ours.local_sdp.direction == "recvonly"
    await ends(ours, desk)


async def test_a_late_offer_is_answered_in_the_ack(caller, desk):
    ours, theirs = await connect(caller, desk, body=b"")
    assert ours.dialog.invite.body == b"" and b"m=audio" in ours.dialog.ack.body
    ours.audio.play(TONE)
    await theirs.audio.wait_loud(PATIENCE_S)
    await ends(ours, desk)


async def test_early_media_is_heard_before_the_answer(caller, desk):
    async def announce(call: Call) -> None:
        await call.ringing(183, early_media=True)
        await call.audio.play(TONE)
        await call.reject(404, headers=[("Reason", 'Q.850;cause=1;text="UNALLOCATED_NUMBER"')])

    desk.phone.on_invite = announce
    call = await caller.invite("2001", proxy=desk.address, from_number="1000")
    await call.audio.wait_loud(PATIENCE_S)
    end = await call.wait_ended(PATIENCE_S)
    assert end == End("peer", "refused", 404, 'Q.850;cause=1;text="UNALLOCATED_NUMBER"')
    assert hearing.loud_seconds(call.audio.heard(from_start=True)) == pytest.approx(0.4, abs=0.05)
    with pytest.raises(DialogEnded, match="status 404"):
        await call.wait_answered(1)


async def test_a_rejected_call_has_its_status(caller, desk):
    async def decline(call: Call) -> None:
        await call.reject(603, "No Thanks")

    desk.phone.on_invite = decline
    call = await caller.invite("2001", proxy=desk.address, from_number="1000")
    assert (await call.wait_ended(PATIENCE_S)).status == 603
    assert call.final.phrase == "No Thanks"


async def test_a_ringing_call_is_cancelled(caller, desk):
    async def ring_on(call: Call) -> None:
        desk.calls.append(call)
        await call.ringing()
        await call.wait_ended(PATIENCE_S)
        await call.answer()

    desk.phone.on_invite = ring_on
    call = await caller.invite("2001", proxy=desk.address, from_number="1000")
    assert (await call.wait_ringing(PATIENCE_S)).code == 180
    await call.cancel()
    assert (await call.wait_ended(PATIENCE_S)) == End("us", "cancel", 487)
    assert (await desk.calls[0].wait_ended(PATIENCE_S)).cause == "cancel"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 9\r\n", 488),
        (b"this is not SDP", 488),
        (b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio x RTP/AVP 0\r\n", 488),
        (b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 0 128\r\n", 488),
        (b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 4000 RTP/SAVP 0\r\n", 488),
        (b"v=0\r\nc=IN IP4 host.invalid\r\nm=audio 4000 RTP/AVP 0\r\n", 488),
    ],
)
async def test_an_offer_without_common_codec_is_refused(caller, desk, body, status):
    call = await caller.invite("2001", proxy=desk.address, from_number="1000", body=body)
    end = await call.wait_ended(PATIENCE_S)
    assert end.status == status and call.final.headers.get("Warning") and desk.calls == []


async def test_an_answer_without_common_codec_ends_the_call(caller, raw: RawPeer):
    call = await caller.invite("2001", proxy=raw.address, from_number="1000")
    raw.respond(await raw.request("INVITE"), 200)
    await raw.request("ACK")
    raw.respond(await raw.request("BYE"), 200)
    assert "488" in (await call.wait_ended(PATIENCE_S)).reason_header


async def test_video_beside_the_audio_is_refused_alone(caller, desk):
    offer = sdp.offer("127.0.0.1", 40000).encode() + b"m=video 40002 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n"
    ours, _ = await connect(caller, desk, body=offer)
    assert b"m=video 0 RTP/AVP 96\r\n" in ours.final.body
    await ends(ours, desk)


async def test_a_scripted_refer_reports_its_statuses(caller, desk):
    ours, theirs = await connect(caller, desk)
    theirs.handlers["REFER"] = reports(100, 180, 486, interval_s=0.01)
    referral = await ours.refer("sip:2002@127.0.0.1", headers=[("Referred-By", "<sip:us@127.0.0.1>")])
    assert referral.response_status == 202
    assert await referral.wait_done(PATIENCE_S) == 486
    assert [step.status for step in referral.progress] == [100, 180, 486]
    assert theirs.requests[0].headers["Referred-By"] == "<sip:us@127.0.0.1>"
    assert ours.end is None
    await ends(ours, desk)


async def test_a_refused_refer_leaves_the_call(caller, desk):
    ours, _ = await connect(caller, desk)
    desk.calls[0].handlers["REFER"] = answers(603)
    referral = await ours.refer("sip:2002@127.0.0.1")
    assert (referral.response_status, await referral.wait_done(1), ours.end) == (603, 603, None)
    await ends(ours, desk)


async def test_a_refer_is_really_carried_out(caller, desk, phone):
    sales = Desk(await phone("sales"))
    caller.handlers["REFER"] = transferee = Transferee(caller)
    ours, theirs = await connect(caller, desk)
    target = f"sip:sales@127.0.0.1:{sales.phone.port}?User-to-User=abc%3Bencoding%3Dhex&Via=forged"
    referral = await theirs.refer(target, headers=[("Referred-By", "<sip:desk@127.0.0.1>")])
    assert await referral.wait_done(PATIENCE_S) == 200
    assert [step.status for step in referral.progress] == [100, 180, 200]
    moved = await sales.call()
    assert (moved.called, moved.caller) == ("sales", "+12025550147")
    assert moved.header("User-to-User") == "abc;encoding=hex" and moved.header("Referred-By") == "<sip:desk@127.0.0.1>"
    assert len(moved.dialog.invite.headers.getlist("Via")) == 1
    transferee.calls[0].audio.play(TONE)
    await moved.audio.wait_loud(PATIENCE_S)
    await theirs.hangup()
    await ours.wait_ended(PATIENCE_S)
    await ends(transferee.calls[0], sales)


@pytest.mark.parametrize(("target", "status"), [("busy", 486), ("unreachable", 503)])
async def test_a_carried_out_refer_tells_failure(caller, desk, phone, target, status):
    busy = await phone("busy")

    async def refuse(call: Call) -> None:
        await call.reject(486)

    busy.on_invite = refuse
    caller.handlers["REFER"] = Transferee(caller)
    ours, theirs = await connect(caller, desk)
    host = f"127.0.0.1:{busy.port}" if target == "busy" else "nowhere.invalid"
    referral = await theirs.refer(f"sip:{target}@{host}")
    assert await referral.wait_done(PATIENCE_S) == status
    assert referral.progress[-1].terminated
    await ends(ours, desk)


async def test_replaces_takes_over_the_call_it_names(caller, desk, phone):
    ours, theirs = await connect(caller, desk)
    third = await phone("third")
    identity = f"{theirs.call_id};to-tag={theirs.dialog.local_tag};from-tag={theirs.dialog.remote_tag}"
    call = await third.invite("2001", proxy=desk.address, from_number="3", headers=[("Replaces", identity)])
    await call.wait_answered(PATIENCE_S)
    assert (await ours.wait_ended(PATIENCE_S)).by == "peer"
    wrong = await third.invite("2001", proxy=desk.address, from_number="3", headers=[("Replaces", identity)])
    assert (await wrong.wait_ended(PATIENCE_S)).status == 481
    await ends(call, desk)


async def test_info_reaches_the_handler(caller, desk):
    ours, theirs = await connect(caller, desk)
    assert (await ours.info(b"Signal=5", "application/dtmf-relay")).code == 200
    request = await theirs.wait_request("INFO", PATIENCE_S)
    assert request.body == b"Signal=5"
    await ends(ours, desk)


async def test_a_phone_that_does_not_record_keeps_nothing(phone, desk):
    quiet = await phone("load", record=False)
    ours, _ = await connect(quiet, desk)
    await until_received(ours, 5)
    assert ours.audio.rtp == [] and len(ours.audio.heard()) == 0
    await ends(ours, desk)
    assert quiet.calls == []


async def test_options_tells_silence_as_408(caller, desk):
    desk.phone.options_status = None
    assert await caller.options(desk.address, timeout_s=0.2) == 408
    desk.phone.options_status = 503
    assert await caller.options(desk.address) == 503


async def test_a_number_needs_a_proxy(caller):
    with pytest.raises(ValueError, match="no proxy is given"):
        await caller.invite("2001", from_number="1000")
    with pytest.raises(ValueError, match="names no IP address"):
        await caller.invite("sip:x@nowhere.invalid", from_number="1000")


@pytest.mark.parametrize("seed", [2, 3, 4])
async def test_a_flood_of_damaged_messages_breaks_nothing(caller, desk, raw: RawPeer, seed: int):
    broken: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
    ours, theirs = await connect(caller, desk)
    await theirs.hold()
    await (await ours.refer("sip:x@127.0.0.1")).wait_done(PATIENCE_S)
    seeds = [traced.data for traced in [*ours.messages, *theirs.messages]]
    chance = random.Random(seed)
    for _ in range(3000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data))
            data[place : place + chance.randint(0, 12)] = chance.randbytes(chance.randint(0, 6))
        raw.send(bytes(data), chance.choice([desk.address, (caller.address, caller.port)]))
        if chance.random() < 0.05:
            await asyncio.sleep(0)
    assert await caller.options(desk.address) == 200
    assert broken == []
    assert desk.phone.endpoint.counters["malformed"] > 100
    await ours.hangup()
    await theirs.wait_ended(PATIENCE_S)


async def test_stopping_a_phone_ends_its_calls(phone, desk):
    leaving = await phone("leaving")
    ours, theirs = await connect(leaving, desk)
    playing = ours.audio.play(np.tile(TONE, 20))
    await leaving.stop()
    assert await playing is False
    assert (await theirs.wait_ended(PATIENCE_S)).cause == "bye"
