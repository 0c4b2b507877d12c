"""A switch with everything around it played by the test: the edge's phone, the controller, the fork's server.

The same rig drives the lab's switch and FreeSWITCH, so that what one says can be held against what the other says.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from lab.phone import Call, Phone
from lab.process import Process
from lab.site import EDGE, SIP_PORT, Site
from lab.switch.core import Switch
from lab.switches import find_freeswitch
from tandem import settings as tandem_settings
from tandem.render import render
from tests.lab.esl_client import PATIENCE_S, Controller, EventSocket, until

NUMBER = "+12025550100"
CALLER = "+12025550147"
FORK_PORT = 8091
WORKER = "worker-1"


class Fork:
    """One WebSocket that the switch opened."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.messages: list[str | bytes] = []
        self.closed = asyncio.Event()

    @property
    def texts(self) -> list[str]:
        return [message for message in self.messages if isinstance(message, str)]

    @property
    def frames(self) -> list[bytes]:
        return [message for message in self.messages if isinstance(message, bytes)]

    @property
    def audio(self) -> bytes:
        return b"".join(self.frames)

    async def send(self, data: str | bytes) -> None:
        await self.connection.send(data)

    async def heard(self, seconds: float, rate: int = 8000) -> None:
        """So much more audio comes."""
        wanted = len(self.audio) + int(seconds * rate) * 2
        await until(lambda: len(self.audio) >= wanted, lambda: f"{seconds} s of audio on the fork")


class ForkServer:
    """Where forks go. ``refuse_with``: answer the handshake with that status; ``silent``: do not answer it at all."""

    def __init__(self, address: str, port: int = FORK_PORT) -> None:
        self.address = address
        self.port = port
        self.refuse_with: int | None = None
        self._forks: asyncio.Queue[Fork] = asyncio.Queue()
        self._server: Any = None

    @property
    def url(self) -> str:
        return f"ws://{self.address}:{self.port}"

    async def start(self) -> None:
        self._server = await serve(
            self._serve, self.address, self.port, process_request=self._admit, compression=None, max_size=None
        )

    def _admit(self, connection: ServerConnection, request: Any) -> Any:
        if self.refuse_with is None:
            return None
        return connection.respond(HTTPStatus(self.refuse_with), "no\n")

    async def _serve(self, connection: ServerConnection) -> None:
        fork = Fork(connection)
        self._forks.put_nowait(fork)
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                fork.messages.append(message)
        fork.closed.set()

    async def next_fork(self) -> Fork:
        return await asyncio.wait_for(self._forks.get(), PATIENCE_S)

    def stop(self) -> None:
        self._server.close()


class Rig(ABC):
    """Start it with ``async with``."""

    def __init__(self, folder: Path, change: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.site = Site(folder, workers=1, change=change)
        self.site.write()
        self.settings = tandem_settings.load(self.site.config, self.site.environment)
        worker = self.settings.workers[WORKER]
        self.address, self.sip_port, self.loopback = worker.address, worker.sip_port, worker.loopback
        self.edge = Phone(self.site.address(EDGE), SIP_PORT, name="edge")
        self.controller = Controller(self.loopback, self.settings.esl_app.port)
        self.forks = ForkServer(self.loopback)
        self._sockets: list[EventSocket] = []

    @abstractmethod
    async def start_switch(self) -> None: ...

    @abstractmethod
    async def stop_switch(self) -> None: ...

    async def __aenter__(self) -> Self:
        for part in (self.edge, self.controller, self.forks):
            await part.start()
        await self.start_switch()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop_switch()
        await self.edge.stop()
        self.controller.refuse()
        self.forks.stop()
        for esl in self._sockets:
            esl.close()

    async def clean(self) -> None:
        """End what a test left, and take back what it scripted."""
        self.controller.connects = True
        self.forks.refuse_with = None
        self.edge.on_invite = None
        for call in self.edge.calls:
            await call.hangup()
        self.edge.calls.clear()
        while self._sockets:
            self._sockets.pop().close()

    @property
    def sip(self) -> tuple[str, int]:
        return self.address, self.sip_port

    @property
    def password(self) -> str:
        return self.settings.freeswitch.password.get_secret_value()

    async def event_socket(self, password: str | None = "") -> EventSocket:
        """An inbound connection, logged in; ``password`` None: not yet."""
        port = self.settings.freeswitch.event_socket_port
        esl = await EventSocket.dial(self.loopback, port, self.password if password == "" else password)
        self._sockets.append(esl)
        return esl

    async def listener(self, events: str = "ALL") -> EventSocket:
        """An inbound connection that hears all events."""
        esl = await self.event_socket()
        assert (await esl.send(f"event plain {events}")).startswith("+OK")
        return esl

    async def invite(self, **options: Any) -> Call:
        """Call as the edge does; not waiting for anything."""
        return await self.edge.invite(NUMBER, proxy=self.sip, **({"from_number": CALLER} | options))

    async def call(self, **options: Any) -> tuple[Call, EventSocket]:
        """A call that has reached its controller."""
        call = await self.invite(**options)
        esl = await self.controller.next_call()
        self._sockets.append(esl)
        return call, esl

    async def answered(self, *, events: str = "ALL", **options: Any) -> tuple[Call, EventSocket]:
        """A call that the controller has answered, silence being sent to the caller; it hears this channel's events."""
        call, esl = await self.call(**options)
        assert (await esl.send(f"filter Unique-ID {esl.uuid}")).startswith("+OK")
        assert (await esl.send(f"event plain {events}")).startswith("+OK")
        await esl.run("set", "send_silence_when_idle=-1")
        await esl.run("answer")
        await call.wait_answered(PATIENCE_S)
        return call, esl

    async def fork(
        self,
        esl: EventSocket,
        *,
        rate: int = 8000,
        stream_rate: int = 8000,
        name: str = "audio_fork",
        metadata: str = "{}",
    ) -> Fork:
        """A running fork on the controller's call, its metadata received."""
        words = f"{self.forks.url} mono {rate} {name} {metadata} true true {stream_rate}"
        before = len(esl.events)
        assert await esl.api(f"uuid_audio_fork {esl.uuid} start {words}") == "+OK Success\n"
        fork = await self.forks.next_fork()
        await esl.event("mod_audio_fork::connect", after=before)
        await until(lambda: fork.texts, lambda: "the fork's metadata")
        return fork

    def dial_string(self, number: str = "2001", **variables: str) -> str:
        """What ``originate`` takes to reach the edge's phone."""
        pairs = ",".join(f"{name}={value}" for name, value in variables.items())
        return f"{{{pairs}}}sofia/tandem/sip:{number}@{self.edge.address}:{self.edge.port}"


class LabRig(Rig):
    """The lab's switch, in this process."""

    switch: Switch

    async def start_switch(self) -> None:
        self.switch = Switch(self.settings, WORKER)
        await self.switch.start()

    async def stop_switch(self) -> None:
        await self.switch.stop()


class FreeSwitchRig(Rig):
    """FreeSWITCH with its rendered configuration, in a process of its own."""

    process: Process

    async def start_switch(self) -> None:
        install = find_freeswitch()
        folder = self.site.folder
        render(self.settings, self.site.rendered, freeswitch_prefix=install.prefix)
        argv = [str(install.program), "-nonat", "-nf", "-nc"]
        argv += ["-conf", str(self.site.rendered / "freeswitch" / WORKER), "-mod", str(install.modules)]
        for option in ("log", "db", "run", "temp", "certs", "scripts", "recordings", "sounds", "storage", "cache"):
            (folder / option).mkdir()
            argv += [f"-{option}", str(folder / option)]
        self.process = Process("freeswitch", argv, folder / "freeswitch.log")
        await self.process.start()
        async with asyncio.timeout(60):
            while not await self._ready():
                self.process.check()
                await asyncio.sleep(0.1)

    async def _ready(self) -> bool:
        try:
            esl = await self.event_socket()
        except OSError:
            return False
        return await esl.api("module_exists mod_audio_fork") == "true"

    async def stop_switch(self) -> None:
        # Unloading the streaming module can take half a minute.
        await self.process.stop(1.0)
