"""``tandem call place`` reports what its call really met."""

import asyncio
import wave
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from lab.call import Call
from lab.phone import Phone
from lab.place import CannotPlace, Probe, Report, place
from tandem.settings import Settings, load
from tests.tandem.site_files import write_site

EDGE, CARRIER = "127.0.42.1", "127.0.42.21"
TONE = np.round(8000 * np.sin(2 * np.pi * 440 / 8000 * np.arange(4000))).astype(np.int16)
"""Half a second."""


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    changes = {"edge/listen": [{"address": EDGE, "port": 5999}], "trunks/carrier/sources": [f"{CARRIER}/32"]}
    return load(write_site(tmp_path, changes), {})


@pytest.fixture
async def edge() -> AsyncIterator[Phone]:
    phone = Phone(EDGE, 5999, name="edge")
    await phone.start()
    yield phone
    await phone.stop()


def probe(**changes: object) -> Probe:
    return Probe(**({"to": "+12025550100", "from_number": "+12025550199", "listen_s": 1.5} | changes))


def talker(greets: bool, replies: bool) -> Callable[[Call], object]:
    async def answer(call: Call) -> None:
        await call.answer()
        if greets:
            await call.audio.play(TONE)
        if replies:
            await call.audio.wait_loud(20)
            await call.audio.wait_quiet(300, 20)
            await call.audio.play(TONE)

    return answer


async def placed(site: Settings, **changes: object) -> Report:
    return await asyncio.to_thread(place, site, probe(**changes))


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(TONE.tobytes())
    return path


async def test_a_call_that_is_answered_and_heard_is_good(site, edge):
    edge.on_invite = talker(greets=True, replies=False)
    report = await placed(site)
    assert report.ok
    assert report.sound_s is not None
    assert report.heard_s == pytest.approx(0.5, abs=0.1)
    assert edge.calls[0].caller == "+12025550199"


async def test_a_reply_to_what_was_said_is_timed_and_both_sides_are_written(site, edge, speech, tmp_path):
    edge.on_invite = talker(greets=True, replies=True)
    report = await placed(site, wav=speech, out=tmp_path / "call.wav", listen_s=3)
    assert report.ok
    assert report.reply_s is not None
    assert 0.1 < report.reply_s < 3
    with wave.open(str(tmp_path / "call.wav"), "rb") as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.abs(both).max(axis=0).min() > 4000


async def test_a_call_that_hears_nothing_is_bad(site, edge):
    edge.on_invite = talker(greets=False, replies=False)
    report = await placed(site)
    assert not report.ok
    assert "nothing was heard" in list(report.lines())


async def test_a_call_that_gets_no_reply_is_bad(site, edge, speech):
    edge.on_invite = talker(greets=True, replies=False)
    report = await placed(site, wav=speech)
    assert not report.ok
    assert "reply to what was said: none" in list(report.lines())


async def test_a_refused_call_is_bad_and_says_the_status(site, edge):
    async def refuse(call: Call) -> None:
        await call.reject(503, headers=[("Reason", 'SIP;cause=503;text="no worker"')])

    edge.on_invite = refuse
    report = await placed(site)
    assert not report.ok
    assert list(report.lines())[1] == 'not answered: 503 SIP;cause=503;text="no worker"'


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trunk": "nobody"}, "no trunk 'nobody'; expected one of: carrier, pbx"),
        ({"source": "carrier"}, "--source: 'carrier' does not appear to be an IPv4 or IPv6 address"),
        ({"source": "127.0.42.22"}, "this machine cannot call from 127.0.42.22; give --source"),
        ({"wav": Path("none.wav")}, "none.wav cannot be read: "),
        ({"wav": Path("none.wav"), "say": "hello"}, "--say and --wav are two ways to say something; give one"),
    ],
    ids=["trunk", "no address", "no source", "no file", "two voices"],
)
def test_what_cannot_be_placed_is_told(site, changes, expected):
    with pytest.raises(CannotPlace) as caught:
        place(site, probe(**changes))
    assert expected in str(caught.value)


def test_a_file_of_another_form_is_told_with_the_way_to_convert_it(site, tmp_path):
    path = tmp_path / "wide.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16000)
    with pytest.raises(CannotPlace, match="is not 8 kHz, 16 bit, mono; run: sox"):
        place(site, probe(wav=path))
