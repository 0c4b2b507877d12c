"""A worker that is not fit has FreeSWITCH refuse calls, and takes them again once it has been fit for a while."""

from typing import Any

import pytest

from esl_app.fitness import FIT_AFTER, UNFIT_AFTER, Unfit
from tests.esl.conftest import World, metric
from tests.esl.fake_switch import until

NO_VOICEMAIL = {"agent": "reception", "fallback": "sales"}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_app.fitness.CHECK_S", 0.02)


@pytest.fixture
def changes() -> dict[str, Any]:
    return {"numbers": {"+12025550100": NO_VOICEMAIL}}


def unfit(world: World, cause: Unfit) -> None:
    until(lambda: world.switch.paused, "FreeSWITCH to be paused")
    assert world.server.health()["unfit"] == cause.value
    assert world.server.health()["status"] == "ok", "a restart of esl_app would mend nothing"
    assert metric("tandem_unfit", cause=cause.value) == 1


def fit_again(world: World) -> None:
    until(lambda: not world.switch.paused, "FreeSWITCH to be resumed")
    assert all(metric("tandem_unfit", cause=cause.value) == 0 for cause in Unfit)


def test_without_media_fork_no_call_is_taken(world: World) -> None:
    world.media_fork.stop()
    unfit(world, Unfit.MEDIA_FORK_DOWN)
    world.media_fork.start()
    fit_again(world)


@pytest.mark.parametrize(
    ("health", "cause"),
    [
        ({"status": "draining"}, Unfit.MEDIA_FORK_DRAINING),
        ({"status": "ok", "model": "resting"}, Unfit.MODEL_RESTING),
        ({"nonsense": 1}, Unfit.MEDIA_FORK_DOWN),
    ],
)
def test_a_media_fork_that_can_take_no_call_means_that_none_is_taken(
    world: World, health: dict[str, str], cause: Unfit
) -> None:
    world.media_fork.health = health
    unfit(world, cause)
    world.media_fork.health = {"status": "ok", "model": "ok"}
    fit_again(world)


def test_without_room_for_records_no_call_is_taken(world: World) -> None:
    world.rows.is_full = True
    unfit(world, Unfit.RECORDS_FULL)
    world.rows.is_full = False
    fit_again(world)


def test_one_bad_check_is_not_believed_nor_one_good_one(world: World) -> None:
    fitness = world.server._fitness
    fitness.stop()

    def checks(health: str, times: int) -> list[Unfit | None]:
        world.media_fork.health = {"status": health}
        seen = []
        for _ in range(times):
            fitness.check()
            seen.append(fitness.unfit)
        return seen

    draining = Unfit.MEDIA_FORK_DRAINING
    assert checks("ok", FIT_AFTER)[-1] is None
    assert checks("draining", UNFIT_AFTER - 1)[-1] is None
    assert checks("ok", 1) == [None]
    assert checks("draining", UNFIT_AFTER) == [*[None] * (UNFIT_AFTER - 1), draining]
    assert checks("ok", FIT_AFTER - 1)[-1] is draining
    assert checks("draining", 1) == [draining]
    assert checks("ok", FIT_AFTER) == [*[draining] * (FIT_AFTER - 1), None]


def test_a_switch_that_starts_anew_is_paused_too(world: World) -> None:
    world.rows.is_full = True
    unfit(world, Unfit.RECORDS_FULL)
    world.switch.paused = False
    world.switch.drop_inbound()
    until(lambda: world.switch.paused, "it to be paused as well")


class TestWithVoicemail:
    @pytest.fixture
    def changes(self) -> dict[str, Any]:
        return {}

    def test_a_worker_without_a_model_still_takes_messages(self, world: World) -> None:
        world.media_fork.health = {"status": "draining"}
        until(lambda: world.server.health()["unfit"] == Unfit.MEDIA_FORK_DRAINING, "it to be noticed")
        assert not world.switch.paused
        world.rows.is_full = True
        until(lambda: world.switch.paused, "no message to be taken that cannot be put on record")
