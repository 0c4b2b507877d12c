"""What came of a run: the tables, and which limits were not kept."""

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.edge.relays import BARE, TANDEM

MOST_COST = 1.3
"""CPU of a call, times that of the bare relay."""
MOST_FAILOVER_MS = {"503": 10.0, "TCP refused": 10.0, "silent": 1000.0, "100, then nothing": 1000.0}
"""To the next worker: the median where it is at once, the longest where a timer decides."""
AT_ONCE = ("503", "TCP refused")
MOST_EMERGENCY_DELAY = 1.1
"""Set-up of a 911 call in a flood, times that without; medians."""
FLOODS = ("quiet", "5 x the trunk's limit", "5 x capacity")

Result = dict[str, Any]


def ratio(result: Result) -> float:
    costs = result["costs"]
    return float(costs[TANDEM]["us_per_call"] / costs[BARE]["us_per_call"])


def decisive(what: str, times: list[float]) -> float:
    """The time that the limit is for. Infinite where no call failed over."""
    if not times:
        return float("inf")
    return statistics.median(times) if what in AT_ONCE else max(times)


def misses(result: Result) -> list[str]:
    """The limits that were not kept, in words."""
    found = []
    if not ratio(result) <= MOST_COST:
        found.append(f"a call costs {ratio(result):.2f} times that of the bare relay, more than {MOST_COST}")
    if not result["costs"][TANDEM]["capacity"]:
        found.append("no rate was carried without losses: the machine is too busy, and a flood of 5 x that is none")
    for what, most_ms in MOST_FAILOVER_MS.items():
        took_ms = decisive(what, result["failovers_ms"][what])
        if not took_ms <= most_ms:
            found.append(f"fail-over ({what}) took {took_ms:.1f} ms, more than {most_ms:.0f}")
    quiet = result["emergencies"][0]
    for row, what in zip(result["emergencies"], FLOODS, strict=True):
        if row["answered"] < row["placed"]:
            found.append(f"911 ({what}): {row['placed'] - row['answered']} of {row['placed']} calls were lost")
        if not row["p50_ms"] <= quiet["p50_ms"] * MOST_EMERGENCY_DELAY:
            found.append(
                f"911 ({what}) took {row['p50_ms']:.2f} ms, more than {MOST_EMERGENCY_DELAY} x {quiet['p50_ms']:.2f}"
            )
    return found


def show(console: Console, result: Result) -> None:
    costs = result["costs"]
    table = Table("", "bare relay", "tandem", "ratio", "wanted")
    table.add_row(
        "CPU of a call, us",
        f"{costs[BARE]['us_per_call']:.0f}",
        f"{costs[TANDEM]['us_per_call']:.0f}",
        f"{ratio(result):.2f}",
        f"<= {MOST_COST}",
    )
    for label, key in (
        ("calls a second on one core", "capacity"),
        ("shared memory a dialog, bytes", "bytes_per_dialog"),
    ):
        table.add_row(label, f"{costs[BARE][key]:.0f}", f"{costs[TANDEM][key]:.0f}", "", "")
    console.print(table)
    table = Table("fail-over to the next worker", "median ms", "most ms", "calls", "wanted")
    for what, times in result["failovers_ms"].items():
        figures = (f"{statistics.median(times):.1f}", f"{max(times):.1f}") if times else ("none", "none")
        which = "median" if what in AT_ONCE else "most"
        table.add_row(what, *figures, str(len(times)), f"{which} <= {MOST_FAILOVER_MS[what]:.0f}")
    console.print(table)
    table = Table("911 until it rings", "flood, calls/s", "placed", "answered", "median ms", "p95 ms", "wanted")
    quiet_ms = result["emergencies"][0]["p50_ms"]
    for row, what in zip(result["emergencies"], FLOODS, strict=True):
        table.add_row(
            what,
            f"{row['offered']:.0f}",
            str(row["placed"]),
            str(row["answered"]),
            f"{row['p50_ms']:.2f}",
            f"{row['p95_ms']:.2f}",
            f"all, median <= {quiet_ms * MOST_EMERGENCY_DELAY:.2f}",
        )
    console.print(table)
    for miss in misses(result):
        console.print(f"[red]{miss}[/]")
