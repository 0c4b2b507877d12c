"""``python -m bench``: media_fork's calls per core and added delay beside the two usual patterns. See docs/bench.md."""

import asyncio
import platform
import resource
import tempfile
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from bench.load import LoadFailed, build
from bench.machine import Cores, choose_cores
from bench.report import Result, render, summarise, targets, warnings
from bench.run import Plan, Run, run
from bench.subjects import SUBJECTS, CannotRun, Subject
from lab.process import ProcessFailed

OUT = Path(__file__).parent / "out"
QUICK = Plan(repetitions=1, budget_s=30, fixed_s=2.0, half_s=4.0)

console = Console()


def _machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, Python {platform.python_version()}"


async def _measure(subjects: list[Subject], plan: Plan, cores: Cores) -> Result:
    runs: dict[str, list[Run]] = {subject.name: [] for subject in subjects}
    skipped: dict[str, str] = {}
    began = time.monotonic()

    def lacks(subject: Subject) -> bool:
        undisturbed = [run for run in runs[subject.name] if not run.half.disturbed]
        return subject.name not in skipped and len(undisturbed) < plan.repetitions

    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as directory, console.status("building") as status:
        program = build(Path(directory))
        for repetition in count(1):
            # Interleaved: what the machine does meanwhile falls on all alike.
            for subject in filter(lacks, subjects):
                its = runs[subject.name]
                if repetition > plan.repetitions and time.monotonic() - began > plan.budget_s:
                    break

                def report(what: str, repetition: int = repetition) -> None:
                    status.update(f"round {repetition}: {escape(what)}")

                folder = Path(directory) / f"{subject.name}-{repetition}"
                half_calls = round(median(run.half.calls_per_core for run in its) / 2) if its else None
                try:
                    its.append(await run(subject, plan, half_calls, cores, program, folder, report))
                except (CannotRun, LoadFailed, ProcessFailed) as error:
                    skipped[subject.name] = str(error)
            else:
                if any(map(lacks, subjects)):
                    continue
            break
    summaries = [summarise(name, its) for name, its in runs.items() if its]
    return Result(
        machine=_machine(),
        cores_shared=cores.shared,
        skipped=skipped,
        summaries=summaries,
        targets=targets(summaries),
        warnings=warnings(summaries, cores),
        runs=[run for its in runs.values() for run in its],
    )


def main(
    quick: Annotated[bool, typer.Option("--quick", help="One run of each, about 40 s.")] = False,
    strict: Annotated[
        bool, typer.Option("--assert", help="Exit with 1 unless every target was measured and met.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="Measure only this one; may be repeated.")] = None,
    repetitions: Annotated[int | None, typer.Option(min=1, max=20)] = None,
) -> None:
    """Measure media_fork beside the FastAPI and the Node bridge under the same load. Takes under four minutes."""
    known = [subject.name for subject in SUBJECTS]
    if unknown := [name for name in only or [] if name not in known]:
        raise typer.BadParameter(f"{', '.join(unknown)}: expected one of {', '.join(known)}")
    plan = QUICK if quick else Plan()
    if repetitions is not None:
        plan = replace(plan, repetitions=repetitions)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cores = choose_cores()
    try:
        result = asyncio.run(_measure([s for s in SUBJECTS if not only or s.name in only], plan, cores))
    except LoadFailed as error:
        console.print(escape(str(error)), style="red")
        raise typer.Exit(2) from None
    console.print(render(result))
    OUT.mkdir(exist_ok=True)
    written = OUT / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    written.write_text(result.model_dump_json(indent=1))
    console.print(f"all figures: {written}")
    if strict and (result.skipped or not all(target.met for target in result.targets)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
