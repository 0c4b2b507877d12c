"""REFER with Replaces, event by event: caller and target are connected first, and stay so whatever the peer does."""

import pytest

from tandem.outcome import Outcome, TransferOutcome
from tests.esl.conftest import World
from tests.esl.fake_switch import FakeCall, FakeLeg, until
from tests.esl.test_esl_transfer import rings_and_answers


def referred(world: World, **dialog: str) -> tuple[FakeCall, FakeLeg]:
    """The caller is connected with the target, and the REFER is on its way."""
    world.switch.on_dial = rings_and_answers
    world.switch.variables = {
        "sip_call_id": "abc@127.0.0.31", "sip_to_tag": "its", "sip_from_tag": "ours",
    } | dialog  # fmt: skip
    call = world.talking()
    world.transfer(call, "deskmate")
    until(lambda: any(getattr(row, "transferred_to", None) for row in world.rows), "the two to be connected")
    return call, world.switch.legs[0]


def deflects(call: FakeCall) -> list[str]:
    return [command for command in call.commands if "uuid_deflect" in command]


def test_the_refer_to_names_the_targets_dialog_from_its_own_point_of_view(world: World) -> None:
    call, _ = referred(world)
    until(lambda: deflects(call), "the REFER")
    bridge = next(index for index, api in enumerate(world.switch.apis) if api.startswith("uuid_bridge"))
    assert bridge >= 0
    expected = "sip:2003@127.0.0.31:5060?Replaces=abc%40127.0.0.31%3Bto-tag%3Dits%3Bfrom-tag%3Dours&Require=replaces"
    assert deflects(call) == [f"bgapi uuid_deflect {call.uuid} {expected}"]
    assert call.variables["park_after_bridge"] == "true"


def test_a_notify_of_200_ends_both_legs_here(world: World) -> None:
    call, leg = referred(world)
    until(lambda: deflects(call), "the REFER")
    call.variables["sip_refer_status_code"] = "202"
    leg.fail("NORMAL_CLEARING")
    world.switch.notify(call.uuid, 200, "terminated")
    assert world.rows.call(call).outcome is Outcome.TRANSFERRED
    assert [(row.method, row.outcome) for row in world.rows.transfers()] == [("replaces", TransferOutcome.ANSWERED)]
    world.idle()


@pytest.mark.parametrize("status", [486, 481, 603])
def test_a_failure_leaves_the_two_connected_until_one_hangs_up(world: World, status: int) -> None:
    call, leg = referred(world)
    until(lambda: deflects(call), "the REFER")
    call.variables["sip_refer_status_code"] = "202"
    world.switch.notify(call.uuid, status, "active")
    until(lambda: call.variables.get("hangup_after_bridge") == "true", "the bridge to be left as it was")
    until(lambda: world.rows.transfers()[-1].ended_at, "the transfer to be on record")
    assert [(row.method, row.outcome) for row in world.rows.transfers()] == [("bridge", TransferOutcome.ANSWERED)]
    assert call.hangup_cause is None and leg.hangup_cause is None
    leg.fail("NORMAL_CLEARING")
    assert world.rows.call(call).outcome is Outcome.TRANSFERRED
    world.idle()


@pytest.mark.parametrize("response", ["603", "405", "481"])
def test_a_refused_refer_leaves_the_two_connected(world: World, response: str) -> None:
    call, leg = referred(world)
    until(lambda: deflects(call), "the REFER")
    call.variables["sip_refer_status_code"] = response
    until(lambda: call.variables.get("hangup_after_bridge") == "true", "the bridge to be left as it was")
    call.hang_up()
    assert world.rows.call(call).outcome is Outcome.TRANSFERRED
    until(lambda: leg.hangup_cause, "the target's leg to be ended")


def test_silence_after_202_leaves_the_two_connected(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_app.replaces.RESULT_S", 0.3)
    call, leg = referred(world)
    until(lambda: deflects(call), "the REFER")
    call.variables["sip_refer_status_code"] = "202"
    until(lambda: call.variables.get("hangup_after_bridge") == "true", "the bridge to be left as it was")
    assert call.hangup_cause is None and leg.hangup_cause is None


def test_a_target_that_hangs_up_meanwhile_ends_the_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_app.replaces.NOTICE_S", 0.1)
    call, leg = referred(world)
    until(lambda: deflects(call), "the REFER")
    leg.fail("NORMAL_CLEARING")
    assert world.rows.call(call).outcome is Outcome.TRANSFERRED
    assert call.hangup_cause == "NORMAL_CLEARING"
    assert [row.method for row in world.rows.transfers()] == ["bridge"]
    world.idle()


@pytest.mark.parametrize("call_id", ["", "a b", "x" * 400])
def test_a_dialog_that_cannot_be_named_is_simply_bridged(world: World, call_id: str) -> None:
    call, leg = referred(world, sip_call_id=call_id)
    until(lambda: world.rows.transfers()[-1].ended_at, "the transfer to be on record")
    assert deflects(call) == [] and [row.method for row in world.rows.transfers()] == ["bridge"]
    leg.fail("NORMAL_CLEARING")
    assert world.rows.call(call).outcome is Outcome.TRANSFERRED
    world.idle()
