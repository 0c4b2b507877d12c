"""Warm transfers, event by event: who answered is told who is calling, and only their yes connects them."""

from typing import Any

import orjson
import pytest

from tandem.outcome import Outcome, TransferOutcome
from tests.esl.conftest import World
from tests.esl.fake_switch import FakeCall, FakeLeg, until
from tests.esl.test_esl_hunt import bridged, dialled
from tests.esl.test_esl_transfer import rings_and_answers, told


def apis(world: World, *words: str) -> list[str]:
    return [api for api in world.switch.apis if all(word in api.split(" ") for word in words)]


def says(world: World, leg: FakeLeg, **command: Any) -> None:
    """The briefing's media_fork session sends a command."""
    body = orjson.dumps({"type": "json", "data": command}).decode()
    world.switch.fire(leg.uuid, "CUSTOM", {"Event-Subclass": "mod_audio_fork::json"}, body)


def presses(world: World, leg: FakeLeg, digit: str) -> None:
    world.switch.fire(leg.uuid, "DTMF", {"DTMF-Digit": digit, "DTMF-Duration": "800"})


def briefing(world: World, destination: str = "doctor", fork: bool = True) -> tuple[FakeCall, FakeLeg]:
    """The caller is on hold, and who answered is being told."""
    world.switch.on_dial = rings_and_answers
    call = world.talking()
    wanted = {"id": "t1", "destination": destination, "reason": "a cough", "summary": "Ann coughs."}
    call.decides({"command": "transfer", **wanted})
    leg: FakeLeg = until(lambda: world.switch.legs and world.switch.legs[-1], "the target to be dialled")
    until(lambda: apis(world, "uuid_displace", call.uuid, "start", "l"), "the music")
    if fork:
        until(lambda: apis(world, "uuid_audio_fork", leg.uuid, "start"), "the briefing's fork")
    return call, leg


def test_the_caller_is_on_hold_and_the_target_is_told(world: World) -> None:
    call, leg = briefing(world)
    asked = world.media_fork.reserved[-1]
    assert asked["call"] == call.headers["variable_sip_h_X-Tandem-Call"] + ".briefing"
    assert asked["briefing"] == {"caller": "+12025550147", "reason": "a cough", "summary": "Ann coughs."}
    assert "send_silence_when_idle=-1" in leg.dial_string and "park_timeout=51:" in leg.dial_string
    assert apis(world, "uuid_audio_fork", call.uuid, "pause")
    assert told(call) == [None, None] and "on hold" in call.texts[-1]["detail"]
    assert not bridged(world)


@pytest.mark.parametrize("by", ["key", "voice"])
def test_a_yes_connects_them_and_ends_the_briefing_first(world: World, by: str) -> None:
    call, leg = briefing(world)
    if by == "key":
        presses(world, leg, "1")
    else:
        says(world, leg, command="verdict", answer="takes")
    until(lambda: bridged(world), "the bridge")
    order = [index for index, api in enumerate(world.switch.apis) if f"{leg.uuid} stop tandem" in api]
    bridge = next(index for index, api in enumerate(world.switch.apis) if api.startswith("uuid_bridge"))
    assert order and order[0] < bridge
    assert apis(world, "uuid_displace", call.uuid, "stop")
    call.hang_up()
    assert world.rows.call(call).outcome is Outcome.TRANSFERRED
    [row] = world.rows.transfers()
    assert (row.method, row.outcome, row.answered_by) == ("warm", TransferOutcome.ANSWERED, "doctor")
    world.idle()


@pytest.mark.parametrize(
    ("answer", "outcome"), [("declines", TransferOutcome.DECLINED), ("machine", TransferOutcome.VOICEMAIL)]
)
def test_a_no_gives_the_caller_back_to_the_agent(world: World, answer: str, outcome: TransferOutcome) -> None:
    call, leg = briefing(world)
    says(world, leg, command="verdict", answer=answer)
    until(lambda: outcome in told(call), "the agent to be told")
    until(lambda: leg.hangup_cause, "the target's leg to end")
    assert apis(world, "uuid_audio_fork", call.uuid, "resume") and apis(world, "uuid_displace", call.uuid, "stop")
    assert call.hangup_cause is None and call.fork is not None and not bridged(world)


def test_the_key_2_is_a_no_and_other_keys_are_nothing(world: World) -> None:
    call, leg = briefing(world)
    for digit in "9#02":
        presses(world, leg, digit)
    until(lambda: TransferOutcome.DECLINED in told(call), "the agent to be told")
    assert not [text for text in call.texts if text.get("notice") == "dtmf"], "none of them was the caller's"


def test_the_caller_on_hold_is_not_heard_and_ends_nothing(world: World) -> None:
    call, leg = briefing(world)
    call.happens("DTMF", {"DTMF-Digit": "5", "DTMF-Duration": "800"})
    call.decides({"command": "hang_up", "id": "h1"})
    presses(world, leg, "1")
    until(lambda: bridged(world), "the bridge")
    assert not [text for text in call.texts if text.get("notice") == "dtmf"]


def test_who_says_nothing_has_not_accepted(world: World) -> None:
    world.settings.transfers.__dict__["briefing_seconds"] = 0.3
    call, leg = briefing(world)
    until(lambda: TransferOutcome.NOT_ACCEPTED in told(call), "the agent to be told")
    until(lambda: leg.hangup_cause, "the target's leg to end")
    assert call.hangup_cause is None


def test_a_target_who_hangs_up_is_told_as_such(world: World) -> None:
    call, leg = briefing(world)
    leg.fail("NORMAL_CLEARING")
    until(lambda: TransferOutcome.TARGET_HUNG_UP in told(call), "the agent to be told")
    assert call.hangup_cause is None
    call.hang_up()
    world.idle()


def test_a_caller_who_hangs_up_ends_the_targets_leg(world: World) -> None:
    call, leg = briefing(world)
    call.hang_up()
    record = world.rows.call(call)
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert [row.outcome for row in world.rows.transfers()] == [TransferOutcome.CALLER_HUNG_UP]
    until(lambda: leg.hangup_cause, "the target's leg to end")
    world.idle()


def test_without_a_session_a_prompt_asks_for_the_keys(world: World) -> None:
    def answers_without_a_model(leg: FakeLeg) -> None:
        world.media_fork.refuse("at_capacity")
        rings_and_answers(leg)

    call = world.talking()
    world.switch.on_dial = answers_without_a_model
    world.transfer(call, "doctor")
    prompt = str(world.settings.freeswitch.prompts / "briefing.wav")
    until(lambda: apis(world, "uuid_broadcast", prompt), "the prompt")
    [leg] = world.switch.legs
    presses(world, leg, "1")
    until(lambda: bridged(world), "the bridge")
    assert apis(world, "uuid_break", leg.uuid)


@pytest.mark.parametrize("lost", ["mod_audio_fork::disconnect", "mod_audio_fork::connect_failed"])
def test_a_briefing_that_is_lost_goes_on_by_the_prompt(world: World, lost: str) -> None:
    call, leg = briefing(world)
    world.switch.fire(leg.uuid, "CUSTOM", {"Event-Subclass": lost})
    until(lambda: apis(world, "uuid_broadcast"), "the prompt")
    presses(world, leg, "1")
    until(lambda: bridged(world), "the bridge")
    assert call.hangup_cause is None


def test_a_session_that_comes_too_late_is_given_back(world: World) -> None:
    def answers_slowly_briefed(leg: FakeLeg) -> None:
        world.media_fork.delay_s = 0.5
        rings_and_answers(leg)

    call = world.talking()
    world.switch.on_dial = answers_slowly_briefed
    world.transfer(call, "doctor")
    until(lambda: len(world.media_fork.reserved) == 2, "the session to be asked for")
    presses(world, world.switch.legs[0], "1")
    until(lambda: bridged(world), "the bridge")
    until(lambda: world.media_fork.released, "the late session to be given back")
    assert world.media_fork.released == [f"s-{world.media_fork.reserved[-1]['call']}"]


def test_an_agent_lost_meanwhile_does_not_stop_the_transfer(world: World) -> None:
    call, leg = briefing(world)
    call.custom("mod_audio_fork::disconnect")
    presses(world, leg, "1")
    until(lambda: bridged(world), "the bridge")
    call.hang_up()
    assert world.rows.call(call).outcome is Outcome.TRANSFERRED


def test_an_agent_lost_meanwhile_means_the_fallback_after_a_no(world: World) -> None:
    call, leg = briefing(world)
    call.custom("mod_audio_fork::disconnect")
    presses(world, leg, "2")
    assert world.rows.call(call).outcome is Outcome.FELL_BACK
    until(lambda: leg.hangup_cause, "the target's leg to end")


def test_a_hunt_list_goes_on_after_a_no(world: World) -> None:
    _, first = briefing(world, "doctors")
    presses(world, first, "2")
    until(lambda: len(world.switch.legs) == 2, "the next to be rung")
    second = world.switch.legs[1]
    assert (dialled(first), dialled(second)) == ("2005", "2002")
    until(lambda: apis(world, "uuid_audio_fork", second.uuid, "start"), "the next briefing")
    presses(world, second, "1")
    until(lambda: bridged(world), "the bridge")
    until(lambda: world.rows.transfers()[-1].outcome, "the transfer to be on record")
    assert world.rows.transfers()[-1].answered_by == "annex"
