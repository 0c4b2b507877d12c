"""What happens when a part dies: before answer the next worker takes the call, afterwards the caller is never left in silence."""

import wave

import numpy as np
import pytest

from lab import hearing
from lab.voice import speak
from lab.world import World
from media_fork.lifesign import NOTES_HZ
from tandem.outcome import Outcome, RefusalCause, TransferOutcome
from tests.call.caller import (
    BRIEF,
    LONG,
    PATIENCE_S,
    Caller,
    Pbx,
    extension_says,
    pbx_of,
    until,
    worker_reserving,
    workers_tried,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_model_that_refuses_before_answer_sends_the_call_to_the_next_worker(world: World) -> None:
    await world.model_faults(refuse=503, connections=1)
    caller = await Caller.talks_to_agent(world)
    await until(lambda: len(workers_tried(world, caller.call)) == 2, "both workers to be tried")
    tried = workers_tried(world, caller.call)
    assert [final for _, final in tried] == [503, 200]
    assert tried[0][0] != tried[1][0]
    await caller.call.hangup()
    story = await caller.story(answered=True)
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    assert story.call.worker == tried[1][0]


async def test_no_model_at_all_reaches_the_numbers_fallback_unanswered_by_any_worker(world: World) -> None:
    pbx = Pbx()
    world.pbx.on_invite = pbx.on_invite
    await world.model_faults(refuse=503, connections=10)
    caller = await Caller.rings(world)
    await caller.call.wait_answered(PATIENCE_S)
    assert list(pbx.calls) == ["2009"]
    await until(
        lambda: [final for _, final in workers_tried(world, caller.call)] == [503, 503], "both workers to refuse"
    )
    await caller.call.hangup()


async def test_no_model_at_all_with_voicemail_takes_a_message(world: World) -> None:
    await world.model_faults(refuse=503, connections=10)
    caller = await Caller.rings(world, LONG)
    await caller.call.wait_answered(PATIENCE_S)
    audio = caller.call.audio
    await until(lambda: hearing.tone_seconds(audio.heard(), 1000) > 0.3, "the tone after the prompt")
    await audio.wait_quiet(300, PATIENCE_S)
    message = speak("This is Ann. Please call me back tomorrow morning.", "caller")
    await caller.call.audio.play(message)
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.outcome is Outcome.FELL_BACK
    assert story.call.cause == RefusalCause.MODEL_UNAVAILABLE
    with wave.open(str(world.settings.freeswitch.voicemail / f"{story.call.id}.wav")) as wav:
        assert wav.getframerate() == hearing.RATE
        kept = np.frombuffer(wav.readframes(wav.getnframes()), np.int16)
    assert hearing.likeness(kept, message) > hearing.ALIKE


async def test_a_model_lost_in_mid_sentence_is_replaced_and_the_caller_hears_that_the_line_lives(world: World) -> None:
    await world.model_faults(drop_after_ms=300, reply=2, connections=1)
    await world.model_faults(connect_delay_ms=1500, connections=1)
    caller = await Caller.talks_to_agent(world)
    await caller.says("What are your opening hours?")
    await caller.agent_says("nine to five")
    await until(lambda: hearing.tone_seconds(caller.call.audio.heard(), NOTES_HZ[1]) > 0.05, "a sound of life")
    told = await world.model_events("conversation.item.create")
    texts = [event["item"]["content"][0]["text"].lower() for event in told if event["item"]["type"] == "message"]
    assert "widgets" in texts[0]
    assert "opening hours" in texts[1]
    await caller.says("Goodbye.")
    await caller.call.wait_ended(PATIENCE_S)
    story = await caller.story()
    assert story.call.outcome is Outcome.AGENT_HUNG_UP


async def test_a_session_that_ends_is_handed_over_and_the_caller_notices_nothing(world: World) -> None:
    await world.model_faults(session_seconds=9, connections=1)
    caller = await Caller.talks_to_agent(world)
    since = caller.call.audio.now()

    async def handed_over() -> bool:
        told = await world.model_events("conversation.item.create")
        return any("widgets" in str(event).lower() for event in told)

    await world.until(handed_over, PATIENCE_S, "the next session to be told of the greeting")
    assert hearing.loud_seconds(caller.call.audio.heard(), since) == 0
    await caller.says("What are your opening hours?")
    await caller.agent_says("nine to five")
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    assert not [turn for turn in story.turns if turn.interrupted]


async def test_a_model_lost_for_good_in_mid_call_means_an_apology_and_the_fallback(world: World) -> None:
    pbx = Pbx()
    world.pbx.on_invite = pbx.on_invite
    await world.model_faults(drop_after_ms=400, connections=1)
    await world.model_faults(refuse=503, connections=100)
    caller = await Caller.rings(world)
    await caller.call.wait_answered(PATIENCE_S)
    await until(lambda: "2009" in pbx.calls, "the operator to be rung")
    assert hearing.loud_seconds(caller.call.audio.heard()) > 0.5, "an apology was heard"
    await caller.hears(extension_says("2009"))
    await caller.call.hangup()
    assert (await caller.story()).call.outcome is Outcome.FELL_BACK


async def test_a_worker_killed_before_answer_is_passed_over(world: World) -> None:
    await world.model_faults(connect_delay_ms=3000, connections=1)
    caller = await Caller.rings(world)
    worker = await worker_reserving(world)
    await world.kill(f"switch@{worker}")
    await caller.call.wait_answered(PATIENCE_S)
    await until(lambda: len(workers_tried(world, caller.call)) == 2, "both workers to be tried")
    assert workers_tried(world, caller.call)[0] == (worker, 0)
    await caller.call.audio.wait_loud(PATIENCE_S)
    await caller.call.hangup()
    assert (await caller.story(answered=True)).call.outcome is Outcome.CALLER_HUNG_UP


async def next_call_works(world: World) -> None:
    caller = await Caller.talks_to_agent(world)
    await caller.call.hangup()
    assert (await caller.story()).call.outcome is Outcome.CALLER_HUNG_UP


async def test_esl_app_killed_leaves_the_talk_going_and_the_next_one_does_what_was_decided_meanwhile(
    world: World,
) -> None:
    pbx_of(world)
    caller = await Caller.talks_to_agent(world)
    worker = world.worker_of(caller.call)
    await world.kill(f"esl_app@{worker}")
    await caller.says("What are your opening hours?")
    await caller.agent_says("open")
    await caller.says("Please put me through to sales.")
    await caller.agent_says("put you through")
    await world.start_process(f"esl_app@{worker}")
    await caller.hears(extension_says("2001"))
    await caller.call.hangup()
    story = await caller.story()
    assert (story.call.outcome, story.call.transferred_to) == (Outcome.TRANSFERRED, "sales")
    assert [transfer.outcome for transfer in story.transfers] == [TransferOutcome.ANSWERED]


async def test_a_target_that_rings_when_esl_app_dies_is_hung_up_and_rung_again_by_the_next_one(world: World) -> None:
    pbx = pbx_of(world)
    caller = await Caller.talks_to_agent(world)
    await caller.says("Please put me through to nobody.")
    await until(lambda: "2003" in pbx.calls, "the target to ring")
    first = pbx.calls.pop("2003")
    worker = world.worker_of(caller.call)
    await world.kill(f"esl_app@{worker}")
    await world.start_process(f"esl_app@{worker}")
    await first.wait_ended(PATIENCE_S)
    await until(lambda: "2003" in pbx.calls, "the target to ring again")
    await pbx.calls["2003"].wait_ended(PATIENCE_S)
    await caller.agent_says("no answer")
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    assert [transfer.outcome for transfer in story.transfers] == [TransferOutcome.NO_ANSWER]


async def test_a_caller_who_leaves_while_esl_app_is_dead_is_on_record(world: World) -> None:
    caller = await Caller.talks_to_agent(world)
    worker = world.worker_of(caller.call)
    await world.kill(f"esl_app@{worker}")
    await next_call_works(world)
    await caller.call.hangup()
    await world.start_process(f"esl_app@{worker}")
    assert (await caller.story()).call.outcome is Outcome.CONTROLLER_LOST


async def test_media_fork_killed_means_an_apology_and_the_fallback_and_the_next_call_works(world: World) -> None:
    pbx = Pbx()
    world.pbx.on_invite = pbx.on_invite
    caller = await Caller.talks_to_agent(world)
    worker = world.worker_of(caller.call)
    since = caller.call.audio.now()
    await world.kill(f"media_fork@{worker}")
    await until(lambda: "2009" in pbx.calls, "the operator to be rung")
    assert hearing.loud_seconds(caller.call.audio.heard(), since) > 0.5, "an apology was heard"
    await caller.hears(extension_says("2009"))
    await caller.call.hangup()
    assert (await caller.story()).call.outcome is Outcome.FELL_BACK
    await next_call_works(world)


async def test_a_switch_killed_in_mid_call_is_on_record_and_the_next_call_works(world: World) -> None:
    caller = await Caller.talks_to_agent(world)
    worker = world.worker_of(caller.call)
    await world.kill(f"switch@{worker}")
    story = await caller.story()
    assert story.call.outcome is Outcome.FAILED
    await next_call_works(world)
    await caller.call.hangup()


async def test_the_model_killed_in_mid_call_means_the_fallback_and_the_next_call_gets_it_before_answer(
    world: World,
) -> None:
    pbx = Pbx()
    world.pbx.on_invite = pbx.on_invite
    caller = await Caller.talks_to_agent(world)
    await world.kill("model")
    await caller.hears(extension_says("2009"))
    await caller.call.hangup()
    assert (await caller.story()).call.outcome is Outcome.FELL_BACK
    pbx.calls.clear()
    following = await Caller.rings(world, BRIEF)
    await following.call.wait_answered(PATIENCE_S)
    assert list(pbx.calls) == ["2009"]
    await following.call.hangup()
    await world.start_process("model")
    await next_call_works(world)


async def test_the_edge_killed_in_mid_call_leaves_the_talk_going_and_comes_back_for_its_end(world: World) -> None:
    caller = await Caller.talks_to_agent(world)
    await world.kill("kamailio")
    await caller.says("What are your opening hours?")
    await caller.hears_more(1.0)
    await world.start_process("kamailio")
    await caller.call.hangup()
    assert (await caller.story()).call.outcome is Outcome.CALLER_HUNG_UP
    await next_call_works(world)
