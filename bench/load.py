"""The load generator and stand-in model (``bench/generator``, in C): built with gcc, pinned, driven line by line."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from bench.machine import pinned

SOURCE = Path(__file__).parent / "generator"
_ANSWER_WITHIN_S = 15.0


class LoadFailed(RuntimeError):
    """The load could not be built, or it lost a call that it needed."""


class Delay(BaseModel):
    """Percentiles, ms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Sample(BaseModel):
    """What the load saw in one measurement. The counts are of that time only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    up_ms: Delay
    """A frame's way from the leg to the model, as append."""
    down_ms: Delay
    """From a response's first delta to its first audio at the leg."""
    lateness_ms: Delay
    """How late the load itself was with what it had to send."""
    frames_sent: int
    frames_received: int
    frames_lost: int
    frames_garbled: int
    responses_sent: int
    responses_heard: int
    responses_silent: int
    responses_incomplete: int
    barge_ins: int
    kills: int
    truncates: int
    overruns: int
    stalls: int
    closed: int
    calls: int
    wall_s: float
    cpu_s: float

    @property
    def utilisation(self) -> float:
        """The load's own share of its core."""
        return self.cpu_s / self.wall_s

    @property
    def faults(self) -> dict[str, int]:
        """What must not have happened in a measurement that counts."""
        names = (
            "frames_lost",
            "frames_garbled",
            "responses_silent",
            "responses_incomplete",
            "overruns",
            "stalls",
            "closed",
        )
        return {name: getattr(self, name) for name in names if getattr(self, name)}


def build(directory: Path) -> Path:
    """Compile the load into ``directory``. Raises LoadFailed where that cannot be done."""
    program = directory / "load"
    command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-o", str(program), *map(str, sorted(SOURCE.glob("*.c")))]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise LoadFailed("gcc is missing; run: apt-get install gcc libc6-dev") from None
    except subprocess.CalledProcessError as error:
        raise LoadFailed(f"gcc could not build the load:\n{error.stderr}") from None
    return program


class Load:
    """The running generator: calls are opened one at a time and then live until :meth:`stop`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.calls = 0

    @classmethod
    async def start(cls, program: Path, core: int, address: str, port: int, log: Path) -> Self:
        """``address:port`` is where the stand-in model listens."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *pinned(core, [str(program), address, str(port)], real_time=True),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        load = cls(process)
        await load._expect("ready", _ANSWER_WITHIN_S)
        return load

    async def open(self, host: str, port: int, path: str, hello: str) -> None:
        """One more call; returns when its first frame has reached the model. Raises LoadFailed."""
        self._write(f"open {host} {port} {path} {hello}")
        await self._expect("up", _ANSWER_WITHIN_S)
        self.calls += 1

    async def measure(self, seconds: float) -> Sample:
        self._write(f"measure {round(seconds * 1000)}")
        return Sample.model_validate(json.loads(await self._read(seconds + _ANSWER_WITHIN_S)))

    async def stop(self) -> None:
        """Hang up all calls and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 3)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def _read(self, within_s: float) -> str:
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), within_s)
        except TimeoutError:
            raise LoadFailed(f"the load did not answer in {within_s:.0f} s") from None
        if not line:
            raise LoadFailed("the load ended; its log says why")
        return line.decode().strip()

    async def _expect(self, word: str, within_s: float) -> None:
        answer = await self._read(within_s)
        if answer != word:
            raise LoadFailed(f"call {self.calls + 1}: {answer}")
