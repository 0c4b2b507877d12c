"""Ring groups and hunt lists: whoever answers first has the call, the others stop ringing, and no leg is left."""

import asyncio

import pytest

from lab.phone import Call
from lab.world import World
from tandem.outcome import Outcome, TransferOutcome
from tests.call.caller import PATIENCE_S, Caller, Pbx, extension_says, pbx_of, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

ELSEWHERE = 'SIP;cause=200;text="Call completed elsewhere"'


async def test_a_group_is_rung_at_once_and_who_answers_first_has_the_call(world: World) -> None:
    pbx = pbx_of(world)
    caller = await Caller.talks_to_agent(world)
    await caller.says("Please put me through to support.")
    await until(lambda: {"2001", "2002", "2003"} <= set(pbx.calls), "all of the group to be rung")
    await caller.hears(extension_says("2001"))
    end = await pbx.calls["2003"].wait_ended(PATIENCE_S)
    assert (end.cause, end.reason_header) == ("cancel", ELSEWHERE)
    await caller.call.hangup()
    await pbx.calls["2001"].wait_ended(PATIENCE_S)
    story = await caller.story()
    assert (story.call.outcome, story.call.transferred_to) == (Outcome.TRANSFERRED, "support")
    assert [(row.outcome, row.answered_by) for row in story.transfers] == [(TransferOutcome.ANSWERED, "sales")]
    await world.idle(PATIENCE_S)


async def test_of_two_that_answer_in_one_moment_one_has_the_call(world: World) -> None:
    pbx = Pbx()
    both = asyncio.Event()

    async def answers_with_the_other(call: Call) -> None:
        if call.called == "2002":
            await call.reject(486)
            return
        pbx.calls[call.called] = call
        await call.ringing()
        if len(pbx.calls) == 2:
            both.set()
        await both.wait()
        await call.answer()

    world.pbx.on_invite = answers_with_the_other
    caller = await Caller.talks_to_agent(world)
    await caller.says("Please put me through to support.")
    await caller.brings_about(both.is_set, "both to ring")
    await until(lambda: any(call.end for call in pbx.calls.values()), "one of the two to be let go")
    loser = next(call for call in pbx.calls.values() if call.end)
    winner = next(call for call in pbx.calls.values() if call is not loser)
    assert loser.end is not None and loser.end.reason_header == ELSEWHERE
    heard = caller.call.audio.now()
    await winner.audio.play(extension_says("2001"))
    await caller.hears(extension_says("2001"))
    assert winner.end is None and caller.call.audio.now() > heard
    await caller.call.hangup()
    await winner.wait_ended(PATIENCE_S)
    assert (await caller.story()).call.outcome is Outcome.TRANSFERRED
    await world.idle(PATIENCE_S)


async def test_a_hunt_list_is_rung_in_order_and_where_nobody_is_reached_the_agent_is_told_of_each(world: World) -> None:
    pbx = Pbx()
    order: list[str] = []

    async def one_after_the_other(call: Call) -> None:
        order.append(call.called)
        await pbx.on_invite(call)

    world.pbx.on_invite = one_after_the_other
    caller = await Caller.talks_to_agent(world)
    await caller.says("Please put me through to the night shift.")
    await caller.agent_says("busy")
    assert order == ["2002", "2004"]
    await caller.says("Please put me through to the branch office.")
    await caller.hears(extension_says("2001"))
    assert order[2:] == ["2004", "2003", "2001"]
    assert pbx.calls["2003"].end is not None and pbx.calls["2003"].end.cause == "cancel"
    await caller.call.hangup()
    story = await caller.story()
    assert [(row.outcome, row.answered_by) for row in story.transfers] == [
        (TransferOutcome.BUSY, None),
        (TransferOutcome.ANSWERED, "sales"),
    ]
    assert story.transfers[0].detail == "busy: the line is busy (SIP 486); declines: the call was declined (SIP 603)"
    await world.idle(PATIENCE_S)
