"""The verdict of the edge's bench."""

from typing import Any

import pytest

from bench.edge.relays import BARE, TANDEM
from bench.edge.report import misses


def result(**changes: Any) -> dict[str, Any]:
    cost = {"us_per_call": 100.0, "capacity": 1000.0, "bytes_per_dialog": 1000.0}
    row = {"placed": 10, "answered": 10, "p50_ms": 2.0, "p95_ms": 3.0, "offered": 0.0}
    failovers = {"503": [3.0, 90.0, 4.0], "silent": [760.0], "100, then nothing": [990.0], "TCP refused": [2.0]}
    return {"costs": {BARE: cost, TANDEM: cost}, "failovers_ms": failovers, "emergencies": [row, row, row]} | changes


def test_run_within_its_limits_has_no_misses():
    assert misses(result()) == []


@pytest.mark.parametrize(
    ("changes", "miss"),
    [
        (
            {"costs": {BARE: {"us_per_call": 100.0}, TANDEM: {"us_per_call": 131.0, "capacity": 1.0}}},
            "costs 1.31 times",
        ),
        ({"costs": {BARE: {"us_per_call": 1.0}, TANDEM: {"us_per_call": 1.0, "capacity": 0}}}, "no rate was carried"),
        ({"failovers_ms": result()["failovers_ms"] | {"503": [11.0, 12.0, 1.0]}}, "(503) took 11.0 ms"),
        ({"failovers_ms": result()["failovers_ms"] | {"silent": [760.0, 1001.0]}}, "(silent) took 1001.0 ms"),
        ({"failovers_ms": result()["failovers_ms"] | {"TCP refused": []}}, "(TCP refused) took inf ms"),
    ],
)
def test_each_limit_that_is_not_kept_is_told(changes: dict[str, Any], miss: str):
    (told,) = misses(result(**changes))
    assert miss in told


@pytest.mark.parametrize(
    ("changes", "miss"),
    [
        ({"answered": 9}, "911 (5 x capacity): 1 of 10 calls were lost"),
        ({"p50_ms": 2.3}, "911 (5 x capacity) took 2.30 ms, more than 1.1 x 2.00"),
        ({"p50_ms": float("nan")}, "911 (5 x capacity) took nan ms"),
    ],
)
def test_emergency_calls_that_a_flood_loses_or_delays_are_told(changes: dict[str, Any], miss: str):
    rows = result()["emergencies"]
    (told,) = misses(result(emergencies=[*rows[:2], rows[2] | changes]))
    assert told.startswith(miss)
