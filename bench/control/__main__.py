"""``python -m bench.control``: esl_app beside a bare greenswitch server under the same load. See docs/bench.md."""

import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
import uvloop
import yaml
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from bench.control.switch import Call, Switch
from bench.machine import busy_seconds, choose_cores, cpu_seconds, memory_mb, pinned, prefer
from bench.subjects import ROOT
from lab.process import Process, ProcessFailed

OUT = Path(__file__).parents[1] / "out"
ESL_APP, BARE = "esl_app", "greenswitch"
_PATIENCE_S = 30.0
_SETTLE_S = 1.0
_APP_PORT, _EVENT_SOCKET_PORT, _HTTP_PORT = 8084, 8021, 8090


@dataclass(frozen=True)
class Plan:
    repetitions: int = 3
    churn_s: float = 5.0
    callers: int = 100
    """At once, each with a new call when the last is over."""
    paced_s: float = 6.0
    a_second: float = 20.0
    """New calls, for the added time."""
    held: int = 500
    events_a_second: int = 20
    """Each; one of them is a digit."""
    held_s: float = 5.0


QUICK = Plan(repetitions=1, churn_s=2.0, paced_s=2.0, held=200, held_s=2.0)


class Run(BaseModel):
    """One start-to-stop of a subject."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    churn_a_second: float
    """Calls set up and torn down a second, as they came."""
    calls_per_core: float
    """The same by CPU time: calls a second if the subject had all of a core."""
    added_p50_ms: float
    added_p99_ms: float
    memory_a_call_kb: float
    held: int
    held_cpu: float
    """Share of the core while the held calls have their events; 1.0 is all of it."""
    events_a_second: float
    """Of all calls, that the subject took."""
    events_left_out: float
    """Share of those due that were not sent because the subject did not read."""
    digit_p50_ms: float
    digit_p99_ms: float
    foreign_share: float
    """Of the subject's core, by anything else, over the whole run."""


def _quantile(values: Iterable[float], share: float) -> float:
    """In ms; NaN of nothing."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def _argv(subject: str, address: str, folder: Path) -> list[str]:
    if subject == BARE:
        return [sys.executable, "-m", "bench.control.bare", address, str(_APP_PORT), str(_HTTP_PORT)]
    settings = {
        "edge": {"listen": [{"address": address}]},
        "trunks": {},
        "workers": {"bench": {"address": address, "loopback": address, "max_calls": 2000}},
        "freeswitch": {"password": "bench", "event_socket_port": _EVENT_SOCKET_PORT},
        "esl_app": {"port": _APP_PORT},
        "media_fork": {"http_port": _HTTP_PORT},
        "model": {"key": "bench"},
        "records": {"url": "sqlite:///bench.db", "spool": "spool"},
    }
    config = folder / "tandem.yaml"
    config.write_text(yaml.safe_dump(settings))
    (folder / "agents").mkdir()
    agent = {"instructions": "You are a helpful assistant.", "greeting": "Hello."}
    (folder / "agents" / "bench.yaml").write_text(yaml.safe_dump(agent))
    return [sys.executable, "-m", "esl_app", "--config", str(config), "--worker", "bench"]


@asynccontextmanager
async def _running(subject: str, address: str, folder: Path, core: int) -> AsyncIterator[Process]:
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TANDEM_")}
    process = Process(
        subject,
        pinned(core, _argv(subject, address, folder)),
        folder / "subject.log",
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
    )
    await process.start()
    try:
        prefer(os.getsid(process.pid))
        yield process
    finally:
        await process.stop(5.0)


async def _one(switch: Switch) -> Call:
    """A call from its arrival to its end, hung up as soon as its fork is there."""
    call = await switch.call()
    await asyncio.wait_for(call.up, _PATIENCE_S)
    call.hang_up()
    await asyncio.wait_for(call.over, _PATIENCE_S)
    return call


async def _serving(switch: Switch, process: Process) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            await _one(switch)
            return
        except OSError:
            process.check()
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def _churn(switch: Switch, plan: Plan) -> int:
    """Calls that were set up and torn down."""
    end = time.monotonic() + plan.churn_s
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.monotonic() < end:
            await _one(switch)
            done += 1

    await asyncio.gather(*(caller() for _ in range(plan.callers)))
    return done


async def _paced(switch: Switch, plan: Plan) -> list[float]:
    """The time that each of some calls, at a fixed rate, waited for its answer."""
    tasks = []
    for _ in range(round(plan.paced_s * plan.a_second)):
        tasks.append(asyncio.create_task(_one(switch)))
        await asyncio.sleep(1 / plan.a_second)
    return [call.added_s for call in await asyncio.gather(*tasks) if call.added_s is not None]


async def _hold(switch: Switch, plan: Plan) -> list[Call]:
    calls = []
    for _ in range(plan.held):
        calls.append(await switch.call())
        await asyncio.wait_for(calls[-1].up, _PATIENCE_S)
    return calls


async def _events(calls: list[Call], plan: Plan) -> int:
    """Every call's events, spread evenly over the second; how many were sent."""
    total = round(plan.held_s * plan.events_a_second) * len(calls)
    began, sent = time.monotonic(), 0
    while sent < total:
        due = min(total, int((time.monotonic() - began) * plan.events_a_second * len(calls)))
        while sent < due:
            turn, number = divmod(sent, len(calls))
            call = calls[number]
            # The digits of different calls fall into different turns.
            if (turn + number) % plan.events_a_second:
                call.happen()
            else:
                call.press()
            sent += 1
        await asyncio.sleep(0.001)
    return total


async def run(subject: str, plan: Plan, address: str, folder: Path, core: int) -> Run:
    """Raises ProcessFailed, TimeoutError or OSError where the subject does not serve its calls."""
    async with Switch(address, _APP_PORT, _EVENT_SOCKET_PORT, _HTTP_PORT) as switch:
        async with _running(subject, address, folder, core) as process:
            await _serving(switch, process)
            busy, cpu, began = busy_seconds(core), cpu_seconds(process.pid), time.monotonic()
            # First of all: what earlier calls left behind in the heap is room for these.
            empty_mb = memory_mb(process.pid)
            calls = await _hold(switch, plan)
            await asyncio.sleep(_SETTLE_S)
            held_mb = memory_mb(process.pid)
            held_cpu, held_began = cpu_seconds(process.pid), time.monotonic()
            due = await _events(calls, plan)
            held_s, held_cpu = time.monotonic() - held_began, cpu_seconds(process.pid) - held_cpu
            left_out = sum(call.left_out for call in calls)
            for call in calls:
                call.hang_up()
            await asyncio.wait_for(asyncio.gather(*(call.over for call in calls)), _PATIENCE_S)
            churn_cpu, churn_began = cpu_seconds(process.pid), time.monotonic()
            churned = await _churn(switch, plan)
            churn_s, churn_cpu = time.monotonic() - churn_began, cpu_seconds(process.pid) - churn_cpu
            added = await _paced(switch, plan)
            foreign = (busy_seconds(core) - busy - (cpu_seconds(process.pid) - cpu)) / (time.monotonic() - began)
            return Run(
                subject=subject,
                churn_a_second=churned / churn_s,
                calls_per_core=churned / churn_cpu,
                added_p50_ms=_quantile(added, 0.5),
                added_p99_ms=_quantile(added, 0.99),
                memory_a_call_kb=1000 * (held_mb - empty_mb) / plan.held,
                held=plan.held,
                held_cpu=held_cpu / held_s,
                events_a_second=(due - left_out) / held_s,
                events_left_out=left_out / due,
                digit_p50_ms=_quantile(switch.digits_s, 0.5),
                digit_p99_ms=_quantile(switch.digits_s, 0.99),
                foreign_share=max(0.0, foreign),
            )


FIGURES = (
    ("set up and torn down, a core", "calls_per_core", "{:.0f} /s"),
    ("  as they came", "churn_a_second", "{:.0f} /s"),
    ("added to INVITE → 200, p50", "added_p50_ms", "{:.2f} ms"),
    ("  p99", "added_p99_ms", "{:.2f} ms"),
    ("memory a call", "memory_a_call_kb", "{:.0f} kB"),
    ("held with events: CPU", "held_cpu", "{:.0%}"),
    ("  events taken", "events_a_second", "{:.0f} /s"),
    ("  left out", "events_left_out", "{:.1%}"),
    ("  digit passed on, p50", "digit_p50_ms", "{:.1f} ms"),
    ("  p99", "digit_p99_ms", "{:.1f} ms"),
    ("others on the core", "foreign_share", "{:.0%}"),
)
"""What, the field of a Run, and how it is shown."""


def summary(runs: list[Run]) -> dict[str, float]:
    """Medians of one subject's runs."""
    return {field: statistics.median(getattr(run, field) for run in runs) for _, field, _ in FIGURES}


def targets(ours: dict[str, float], peer: dict[str, float]) -> dict[str, bool]:
    """What esl_app is held to beside the bare server, by field: faster in set-up, no worse in memory."""
    return {
        "calls_per_core": ours["calls_per_core"] > peer["calls_per_core"],
        "added_p50_ms": ours["added_p50_ms"] < peer["added_p50_ms"],
        "memory_a_call_kb": ours["memory_a_call_kb"] <= peer["memory_a_call_kb"],
    }


def _table(summaries: dict[str, dict[str, float]], verdicts: dict[str, bool], plan: Plan) -> Table:
    title = f"Control plane; {plan.held} calls held with {plan.events_a_second} events a second each"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for subject in summaries:
        table.add_column(subject, justify="right")
    table.add_column("target")
    for what, field, form in FIGURES:
        verdict = "" if field not in verdicts else "[green]met[/]" if verdicts[field] else "[bold red]not met[/]"
        table.add_row(what, *(form.format(figures[field]) for figures in summaries.values()), verdict)
    return table


async def _measure(plan: Plan, console: Console) -> dict[str, list[Run]]:
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    runs: dict[str, list[Run]] = {BARE: [], ESL_APP: []}
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as directory, console.status("measuring") as status:
        for repetition in range(plan.repetitions):
            # Interleaved: what the machine does meanwhile falls on both alike.
            for number, (subject, its) in enumerate(runs.items()):
                status.update(f"round {repetition + 1}: {subject}")
                folder = Path(directory) / f"{subject}-{repetition}"
                its.append(await run(subject, plan, f"127.0.{44 + number}.{repetition + 1}", folder, cores.subject))
    return runs


def main(
    quick: Annotated[bool, typer.Option("--quick", help="One short run of each, under 30 s.")] = False,
    strict: Annotated[bool, typer.Option("--assert", help="Exit with 1 unless every target was met.")] = False,
    repetitions: Annotated[int | None, typer.Option(min=1, max=20)] = None,
) -> None:
    """Measure esl_app beside a bare greenswitch server. Takes under three minutes."""
    plan = QUICK if quick else Plan()
    if repetitions is not None:
        plan = replace(plan, repetitions=repetitions)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    console = Console()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runs = runner.run(_measure(plan, console))
    except (ProcessFailed, OSError) as error:
        console.print(f"a subject does not serve its calls: {error or type(error).__name__}", style="red", markup=False)
        raise typer.Exit(2) from None
    summaries = {subject: summary(its) for subject, its in runs.items()}
    verdicts = targets(summaries[ESL_APP], summaries[BARE])
    console.print(_table(summaries, verdicts, plan))
    OUT.mkdir(exist_ok=True)
    written = OUT / f"control-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    written.write_text("[" + ",\n".join(run.model_dump_json() for its in runs.values() for run in its) + "]\n")
    console.print(f"all figures: {written}")
    if strict and not all(verdicts.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
