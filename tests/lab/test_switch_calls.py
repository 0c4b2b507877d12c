"""Calls through the lab's switch: who may call, what is heard, what is recorded, and how it all ends."""

import asyncio
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soxr

from lab import hearing
from lab.phone import Call, Phone
from lab.site import STRANGER
from media_fork import g711
from tests.lab.esl_client import PATIENCE_S, until
from tests.lab.switch_rig import CALLER, NUMBER, LabRig

NOISE = g711.ulaw_decode(np.random.default_rng(3).integers(0, 127, 8000, dtype=np.uint8).tobytes())
"""A second that µ-law carries exactly."""


@pytest.fixture
async def rig(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[LabRig]:
    async with LabRig(tmp_path, getattr(request, "param", None)) as rig:
        yield rig
        await rig.clean()
        await until(lambda: not rig.switch.sessions, lambda: f"the end of {rig.switch.sessions}")
    for counter in ("task_errors", "session_errors", "api_errors"):
        assert not rig.switch.counters[counter], counter


def small(data: dict) -> None:
    data["workers"]["worker-1"]["max_calls"] = 1


def on_line(line: np.ndarray, sought: np.ndarray) -> bool:
    return sought.tobytes() in line.tobytes()


# Who may call


async def test_only_the_edge_may_call(rig):
    stranger = Phone(rig.site.address(STRANGER), name="stranger")
    await stranger.start()
    call = await stranger.invite(NUMBER, proxy=rig.sip, from_number=CALLER)
    end = await call.wait_ended(PATIENCE_S)
    assert end.status == 403
    assert rig.switch.counters["refused_by_acl"] == 1 and rig.switch.total_sessions == 0
    await stranger.stop()


@pytest.mark.parametrize("rig", [small], indirect=True)
async def test_a_full_switch_says_so_to_calls_and_to_options(rig):
    calls = [await rig.call() for _ in range(2)]
    refused = await rig.invite()
    assert (await refused.wait_ended(PATIENCE_S)).status == 503
    assert refused.final.headers["Retry-After"] == "300"
    assert await rig.edge.options(rig.sip) == 503
    assert await calls[0][1].api(f"originate {rig.dial_string()} &park()") == "-ERR DESTINATION_OUT_OF_ORDER\n"
    await calls[0][0].cancel()
    await until(lambda: len(rig.switch.sessions) == 1, lambda: "room")
    assert await rig.edge.options(rig.sip) == 200
    call, _ = await rig.call()
    await call.cancel()


async def test_requests_outside_calls(rig):
    assert await rig.edge.options(rig.sip) == 200
    response = await rig.edge.endpoint.request(
        "MESSAGE", f"sip:x@{rig.address}:{rig.sip_port}", from_uri=rig.edge.uri, next_hop=rig.sip
    )
    assert response.code >= 400


# What is heard


async def test_parked_without_send_silence_nothing_is_sent(rig):
    call, esl = await rig.call()
    await esl.send("myevents")
    await esl.run("answer")
    await call.wait_answered(PATIENCE_S)
    assert (await rig_fork(rig, esl)).texts == ["{}"]
    await call.audio.wait_quiet(300, PATIENCE_S)
    assert call.audio.stream.counters["received"] == 0


async def rig_fork(rig, esl):
    await esl.send("event plain CUSTOM mod_audio_fork::connect")
    return await rig.fork(esl)


@pytest.mark.parametrize(
    ("codec", "rate"),
    [("PCMU", 8000), ("PCMA", 8000), ("PCMU", 16000), ("PCMU", 24000), ("G722", 8000), ("G722", 16000)],
)
async def test_the_fork_hears_the_caller_and_the_caller_the_fork(rig, codec, rate):
    call, esl = await rig.answered(codecs=(codec,))
    fork = await rig.fork(esl, rate=rate, stream_rate=rate)
    assert call.codec == codec
    await call.audio.play(NOISE)
    await fork.heard(0.2, rate)
    heard = np.frombuffer(fork.audio, "<i2")
    if rate == 8000 and codec != "G722":
        assert on_line(heard, NOISE if codec == "PCMU" else g711.alaw_decode(g711.alaw_encode(NOISE)))
    else:
        heard = heard if rate == 8000 else soxr.resample(heard, rate, 8000)
        assert hearing.likeness(heard, NOISE) > hearing.ALIKE
    tone = (8000 * np.sin(2 * np.pi * 500 * np.arange(rate) / rate)).astype("<i2")
    await fork.send(tone.tobytes())
    await call.audio.wait_loud(PATIENCE_S)
    await call.audio.wait_quiet(300, PATIENCE_S)
    assert hearing.tone_seconds(call.audio.heard(), 500) > 0.5
    assert hearing.loud_seconds(call.audio.heard()) == pytest.approx(1, abs=0.05)
    await call.hangup()
    await asyncio.wait_for(fork.closed.wait(), PATIENCE_S)
    assert fork.connection.close_code == 1000


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "G722"])
async def test_a_bridge_passes_sound_both_ways(rig, codec):
    called: list[Call] = []

    async def pick_up(call: Call) -> None:
        called.append(call)
        await call.answer()

    rig.edge.on_invite = pick_up
    rig.edge._codecs = (codec,)
    call, esl = await rig.answered(codecs=("PCMU",))
    assert await esl.api(f"originate {rig.dial_string(origination_uuid='b')} &park()") == "+OK b\n"
    await esl.api(f"uuid_bridge {esl.uuid} b")
    await esl.event("CHANNEL_BRIDGE")
    assert called[0].codec == codec
    await asyncio.gather(call.audio.play(NOISE), called[0].audio.play(NOISE[::-1].copy()))
    await asyncio.gather(call.audio.wait_quiet(200, PATIENCE_S), called[0].audio.wait_quiet(200, PATIENCE_S))
    if codec == "PCMU":
        assert on_line(called[0].audio.heard(), NOISE)
        assert on_line(call.audio.heard(), NOISE[::-1])
    else:
        assert hearing.likeness(called[0].audio.heard(), NOISE) > hearing.ALIKE
    await called[0].dtmf("42")
    await call.audio.wait_digits("42", PATIENCE_S)
    await call.hangup()
    assert (await called[0].wait_ended(PATIENCE_S)).reason_header == 'Q.850;cause=16;text="NORMAL_CLEARING"'


async def test_early_media_is_heard_before_the_answer(rig):
    call, esl = await rig.call()
    await esl.send("myevents")
    await esl.run("pre_answer")
    await esl.execute("playback", "tone_stream://%(500,0,440)")
    await call.audio.wait_loud(PATIENCE_S)
    assert call.final is None and call.provisionals[-1].code == 183
    await call.cancel()
    assert (await call.wait_ended(PATIENCE_S)).status == 487


async def test_wav_files_are_played_at_their_rate(rig, tmp_path):
    path = tmp_path / "tone.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", ""))
        tone = (8000 * np.sin(2 * np.pi * 500 * np.arange(8000) / 16000)).astype("<i2")
        file.writeframes(np.repeat(tone, 2).tobytes())
    call, esl = await rig.answered()
    done = await esl.run("playback", str(path))
    assert done["Application-Response"] == "FILE PLAYED"
    await call.audio.wait_quiet(200, PATIENCE_S)
    assert hearing.loud_seconds(call.audio.heard()) == pytest.approx(0.5, abs=0.03)
    assert (await esl.run("playback", "/dev/null"))["Application-Response"] == "FILE NOT FOUND"


async def test_what_the_caller_says_is_recorded_until_it_is_silent(rig, tmp_path):
    call, esl = await rig.answered()
    path = tmp_path / "message.wav"
    await esl.execute("record", f"{path} 20 200 1")
    await esl.event("RECORD_START", Record_File_Path=str(path))
    await call.audio.play(NOISE)
    stopped = await esl.event("RECORD_STOP")
    assert stopped["variable_silence_hits_exhausted"] == "true"
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        recorded = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert on_line(recorded, NOISE)
    assert 1.9 < len(recorded) / 8000 < 3.5


async def test_a_recording_that_cannot_be_written_ends_the_call(rig):
    call, esl = await rig.answered()
    await esl.execute("record", "/nonexistent/x.wav 5")
    assert (await call.wait_ended(PATIENCE_S)).reason_header == 'Q.850;cause=27;text="DESTINATION_OUT_OF_ORDER"'


# How it ends


async def test_a_caller_without_media_is_gone(rig):
    call, esl = await rig.call()
    await esl.send("myevents")
    await esl.run("set", "media_timeout=200")
    await esl.run("answer")
    await call.wait_answered(PATIENCE_S)
    call.audio.comfort = False
    assert (await call.wait_ended(PATIENCE_S)).reason_header == 'SIP;cause=804;text="MEDIA_TIMEOUT"'


async def test_a_parked_leg_for_which_nobody_comes_ends_itself(rig):
    rig.edge.on_invite = lambda call: call.answer()
    esl = await rig.listener()
    dial = rig.dial_string(origination_uuid="orphan", park_timeout="1:ALLOTTED_TIMEOUT")
    assert await esl.api(f"originate {dial} &park()") == "+OK orphan\n"
    assert (await esl.event("CHANNEL_HANGUP"))["Hangup-Cause"] == "ALLOTTED_TIMEOUT"


async def test_a_stopping_switch_hangs_up_its_calls(tmp_path):
    async with LabRig(tmp_path) as rig:
        answered, _ = await rig.answered()
        ringing, _ = await rig.call()
        await rig.switch.stop()
        assert (await answered.wait_ended(PATIENCE_S)).reason_header == 'SIP;cause=701;text="SYSTEM_SHUTDOWN"'
        assert (await ringing.wait_ended(PATIENCE_S)).status == 480
        assert not rig.switch.sessions


async def test_many_calls_at_once_all_end_and_leave_nothing(rig):
    pairs = await asyncio.gather(*(rig.call() for _ in range(20)))
    by_uuid = {esl.uuid for _, esl in pairs}
    assert len(by_uuid) == 20
    for _, esl in pairs:
        await esl.execute("answer")
    await asyncio.gather(*(call.wait_answered(PATIENCE_S) for call, _ in pairs))
    await asyncio.gather(*(call.hangup() for call, _ in pairs))
    await until(lambda: not rig.switch.sessions, lambda: f"{rig.switch.sessions}")
    assert not rig.switch.pacer._streams if hasattr(rig.switch.pacer, "_streams") else True
