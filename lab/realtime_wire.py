"""The server's side of one WebSocket: events out in order, the faults of the wire, and the log of both directions."""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import WSMsgType, web

from lab.faults import Faults
from lab.realtime_conversation import new_id
from lab.realtime_log import ConnectionLog

MAX_WAITING: Final = 20_000
"""Frames that a client has not taken; one that lets more pile up is cut off."""
GARBAGE: Final[dict[str, tuple[bytes, WSMsgType]]] = {
    "not_json": (b'{"type":"response.output_audio.delta","delta":', WSMsgType.TEXT),
    "not_utf8": (b'{"type":"\xff\xfe"}', WSMsgType.TEXT),
    "binary": (bytes(range(256)), WSMsgType.BINARY),
    "array": (b"[1,2,3]", WSMsgType.TEXT),
    "no_type": (b'{"event_id":"event_lab","type":null}', WSMsgType.TEXT),
    "unknown_type": (b'{"type":"response.interpretive_dance.delta","event_id":"event_lab","delta":7}', WSMsgType.TEXT),
    "bad_base64": (
        (
            b'{"type":"response.output_audio.delta","event_id":"event_lab","response_id":"resp_lab",'
            b'"item_id":"item_lab","output_index":0,"content_index":0,"delta":"%%%"}'
        ),
        WSMsgType.TEXT,
    ),
}

_log = logging.getLogger(__name__)

Operation = Callable[[], Awaitable[None]]


class Wire:
    """Sends what ``emit`` is given, in order, from a task of its own (``run``)."""

    def __init__(
        self, socket: web.WebSocketResponse, transport: asyncio.Transport | None, faults: Faults, log: ConnectionLog
    ) -> None:
        self._socket = socket
        self._transport = transport
        self._faults = faults
        self.log = log
        self._waiting: asyncio.Queue[Operation] = asyncio.Queue(MAX_WAITING)
        self._held: list[tuple[dict[str, Any], int]] = []
        self._reordered = faults.reorder is None

    async def run(self) -> None:
        """Until the connection is gone or was closed from here."""
        while not self._socket.closed:
            operation = await self._waiting.get()
            try:
                await operation()
            except (ConnectionError, RuntimeError) as error:
                self.log.note(f"cannot send: {error}")
                return

    def emit(self, event: dict[str, Any], audio: bytes | None = None) -> None:
        """A server event; gets its event_id here. ``audio`` becomes its base64 ``delta``."""
        event = {"type": event["type"], "event_id": new_id("event"), **event}
        if audio is not None:
            event["delta"] = base64.b64encode(audio).decode()
        size = len(audio or b"")
        reorder = self._faults.reorder
        if reorder is not None and not self._reordered and event["type"] == reorder.event and not self._held:
            self._held.append((event, size))
            return
        self._send(event, size)
        if event["type"] in self._faults.duplicate:
            self._send(event, size)
        if reorder is not None and event["type"] == reorder.until and self._held:
            self._reordered = True
            for held, held_size in self._held:
                self._send(held, held_size)
            self._held.clear()

    def garbage(self, kind: str) -> None:
        message, opcode = GARBAGE[kind]
        self.log.note(f"garbage: {kind}")
        self._put(lambda: self._socket.send_frame(message, opcode))

    def close(self, code: int, reason: str) -> None:
        """After what was emitted before."""

        async def operation() -> None:
            self.log.close(code, reason)
            await self._socket.close(code=code, message=reason.encode())

        self._put(operation)

    def drop(self) -> None:
        """Reset the TCP connection, after what was emitted before."""

        async def operation() -> None:
            self.log.close(None, "dropped by a fault")
            if self._transport is not None:
                self._transport.abort()

        self._put(operation)

    def _send(self, event: dict[str, Any], audio_bytes: int) -> None:
        message = orjson.dumps(event).decode()
        told = self.log.told(event)

        async def operation() -> None:
            self.log.server(told, audio_bytes)
            await self._socket.send_str(message)

        self._put(operation)

    def _put(self, operation: Operation) -> None:
        try:
            self._waiting.put_nowait(operation)
        except asyncio.QueueFull:
            if self._transport is not None and not self._transport.is_closing():
                _log.warning("client reads nothing; %d frames wait, connection reset", MAX_WAITING)
                self.log.close(None, "the client reads nothing")
                self._transport.abort()
