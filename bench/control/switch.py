"""The load: FreeSWITCH's side of many calls, by hand, and media_fork's HTTP, on one event loop.

A call does what a call does: arrives, is prepared, rings, is answered, gets its fork, lives, is hung up. Each of its
events has the size of FreeSWITCH's own (``channel.txt``, a channel of the real one).
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import cast

import orjson

_CHANNEL = Path(__file__).with_name("channel.txt").read_text(encoding="utf-8")
_ARRIVED = "".join(
    f"variable_sip_h_X-Tandem-{name}: {value}\n"
    for name, value in (
        ("Call", "{call}"),
        ("Trunk", "carrier"),
        ("Agent", "bench"),
        ("Number", "%2B12025550100"),
        ("Caller", "%2B12025550147"),
    )
)
MOST_UNSENT = 1 << 18
"""Bytes of events that may wait for a subject that does not read: beyond it events are left out, and counted."""
_numbers = itertools.count(1)


class Call(asyncio.Protocol):
    """One call's outbound event socket. ``added_s``: from its opening to the command `answer`."""

    def __init__(self, heard: Callable[[float], None]) -> None:
        loop = asyncio.get_running_loop()
        self.uuid = str(uuid.uuid4())
        self.added_s: float | None = None
        self.up: asyncio.Future[None] = loop.create_future()
        """The fork is connected."""
        self.over: asyncio.Future[None] = loop.create_future()
        """The subject closed the socket."""
        self.left_out = 0
        """Events that were not sent because the subject did not read."""
        self._began = time.perf_counter()
        self._heard = heard
        self._digit_at: float | None = None
        self._buffer = b""
        self._block = (_CHANNEL + _ARRIVED).format(uuid=self.uuid, call=f"bench-{next(_numbers)}").encode()
        self._digit = self._event("DTMF", b"DTMF-Digit: 5\nDTMF-Duration: 1280\n")
        self._other = self._event("CHANNEL_EXECUTE_COMPLETE", b"Application: set\nApplication-UUID: x\n")

    def _event(self, name: str, headers: bytes = b"") -> bytes:
        content = b"Event-Name: %s\n%s%s\n" % (name.encode(), self._block, headers)
        return b"Content-Length: %d\nContent-Type: text/event-plain\n\n%s" % (len(content), content)

    # What the subject sends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\n\n" in self._buffer:
            block, _, self._buffer = self._buffer.partition(b"\n\n")
            self._command(block)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)
        if not self.up.done():
            self.up.set_exception(ConnectionError("the subject gave the call up before its fork"))
            self.up.exception()

    def _command(self, block: bytes) -> None:
        word = block.split(None, 1)[0]
        if word == b"connect":
            self._transport.write(
                b"Event-Name: CHANNEL_DATA\nContent-Type: command/reply\nReply-Text: %%2BOK%%0A\n%s\n" % self._block
            )
        elif word == b"sendmsg":
            self._reply(b"+OK")
            if b"execute-app-name: answer" in block:
                self.added_s = time.perf_counter() - self._began
                self._transport.write(self._event("CHANNEL_ANSWER"))
        elif word == b"api":
            self._api(block)
        elif word == b"exit":
            self._reply(b"+OK bye")
            self._transport.close()
        else:
            self._reply(b"+OK")

    def _api(self, block: bytes) -> None:
        text = b"PCMU" if b"uuid_getvar" in block else b"+OK Success\n"
        self._transport.write(b"Content-Type: api/response\nContent-Length: %d\n\n%s" % (len(text), text))
        if b" start " in block:
            self._transport.write(self._event("CUSTOM", b"Event-Subclass: mod_audio_fork%3A%3Aconnect\n"))
            if not self.up.done():
                self.up.set_result(None)
        elif b" send_text " in block and self._digit_at is not None:
            self._heard(time.perf_counter() - self._digit_at)
            self._digit_at = None

    def _reply(self, text: bytes) -> None:
        self._transport.write(b"Content-Type: command/reply\nReply-Text: %s\n\n" % text)

    # What happens to the call

    def press(self) -> None:
        """A digit, which the subject passes on to media_fork: how long that takes is told to ``heard``."""
        if self._digit_at is None and self._send(self._digit):
            self._digit_at = time.perf_counter()

    def happen(self) -> None:
        """An event that the subject has to look at and that means nothing to it."""
        self._send(self._other)

    def hang_up(self) -> None:
        self._transport.write(
            b"Content-Type: text/disconnect-notice\nContent-Disposition: linger\nContent-Length: 0\n\n"
            + self._event("CHANNEL_HANGUP", b"Hangup-Cause: NORMAL_CLEARING\n")
        )

    def _send(self, event: bytes) -> bool:
        if self._transport.get_write_buffer_size() > MOST_UNSENT:
            self.left_out += 1
            return False
        self._transport.write(event)
        return True


class _Inbound(asyncio.Protocol):
    """The subject's own event socket: everything is +OK, and there are no channels."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""
        self._transport.write(b"Content-Type: auth/request\n\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\n\n" in self._buffer:
            block, _, self._buffer = self._buffer.partition(b"\n\n")
            if block.startswith(b"api "):
                text = b'{"row_count":0}' if b"show" in block else b"+OK\n"
                self._transport.write(b"Content-Type: api/response\nContent-Length: %d\n\n%s" % (len(text), text))
            else:
                self._transport.write(b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n")


class _Media(asyncio.Protocol):
    """media_fork's HTTP: a session at once, for everybody."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b": 0")
        if not separator or len(body) < int(length.split(b":")[1]):
            return
        reply = {"session": "s", "url": "ws://127.0.0.1:8091/fork?token=t", "rate": 8000, "expires_in_ms": 10000}
        if head.startswith(b"GET"):
            status, answer = b"200 OK", orjson.dumps({"status": "ok"})
        else:
            status, answer = b"201 Created", orjson.dumps(reply)
        self._transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (status, len(answer), answer)
        )
        self._transport.close()


class Switch:
    """Serves ``address`` while it is entered; calls go to the subject at ``address:app_port``."""

    def __init__(self, address: str, app_port: int, event_socket_port: int, http_port: int) -> None:
        self.digits_s: list[float] = []
        """From each digit to its text for media_fork."""
        self._address = address
        self._app_port = app_port
        self._ports = ((_Inbound, event_socket_port), (_Media, http_port))
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> "Switch":
        loop = asyncio.get_running_loop()
        for protocol, port in self._ports:
            self._servers.append(await loop.create_server(protocol, self._address, port, backlog=1024))
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()

    async def call(self) -> Call:
        """A call arrives. Raises OSError where nobody takes it."""
        loop = asyncio.get_running_loop()
        _, call = await loop.create_connection(lambda: Call(self.digits_s.append), self._address, self._app_port)
        return call
