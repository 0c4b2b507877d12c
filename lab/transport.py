"""SIP's UDP transport: one socket, messages in and out of it, and a trace of both."""

import asyncio
import logging
import socket
from collections import Counter, deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from sipmessage import Request, Response

from lab import clock as lab_clock
from lab import message as sip_message
from lab.message import MalformedMessage
from lab.transaction import Address

KEPT_MESSAGES = 5000
"""Messages that a transport remembers."""
_RECEIVE_BUFFER = 4 * 1024 * 1024

_log = logging.getLogger(__name__)


class TracedMessage(NamedTuple):
    """One datagram that passed, parsed where that was possible."""

    time: float
    """Unix time, seconds, never stepping back."""
    direction: Literal["in", "out"]
    data: bytes
    message: Request | Response | None
    peer: Address


class UdpTransport(asyncio.DatagramProtocol):
    """SIP over UDP on address:port. ``on_message`` gets what arrives and can be read; the rest is counted."""

    def __init__(
        self,
        address: str,
        port: int,
        *,
        counters: Counter[str],
        clock: lab_clock.Clock,
        on_message: Callable[[Request | Response, Address], None],
        on_trace: Callable[[TracedMessage], None],
    ) -> None:
        self.address = address
        self.port = port
        self.messages: deque[TracedMessage] = deque(maxlen=KEPT_MESSAGES)
        self._counters = counters
        self._now = clock
        self._on_message = on_message
        self._on_trace = on_trace
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    async def open(self) -> None:
        """Bind; port 0 takes a free one. Raises OSError naming address and port."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            listener.bind((self.address, self.port))
        except OSError as error:
            listener.close()
            raise OSError(error.errno, f"cannot bind SIP to {self.address}:{self.port}/udp: {error.strerror}") from None
        self.port = listener.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=listener)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def send(self, message: Request | Response, destination: Address, repeated: bool) -> None:
        """Put a message on the wire."""
        if repeated:
            self._counters["repeated_out"] += 1
        self._send(sip_message.serialise(message), message, destination)

    def send_raw(self, data: bytes, destination: Address) -> None:
        """Bytes as they are, malformed ones too."""
        self._send(data, None, destination)

    def _send(self, data: bytes, message: Request | Response | None, destination: Address) -> None:
        if self._transport is None:
            self._counters["unsent"] += 1
            return
        self._trace("out", data, message, destination)
        self._transport.sendto(data, destination)

    def error_received(self, error: Exception) -> None:
        self._counters["socket_error"] += 1
        _log.warning("SIP socket %s:%d: %s", self.address, self.port, error)

    def datagram_received(self, data: bytes, source: Address) -> None:
        if not data.strip(b"\r\n\0 "):
            self._counters["keepalive"] += 1
            return
        try:
            message = sip_message.parse(data)
        except MalformedMessage as error:
            self._counters["malformed"] += 1
            self._trace("in", data, None, source)
            _log.info("malformed SIP from %s:%d: %s", *source, error)
            return
        self._trace("in", data, message, source)
        self._on_message(message, source)

    def _trace(
        self, direction: Literal["in", "out"], data: bytes, message: Request | Response | None, peer: Address
    ) -> None:
        traced = TracedMessage(self._now(), direction, data, message, peer)
        self.messages.append(traced)
        self._on_trace(traced)
