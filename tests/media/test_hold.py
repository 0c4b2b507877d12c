"""Hold: it begins when the agent was heard out, and ends with its time or with something to say."""

import json
from typing import Any

import pytest

from media_fork.hold import LONGEST_S, Hold
from media_fork.tools import Result
from tests.media.simulated import SimulatedClock


class Waiting:
    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.playing = True
        self.shut: list[tuple[bool, bool]] = []
        self.told: list[tuple[str, Result, bool]] = []
        self.hold = Hold(
            self.clock,
            15_000,
            lambda: self.playing,
            lambda id, on, music: self.shut.append((on, music)),
            lambda *told: self.told.append(told),
        )

    def heard(self) -> None:
        self.playing = False
        self.hold.heard()

    @property
    def outputs(self) -> list[dict[str, Any]]:
        return [json.loads(result.output) for _, result, _ in self.told]


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.mark.parametrize("music", [True, False])
def test_it_lasts_its_time(waiting: Waiting, music: bool) -> None:
    waiting.hold.begin("fc_1", 20, music)
    waiting.clock.run_for(5)
    assert waiting.shut == []
    waiting.heard()
    assert waiting.shut == [(True, music)]
    waiting.clock.run_for(19.9)
    assert waiting.told == []
    waiting.clock.run_for(0.2)
    assert waiting.shut == [(True, music), (False, music)]
    assert waiting.outputs == [{"outcome": "resumed", "detail": "the caller is back after 20 s"}]
    assert waiting.told[0][2], "the model responds"


def test_what_is_never_heard_out_holds_it_up_no_longer_than_its_bound(waiting: Waiting) -> None:
    waiting.hold.begin("fc_1", 20, True)
    waiting.clock.run_for(15.1)
    assert waiting.shut == [(True, True)]


def test_something_to_say_ends_it(waiting: Waiting) -> None:
    waiting.playing = False
    waiting.hold.begin("fc_1", 20, True)
    waiting.clock.run_for(3)
    waiting.hold.wanted()
    assert waiting.outputs == [{"outcome": "resumed", "detail": "the caller is back after 3 s"}]
    assert waiting.shut == [(True, True), (False, True)]
    waiting.clock.run_for(60)
    assert len(waiting.told) == 1


def test_a_caller_who_speaks_before_it_begins_does_not_wait(waiting: Waiting) -> None:
    waiting.hold.begin("fc_1", 20, True)
    waiting.hold.interrupted()
    waiting.heard()
    assert waiting.shut == []
    assert waiting.outputs[0]["outcome"] == "interrupted"


def test_an_agent_that_goes_on_before_it_begins_does_not_have_them_wait(waiting: Waiting) -> None:
    waiting.hold.begin("fc_1", 20, True)
    waiting.hold.wanted()
    waiting.heard()
    assert waiting.shut == []
    assert waiting.outputs == [{"outcome": "resumed", "detail": "the caller need not wait"}]


def test_a_second_one_is_refused_and_the_time_is_bounded(waiting: Waiting) -> None:
    waiting.playing = False
    waiting.hold.begin("fc_1", 1e9, True)
    waiting.hold.begin("fc_2", 5, True)
    assert waiting.outputs == [{"error": "the caller is on hold already"}]
    waiting.clock.run_for(LONGEST_S + 0.1)
    assert [call_id for call_id, _, _ in waiting.told] == ["fc_2", "fc_1"]


def test_a_call_that_ends_leaves_nothing(waiting: Waiting) -> None:
    waiting.playing = False
    waiting.hold.begin("fc_1", 20, True)
    waiting.hold.close()
    assert waiting.shut == [(True, True), (False, True)]
    assert waiting.clock.idle and waiting.told == []
