"""One run of one subject: start, a fixed load for its CPU time, half of what a core carries for its delay, stop."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from pydantic import BaseModel, ConfigDict

from bench.load import Load, LoadFailed, Sample
from bench.machine import Cores, busy_seconds, cpu_seconds, memory_mb, pinned, prefer
from bench.subjects import Place, Subject, environment
from lab.process import Process

MOST_FOREIGN_SHARE = 0.1
MOST_LATENESS_MS = 1.0
"""Of the load, p99."""
_START_WITHIN_S = 20.0
_SETTLE_S = 1.0
_LOOK_S = 1.5
"""Enough to see whether half load has been found."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much and how long. ``fixed_calls`` is the same for all; half load is each subject's own."""

    repetitions: int = 3
    budget_s: float = 200.0
    """Disturbed runs are repeated as long as another round fits into this."""
    fixed_calls: int = 50
    fixed_s: float = 3.0
    half_s: float = 6.0
    most_calls: int = 600
    """The load's own limit: what it can carry without being the bottleneck."""


class Measurement(BaseModel):
    """One subject at one load."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int
    cpu_share: float
    """Of the subject's core, by its own processes; 1.0 is all of it."""
    foreign_share: float
    """Of the subject's core, by anything else (interrupts included): noise."""
    memory_mb: float
    sample: Sample

    @property
    def calls_per_core(self) -> float:
        return self.calls / self.cpu_share

    @property
    def disturbed(self) -> bool:
        """Something else ran on either core. Says nothing of how the subject did."""
        return self.foreign_share > MOST_FOREIGN_SHARE or self.sample.lateness_ms.p99 > MOST_LATENESS_MS


class Run(BaseModel):
    """One start-to-stop of a subject."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    empty_memory_mb: float
    fixed: Measurement
    half: Measurement

    @property
    def memory_per_call_mb(self) -> float:
        return (self.half.memory_mb - self.empty_memory_mb) / self.half.calls


async def run(
    subject: Subject,
    plan: Plan,
    half_calls: int | None,
    cores: Cores,
    program: Path,
    directory: Path,
    report: Report,
) -> Run:
    """Measure ``subject`` once under the load ``program``.

    ``half_calls`` None: half of what its CPU time says a core carries. Raises LoadFailed where the
    subject loses a call, ProcessFailed where it ends, CannotRun where it cannot start.
    """
    directory.mkdir(parents=True)
    place = _place(directory)
    prepared = subject.prepare(place)
    load = await Load.start(program, cores.load, place.model, place.model_port, directory / "load.log")
    process = Process(
        subject.name,
        pinned(cores.subject, prepared.argv),
        directory / "subject.log",
        env=environment(prepared),
        cwd=directory,
    )
    try:
        await process.start()
        prefer(process.pid)
        async with aiohttp.ClientSession() as http:
            await _healthy(process, place, http)
            empty_mb = memory_mb(process.pid)

            async def measured(calls: int, seconds: float) -> Measurement:
                report(f"{subject.title}, {calls} calls")
                while load.calls < min(calls, plan.most_calls):
                    process.check()
                    leg = await subject.leg(place, load.calls, http)
                    await load.open(leg.host, leg.port, leg.path, leg.hello)
                await asyncio.sleep(_SETTLE_S)
                measurement = await _measure(load, process, cores, seconds)
                process.check()
                return measurement

            fixed = await measured(plan.fixed_calls, plan.fixed_s)
            if half_calls is None:
                # A call costs less among many, so the first estimate is low.
                look = await measured(round(fixed.calls_per_core / 2), _LOOK_S)
                half_calls = round(look.calls_per_core / 2)
            half = await measured(half_calls, plan.half_s)
            return Run(subject=subject.name, empty_memory_mb=empty_mb, fixed=fixed, half=half)
    except aiohttp.ClientError as error:
        raise LoadFailed(f"{subject.name}: {error}; the end of {process.log}:\n{process.tail()}") from error
    finally:
        await load.stop()
        await process.kill()


def _place(directory: Path) -> Place:
    """Addresses of 127/8 that two benches on one machine do not share."""
    pid = os.getpid()
    network = f"127.{64 + pid // 256 % 64}.{pid % 256}"
    return Place(subject=f"{network}.1", model=f"{network}.2", directory=directory)


async def _healthy(process: Process, place: Place, http: aiohttp.ClientSession) -> None:
    deadline = time.monotonic() + _START_WITHIN_S
    while True:
        process.check()
        try:
            async with http.get(f"http://{place.subject}:{place.port}/healthz") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientConnectionError:
            pass
        if time.monotonic() > deadline:
            raise LoadFailed(f"{process.name} did not become healthy in {_START_WITHIN_S:.0f} s: {process.tail()}")
        await asyncio.sleep(0.05)


async def _measure(load: Load, process: Process, cores: Cores, seconds: float) -> Measurement:
    began, cpu, busy = time.monotonic(), cpu_seconds(process.pid), busy_seconds(cores.subject)
    sample = await load.measure(seconds)
    wall = time.monotonic() - began
    cpu_share = (cpu_seconds(process.pid) - cpu) / wall
    busy_share = (busy_seconds(cores.subject) - busy) / wall
    return Measurement(
        calls=load.calls,
        cpu_share=max(cpu_share, 1e-6),
        foreign_share=max(busy_share - cpu_share, 0.0),
        memory_mb=memory_mb(process.pid),
        sample=sample,
    )
