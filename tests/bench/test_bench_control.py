"""The bench of the control plane serves both of its subjects whole calls, and holds one against the other."""

import asyncio
from pathlib import Path

import pytest

from bench.control.__main__ import BARE, ESL_APP, FIGURES, Plan, Run, run, summary, targets
from bench.machine import choose_cores

PLAN = Plan(repetitions=1, churn_s=0.5, callers=4, paced_s=0.5, held=10, held_s=0.5)


@pytest.mark.parametrize(("subject", "network"), [(ESL_APP, 46), (BARE, 47)])
def test_a_subject_sets_calls_up_passes_their_digits_on_and_tears_them_down(
    subject: str, network: int, tmp_path: Path
) -> None:
    found = asyncio.run(run(subject, PLAN, f"127.0.{network}.1", tmp_path / subject, choose_cores().subject))
    assert found.churn_a_second > 0
    assert 0 < found.added_p50_ms <= found.added_p99_ms
    assert 0 < found.digit_p50_ms <= found.digit_p99_ms
    assert found.events_left_out < 1


def test_the_targets_are_faster_in_set_up_and_no_worse_in_memory() -> None:
    ours = dict.fromkeys([field for _, field, _ in FIGURES], 1.0)
    assert targets(ours | {"calls_per_core": 2.0, "added_p50_ms": 0.5}, ours) == {
        "calls_per_core": True,
        "added_p50_ms": True,
        "memory_a_call_kb": True,
    }
    assert not any(targets(ours | {"memory_a_call_kb": 2.0}, ours).values())


def test_figures_of_several_runs_are_medians() -> None:
    one = {"subject": ESL_APP, "held": 1, **{field: 1.0 for _, field, _ in FIGURES}}
    runs = [Run.model_validate(one | {"added_p50_ms": value}) for value in (5.0, 1.0, 3.0)]
    assert summary(runs)["added_p50_ms"] == 3.0
