"""Down the ladder: each rung is tried when the one above it is broken, and each try is on record."""

from typing import Any

import pytest

from tandem.outcome import Outcome, RefusalCause, TransferOutcome
from tandem.rows import TransferRecord
from tests.esl.conftest import World, metric, until
from tests.esl.fake_switch import FakeCall, FakeLeg
from tests.esl.test_esl_call import played

LADDER, REGRET = "+12025550104", "+12025550105"


@pytest.fixture
def changes() -> dict[str, Any]:
    return {
        "numbers": {
            LADDER: {"agent": "reception", "fallback": ["sales", "premium", "voicemail", "partner"]},
            REGRET: {"agent": "reception", "fallback": ["sales", "regret"]},
        }
    }


def loses_model(world: World, number: str = LADDER) -> FakeCall:
    call = world.talking(X_Tandem_Number=number)
    call.decides({"command": "model_lost", "cause": "gone"})
    return call


def rungs(world: World) -> list[tuple[str, str, TransferOutcome | None]]:
    """What was tried for the one call, in order, as it ended."""
    last = {row.id: row for row in world.rows if isinstance(row, TransferRecord)}
    return [(row.destination, row.method, row.outcome) for _, row in sorted(last.items())]


def busy(leg: FakeLeg) -> None:
    leg.fail("USER_BUSY", 486)


def test_a_rung_that_is_busy_and_one_that_is_refused_lead_to_the_next(world: World) -> None:
    world.switch.on_dial = busy
    taken = metric("tandem_fallback_rungs_total", rung="voicemail", result="reached")
    refused = metric("tandem_dial_refused_total", refusal="premium_number")
    call = loses_model(world)
    record = world.rows.call(call)
    assert (record.outcome, record.cause, record.transferred_to) == (Outcome.FELL_BACK, "model_lost", None)
    assert rungs(world) == [
        ("sales", "bridge", TransferOutcome.BUSY),
        ("premium", "bridge", TransferOutcome.REFUSED_BY_POLICY),
        ("voicemail", "voicemail", TransferOutcome.ANSWERED),
    ]
    assert [prompt for prompt in played(call) if prompt.endswith(".wav")] == ["apology.wav", "leave_message.wav"]
    assert metric("tandem_fallback_rungs_total", rung="voicemail", result="reached") == taken + 1
    assert metric("tandem_dial_refused_total", refusal="premium_number") == refused + 1


def test_voicemail_that_cannot_record_leads_to_the_next_and_in_the_end_to_words_of_regret(world: World) -> None:
    world.switch.on_dial = busy
    world.switch.records = False
    call = loses_model(world)
    record = world.rows.call(call)
    assert (record.outcome, record.cause) == (Outcome.FAILED, "model_lost")
    assert [outcome for _, _, outcome in rungs(world)][2:] == [TransferOutcome.FAILED, TransferOutcome.BUSY]
    assert played(call)[-1] == "regret.wav"
    assert call.hangup_cause == "NORMAL_CLEARING"


def test_the_first_rung_that_answers_has_the_caller(world: World) -> None:
    world.switch.on_dial = lambda leg: (leg.ring(), leg.answer())
    call = loses_model(world)
    until(lambda: any(getattr(row, "transferred_to", None) for row in world.rows), "the bridge")
    call.hang_up()
    record = world.rows.call(call)
    assert (record.outcome, record.transferred_to) == (Outcome.FELL_BACK, "sales")
    until(lambda: rungs(world) == [("sales", "bridge", TransferOutcome.ANSWERED)], "the rung's record")
    assert len(world.switch.legs) == 1
    world.switch.legs[0].kill("NORMAL_CLEARING")
    world.idle()


def test_a_caller_who_hangs_up_on_the_way_down_is_taken_no_further(world: World) -> None:
    world.switch.on_dial = lambda leg: leg.ring()
    call = loses_model(world)
    until(lambda: bool(world.switch.legs), "the first rung to be rung")
    call.hang_up()
    assert world.rows.call(call).outcome is Outcome.FAILED
    until(lambda: rungs(world) == [("sales", "bridge", TransferOutcome.CALLER_HUNG_UP)], "the rung's record")
    assert "regret.wav" not in played(call)
    world.idle()


def test_without_a_model_the_last_worker_answers_and_goes_down_without_an_apology(world: World) -> None:
    world.switch.on_dial = busy
    world.media_fork.refuse("model_unavailable")
    call = world.switch.call(X_Tandem_Fallback="ladder", X_Tandem_Number=LADDER)
    record = world.rows.call(call)
    assert (record.outcome, record.cause) == (Outcome.FELL_BACK, RefusalCause.MODEL_UNAVAILABLE)
    assert record.answered_at is not None
    assert "apology.wav" not in played(call)


def test_words_of_regret_may_be_the_last_rung_before_the_answer_too(world: World) -> None:
    world.switch.on_dial = busy
    world.media_fork.refuse("model_unavailable")
    call = world.switch.call(X_Tandem_Fallback="ladder", X_Tandem_Number=REGRET)
    record = world.rows.call(call)
    assert (record.outcome, record.cause) == (Outcome.FAILED, RefusalCause.MODEL_UNAVAILABLE)
    assert played(call)[-1] == "regret.wav"
    assert [outcome for _, _, outcome in rungs(world)] == [TransferOutcome.BUSY]


def test_a_prompt_that_is_missing_keeps_nobody_from_the_ladder(world: World) -> None:
    world.switch.on_dial = busy
    world.switch.responses["playback"] = "FILE NOT FOUND"
    call = loses_model(world)
    assert world.rows.call(call).outcome is Outcome.FELL_BACK


def test_a_folder_that_freeswitch_cannot_write_in_is_found_out_before_the_prompt(world: World) -> None:
    """`record` would hang up the caller."""
    world.switch.on_dial = busy
    world.switch.refuse_api = {"uuid_record"}
    call = loses_model(world)
    assert world.rows.call(call).outcome is Outcome.FAILED
    assert rungs(world)[2] == ("voicemail", "voicemail", TransferOutcome.FAILED)
    assert played(call) == ["apology.wav", "regret.wav"]
    assert "record" not in [application for application, _ in call.executed]
