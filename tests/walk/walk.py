"""The walk: callers who do one random thing after another, on a real switch and the real esl_app.

What they do is decided by a seed; when it happens is the machine's affair. The walk plays the edge, the targets and
media_fork (tests.esl.cell). When it is over nothing may be left: see :meth:`Walk.left`.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from lab.phone import Call
from lab.switches import SwitchKind
from tandem.records import Records
from tandem.settings import Settings
from tests.esl.cell import Cell, Fork, MediaFork, connects, until_async

PATIENCE_S = 20.0
SETTLE_S = 60.0
"""For everything to be gone once the last caller has hung up: longer than any leg rings, any message takes."""
DESTINATIONS = ("sales", "sales", "sales", "premium", "nowhere", "{a=b}sofia/tandem/sip:911@x")
STEPS = ("dtmf", "dtmf", "transfer", "transfer", "wait", "nonsense", "model_lost", "fork_lost")
TARGETS = ("answers", "answers", "leaves", "busy", "declines", "rings", "silent", "late")
GONE = (ConnectionError, RuntimeError)
"""What the fork's connection raises once it is closed."""


@dataclass
class _Plan:
    """What media_fork says when a call asks for a session."""

    delay_s: float = 0.0
    refusal: str = ""


class _Media(MediaFork):
    def __init__(self, address: str, settings: Settings) -> None:
        super().__init__(address, settings)
        self.plans: dict[str, _Plan] = {}

    async def _reserve(self, request: web.Request) -> web.Response:
        plan = self.plans.get((await request.json())["call"], _Plan())
        await asyncio.sleep(plan.delay_s)
        if plan.refusal:
            return web.json_response({"cause": plan.refusal, "message": "so it is planned"}, status=503)
        return await super()._reserve(request)


class WalkCell(Cell):
    """A cell whose esl_app tells how many greenlets it has."""

    def __init__(self, settings: Settings, folder: Path, kind: SwitchKind) -> None:
        super().__init__(settings, folder, kind)
        self.media: _Media = _Media(self.address, settings)
        self.media_fork = self.media
        self._told = folder / "greenlets"

    async def start_esl_app(self) -> None:
        os.environ["WALK_GREENLETS"] = str(self._told)
        config = str(self.folder / "tandem.yaml")
        await self._run("esl_app", [sys.executable, "-m", "tests.walk.app", "--config", config, "--worker", "worker-1"])
        await until_async(lambda: connects(self.address, self.settings.esl_app.port), "esl_app to listen")

    async def greenlets(self) -> int:
        self._told.unlink(missing_ok=True)
        os.kill(self.processes["esl_app"].pid, signal.SIGUSR1)

        async def told() -> bool:
            return self._told.exists()

        await until_async(told, "esl_app to count its greenlets")
        return int(self._told.read_text())

    def sockets(self) -> int:
        """That esl_app has open."""
        found = 0
        for descriptor in Path(f"/proc/{self.processes['esl_app'].pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found += str(descriptor.readlink()).startswith("socket:")
        return found

    async def health(self) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection(self.address, self.settings.esl_app.metrics_port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return found


@dataclass(frozen=True)
class Left:
    """What is there beyond what was there before the first call. Empty where the walk has left nothing."""

    channels: list[str]
    """What the switch says of each."""
    calls: int
    sockets: int
    greenlets: int
    records: list[str] = field(default_factory=list)
    """Ids of calls without an outcome."""

    def __bool__(self) -> bool:
        return bool(self.channels or self.calls or self.sockets or self.greenlets or self.records)


class Walk:
    """``callers`` at a time; esl_app is killed and started again every ``kill_every_s``, where that is given."""

    def __init__(self, cell: WalkCell, seed: int, callers: int, kill_every_s: float | None = None) -> None:
        self._cell = cell
        self._seed = seed
        self._callers = callers
        self._kill_every_s = kill_every_s
        self._targets = random.Random(f"{seed}/targets")
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._before = Left([], 0, 0, 0)
        self.done: Counter[str] = Counter()
        """What was done, how often."""

    async def run(self, seconds: float) -> Left:
        """The walk, and what is left when it is over."""
        cell = self._cell
        cell.target = self._target  # type: ignore[method-assign]
        # The first call has modules loaded and pools filled: what comes with it stays.
        await self._call(random.Random(self._seed), "walk-first")
        await cell.idle()
        self._before = Left([], 0, cell.sockets(), await cell.greenlets())
        end = time.monotonic() + seconds
        present = asyncio.create_task(self._be_present())
        over = asyncio.Event()
        killing = asyncio.create_task(self._kill(over))
        try:
            await asyncio.gather(*(self._caller(number, end) for number in range(self._callers)))
        finally:
            over.set()
            await killing
        deadline = time.monotonic() + SETTLE_S
        while (left := await self.left()) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        present.cancel()
        return left

    async def left(self) -> Left:
        cell = self._cell
        try:
            calls = (await cell.health())["calls"]
        except (OSError, ValueError):
            calls = 1
        with Records(cell.settings.records.url) as records:
            open_records = [row.id for row in records.calls(limit=1000, live=True)]
        return Left(
            channels=await self._channels(),
            calls=calls,
            sockets=max(0, cell.sockets() - self._before.sockets),
            greenlets=max(0, await cell.greenlets() - self._before.greenlets),
            records=open_records,
        )

    async def _channels(self) -> list[str]:
        """Those that exist: FreeSWITCH's own list may lag behind, and on a busy machine keep rows of what is gone."""
        told = ("uuid", "direction", "created", "state", "application", "callstate")
        rows = json.loads(await self._cell.api("show channels as json")).get("rows", [])
        existing = [row for row in rows if await self._cell.api(f"uuid_exists {row['uuid']}") == "true"]
        self.done["rows of channels that are gone"] = len(rows) - len(existing)
        return [" ".join(str(row.get(key)) for key in told) for row in existing]

    # Who takes part

    async def _caller(self, number: int, end: float) -> None:
        for turn in itertools.count():
            if time.monotonic() > end:
                return
            await self._call(random.Random(f"{self._seed}/{number}/{turn}"), f"walk-{self._seed}-{number}-{turn}")

    async def _call(self, chance: random.Random, name: str) -> None:
        plan = _Plan(delay_s=chance.choice((0.0, 0.0, 0.0, 0.3)), refusal=chance.choice(("", "", "", "", "draining")))
        self._cell.media.plans[name] = plan
        call = await self._cell.rings(name)
        self.done["calls"] += 1
        try:
            if chance.random() < 0.1:
                self.done["cancelled"] += 1
                await asyncio.sleep(chance.uniform(0, 0.3))
                if call.end is None:
                    await call.cancel()
                return
            try:
                await call.wait_answered(PATIENCE_S)
            except (ConnectionError, TimeoutError, AssertionError):
                self.done["not answered"] += 1
                await asyncio.sleep(chance.uniform(0, 0.5))
                return
            await self._talk(chance, name, call)
        finally:
            # A 200 may have crossed the CANCEL: then it is up, and ended once more.
            for _ in range(2):
                with contextlib.suppress(TimeoutError):
                    await call.hangup()
                    await call.wait_ended(PATIENCE_S)
            self._cell.media.plans.pop(name, None)

    async def _talk(self, chance: random.Random, name: str, call: Call) -> None:
        deadline = time.monotonic() + 3
        while (fork := self._cell.media.forks.get(name)) is None and call.end is None:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.01)
        for number in range(chance.randint(0, 4)):
            if call.end is not None or fork is None:
                return
            step = chance.choice(STEPS)
            self.done[step] += 1
            with contextlib.suppress(*GONE):
                await self._step(chance, step, f"{name}-{number}", call, fork)
            await asyncio.sleep(chance.uniform(0, 0.5))
        if fork is not None and chance.random() < 0.3:
            self.done["agent hangs up"] += 1
            with contextlib.suppress(*GONE, TimeoutError):
                await fork.decide(command="hang_up", id=f"{name}-end")
                await call.wait_ended(2.0)

    async def _step(self, chance: random.Random, step: str, id: str, call: Call, fork: Fork) -> None:
        match step:
            case "dtmf":
                await call.dtmf(chance.choice("0123456789*#"))
            case "transfer":
                await fork.decide(command="transfer", id=id, destination=chance.choice(DESTINATIONS))
            case "nonsense":
                await fork.socket.send_str(chance.choice(('{"type":"json","data":{"command":"fly"}}', "{", '"x"')))
            case "model_lost":
                await fork.decide(command="model_lost", cause="so it is planned")
            case "fork_lost":
                await fork.socket.close()

    async def _target(self, call: Call) -> None:
        way = self._targets.choice(TARGETS)
        self.done[f"target {way}"] += 1
        with contextlib.suppress(*GONE, TimeoutError):
            match way:
                case "busy":
                    await call.reject(486)
                case "declines":
                    await call.ringing()
                    await call.reject(603)
                case "rings":
                    await call.ringing()
                case "answers" | "leaves" | "late":
                    await call.ringing()
                    await asyncio.sleep(1.0 if way == "late" else 0)
                    if call.end is None:
                        await call.answer()
                    if way == "leaves":
                        self._later(call)

    def _later(self, call: Call) -> None:
        async def leave(after_s: float) -> None:
            await asyncio.sleep(after_s)
            with contextlib.suppress(TimeoutError):
                await call.hangup()

        task = asyncio.create_task(leave(self._targets.uniform(0, 1)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _be_present(self) -> None:
        """media_fork's answer to an esl_app that takes calls over."""
        answered: Counter[str] = Counter()
        while True:
            for name, fork in list(self._cell.media.forks.items()):
                resumed = sum(text.get("notice") == "resumed" for text in fork.texts)
                if resumed > answered[name]:
                    answered[name] = resumed
                    self.done["taken over"] += 1
                    with contextlib.suppress(*GONE):
                        await fork.decide(command="present")
            await asyncio.sleep(0.02)

    async def _kill(self, over: asyncio.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), self._kill_every_s)
                return
            self.done["esl_app killed"] += 1
            await self._cell.processes["esl_app"].kill()
            await asyncio.sleep(self._targets.uniform(0, 1))
            await self._cell.start_esl_app()
