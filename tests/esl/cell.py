"""One cell with a real switch and the real esl_app; the test plays the edge (a Phone) and media_fork."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

from lab.phone import Call, Phone
from lab.process import Process
from lab.switches import SwitchKind, find_freeswitch
from tandem.records import CallStory, Records, RecordsError
from tandem.render import render
from tandem.settings import Settings

PATIENCE_S = 20.0
NUMBER = "+12025550100"
CALLER = "+12025550147"


async def until(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
        await asyncio.sleep(0.01)
    return found


class Fork:
    """One WebSocket of mod_audio_fork, from media_fork's side."""

    def __init__(self, socket: web.WebSocketResponse, query: dict[str, str]) -> None:
        self.socket = socket
        self.query = query
        self.texts: list[Any] = []
        self.raw_texts: list[str] = []
        self.audio_bytes = 0
        self.peak = 0
        """Of all samples so far."""
        self.closed: int | None = None

    async def decide(self, **data: Any) -> None:
        await self.socket.send_json({"type": "json", "data": data})

    async def say(self, pcm: bytes) -> None:
        await self.socket.send_bytes(pcm)


class MediaFork:
    """``serves_forks`` False: the fork's port is closed."""

    def __init__(self, address: str, settings: Settings) -> None:
        self._address = address
        self._ports = (settings.media_fork.http_port, settings.media_fork.fork_port)
        self.reserved: list[dict[str, Any]] = []
        self.released: list[str] = []
        self.forks: dict[str, Fork] = {}
        """By call id."""
        self.delay_s = 0.0
        self.refusal: tuple[int, str] | None = None
        self.fork_path = "/fork"
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        http = web.Application()
        http.router.add_post("/v1/sessions", self._reserve)
        http.router.add_get("/healthz", self._healthz)
        http.router.add_delete("/v1/sessions/{session}", self._release)
        forks = web.Application()
        forks.router.add_get("/fork", self._fork)
        for application, port in zip((http, forks), self._ports, strict=True):
            runner = web.AppRunner(application, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, self._address, port).start()
            self._runners.append(runner)

    async def stop(self) -> None:
        for fork in self.forks.values():
            await fork.socket.close()
        for runner in self._runners:
            await runner.cleanup()

    async def _reserve(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.reserved.append(asked)
        await asyncio.sleep(self.delay_s)
        if self.refusal is not None:
            status, cause = self.refusal
            return web.json_response({"cause": cause, "message": "as the test wants"}, status=status)
        url = f"ws://{self._address}:{self._ports[1]}{self.fork_path}?call={asked['call']}&token=it's"
        rate = 16000 if asked["codec"] == "L16" else 8000
        reply = {"session": f"s-{asked['call']}", "url": url, "rate": rate, "expires_in_ms": 10000}
        return web.json_response(reply, status=201)

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _release(self, request: web.Request) -> web.Response:
        self.released.append(request.match_info["session"])
        return web.Response(status=204)

    async def _fork(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["audio.drachtio.org"], compress=False, autoping=True)
        await socket.prepare(request)
        fork = Fork(socket, dict(request.query))
        self.forks[request.query["call"]] = fork
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                fork.raw_texts.append(message.data)
                fork.texts.append(json.loads(message.data))
            elif message.type is WSMsgType.BINARY:
                fork.audio_bytes += len(message.data)
                fork.peak = max(fork.peak, int(np.abs(np.frombuffer(message.data, np.int16).astype(np.int32)).max()))
        fork.closed = socket.close_code
        return socket


class Cell:
    def __init__(self, settings: Settings, folder: Path, kind: SwitchKind) -> None:
        self.settings = settings
        self.folder = folder
        self.kind = kind
        cell = settings.workers["worker-1"]
        self.address = cell.loopback
        self.edge = Phone(settings.edge.listen[0].address, settings.edge.listen[0].port, name="edge")
        self.worker = (cell.address, cell.sip_port)
        self.media_fork = MediaFork(cell.loopback, settings)
        self.processes: dict[str, Process] = {}
        self.rung: list[Call] = []

    async def start(self) -> None:
        await self.edge.start()
        self.edge.on_invite = self._invited
        await self.media_fork.start()
        await self.start_esl_app()
        await self._run("switch", self._switch())
        await until_async(self._switch_is_up, "the switch to serve")
        await until_async(self._esl_app_sees_switch, "esl_app to be connected")

    async def stop(self) -> None:
        for process in reversed(self.processes.values()):
            await process.stop(2.0 if process.name == "esl_app" else 1.0)
        await self.edge.stop()
        await self.media_fork.stop()

    async def start_esl_app(self) -> None:
        config = str(self.folder / "tandem.yaml")
        argv = [sys.executable, "-m", "esl_app", "--config", config, "--worker", "worker-1"]
        await self._run("esl_app", argv)
        await until_async(lambda: connects(self.address, self.settings.esl_app.port), "esl_app to listen")

    async def _run(self, name: str, argv: list[str]) -> None:
        process = Process(name, argv, self.folder / f"{name}.log", env=dict(os.environ), cwd=Path.cwd())
        await process.start()
        self.processes[name] = process

    def _switch(self) -> list[str]:
        if self.kind is SwitchKind.LAB:
            config = str(self.folder / "tandem.yaml")
            return [sys.executable, "-m", "lab.switch", "--config", config, "--worker", "worker-1"]
        install = find_freeswitch()
        render(self.settings, self.folder / "site", freeswitch_prefix=install.prefix)
        argv = [str(install.program), "-nonat", "-nf", "-nc", "-conf", str(self.folder / "site/freeswitch/worker-1")]
        for option in ("log", "db", "run", "temp", "certs", "scripts", "recordings", "sounds", "storage", "cache"):
            (self.folder / "freeswitch" / option).mkdir(parents=True, exist_ok=True)
            argv += [f"-{option}", str(self.folder / "freeswitch" / option)]
        return [*argv, "-mod", str(install.modules)]

    async def _switch_is_up(self) -> bool:
        return "true" in await self.api("module_exists mod_audio_fork")

    async def _esl_app_sees_switch(self) -> bool:
        reader, writer = await asyncio.open_connection(self.address, self.settings.esl_app.metrics_port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return b'"switch":true' in answer

    async def api(self, command: str) -> str:
        """One command over the switch's own event socket."""
        reader, writer = await asyncio.open_connection(self.address, self.settings.freeswitch.event_socket_port)
        try:
            await reader.readuntil(b"\n\n")
            writer.write(f"auth {self.settings.freeswitch.password.get_secret_value()}\n\n".encode())
            await reader.readuntil(b"\n\n")
            writer.write(f"api {command}\n\n".encode())
            head = (await reader.readuntil(b"\n\n")).decode()
            return (await reader.readexactly(int(head.split("Content-Length: ")[1].split("\n")[0]))).decode().strip()
        finally:
            writer.close()

    async def channels(self) -> int:
        return int((await self.api("show channels count")).split(" ")[0])

    async def idle(self) -> None:
        async def none() -> bool:
            return await self.channels() == 0

        await until_async(none, "every channel to be gone")

    # Calls

    async def _invited(self, call: Call) -> None:
        """A leg that the worker dials: the test decides what the target does."""
        self.rung.append(call)
        await self.target(call)

    async def target(self, call: Call) -> None:
        await call.ringing()
        await call.answer()

    async def rings(
        self,
        call: str,
        *,
        from_name: str | None = None,
        without: str = "",
        codecs: tuple[str, ...] | None = None,
        **headers: str,
    ) -> Call:
        """A call from the edge, with its headers."""
        given = {"Call": call, "Trunk": "carrier", "Agent": "reception", "Number": NUMBER, "Caller": CALLER} | headers
        return await self.edge.invite(
            NUMBER,
            proxy=self.worker,
            from_number=CALLER,
            from_name=from_name,
            codecs=codecs,
            headers=[(f"X-Tandem-{name}", value) for name, value in given.items() if name != without],
        )

    async def talks(self, call: str, **options: Any) -> tuple[Call, Fork]:
        """Answered, the fork connected."""
        placed = await self.rings(call, **options)
        await placed.wait_answered(PATIENCE_S)
        fork = await until(lambda: self.media_fork.forks.get(call), "the fork")
        await until(lambda: fork.texts and fork.audio_bytes, "the fork's metadata and audio")
        return placed, fork

    def live(self, call: str) -> CallStory | None:
        """What is on record of a call so far."""
        with contextlib.suppress(RecordsError), Records(self.settings.records.url) as records:
            return records.call(call)
        return None

    async def story(self, call: str) -> CallStory:
        """The ended call's record."""

        def ended() -> CallStory | None:
            story = self.live(call)
            return story if story and story.call.outcome else None

        return await until(ended, f"the record of {call}")


async def connects(host: str, port: int) -> bool:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return True


async def until_async(condition: Callable[[], Any], what: str, timeout_s: float = 40.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError, EOFError):
            if await condition():
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def running(cell: Cell) -> AsyncIterator[Cell]:
    try:
        await cell.start()
        yield cell
    finally:
        await cell.stop()
