"""mod_audio_fork's side of a fork, over the websockets package: Hello, 20 ms frames, and what comes back."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

DEADLINE_S = 15.0
QUIET = bytes(320)
PRIMING_BYTES = 2 * 1280
"""Silence that fills the module's prebuffer, 8 kHz."""


class ForkClient:
    """One connection. ``audio`` is all binary that came, after the priming silence; ``texts`` the JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[tuple[float, bytes]] = []
        self.texts: list[tuple[float, dict[str, Any]]] = []
        self.closed: tuple[int, str] | None = None
        self._changed = asyncio.Condition()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def connect(cls, url: str) -> "ForkClient":
        return cls(await connect(url, subprotocols=["audio.drachtio.org"], compression=None, ping_interval=None))  # type: ignore[list-item]

    async def hello(self, call: str, session: str) -> None:
        await self.connection.send(json.dumps({"call": call, "session": session}))

    async def send(self, message: bytes | str) -> None:
        await self.connection.send(message)

    async def notice(self, **notice: Any) -> None:
        await self.connection.send(json.dumps(notice))

    async def until(self, condition: Callable[[], bool], what: str = "condition") -> None:
        async with self._changed:
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await self._changed.wait_for(condition)
            except TimeoutError:
                raise AssertionError(
                    f"no {what} in {DEADLINE_S} s; texts: {[t for _, t in self.texts]}, {len(self.audio)} bytes,"
                    f" closed: {self.closed}"
                ) from None

    async def text(self, count: int = 1) -> dict[str, Any]:
        """The ``count``-th text that came, awaited."""
        await self.until(lambda: len(self.texts) >= count, f"text number {count}")
        return self.texts[count - 1][1]

    async def command(self, count: int = 1) -> dict[str, Any]:
        """The data of the ``count``-th {"type":"json"} message, awaited."""

        def commands() -> list[dict[str, Any]]:
            return [text["data"] for _, text in self.texts if text["type"] == "json"]

        await self.until(lambda: len(commands()) >= count, f"command number {count}")
        return commands()[count - 1]

    @property
    def audio(self) -> bytes:
        return b"".join(message for _, message in self.messages)[PRIMING_BYTES:]

    @property
    def kills(self) -> int:
        return sum(text["type"] == "killAudio" for _, text in self.texts)

    async def close(self) -> None:
        await self.connection.close()
        await self._reading

    async def wait_closed(self) -> tuple[int, str]:
        await self.until(lambda: self.closed is not None, "close")
        assert self.closed is not None
        return self.closed

    async def _read(self) -> None:
        try:
            async for message in self.connection:
                async with self._changed:
                    if isinstance(message, bytes):
                        self.messages.append((time.monotonic(), message))
                    else:
                        self.texts.append((time.monotonic(), json.loads(message)))
                    self._changed.notify_all()
        except ConnectionClosed:
            pass
        async with self._changed:
            self.closed = (self.connection.close_code or 0, self.connection.close_reason or "")
            self._changed.notify_all()
