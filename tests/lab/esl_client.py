"""The event socket as tests see it: a connection either way, and the server that the dialplan dials."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

PATIENCE_S = 15.0


async def until(condition: Callable[[], Any], what: Callable[[], str], timeout_s: float = PATIENCE_S) -> Any:
    """What ``condition`` returns, once it is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what()}"
        await asyncio.sleep(0.005)
    return found


class Message:
    """One block of the event socket: headers (the outer ones, or an event's, decoded) and body."""

    def __init__(self, head: bytes, body: bytes, *, decoded: bool) -> None:
        self.head = head
        self.raw_body = body
        lines = (line.partition(": ") for line in head.decode("utf-8", "surrogateescape").split("\n") if line)
        self.headers = {name: unquote(value) if decoded else value for name, _, value in lines}
        self.body = body.decode("utf-8", "surrogateescape")

    def __getitem__(self, name: str) -> str:
        return self.headers[name]

    def get(self, name: str, default: str = "") -> str:
        return self.headers.get(name, default)

    @property
    def name(self) -> str:
        """An event's name; of a CUSTOM one its subclass."""
        return self.get("Event-Subclass") or self.get("Event-Name")

    def __repr__(self) -> str:
        return f"<{self.name or self.head!r} {self.get('Unique-ID')[:8]} {self.body[:80]!r}>"


class EventSocket:
    """One connection to the switch, from either side. ``events`` has every event so far, ``notices`` the disconnect notices."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.events: list[Message] = []
        self.notices: list[Message] = []
        self.info = Message(b"", b"", decoded=False)
        """Of an outbound connection: the answer to ``connect``."""
        self.closed = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._replies: asyncio.Queue[Message] = asyncio.Queue()
        self._pump_task = asyncio.create_task(self._pump())

    @classmethod
    async def dial(cls, address: str, port: int, password: str | None) -> "EventSocket":
        esl = cls(*await asyncio.open_connection(address, port, limit=1 << 24))
        assert (await esl.reply())["Content-Type"] == "auth/request"
        if password is not None:
            assert await esl.send(f"auth {password}") == "+OK accepted"
        return esl

    @property
    def uuid(self) -> str:
        return self.info["Unique-ID"]

    async def _pump(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self._reader.readuntil(b"\n\n")
                outer = Message(head, b"", decoded=False)
                body = await self._reader.readexactly(int(outer.get("Content-Length", "0")))
                kind = outer.get("Content-Type")
                if kind == "text/event-plain":
                    inner, _, text = body.partition(b"\n\n")
                    self.events.append(Message(inner, text, decoded=True))
                elif kind == "text/disconnect-notice":
                    self.notices.append(Message(head, body, decoded=False))
                else:
                    self._replies.put_nowait(Message(head, body, decoded="Event-Name" in outer.headers))
        self.closed.set()

    async def reply(self) -> Message:
        return await asyncio.wait_for(self._replies.get(), PATIENCE_S)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def message(self, command: str, body: str = "") -> Message:
        """Send a command (one line or several, without the empty line); its reply."""
        data = body.encode()
        length = f"\ncontent-length: {len(data)}" if body else ""
        self.write(f"{command}{length}\n\n".encode("utf-8", "surrogateescape") + data)
        return await self.reply()

    async def send(self, command: str, body: str = "") -> str:
        """The same; the reply's text."""
        reply = await self.message(command, body)
        return reply.body or reply.get("Reply-Text")

    async def api(self, command: str) -> str:
        return await self.send(f"api {command}")

    async def execute(self, application: str, argument: str = "", **headers: str) -> str:
        lines = ["sendmsg", "call-command: execute", f"execute-app-name: {application}"]
        lines += [f"execute-app-arg: {argument}"] if argument else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return await self.send("\n".join(lines))

    async def run(self, application: str, argument: str = "", **headers: str) -> Message:
        """Execute and wait for CHANNEL_EXECUTE_COMPLETE."""
        before = len(self.events)
        assert await self.execute(application, argument, **headers) == "+OK"
        return await self.event("CHANNEL_EXECUTE_COMPLETE", after=before, Application=application)

    async def event(self, name: str, *, after: int = 0, **wanted: str) -> Message:
        """The first event of that name (or subclass) behind the first ``after``, with these headers (``_`` for ``-``)."""

        def found() -> Message | None:
            for event in self.events[after:]:
                if event.name == name and all(event.get(k.replace("_", "-")) == v for k, v in wanted.items()):
                    return event
            return None

        event: Message = await until(found, lambda: f"{name} {wanted}; there were {self.events[after:]}")
        return event

    def close(self) -> None:
        self._writer.close()


class Controller:
    """The server that the dialplan's ``socket`` dials."""

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self.connects = True
        """Send ``connect`` at once. False: leave the connection to the test."""
        self._calls: asyncio.Queue[EventSocket] = asyncio.Queue()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.address, self.port, limit=1 << 24)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        esl = EventSocket(reader, writer)
        if self.connects:
            esl.info = await esl.message("connect")
        self._calls.put_nowait(esl)

    async def next_call(self) -> EventSocket:
        return await asyncio.wait_for(self._calls.get(), PATIENCE_S)

    def refuse(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
