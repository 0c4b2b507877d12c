"""Warm transfers: the caller waits with music while somebody is told who is calling, and nobody is connected who did not agree."""

import asyncio
import wave

import numpy as np
import pytest

from lab import hearing
from lab.phone import Call
from lab.voice import speak
from lab.world import World
from tandem.outcome import Outcome, TransferOutcome
from tandem.shipped import shipped
from tests.call.caller import PATIENCE_S, Caller, until, until_heard
from tests.call.conftest import BRIEF_AGENT

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASK = "Please put me through to the doctor."
ORDER = speak("I would like to order two large blue widgets please.", "caller")
HELLO = speak("Hello, this is the doctor speaking to you.", "sales")


class Doctor:
    """Extension 2005, who picks up."""

    def __init__(self, world: World) -> None:
        self.calls: list[Call] = []
        world.pbx.on_invite = self.on_invite

    async def on_invite(self, call: Call) -> None:
        self.calls.append(call)
        await call.ringing()
        await call.answer()

    async def answered(self, number: int = 1) -> Call:
        await until(lambda: len(self.calls) >= number, "the doctor to be rung")
        await self.calls[number - 1].wait_answered(PATIENCE_S)
        return self.calls[number - 1]


def music() -> hearing.Pcm:
    with wave.open(str(shipped("freeswitch/prompts") / "hold.wav")) as wav:
        return np.frombuffer(wav.readframes(4 * hearing.RATE), np.int16)


async def briefed(world: World, doctor: Doctor, number: int = 1) -> Call:
    """The doctor has been told all of it, in the agent's voice."""
    target = await doctor.answered(number)
    told = world.settings.agents["brief"].briefing.replace("{summary}", "Ann has lost her blue umbrella.")
    voice = speak(told, str(BRIEF_AGENT["voice"]))
    await until_heard(target, voice[: 3 * hearing.RATE])
    await until(lambda: hearing.loud_seconds(target.audio.heard()) > 0.7 * hearing.loud_seconds(voice), "the rest")
    return target


async def they_talk(caller: Caller, target: Call) -> None:
    await target.audio.play(HELLO)
    await caller.hears(HELLO)
    await caller.call.audio.play(ORDER)
    await until_heard(target, ORDER)


async def no_sessions(world: World) -> None:
    async def none() -> bool:
        return not any([await world.sessions(worker) for worker in world.site.workers])

    await world.until(none, PATIENCE_S, "every session to end")


async def test_accepted_by_key_the_caller_who_waited_with_music_is_connected(world: World) -> None:
    doctor = Doctor(world)
    caller = await Caller.talks_to_agent(world)
    await caller.says(ASK)
    target = await briefed(world, doctor)
    await caller.hears(music())
    await caller.call.audio.play(ORDER)
    assert hearing.likeness(target.audio.heard(), ORDER) < hearing.ALIKE, "the caller on hold is not heard"
    await target.dtmf("1")
    await they_talk(caller, target)
    await caller.call.hangup()
    await target.wait_ended(PATIENCE_S)
    story = await caller.story()
    assert (story.call.outcome, story.call.transferred_to) == (Outcome.TRANSFERRED, "doctor")
    assert [(row.method, row.outcome) for row in story.transfers] == [("warm", TransferOutcome.ANSWERED)]
    assert not any("umbrella" in turn.text for turn in story.turns), "the briefing is no part of the caller's talk"
    await no_sessions(world)
    await world.idle(PATIENCE_S)


async def test_accepted_by_voice(world: World) -> None:
    doctor = Doctor(world)
    caller = await Caller.talks_to_agent(world)
    await caller.says(ASK)
    target = await briefed(world, doctor)
    await target.audio.wait_quiet(700, PATIENCE_S)
    await target.audio.play(speak("Yes, put them through.", "caller"))

    async def connected() -> bool:
        calls = world.records().calls(limit=50)
        return any(row.transferred_to for row in calls if row.sip_call_id == caller.call.call_id)

    await world.until(connected, PATIENCE_S, "the call to be put through")
    await they_talk(caller, target)
    await target.hangup()
    await caller.call.wait_ended(PATIENCE_S)
    assert (await caller.story()).call.outcome is Outcome.TRANSFERRED
    await no_sessions(world)


async def test_declined_voicemail_and_hung_up_leave_the_caller_with_the_agent_who_says_which(world: World) -> None:
    doctor = Doctor(world)
    caller = await Caller.talks_to_agent(world)
    await caller.says(ASK)
    target = await doctor.answered()
    await target.dtmf("2")
    await caller.agent_says("no time")
    await caller.says(ASK)
    machine = await briefed(world, doctor, 2)
    await machine.audio.wait_quiet(700, PATIENCE_S)
    await machine.audio.play(speak("Please leave a message after the tone.", "caller"))
    await caller.agent_says("answering machine")
    await caller.says(ASK)
    hasty = await doctor.answered(3)
    await hasty.audio.wait_loud(PATIENCE_S)
    await hasty.hangup()
    await caller.agent_says("have left")
    assert [(await call.wait_ended(PATIENCE_S)).by for call in doctor.calls] == ["peer", "peer", "us"]
    await caller.says("What are your opening hours?")
    await caller.agent_says("nine")
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    assert [row.outcome for row in story.transfers] == [
        TransferOutcome.DECLINED,
        TransferOutcome.VOICEMAIL,
        TransferOutcome.TARGET_HUNG_UP,
    ]
    await no_sessions(world)
    await world.idle(PATIENCE_S)


async def test_a_caller_who_hangs_up_in_mid_briefing_leaves_no_leg_and_no_session(world: World) -> None:
    doctor = Doctor(world)
    caller = await Caller.talks_to_agent(world)
    await caller.says(ASK)
    target = await doctor.answered()
    await target.audio.wait_loud(PATIENCE_S)
    await asyncio.gather(caller.call.hangup(), target.dtmf("1"))
    assert (await target.wait_ended(PATIENCE_S)).by == "peer"
    story = await caller.story()
    assert story.transfers[0].outcome in (TransferOutcome.CALLER_HUNG_UP, TransferOutcome.ANSWERED)
    await no_sessions(world)
    await world.idle(PATIENCE_S)
