"""The agent greets, stops when it is interrupted, knows how much was heard, hears digits, and calls end from either side."""

import numpy as np
import pytest

from lab import hearing
from lab.voice import speak
from lab.world import World
from media_fork.g711 import ulaw_decode, ulaw_encode
from tandem.outcome import Outcome
from tests.call.caller import BRIEF, BRIEF_GREETING, LONG, PATIENCE_S, Caller, until, worker_reserving

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_agent_greets_and_the_caller_hangs_up(world: World) -> None:
    caller = await Caller.talks_to_agent(world)
    assert hearing.loud_seconds(caller.call.audio.heard()) > 0.5
    assert [message.code for message in caller.call.provisionals if message.code > 100] == [180]
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    assert story.call.number == BRIEF
    assert story.call.answered_at is not None
    greeting = [turn for turn in story.turns if turn.who == "agent"]
    assert len(greeting) == 1
    assert "widgets" in greeting[0].text.lower()
    assert not greeting[0].interrupted


async def test_a_question_is_answered_and_the_turn_is_timed(world: World) -> None:
    caller = await Caller.talks_to_agent(world)
    await caller.says("What are your opening hours?")
    await caller.hears_more(1.0)
    await caller.call.hangup()
    story = await caller.story()
    assert any("opening hours" in turn.text.lower() for turn in story.turns if turn.who == "caller")
    assert any("nine" in turn.text.lower() for turn in story.turns if turn.who == "agent")
    turns = [timing for timing in story.timings if timing.kind == "turn" and timing.response_ms is not None]
    assert turns, story.timings
    for timing in turns:
        assert timing.speech_ended_at is not None and timing.first_audio_out_at is not None
        assert timing.speech_ended_at < timing.first_audio_out_at


def carried(heard: hearing.Pcm, said: hearing.Pcm) -> list[int]:
    """Which loud 20 ms frames of ``said`` are on the line, by their very samples: G.711 passes untouched."""
    line = heard.tobytes()
    frames = np.flatnonzero(hearing.loud_frames(said)).tolist()
    return [index for index in frames if said[index * hearing.FRAME :][: hearing.FRAME].tobytes() in line]


async def test_barge_in_silences_the_agent_and_truncates_at_what_rtp_carried(world: World) -> None:
    agent = world.settings.agents[str(world.settings.numbers[LONG].agent)]
    said = ulaw_decode(ulaw_encode(speak(agent.greeting, agent.voice)))
    caller = await Caller.rings(world, LONG)
    audio = caller.call.audio
    await caller.call.wait_answered(PATIENCE_S)
    await until(lambda: len(carried(audio.heard(), said)) * hearing.FRAME > 2 * hearing.RATE, "2 s of the greeting")
    await audio.play(speak("What are your opening hours?", "caller"))
    # The agent answers afterwards, and not one syllable of the old sentence comes before that.
    await caller.agent_says("nine")
    await caller.call.hangup()
    story = await caller.story()
    greeting = next(turn for turn in story.turns if turn.who == "agent" and turn.interrupted)
    assert greeting.heard_ms is not None
    assert greeting.heard_ms < greeting.duration_ms
    last = max(carried(audio.heard(), said))
    carried_ms = (last + 1) * 1000 * hearing.FRAME / hearing.RATE
    # What was heard may end in a pause, which is not loud: of that, what came before counts.
    until_cut = said[: round(greeting.heard_ms * hearing.RATE / 1000)]
    spoken_ms = (np.flatnonzero(hearing.loud_frames(until_cut))[-1] + 1) * 1000 * hearing.FRAME / hearing.RATE
    assert abs(spoken_ms - carried_ms) <= 100, (greeting.heard_ms, spoken_ms, carried_ms)
    barge_in = next(timing for timing in story.timings if timing.kind == "barge_in")
    assert barge_in.heard_ms == greeting.heard_ms
    truncations = await world.model_events("conversation.item.truncate")
    assert [event["audio_end_ms"] for event in truncations] == [greeting.heard_ms]
    assert await world.model_events("error", sent_by="server") == []


async def test_speech_reaches_the_model_and_the_caller_bit_for_bit(world: World) -> None:
    """PCMU end to end: the model is sent what the caller's G.711 says, sample by sample, and what it says is on the caller's RTP as it said it."""
    caller = await Caller.talks_to_agent(world)
    heard = caller.call.audio.heard()
    said = ulaw_decode(ulaw_encode(speak(BRIEF_GREETING, "cedar")))
    loud = np.flatnonzero(hearing.loud_frames(said))
    sample = said[loud[0] * hearing.FRAME : loud[0] * hearing.FRAME + 2400]
    assert heard.tobytes().find(sample.tobytes()) >= 0
    question = "What are your opening hours?"
    await caller.says(question)
    await caller.hears_more()
    spoken = ulaw_decode(ulaw_encode(speak(question, "caller")))
    loud = np.flatnonzero(hearing.loud_frames(spoken))
    sample = spoken[loud[0] * hearing.FRAME : loud[0] * hearing.FRAME + 2400]
    # µ-law has two codes for zero, L16 one: which of them it was is all that may change.
    sent = ulaw_decode(await world.model_audio())
    assert sent.tobytes().find(sample.tobytes()) >= 0
    await caller.call.hangup()


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
async def test_both_g711_laws_carry_the_call(world: World, codec: str) -> None:
    caller = await Caller.talks_to_agent(world, codecs=(codec,))
    await caller.says("What are your opening hours?")
    await caller.hears_more(1.0)
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.codec == codec
    assert any("nine" in turn.text.lower() for turn in story.turns if turn.who == "agent")


async def test_digits_reach_the_agent(world: World) -> None:
    caller = await Caller.talks_to_agent(world)
    await caller.call.dtmf("42#")
    await caller.hears_more(0.5)
    await caller.call.hangup()
    await caller.story()
    texts = await world.model_events("conversation.item.create")
    assert any("[DTMF] 42" in str(event) for event in texts), texts


async def test_the_agent_says_goodbye_and_hangs_up(world: World) -> None:
    caller = await Caller.talks_to_agent(world)
    await caller.says("Goodbye.")
    end = await caller.call.wait_ended(PATIENCE_S)
    assert end.by == "peer"
    assert "NORMAL_CLEARING" in (end.reason_header or "")
    story = await caller.story()
    assert story.call.outcome is Outcome.AGENT_HUNG_UP
    farewell = [turn for turn in story.turns if turn.who == "agent"][-1]
    assert not farewell.interrupted, "the farewell was heard before the call was cut"
    assert hearing.loud_seconds(caller.call.audio.heard()) > 1.0


async def test_a_caller_who_gives_up_before_answer_is_on_record(world: World) -> None:
    await world.model_faults(connect_delay_ms=2500)
    caller = await Caller.rings(world)
    await until(lambda: bool(caller.call.provisionals), "100 Trying")
    await worker_reserving(world)
    await caller.call.cancel()
    end = await caller.call.wait_ended(PATIENCE_S)
    assert end.status == 487
    story = await caller.story()
    assert story.call.outcome is Outcome.ABANDONED
    assert story.call.answered_at is None
    await world.idle(PATIENCE_S)
