"""Keys: secrets keyed in are nobody's, not even as tones; the agent presses keys itself; a caller waits with music."""

from urllib.parse import urlsplit

import numpy as np
import pytest
from aiohttp import web

from lab import hearing, tones
from lab.voice import speak
from lab.world import World
from media_fork.g711 import ulaw_decode
from tandem.outcome import RecordingState
from tests.call.caller import KEYPAD, PATIENCE_S, Caller, until
from tests.call.recordings import listen, settled
from tests.call.test_recording import has

pytestmark = pytest.mark.asyncio(loop_scope="session")

CARD = "4111222233334444"


def tone_frames(line: hearing.Pcm) -> int:
    """Frames of 20 ms that are a key's two tones."""
    frames = line[: len(line) // hearing.FRAME * hearing.FRAME].reshape(-1, hearing.FRAME).astype(float)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(hearing.FRAME), tones.ROWS + tones.COLUMNS) / hearing.RATE)
    powers = 2 * np.abs(frames @ waves) ** 2 / hearing.FRAME
    pair = powers[:, :4].max(axis=1) + powers[:, 4:].max(axis=1)
    balanced = np.minimum(powers[:, :4].max(axis=1), powers[:, 4:].max(axis=1)) > 0.2 * pair
    energy = (frames**2).sum(axis=1)
    return int((balanced & (pair > 0.8 * energy) & (energy > hearing.FRAME * hearing.LOUD_RMS**2)).sum())


async def test_a_secret_keyed_in_as_tones_reaches_its_sink_and_nobody_else(world: World) -> None:
    received: list[str] = []

    async def take(request: web.Request) -> web.Response:
        received.append((await request.json())["digits"])
        return web.json_response({"token": "tok-1"})

    sink = world.settings.agents["keypad"].collect[0].sink
    assert sink is not None
    url = urlsplit(sink.url)
    app = web.Application()
    app.router.add_post(url.path, take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    caller = await Caller.talks_to_agent(world, KEYPAD, telephone_event=False)
    try:
        await web.TCPSite(runner, url.hostname, url.port, reuse_address=True).start()
        await caller.says("I want to pay by card.")
        await caller.agent_says("key in your card number")
        pressed = tones.keys(f"{CARD}#", each_s=0.1, pause_s=0.1)
        assert tone_frames(pressed) > 60
        await caller.call.audio.play(pressed)
        await caller.agent_says("it was accepted")
    finally:
        await runner.cleanup()
    assert received == [CARD]
    await caller.call.audio.wait_quiet(900, PATIENCE_S)
    await caller.says("What are your opening hours?")
    await caller.agent_says("nine")
    sent = ulaw_decode(await world.model_audio())
    await caller.call.hangup()
    story = await caller.story()
    row = await settled(world, story)
    assert row.state is RecordingState.STORED
    left, right = listen(world, row)
    # When a packet leaves late, what was sent has a gap in it.
    assert tone_frames(caller.call.audio.spoken()) > 30
    for line in (left, right, sent):
        assert tone_frames(line) == 0
    for line in (left, sent):
        assert has(line, "I want to pay by card.") and has(line, "What are your opening hours?")
    assert CARD not in story.model_dump_json()
    for log in world.site.folder.rglob("*.log"):
        assert CARD not in log.read_text(errors="replace")


async def test_the_agent_presses_keys_and_lets_the_caller_wait_with_music(world: World) -> None:
    caller = await Caller.talks_to_agent(world, KEYPAD)
    await caller.says("Please press some keys for me.")
    await until(lambda: caller.call.audio.digits == "123", "the keys")
    await caller.agent_says("i pressed them")
    await caller.call.audio.wait_quiet(900, PATIENCE_S)
    await caller.says("Please let me wait a moment.")
    await caller.agent_says("one moment please")
    since = caller.call.audio.now()
    music = hearing_of(world)
    await until(
        lambda: hearing.likeness(caller.call.audio.heard()[int(since * hearing.RATE) :], music) > hearing.ALIKE, "music"
    )
    await caller.agent_says("thank you for waiting")
    await caller.hears(speak("Thank you for waiting.", "cedar"))
    await caller.call.audio.wait_quiet(900, PATIENCE_S)
    await caller.call.hangup()
    statuses = [(call.name, call.status) for call in (await caller.story()).tool_calls]
    assert statuses == [("send_dtmf", "done"), ("hold", "resumed")]


def hearing_of(world: World) -> hearing.Pcm:
    """The first two seconds of the music."""
    data = (world.settings.freeswitch.prompts / "hold.wav").read_bytes()
    return np.frombuffer(data[44 : 44 + 2 * 2 * hearing.RATE], dtype="<i2")
