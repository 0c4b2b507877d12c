"""What is recorded: caller left, agent right, from the consent on, without the pauses, encrypted, and on record."""

import orjson
import pytest

from lab import hearing
from lab.voice import speak
from lab.world import World
from tandem.outcome import Consent, Outcome, RecordingState
from tests.call.caller import (
    ASKED,
    BRIEF_GREETING,
    NOT_CAUGHT,
    PATIENCE_S,
    RECORDED,
    Caller,
    extension_says,
    pbx_of,
    until,
)
from tests.call.recordings import ask, listen, settled

pytestmark = pytest.mark.asyncio(loop_scope="session")

LAG_S = 2.5
CARD = "My card number is four one one one, two two two two."
QUESTION = "What are your opening hours?"


def has(line: hearing.Pcm, text: str, voice: str = "caller") -> bool:
    return hearing.likeness(line, speak(text, voice)) > hearing.ALIKE


async def test_announced_then_recorded_on_both_sides_but_for_the_pause_and_until_put_through(world: World) -> None:
    pbx = pbx_of(world)
    caller = await Caller.rings(world, RECORDED)
    await caller.call.wait_answered(PATIENCE_S)
    await caller.hears(speak("This call is being recorded. If you do not agree, please hang up.", "marin"))
    await caller.hears(speak(BRIEF_GREETING, "cedar"))
    await caller.call.audio.wait_quiet(900, PATIENCE_S)
    await caller.says("Please pause the recording.")
    await caller.agent_says("it is paused")
    assert (await ask(world, caller, "GET"))[1]["recording"] == "paused"
    await caller.says(CARD)
    await caller.agent_says(NOT_CAUGHT)
    await caller.call.audio.wait_quiet(900, PATIENCE_S)
    await caller.says("Please go on recording.")
    await caller.agent_says("it goes on")
    await caller.call.audio.wait_quiet(900, PATIENCE_S)
    await caller.says("Please put me through to sales.")
    await until(lambda: "2001" in pbx.calls, "the sales phone to be rung")
    await caller.hears(extension_says("2001"))
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.outcome is Outcome.TRANSFERRED
    row = await settled(world, story)
    assert (row.state, row.consent, row.format) == (RecordingState.STORED, Consent.ANNOUNCED, "wav")
    assert row.consent_at is not None and row.consent_at <= row.started_at
    [(begin, end)] = orjson.loads(row.pauses)
    left, right = listen(world, row)
    assert abs(len(left) / hearing.RATE - (row.duration_ms or 0) / 1000) < 0.1
    assert has(left, "Please pause the recording.") and has(left, "Please put me through to sales.")
    assert has(right, BRIEF_GREETING, "cedar") and has(right, "One moment, I will put you through.", "cedar")
    assert not has(left, CARD)
    assert hearing.likeness(right, extension_says("2001")) < hearing.ALIKE, "it ended before sales spoke"
    for line in (left, right):
        # On a busy machine the switch misses frames, and what follows lies earlier in the file.
        assert hearing.loud_seconds(line, begin / 1000 + 0.1, end / 1000 - LAG_S) == 0, "silence in the pause"
    assert not list((world.settings.recordings.folder).glob("*/incoming/*.wav"))


async def test_asked_and_agreed_then_paused_over_the_api(world: World) -> None:
    caller = await Caller.talks_to_agent(world, ASKED)
    assert await ask(world, caller, "GET", token="not the token at all") == (
        401,
        {"error": "unauthorized", "message": "expected Authorization: Bearer with esl_app.api_token"},
    )
    status, body = await ask(world, caller, "POST", "start")
    assert (status, body["error"]) == (409, "no_consent")
    status, body = await ask(world, caller, "POST", "pause")
    assert (status, body["error"]) == (409, "not_recording")
    await caller.says("You may record me.")
    await caller.agent_says("thank you for that")
    status, body = await ask(world, caller, "POST", "pause")
    assert (status, body["recording"], body["consent"]) == (200, "paused", "given")
    await caller.says(CARD)
    assert (await ask(world, caller, "POST", "resume"))[1]["recording"] == "recording"
    await caller.call.audio.wait_quiet(900, PATIENCE_S)
    await caller.says(QUESTION)
    await caller.agent_says("nine")
    await caller.call.hangup()
    row = await settled(world, await caller.story())
    assert (row.state, row.consent, row.format) == (RecordingState.STORED, Consent.GIVEN, "opus")
    assert row.keep_until == pytest.approx(row.started_at + 7 * 86400)
    left, right = listen(world, row)
    assert has(left, QUESTION) and has(right, "Thank you for that.", "cedar")
    assert not has(left, CARD)
    assert not has(right, BRIEF_GREETING, "cedar"), "nothing from before the consent"


async def test_who_refuses_is_not_recorded_and_that_is_on_record(world: World) -> None:
    caller = await Caller.talks_to_agent(world, ASKED)
    await caller.says("Please do not record me.")
    await caller.agent_says("i will not record you")
    assert (await ask(world, caller, "POST", "start"))[1]["error"] == "no_consent"
    await caller.call.hangup()
    row = await settled(world, await caller.story())
    assert (row.state, row.consent, row.file) == (RecordingState.NOT_MADE, Consent.REFUSED, "")
    assert row.consent_at is not None


async def test_a_recording_outlives_the_esl_app_that_began_it_and_is_the_next_ones_to_pause(world: World) -> None:
    caller = await Caller.talks_to_agent(world, RECORDED)
    worker = world.worker_of(caller.call)
    await world.kill(f"esl_app@{worker}")
    await world.start_process(f"esl_app@{worker}")

    async def taken_over() -> bool:
        return (await ask(world, caller, "GET"))[0] == 200

    await world.until(taken_over, PATIENCE_S, "the call to be taken over")
    await caller.says(QUESTION)
    await caller.agent_says("nine")
    assert (await ask(world, caller, "POST", "pause"))[1]["recording"] == "paused"
    await caller.says(CARD)
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    row = await settled(world, story)
    assert (row.state, row.consent) == (RecordingState.STORED, Consent.ANNOUNCED)
    left, right = listen(world, row)
    assert has(right, BRIEF_GREETING, "cedar") and has(left, QUESTION)
    assert not has(left, CARD)
