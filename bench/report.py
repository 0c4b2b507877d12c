"""What the runs say: medians, the targets beside them, as a table and as JSON."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.machine import Cores
from bench.run import MOST_FOREIGN_SHARE, MOST_LATENESS_MS, Run
from bench.subjects import FASTAPI, MEDIA_FORK, NODE, SUBJECTS

MOST_LOAD_UTILISATION = 0.7
"""Beyond it the load may be what was measured."""


class Summary(BaseModel):
    """One subject: medians over its undisturbed runs, or over all where every one was disturbed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    used: int
    """Runs that the figures are of."""
    disturbed: int
    """Runs that something else on the machine disturbed."""
    calls_per_core: float
    """From CPU time at half load."""
    calls_per_core_spread: tuple[float, float]
    """Lowest and highest."""
    fixed_calls: int
    fixed_cpu_share: float
    half_calls: int
    half_cpu_share: float
    up_p50_ms: float
    up_p99_ms: float
    down_p50_ms: float
    down_p99_ms: float
    memory_per_call_mb: float
    load_utilisation: float
    """Highest."""
    load_lateness_p99_ms: float
    foreign_share: float
    """Highest."""
    faults: dict[str, int]
    """Added up, both loads."""


class Target(BaseModel):
    """What media_fork is held to. ``figure`` is the line of the table it stands beside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figure: str
    measured: float
    wanted: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.measured >= self.wanted if self.at_least else self.measured < self.wanted


class Result(BaseModel):
    """Everything of one bench, as written to ``bench/out``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    cores_shared: bool
    skipped: dict[str, str]
    """Subject → why it was not measured."""
    summaries: list[Summary]
    targets: list[Target]
    warnings: list[str]
    runs: list[Run]


def summarise(subject: str, runs: Sequence[Run]) -> Summary:
    """What ``runs`` of one subject say. There is at least one."""
    disturbed = sum(run.half.disturbed for run in runs)
    if disturbed < len(runs):
        runs = [run for run in runs if not run.half.disturbed]

    def median(values: Iterable[float]) -> float:
        return statistics.median(values)

    halves = [run.half for run in runs]
    faults: dict[str, int] = {}
    for run in runs:
        for sample in (run.fixed.sample, run.half.sample):
            for name, count in sample.faults.items():
                faults[name] = faults.get(name, 0) + count
    capacities = [half.calls_per_core for half in halves]
    return Summary(
        subject=subject,
        used=len(runs),
        disturbed=disturbed,
        calls_per_core=median(capacities),
        calls_per_core_spread=(min(capacities), max(capacities)),
        fixed_calls=runs[0].fixed.calls,
        fixed_cpu_share=median(run.fixed.cpu_share for run in runs),
        half_calls=round(median(half.calls for half in halves)),
        half_cpu_share=median(half.cpu_share for half in halves),
        up_p50_ms=median(half.sample.up_ms.p50 for half in halves),
        up_p99_ms=median(half.sample.up_ms.p99 for half in halves),
        down_p50_ms=median(half.sample.down_ms.p50 for half in halves),
        down_p99_ms=median(half.sample.down_ms.p99 for half in halves),
        memory_per_call_mb=median(run.memory_per_call_mb for run in runs),
        load_utilisation=max(half.sample.utilisation for half in halves),
        load_lateness_p99_ms=max(half.sample.lateness_ms.p99 for half in halves),
        foreign_share=max(half.foreign_share for half in halves),
        faults=faults,
    )


def _times(peer: str) -> str:
    return f"  times {title(peer)}"


_CAPACITY = "calls per core"
_UP = "to model, p99 ms"
_DOWN = "to caller, p99 ms"


def targets(summaries: Sequence[Summary]) -> list[Target]:
    """The targets that what was measured can be held against."""
    by_name = {summary.subject: summary for summary in summaries}
    ours = by_name.get(MEDIA_FORK)
    if ours is None:
        return []
    found = []
    for peer, wanted in ((FASTAPI, 3.0), (NODE, 1.5)):
        if peer in by_name:
            ratio = ours.calls_per_core / by_name[peer].calls_per_core
            found.append(Target(figure=_times(peer), measured=ratio, wanted=wanted, at_least=True))
    found.append(Target(figure=_UP, measured=ours.up_p99_ms, wanted=3.0, at_least=False))
    found.append(Target(figure=_DOWN, measured=ours.down_p99_ms, wanted=3.0, at_least=False))
    return found


def warnings(summaries: Sequence[Summary], cores: Cores) -> list[str]:
    """What makes a figure doubtful."""
    found = []
    if cores.shared:
        found.append("one core only: subject and load share it, so calls per core and delays are not to be relied on")
    for summary in summaries:
        if summary.faults:
            listed = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in summary.faults.items())
            found.append(f"{title(summary.subject)}, {listed}")
        name, late_ms = title(summary.subject), summary.load_lateness_p99_ms
        if summary.load_utilisation > MOST_LOAD_UTILISATION:
            found.append(
                f"{name}: the load took {summary.load_utilisation:.0%} of its core and may be what was measured"
            )
        if late_ms > MOST_LATENESS_MS:
            found.append(f"{name}: every run was disturbed; the load was up to {late_ms:.1f} ms late itself at p99")
        if summary.foreign_share > MOST_FOREIGN_SHARE:
            share = f"{summary.foreign_share:.0%}"
            found.append(f"{name}: every run was disturbed; others took up to {share} of its core")
    return found


def title(subject: str) -> str:
    return next(known.title for known in SUBJECTS if known.name == subject)


def _figures(result: Result) -> list[tuple[str, Callable[[Summary], str]]]:
    """The table's lines: what, and how a subject's summary says it."""
    figures: list[tuple[str, Callable[[Summary], str]]] = [
        (_CAPACITY, lambda s: f"[bold]{s.calls_per_core:.0f}[/]"),
        ("  lowest – highest", lambda s: f"{s.calls_per_core_spread[0]:.0f} – {s.calls_per_core_spread[1]:.0f}"),
    ]
    for peer in (FASTAPI, NODE):
        for base in [s.calls_per_core for s in result.summaries if s.subject == peer]:
            figures.append((_times(peer), lambda s, base=base: f"{s.calls_per_core / base:.2f}"))  # type: ignore[misc]
    return [
        *figures,
        ("CPU at same calls", lambda s: f"{s.fixed_cpu_share:.1%} ({s.fixed_calls})"),
        ("CPU at half load", lambda s: f"{s.half_cpu_share:.1%} ({s.half_calls})"),
        ("to model, p50 ms", lambda s: f"{s.up_p50_ms:.2f}"),
        (_UP, lambda s: f"{s.up_p99_ms:.2f}"),
        ("to caller, p50 ms", lambda s: f"{s.down_p50_ms:.2f}"),
        (_DOWN, lambda s: f"{s.down_p99_ms:.2f}"),
        ("memory a call, kB", lambda s: f"{s.memory_per_call_mb * 1000:.0f}"),
        ("runs, disturbed", lambda s: f"{s.used}, {s.disturbed}"),
        ("load's own CPU", lambda s: f"{s.load_utilisation:.0%}"),
        ("load late, p99 ms", lambda s: f"{s.load_lateness_p99_ms:.2f}"),
    ]


def render(result: Result) -> RenderableType:
    """For the terminal: a column a subject, a line a figure, the target beside it."""
    table = Table(title=f"Calls on one core of {result.machine}; delays at half load", title_justify="left")
    table.add_column("")
    for summary in result.summaries:
        table.add_column(title(summary.subject), justify="right")
    table.add_column("target")
    held = {target.figure: target for target in result.targets}
    for what, figure in _figures(result):
        target = held.get(what)
        verdict = Text("")
        if target is not None:
            wanted = f"{'≥' if target.at_least else '<'} {target.wanted:g} "
            verdict = Text.assemble(wanted, ("met", "green") if target.met else ("not met", "bold red"))
        table.add_row(what, *map(figure, result.summaries), verdict)
    notes = [Text(f"! {note}", style="yellow") for note in result.warnings]
    notes += [Text(f"! {title(name)} was not measured: {why}", style="yellow") for name, why in result.skipped.items()]
    return Group(table, *notes)
