"""The dial policy with everything real: what it refuses leaves no worker or no edge, and the agent is told which it was."""

import asyncio

import pytest

from lab.phone import Call
from lab.voice import speak
from lab.world import World
from tandem.dial_policy import Refusal, refused
from tandem.outcome import Outcome, TransferOutcome
from tests.call.caller import GUARD, HOUSE, PATIENCE_S, Caller, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
HELLO = "Good evening, who is calling please?"


def carrier_of(world: World) -> list[Call]:
    """The carrier's subscribers: all answer and introduce themselves. Calls to them, in order."""
    rung: list[Call] = []

    async def answers(call: Call) -> None:
        rung.append(call)
        await call.ringing()
        await call.answer()
        for _ in range(3):
            if not await call.audio.play(speak(HELLO, "sales")):
                return
            await asyncio.sleep(1)

    world.carrier.on_invite = answers
    return rung


async def test_a_cap_that_is_reached_holds_for_all_workers_and_is_told(world: World) -> None:
    rung = carrier_of(world)
    first = await Caller.talks_to_agent(world)
    await first.says("Please call the security guard.")
    await until(lambda: bool(rung), "the guard to be rung")
    await rung[0].wait_answered(PATIENCE_S)
    # The next worker has the fewest calls.
    second = await Caller.talks_to_agent(world)
    assert world.worker_of(second.call) != world.worker_of(first.call)
    await second.says("Please call the security guard.")
    await second.agent_says("not allowed")
    await second.call.hangup()
    story = await second.story()
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    (transfer,) = story.transfers
    assert (transfer.outcome, transfer.sip_status) == (TransferOutcome.REFUSED_BY_POLICY, 503)
    assert transfer.detail == refused(Refusal.TOO_MANY_CALLS).detail
    assert [call.called for call in rung] == [GUARD]
    await first.call.hangup()
    assert (await first.story()).call.transferred_to == "guard"


async def test_a_number_that_the_agent_names_itself_is_dialled_where_a_rule_says_so_and_as_it_is(world: World) -> None:
    rung = carrier_of(world)
    caller = await Caller.talks_to_agent(world)
    await caller.says("Please try the magic number.")
    await caller.agent_says("not allowed")
    assert rung == []
    await caller.says("Please call my house.")
    await until(lambda: bool(rung), "the house to be rung")
    await rung[0].wait_answered(PATIENCE_S)
    await caller.hears(speak(HELLO, "sales"))
    await caller.call.hangup()
    story = await caller.story()
    assert [call.called for call in rung] == [HOUSE]
    assert story.call.transferred_to == HOUSE
    assert [(transfer.destination, transfer.outcome) for transfer in story.transfers] == [
        ("+12025550181,sofia/tandem/sip:911@127.0.0.1", TransferOutcome.REFUSED_BY_POLICY),
        ("(202) 555-0181", TransferOutcome.ANSWERED),
    ]
    assert story.transfers[0].detail == refused(Refusal.NOT_A_NUMBER).detail
