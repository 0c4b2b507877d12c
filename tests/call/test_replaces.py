"""Consult, then REFER with Replaces: caller and target talk, and the caller's peer takes the call over; or they stay as they are."""

import pytest

from lab.phone import Call
from lab.transferee import Transferee, answers, reports
from lab.voice import speak
from lab.world import World
from tandem.outcome import Outcome, TransferOutcome
from tests.call.caller import PATIENCE_S, Caller, extension_says, pbx_of, until, until_heard

pytestmark = pytest.mark.asyncio(loop_scope="session")

ORDER = speak("I would like to order two large blue widgets please.", "caller")


async def colleague_answers(world: World, handler: object) -> tuple[Caller, Call]:
    """A caller on the PBX, who does with REFER what ``handler`` does, and a colleague who has answered."""
    pbx = pbx_of(world)
    caller = await Caller.talks_to_agent(world, phone=world.pbx, from_number="2050")
    caller.call.handlers["REFER"] = handler  # type: ignore[assignment]
    await caller.says("Please put me through to my colleague.")
    await until(lambda: "2001" in pbx.calls, "the colleague to be rung")
    return caller, pbx.calls["2001"]


async def test_the_peer_takes_the_call_over_and_the_media_leave_the_worker(world: World) -> None:
    transferee = Transferee(world.pbx)
    caller, target = await colleague_answers(world, transferee)
    await until(lambda: bool(transferee.calls), "the REFER to be carried out")
    assert (await caller.call.wait_ended(PATIENCE_S)).by == "peer"
    moved = transferee.calls[0]
    await moved.wait_answered(PATIENCE_S)
    await until_heard(moved, extension_says("2001"))
    assert moved.remote_media_address == world.pbx.address
    replaced = moved.header("Replaces")
    assert replaced is not None and target.call_id in replaced
    await world.idle(PATIENCE_S)
    story = await caller.story()
    assert (story.call.outcome, story.call.transferred_to) == (Outcome.TRANSFERRED, "colleague")
    assert [(row.method, row.outcome) for row in story.transfers] == [("replaces", TransferOutcome.ANSWERED)]
    await moved.hangup()


@pytest.mark.parametrize("handler", [answers(603), reports(100, 481)], ids=["refuses the REFER", "fails at it"])
async def test_a_peer_that_does_not_take_it_over_leaves_the_two_connected_here(world: World, handler: object) -> None:
    caller, target = await colleague_answers(world, handler)
    await caller.hears(extension_says("2001"))
    await caller.call.wait_request("REFER", PATIENCE_S)
    await caller.call.audio.play(ORDER)
    await until_heard(target, ORDER)
    await target.hangup()
    assert (await caller.call.wait_ended(PATIENCE_S)).by == "peer"
    story = await caller.story()
    assert story.call.outcome is Outcome.TRANSFERRED
    assert [(row.method, row.outcome) for row in story.transfers] == [("bridge", TransferOutcome.ANSWERED)]
    await world.idle(PATIENCE_S)
