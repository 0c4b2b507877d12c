"""A telephone world on loopback: the edge, cells of switch, esl_app and media_fork, a model, a carrier and a PBX.

Everything the operator would run runs as it would, from one rendered configuration; see lab.site for who is where.

    async with World(Site(folder), switch=SwitchKind.LAB) as world:
        call = await world.carrier.invite("+12025550100", proxy=world.site.edge, from_number="+12025550147")
"""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from lab import kamailio
from lab.capture import Capture
from lab.phone import Call, Phone
from lab.process import Process
from lab.site import CARRIER, PBX, ROOT, SIP_PORT, Site
from lab.switches import SwitchKind, find_freeswitch
from tandem import settings as tandem_settings
from tandem.records import CallRecord, CallStory, Records, RecordsError
from tandem.render import render

SETTLED_S = 0.6
"""Rows that are not on record after so long are not under way: more than the recorder gathers them for."""
READY_S = 40.0
"""Patience for a process to come up on a busy machine."""


class World:
    """Start it with ``async with``; ``say`` is told what is being started."""

    def __init__(
        self,
        site: Site,
        *,
        switch: SwitchKind = SwitchKind.LAB,
        scenario: Path = ROOT / "lab/scenarios/reception.yaml",
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.site = site
        self.switch = switch
        self.processes: dict[str, Process] = {}
        self.settings: tandem_settings.Settings
        self.carrier = Phone(site.address(CARRIER), SIP_PORT, name="carrier")
        self.pbx = Phone(site.address(PBX), SIP_PORT, name="pbx")
        self.capture: Capture | None = None
        """Whoever captures the world's SIP leaves the capture here."""
        self._scenario = scenario
        self._say = say
        self._stack = contextlib.AsyncExitStack()
        self._records: Records | None = None

    # Start and stop

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self) -> None:
        self.site.write()
        self.settings = tandem_settings.load(self.site.config, self.site.environment)
        for phone in (self.carrier, self.pbx):
            await phone.start()
            self._stack.push_async_callback(phone.stop)
        if not self.site.openai_key:
            await self.start_process("model")
        await self._start_site()

    async def _start_site(self) -> None:
        """What the operator runs."""
        freeswitch = find_freeswitch() if self.switch is SwitchKind.FREESWITCH else None
        render(self.settings, self.site.rendered, freeswitch_prefix=freeswitch.prefix if freeswitch else None)
        for kind in ("media_fork", "esl_app", "switch"):
            await asyncio.gather(*(self.start_process(f"{kind}@{worker}") for worker in self.site.workers))
        await self.start_process("kamailio")

    async def _stop(self) -> None:
        await self._stack.aclose()
        order = ("dialler", "kamailio", "esl_app", "switch", "media_fork", "model")
        for kind in order:
            group = [process for name, process in self.processes.items() if name.split("@")[0] == kind]
            # FreeSWITCH may take half a minute to unload the streaming module; the world does not wait for it.
            await asyncio.gather(*(process.stop(1.5 if kind == "switch" else 4.0) for process in group))

    # Processes, by name: kamailio, model, esl_app@worker-1, media_fork@worker-1, switch@worker-1

    def _argv(self, name: str) -> list[str]:
        kind, _, worker = name.partition("@")
        python = [sys.executable, "-m"]
        common = ["--config", str(self.site.config), "--worker", worker]
        if kind == "model":
            host, port = self.site.model
            return [*python, "lab.model", "--scenario", str(self._scenario), "--listen", f"{host}:{port}"]
        if kind == "kamailio":
            return kamailio.command(self.site.rendered / "kamailio/kamailio.cfg", self.settings.edge.run_directory)
        if kind == "dialler":
            return [*python, kind, "--config", str(self.site.config)]
        if kind in ("esl_app", "media_fork"):
            return [*python, kind, *common]
        if self.switch is SwitchKind.LAB:
            return [*python, "lab.switch", *common]
        install = find_freeswitch()
        state = self.site.folder / "freeswitch" / worker
        argv = [str(install.program), "-nonat", "-nf", "-nc", "-conf", str(self.site.rendered / "freeswitch" / worker)]
        for option in ("log", "db", "run", "temp", "certs", "scripts", "recordings", "sounds", "storage", "cache"):
            (state / option).mkdir(parents=True, exist_ok=True)
            argv += [f"-{option}", str(state / option)]
        return [*argv, "-mod", str(install.modules)]

    async def start_process(self, name: str) -> Process:
        """Start (or start again) one process and return once it serves."""
        self._say(f"starting {name}")
        process = Process(
            name,
            self._argv(name),
            self.site.folder / "logs" / f"{name}.log",
            env=self.site.environment,
            cwd=ROOT,
            death_signal=signal.SIGTERM if name == "kamailio" else signal.SIGKILL,
        )
        await process.start()
        self.processes[name] = process
        kind, _, worker = name.partition("@")
        ready: dict[str, Callable[[str], Awaitable[bool]]] = {
            "model": self._model_ready,
            "kamailio": self._edge_ready,
            "esl_app": self._esl_app_ready,
            "media_fork": self._media_fork_ready,
            "switch": self._switch_ready,
            "dialler": self._dialler_ready,
        }
        await self.until(lambda: ready[kind](worker), READY_S, f"{name} to serve", process)
        return process

    async def kill(self, name: str) -> None:
        """``kill -9``, now."""
        await self.processes[name].kill()

    async def _edge_ready(self, worker: str) -> bool:
        del worker
        return await self.carrier.options(self.site.edge) == 200 and await self.workers_up()

    async def workers_up(self) -> bool:
        """Whether the edge has every worker as active."""
        return all([await self.carrier_sees_up(name) for name in self.site.workers])

    async def carrier_sees_up(self, worker: str) -> bool:
        """Whether the edge's dispatcher has this worker as active."""
        host = self.settings.workers[worker].address
        listing = str(await self.edge_rpc("dispatcher.list"))
        position = listing.find(f"sip:{host}:")
        return position >= 0 and "'FLAGS': 'A" in listing[position : position + 400]

    async def edge_rpc(self, method: str, *params: Any) -> Any:
        """A JSON-RPC call to Kamailio. Raises OSError or aiohttp.ClientError where it is away."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(2)) as http:
            async with http.post(f"http://{self.settings.edge.rpc}/rpc", json=request) as response:
                return await response.json(content_type=None)

    async def _model_ready(self, worker: str) -> bool:
        del worker
        return await _connects(*self.site.model)

    async def _esl_app_ready(self, worker: str) -> bool:
        return await _connects(self.settings.workers[worker].loopback, self.settings.esl_app.port)

    async def _dialler_ready(self, worker: str) -> bool:
        del worker
        host, _, port = self.settings.dialler.listen.rpartition(":")
        return await _connects(host, int(port))

    async def _media_fork_ready(self, worker: str) -> bool:
        return bool((await self._media_fork_health(worker))["status"] == "ok")

    async def _media_fork_health(self, worker: str) -> Any:
        url = f"http://{self.settings.workers[worker].loopback}:{self.settings.media_fork.http_port}/healthz"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(2)) as http, http.get(url) as response:
            return await response.json()

    async def _switch_ready(self, worker: str) -> bool:
        return "true" in await self.event_socket(worker, "module_exists mod_audio_fork")

    async def event_socket(self, worker: str, command: str) -> str:
        """One ``api`` command over the switch's inbound event socket; its reply's body."""
        cell = self.settings.workers[worker]
        reader, writer = await asyncio.open_connection(cell.loopback, self.settings.freeswitch.event_socket_port)
        try:
            await _esl_block(reader)
            writer.write(f"auth {self.settings.freeswitch.password.get_secret_value()}\n\n".encode())
            await _esl_block(reader)
            writer.write(f"api {command}\n\n".encode())
            head = await _esl_block(reader)
            return (await reader.readexactly(int(head.get("content-length", "0")))).decode()
        finally:
            writer.close()

    # What tests and the demo ask of it

    async def until(
        self, condition: Callable[[], Awaitable[bool]], timeout_s: float, what: str, process: Process | None = None
    ) -> None:
        """Poll ``condition`` until it holds; what is not there yet counts as no. Raises TimeoutError naming ``what``."""
        deadline = time.monotonic() + timeout_s
        while True:
            if process is not None:
                process.check()
            with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError, EOFError, RecordsError):
                if await condition():
                    return
            if time.monotonic() > deadline:
                tail = f"; the end of its log:\n{process.tail()}" if process else ""
                raise TimeoutError(f"waited {timeout_s:.0f} s for {what}{tail}")
            await asyncio.sleep(0.05)

    async def model_faults(self, **faults: Any) -> None:
        """Script the lab model's next connections; see lab/faults.py."""
        await self._model_http("POST", "/lab/faults", faults)

    async def clear_faults(self) -> None:
        """Forget the faults that no connection has taken yet."""
        await self._model_http("DELETE", "/lab/faults", None)

    async def model_events(self, kind: str, *, sent_by: str = "client") -> list[Any]:
        """Events of one type in the model's newest session, from the ``client`` (media_fork) or the ``server``."""
        log = await self._model_http("GET", "/lab/log?session=latest", None)
        entries = [entry for entry in log["entries"] if entry["from"] == sent_by and "event" in entry]
        return [entry["event"] for entry in entries if entry["event"]["type"] == kind]

    async def model_audio(self) -> bytes:
        """What the model's newest session was sent to hear, in the session's format."""
        return await self._model_asked("GET", "/lab/audio", None)

    async def _model_http(self, method: str, path: str, body: Any) -> Any:
        return json.loads(await self._model_asked(method, path, body))

    async def _model_asked(self, method: str, path: str, body: Any) -> bytes:
        host, port = self.site.model
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as http:
            async with http.request(method, f"http://{host}:{port}{path}", json=body) as response:
                response.raise_for_status()
                return await response.read()

    def records(self) -> Records:
        if self._records is None:
            self._records = Records(self.settings.records.url)
            self._stack.callback(self._records.close)
        return self._records

    async def record(self, match: Callable[[CallRecord], bool], timeout_s: float = 15.0) -> CallStory:
        """The story of the one call that matches, once it has ended and nothing more of it comes: the planes write their
        rows apart, each some time after they are made.
        """
        found: list[CallRecord] = []

        async def ended() -> bool:
            found[:] = [call for call in self.records().calls(limit=50) if match(call)]
            return len(found) == 1 and found[0].outcome is not None

        try:
            await self.until(ended, timeout_s, "one ended call on record")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; on record: {found or self.records().calls(limit=50)}") from None
        before, story = None, self.records().call(found[0].id)
        while story is None or story != before:
            before = story
            await asyncio.sleep(SETTLED_S)
            story = self.records().call(found[0].id)
        return story

    def worker_of(self, call: Call) -> str:
        """The worker that has the call's media. Raises LookupError where no worker has it."""
        for name, worker in self.settings.workers.items():
            if worker.address == call.remote_media_address:
                return name
        raise LookupError(f"{call} has its media with {call.remote_media_address}, which is no worker")

    async def sessions(self, worker: str) -> int:
        """Sessions that this worker's media_fork holds, reserved ones included."""
        return int((await self._media_fork_health(worker))["sessions"])

    async def idle(self, timeout_s: float) -> None:
        """Return once no switch has a channel and no media_fork a session. Raises TimeoutError."""

        async def empty() -> bool:
            for worker in self.site.workers:
                channels = await self.event_socket(worker, "show channels count")
                if not channels.strip().startswith("0 total") or await self.sessions(worker):
                    return False
            return True

        await self.until(empty, timeout_s, "every channel and session to be gone")


async def _connects(host: str, port: int) -> bool:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return True


async def _esl_block(reader: asyncio.StreamReader) -> dict[str, str]:
    block = (await reader.readuntil(b"\n\n")).decode()
    pairs = (line.partition(":") for line in block.strip().splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}
