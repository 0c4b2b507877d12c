"""Jobs: placed when they may be, as often as it is worth it, so many at a time; and never twice, whatever dies."""

import time

import pytest

from tandem.client import ClientError
from tests.dialler.conftest import ANN, BOB, CAROL, ON_SQLITE, Dialler
from tests.tandem.conftest import wait_for


@ON_SQLITE
def test_a_job_is_one_call_with_what_was_asked_for(dialler: Dialler) -> None:
    id = dialler.job(ANN, context="An appointment.", on_machine="agent", id="once-only")
    assert dialler.job(ANN, id="once-only") == id == "once-only"
    state = dialler.done(id)
    assert state == {
        "id": id, "state": "done", "run": 0, "call": "once-only.0", "outcome": "callee_hung_up", "cause": "",
        "answered_by": "human", "attempts": 1,
    }  # fmt: skip
    ((_, number, asked),) = dialler.worker.placed
    assert number == ANN
    assert (asked["agent"], asked["context"], asked["on_machine"]) == ("reception", "An appointment.", "agent")


@ON_SQLITE
def test_who_is_not_reached_is_tried_again_so_many_times(dialler: Dialler) -> None:
    dialler.worker.endings[ANN] = [{"outcome": "not_reached", "cause": "busy"}]
    dialler.worker.endings[BOB] = [{"outcome": "not_reached", "cause": "no_answer"}, {"outcome": "message_left"}]
    first = dialler.job(ANN, attempts=2, retry_seconds=1)
    second = dialler.job(BOB, attempts=5, retry_seconds=1)
    assert [dialler.done(first)[key] for key in ("outcome", "cause", "attempts")] == ["not_reached", "busy", 2]
    wait_for(lambda: dialler.ask("GET", f"/v1/jobs/{second}").get("outcome"), "the second job to end")
    assert [dialler.done(second)[key] for key in ("outcome", "attempts")] == ["message_left", 2]


@ON_SQLITE
def test_a_refusal_for_good_is_not_tried_again(dialler: Dialler) -> None:
    dialler.worker.endings[ANN] = [{"refused": "do_not_call", "status": 403}]
    state = dialler.done(dialler.job(ANN, attempts=5, retry_seconds=1))
    assert (state["outcome"], state["cause"], state["attempts"]) == ("refused", "do_not_call", 1)
    assert len(dialler.worker.placed) == 1


@pytest.mark.parametrize(
    ("to", "cause"), [("911", "emergency"), ("+19005550199", "premium_number"), ("x", "not_a_number")]
)
@ON_SQLITE
def test_what_the_policy_forbids_is_asked_of_no_worker(dialler: Dialler, to: str, cause: str) -> None:
    state = dialler.done(dialler.job(to))
    assert (state["outcome"], state["cause"]) == ("refused", cause)
    assert dialler.worker.placed == []


def test_a_tenant_has_so_many_calls_at_a_time(dialler: Dialler) -> None:
    dialler.worker.lasts_s[CAROL] = 1.2
    jobs = [dialler.job(CAROL) for _ in range(5)]
    for job in jobs:
        dialler.done(job)
    moments = [at for at, number, _ in dialler.worker.placed if number == CAROL]
    assert len(moments) == 5
    assert max(dialler.worker.up(moment + 0.001) for moment in moments) <= 2


def test_a_trunk_gets_so_many_calls_a_second(dialler: Dialler) -> None:
    jobs = [dialler.job(BOB, trunk="slow", tenant="slow") for _ in range(4)]
    for job in jobs:
        dialler.done(job)
    moments = sorted(at for at, _, _ in dialler.worker.placed)
    # One a second (Twilio's default), by the database's clock; a busy machine places some a little later.
    assert moments[-1] - moments[0] > 1.5, moments


def test_a_job_waits_for_its_time_and_can_be_called_off(dialler: Dialler) -> None:
    begins = time.time() + 2
    early = dialler.job(ANN, not_before=begins)
    late = dialler.job(BOB, not_before=time.time() + 3600)
    assert dialler.ask("GET", f"/v1/jobs/{late}")["state"] == "waiting"
    assert dialler.ask("DELETE", f"/v1/jobs/{late}")["state"] == "cancelled"
    with pytest.raises(ClientError) as refused:
        dialler.ask("DELETE", f"/v1/jobs/{late}")
    assert refused.value.status == 409
    dialler.done(early)
    assert [number for _, number, _ in dialler.worker.placed] == [ANN]
    assert dialler.worker.placed[0][0] >= begins - 0.1


def test_a_job_survives_the_diallers_death_and_its_call_is_placed_once(dialler: Dialler) -> None:
    dialler.worker.lasts_s[ANN] = 4.0
    under_way = dialler.job(ANN)
    waiting = dialler.job(BOB, not_before=time.time() + 2)
    wait_for(lambda: len(dialler.worker.placed) == 1, "the call to be placed")
    dialler.kill()
    dialler.start()
    assert dialler.done(under_way)["outcome"] == "callee_hung_up"
    assert dialler.done(waiting)["outcome"] == "callee_hung_up"
    assert sorted(number for _, number, _ in dialler.worker.placed) == [ANN, BOB]


@ON_SQLITE
def test_nobody_without_the_token_gets_anything(dialler: Dialler) -> None:
    with pytest.raises(ClientError) as unknown:
        dialler.ask("GET", "/v1/jobs/none")
    assert (unknown.value.status, unknown.value.cause) == (404, "not_found")
    dialler._client._token = "another-token-0000"
    try:
        with pytest.raises(ClientError) as refused:
            dialler.job(ANN)
        assert (refused.value.status, refused.value.cause) == (401, "unauthorized")
    finally:
        dialler._client._token = "dialler-test-token"
    with pytest.raises(ClientError) as invalid:
        dialler.job(ANN, attempts=0, sofia="x")
    assert invalid.value.status == 422 and "attempts" in str(invalid.value) and "sofia" in str(invalid.value)


@ON_SQLITE
def test_a_second_dialler_takes_nothing_up(dialler: Dialler) -> None:
    dialler.worker.lasts_s[ANN] = 1.0
    job = dialler.job(ANN)
    run = dialler.start_another()
    assert run.returncode == 1 and "cannot serve" in run.stdout
    assert dialler.done(job)["attempts"] == 1
    assert len(dialler.worker.placed) == 1
