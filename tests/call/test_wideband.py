"""A caller on G.722: 16 kHz both ways, 24 kHz PCM for the model, the same conversation."""

import numpy as np
import pytest

from lab import hearing
from lab.codec import G722
from lab.voice import speak
from lab.world import World
from tandem.outcome import Outcome
from tests.call.caller import BRIEF, LONG, PATIENCE_S, Caller, extension_says, pbx_of, until, until_heard

pytestmark = pytest.mark.asyncio(loop_scope="session")

CODECS = ("G722", "PCMU")
HISS = (4300, 6800)
"""Hz: what G.711 cannot carry and G.722 does."""


def share(pcm: hearing.Pcm, rate: int) -> float:
    """Of the energy, what lies in HISS."""
    spectrum = np.abs(np.fft.rfft(pcm.astype(np.float64))) ** 2
    frequencies = np.fft.rfftfreq(len(pcm), 1 / rate)
    return float(spectrum[(frequencies > HISS[0]) & (frequencies < HISS[1])].sum() / spectrum.sum())


async def test_a_wideband_question_is_answered_in_a_wideband_voice(world: World) -> None:
    caller = await Caller.talks_to_agent(world, codecs=CODECS)
    audio = caller.call.audio
    agent = world.settings.agents[str(world.settings.numbers[BRIEF].agent)]
    greeting, rate = speak(agent.greeting, agent.voice, 24000), G722.rate
    assert share(audio.heard(rate=rate), rate) == pytest.approx(share(greeting, 24000), rel=0.4)
    await until_heard(caller.call, speak(agent.greeting, agent.voice))
    await caller.call.dtmf("42#")
    await caller.hears_more(0.5)
    await caller.says("What are your opening hours?")
    await caller.agent_says("nine")
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.codec == "G722"
    assert any("opening hours" in turn.text.lower() for turn in story.turns if turn.who == "caller")
    [update] = await world.model_events("session.update")
    wideband = {"type": "audio/pcm", "rate": 24000}
    sound = update["session"]["audio"]
    assert sound["input"]["format"] == sound["output"]["format"] == wideband
    items = await world.model_events("conversation.item.create")
    assert any("[DTMF] 42" in str(item) for item in items), items
    assert await world.model_events("error", sent_by="server") == []


async def test_a_wideband_barge_in_truncates_at_what_rtp_carried(world: World) -> None:
    agent = world.settings.agents[str(world.settings.numbers[LONG].agent)]
    said = speak(agent.greeting, agent.voice)
    caller = await Caller.rings(world, LONG, codecs=CODECS)
    audio = caller.call.audio
    await caller.call.wait_answered(PATIENCE_S)
    await until(lambda: hearing.loud_seconds(audio.heard()) > 2, "2 s of the greeting", every_s=0.1)
    await caller.says("What are your opening hours?")
    await caller.agent_says("nine")
    await caller.call.hangup()
    story = await caller.story()
    greeting = next(turn for turn in story.turns if turn.who == "agent" and turn.interrupted)
    assert greeting.heard_ms is not None
    assert greeting.heard_ms < greeting.duration_ms
    carried_ms = 1000 * hearing.heard_until(audio.heard(), said)
    # What was heard may end in a pause, which is not loud: of that, what came before counts.
    until_cut = said[: round(greeting.heard_ms * hearing.RATE / 1000)]
    spoken_ms = (np.flatnonzero(hearing.loud_frames(until_cut))[-1] + 1) * 1000 * hearing.FRAME / hearing.RATE
    assert abs(spoken_ms - carried_ms) <= 100, (greeting.heard_ms, spoken_ms, carried_ms)
    truncations = await world.model_events("conversation.item.truncate")
    assert [event["audio_end_ms"] for event in truncations] == [greeting.heard_ms]


async def test_a_wideband_caller_is_put_through_to_a_g711_phone(world: World) -> None:
    pbx = pbx_of(world)
    caller = await Caller.talks_to_agent(world, codecs=CODECS)
    await caller.says("Put me through to sales.")
    await until(lambda: "2001" in pbx.calls, "the sales phone to be rung")
    target = pbx.calls["2001"]
    await caller.hears(extension_says("2001"))
    order = speak("I would like to order two large blue widgets please.", "caller")
    await caller.call.audio.play(order)
    await until_heard(target, order)
    await caller.call.dtmf("7")
    await until(lambda: target.audio.digits == "7", "sales to receive the caller's digit")
    assert (caller.call.codec, target.codec) == ("G722", "PCMU")
    await target.hangup()
    await caller.call.wait_ended(PATIENCE_S)
    story = await caller.story()
    assert story.call.outcome is Outcome.TRANSFERRED
