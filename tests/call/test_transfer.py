"""Transfers end in what really happened, the agent is told which, and nobody is left in silence or on a stray leg."""

import asyncio
from itertools import pairwise

import pytest

from lab import hearing
from lab.transferee import answers, reports
from lab.voice import speak
from lab.world import World
from tandem.outcome import Outcome, TransferOutcome
from tests.call.caller import PATIENCE_S, Caller, Pbx, extension_says, pbx_of, until, until_heard

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_answered_caller_and_target_hear_each_other(world: World) -> None:
    pbx = pbx_of(world)
    caller = await Caller.talks_to_agent(world)
    await caller.says("Please put me through to sales.")
    await until(lambda: "2001" in pbx.calls, "the sales phone to be rung")
    target = pbx.calls["2001"]
    await target.wait_answered(PATIENCE_S)
    await caller.hears(extension_says("2001"))
    order = speak("I would like to order two large blue widgets please.", "caller")
    await caller.call.audio.play(order)
    await until_heard(target, order)
    await caller.call.dtmf("7")
    await until(lambda: target.audio.digits == "7", "sales to receive the caller's digit")
    assert "x-tandem" not in " ".join(target.dialog.invite.headers.keys()).lower()
    await caller.call.hangup()
    end = await target.wait_ended(PATIENCE_S)
    assert end.by == "peer"
    story = await caller.story()
    assert story.call.outcome is Outcome.TRANSFERRED
    assert story.call.transferred_to == "sales"
    assert [transfer.outcome for transfer in story.transfers] == [TransferOutcome.ANSWERED]
    assert any("put you through" in turn.text.lower() for turn in story.turns if turn.who == "agent")


async def test_the_target_hanging_up_ends_the_callers_leg(world: World) -> None:
    pbx = pbx_of(world)
    caller = await Caller.talks_to_agent(world)
    await caller.says("Please put me through to sales.")
    await until(lambda: "2001" in pbx.calls, "the sales phone to be rung")
    await caller.hears(extension_says("2001"))
    await pbx.calls["2001"].hangup()
    assert (await caller.call.wait_ended(PATIENCE_S)).by == "peer"
    assert (await caller.story()).call.outcome is Outcome.TRANSFERRED


@pytest.mark.parametrize(
    ("spoken", "outcome", "told"),
    [
        ("Please put me through to the busy line.", TransferOutcome.BUSY, "busy"),
        ("Please put me through to nobody.", TransferOutcome.NO_ANSWER, "no answer"),
        ("Please put me through to the one who declines.", TransferOutcome.REJECTED, "declined"),
        ("Please put me through to the premium number.", TransferOutcome.REFUSED_BY_POLICY, "not allowed"),
        ("Please put me through to the president.", TransferOutcome.UNKNOWN_DESTINATION, "do not know"),
    ],
)
async def test_a_failed_transfer_leaves_the_caller_with_the_agent_who_says_why(
    world: World, spoken: str, outcome: TransferOutcome, told: str
) -> None:
    pbx_of(world)
    outside: list[str] = []

    async def carrier_rung(call):
        outside.append(call.called)
        await call.reject(404)

    world.carrier.on_invite = carrier_rung
    caller = await Caller.talks_to_agent(world)
    await caller.says(spoken)
    await caller.agent_says(told)
    # Still with the agent: a further question is answered.
    await caller.says("What are your opening hours?")
    await caller.agent_says("nine")
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    assert [transfer.outcome for transfer in story.transfers] == [outcome]
    assert outside == []


async def test_the_caller_hears_ringing_while_the_target_rings(world: World) -> None:
    pbx_of(world)
    caller = await Caller.talks_to_agent(world)
    since = await caller.says("Please put me through to nobody.")
    await caller.agent_says("no answer")
    spans = hearing.spans(caller.call.audio.heard()[int(since * hearing.RATE) :])
    quiet = [later.start - earlier.end for earlier, later in pairwise(spans)]
    # A ring cadence pauses 4 s. Without ringing it would be quiet for the 5 s in which nobody answers, and longer.
    assert max(quiet, default=0) < 4.9, quiet
    await caller.call.hangup()
    await caller.story()


async def test_a_caller_who_hangs_up_while_the_target_rings_leaves_no_leg(world: World) -> None:
    pbx = pbx_of(world)
    caller = await Caller.talks_to_agent(world)
    await caller.says("Please put me through to nobody.")
    await until(lambda: "2003" in pbx.calls, "the target to be rung")
    await caller.call.hangup()
    end = await pbx.calls["2003"].wait_ended(PATIENCE_S)
    assert end.cause == "cancel"
    story = await caller.story()
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    assert [transfer.outcome for transfer in story.transfers] == [TransferOutcome.CALLER_HUNG_UP]
    await world.idle(PATIENCE_S)


async def test_answer_and_hang_up_at_once_leave_no_leg(world: World) -> None:
    pbx = Pbx()

    async def answers_as_the_caller_leaves(call):
        pbx.calls[call.called] = call
        await call.ringing()
        await asyncio.gather(call.answer(), caller.call.hangup())

    world.pbx.on_invite = answers_as_the_caller_leaves
    caller = await Caller.talks_to_agent(world)
    await caller.says("Please put me through to sales.")
    await until(lambda: "2001" in pbx.calls, "the sales phone to be rung")
    await pbx.calls["2001"].wait_ended(PATIENCE_S)
    story = await caller.story()
    assert story.call.outcome in (Outcome.CALLER_HUNG_UP, Outcome.TRANSFERRED)
    await world.idle(PATIENCE_S)


async def test_blind_refer_succeeds_when_the_notify_says_200(world: World) -> None:
    caller = await Caller.talks_to_agent(world)
    caller.call.handlers["REFER"] = reports(100, 180, 200)
    await caller.says("Please put me through to the partner.")
    end = await caller.call.wait_ended(PATIENCE_S)
    assert end.by == "peer"
    refers = [request for request in caller.call.requests if request.method == "REFER"]
    assert len(refers) == 1
    assert refers[0].headers["Refer-To"].strip("<>").startswith("sip:+12025550160@")
    assert "x-tandem" not in " ".join(refers[0].headers.keys()).lower()
    story = await caller.story()
    assert story.call.outcome is Outcome.TRANSFERRED
    assert [(transfer.method, transfer.outcome) for transfer in story.transfers] == [
        ("refer", TransferOutcome.ANSWERED)
    ]


async def test_a_refused_refer_is_bridged_instead(world: World) -> None:
    rung: list[str] = []

    async def partner(call):
        rung.append(call.called)
        await call.answer()
        await call.audio.play(speak("This is the partner, hello to you.", "sales"))

    world.carrier.on_invite = partner
    caller = await Caller.talks_to_agent(world)
    caller.call.handlers["REFER"] = answers(603)
    await caller.says("Please put me through to the partner.")
    voice = speak("This is the partner, hello to you.", "sales")
    await caller.hears(voice)
    assert rung == ["+12025550160"]
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.outcome is Outcome.TRANSFERRED


async def test_a_refer_that_fails_late_leaves_the_caller_with_the_agent_who_says_why(world: World) -> None:
    caller = await Caller.talks_to_agent(world)
    caller.call.handlers["REFER"] = reports(100, 486)
    await caller.says("Please put me through to the partner.")
    await caller.agent_says("busy")
    # Still with the agent, and the next transfer works.
    pbx = pbx_of(world)
    await caller.says("Please put me through to sales.")
    await until(lambda: "2001" in pbx.calls, "the sales phone to be rung")
    await caller.hears(extension_says("2001"))
    await caller.call.hangup()
    story = await caller.story()
    assert [transfer.outcome for transfer in story.transfers] == [TransferOutcome.BUSY, TransferOutcome.ANSWERED]
    assert story.call.outcome is Outcome.TRANSFERRED
    await world.idle(PATIENCE_S)
