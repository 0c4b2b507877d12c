"""Ring groups and hunt lists, event by event: one target wins, every other leg ends, and the failures of all are told."""

import pytest

from tandem.outcome import Outcome, TransferOutcome
from tests.esl.conftest import World, metric
from tests.esl.fake_switch import FakeLeg, until
from tests.esl.test_esl_transfer import told


def dialled(leg: FakeLeg) -> str:
    return leg.dial_string.split("/sip:")[1].split("@")[0]


def bridged(world: World) -> bool:
    return any(api.startswith("uuid_bridge") for api in world.switch.apis)


def test_all_of_a_group_are_rung_at_once_and_the_first_to_answer_wins(world: World) -> None:
    world.switch.on_dial = lambda leg: leg.ring()
    call = world.talking()
    world.transfer(call, "team")
    until(lambda: told(call) == [None, None], "both to ring")
    first, second = world.switch.legs
    assert {dialled(first), dialled(second)} == {"2001", "2002"}
    second.answer()
    until(lambda: bridged(world), "the bridge")
    until(lambda: first.hangup_cause, "the other to be let go")
    assert first.hangup_cause == "LOSE_RACE"
    until(lambda: world.rows.transfers()[-1].outcome, "the transfer to be on record")
    [row] = world.rows.transfers()
    assert (row.destination, row.answered_by) == ("team", "annex" if dialled(second) == "2002" else "sales")
    call.hang_up()
    assert world.rows.call(call).transferred_to == "team"
    world.idle()


def test_of_two_that_answer_at_once_one_is_bridged_and_one_is_ended(world: World) -> None:
    world.switch.on_dial = lambda leg: leg.ring()
    call = world.talking()
    world.transfer(call, "team")
    until(lambda: told(call) == [None, None], "both to ring")
    for leg in world.switch.legs:
        leg.answer()
    until(lambda: bridged(world), "the bridge")
    until(lambda: sum(leg.hangup_cause is not None for leg in world.switch.legs) == 1, "the other to be ended")
    assert sum(api.startswith("uuid_bridge") for api in world.switch.apis) == 1
    call.hang_up()
    world.rows.call(call)
    world.idle()


def test_a_hunt_list_passes_over_who_is_refused_by_the_policy_and_goes_on_after_each_failure(world: World) -> None:
    def busy_at_first(leg: FakeLeg) -> None:
        if dialled(leg) == "2001":
            leg.fail("USER_BUSY", 486)
        else:
            leg.ring()
            leg.answer()

    world.switch.on_dial = busy_at_first
    call = world.talking()
    world.transfer(call, "rota")
    until(lambda: bridged(world), "the bridge")
    assert [dialled(leg) for leg in world.switch.legs] == ["2001", "2002"]


def test_the_time_of_a_group_ends_it_whatever_its_members_may_take(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.switch.on_dial = lambda leg: leg.ring()
    call = world.talking()
    shortened = world.settings.ring_groups["rota"].model_copy(update={"ring_seconds": 1})
    monkeypatch.setitem(world.settings.ring_groups, "rota", shortened)
    world.transfer(call, "rota")
    until(lambda: TransferOutcome.NO_ANSWER in told(call), "the agent to be told")
    [leg] = world.switch.legs
    until(lambda: leg.hangup_cause, "the leg to be ended")
    assert leg.hangup_cause == "NO_ANSWER" and call.hangup_cause is None


def test_one_outcome_stands_for_all_and_the_agent_is_told_of_each(world: World) -> None:
    def fails(leg: FakeLeg) -> None:
        if dialled(leg) == "2001":
            leg.fail("UNALLOCATED_NUMBER", 404)
        else:
            leg.fail("USER_BUSY", 486)

    world.switch.on_dial = fails
    call = world.talking()
    world.transfer(call, "rota")
    until(lambda: told(call), "the agent to be told")
    assert call.texts[-1]["outcome"] == "busy"
    assert call.texts[-1]["detail"] == "sales: they cannot be reached (SIP 404); annex: the line is busy (SIP 486)"
    [row] = world.rows.transfers()
    assert (row.outcome, row.sip_status) == (TransferOutcome.BUSY, 486)


def test_a_caller_who_hangs_up_ends_every_leg_of_a_group(world: World) -> None:
    world.switch.on_dial = lambda leg: leg.ring()
    call = world.talking()
    world.transfer(call, "team")
    until(lambda: told(call) == [None, None], "both to ring")
    call.hang_up()
    assert world.rows.call(call).outcome is Outcome.CALLER_HUNG_UP
    assert [row.outcome for row in world.rows.transfers()] == [TransferOutcome.CALLER_HUNG_UP]
    world.idle()


def test_who_answers_and_leaves_at_once_does_not_end_the_ringing_of_the_others(world: World) -> None:
    world.switch.on_dial = lambda leg: leg.ring()
    call = world.talking()
    world.transfer(call, "team")
    until(lambda: told(call) == [None, None], "both to ring")
    hasty, patient = world.switch.legs
    hasty.answered = True
    world.switch.fire(hasty.uuid, "CHANNEL_ANSWER")
    hasty.fail("NORMAL_CLEARING")
    patient.answer()
    until(lambda: bridged(world), "the bridge with the other")
    assert world.switch.apis[-1] != f"uuid_kill {patient.uuid} LOSE_RACE" and patient.hangup_cause is None


def test_what_was_not_heard_is_on_record_and_counted(world: World) -> None:
    world.switch.on_dial = lambda leg: leg.fail("USER_BUSY", 486)
    call = world.talking()
    transfers = metric("tandem_unheard_total", decision="transfer")
    hang_ups = metric("tandem_unheard_total", decision="hang_up")
    call.decides({"command": "transfer", "id": "t1", "destination": "sales", "heard": False})
    until(lambda: told(call) == ["busy"], "the agent to be told")
    assert [row.heard for row in world.rows.transfers()] == [False]
    call.decides({"command": "hang_up", "id": "h1", "heard": False})
    record = world.rows.call(call)
    assert (record.outcome, record.cause) == (Outcome.AGENT_HUNG_UP, "unheard")
    assert metric("tandem_unheard_total", decision="transfer") == transfers + 1
    assert metric("tandem_unheard_total", decision="hang_up") == hang_ups + 1
