"""A client of the Realtime protocol for tests, which holds every server event against the types of the openai package."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, get_args

import aiohttp
import numpy as np
from openai.types import realtime
from openai.types.realtime.realtime_server_event import RealtimeServerEvent
from pydantic import BaseModel

from lab.model import LabModel
from media_fork import g711

PATIENCE_S = 20.0
KEY = {"Authorization": "Bearer test"}
PCMU = {"type": "audio/pcmu"}
SERVER_EVENTS: dict[str, type[BaseModel]] = {
    get_args(event.model_fields["type"].annotation)[0]: event for event in get_args(get_args(RealtimeServerEvent)[0])
}


def conform(event: dict[str, Any]) -> None:
    """The event is one of the API's, has every field it must have and none that the API does not know."""
    parsed = SERVER_EVENTS[event["type"]].model_validate(event, strict=True)
    assert event["event_id"]
    if isinstance(parsed, realtime.SessionCreatedEvent | realtime.SessionUpdatedEvent):
        session = realtime.realtime_session_create_response.RealtimeSessionCreateResponse
        _no_extras(session.model_validate(event["session"], strict=True), "session")
        assert set(parsed.model_extra or ()) == set()
    else:
        _no_extras(parsed, event["type"])


def _no_extras(value: Any, where: str) -> None:
    if isinstance(value, BaseModel):
        assert not value.model_extra, f"{where}: {value.model_extra}"
        for name in type(value).model_fields:
            _no_extras(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list):
        for part in value:
            _no_extras(part, where)


class Closed(Exception):
    """The server closed the connection: code, reason."""


class Client:
    """``async with connected(model) as client``; events are kept in the order they came."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, strict: bool) -> None:
        self.events: list[dict[str, Any]] = []
        self.audio: dict[str, bytes] = {}
        """Item → what was received of it."""
        self._socket = socket
        self._strict = strict
        self._read = 0

    async def send(self, kind: str, **fields: Any) -> None:
        await self._socket.send_str(json.dumps({"type": kind, **fields}))

    async def send_raw(self, frame: str | bytes) -> None:
        await (self._socket.send_str(frame) if isinstance(frame, str) else self._socket.send_bytes(frame))

    async def configure(self, **session: Any) -> dict[str, Any]:
        """session.update; returns the session as it then is."""
        await self.send("session.update", session={"type": "realtime", **session})
        updated: dict[str, Any] = (await self.until("session.updated"))["session"]
        return updated

    async def telephone(self, turn_detection: Any = "default", **session: Any) -> None:
        """A session as a telephone call has it: µ-law both ways."""
        detection = {"type": "server_vad"} if turn_detection == "default" else turn_detection
        audio_input = {"format": PCMU, "turn_detection": detection, "transcription": {"model": "gpt-transcribe"}}
        await self.configure(audio={"input": audio_input, "output": {"format": PCMU, "voice": "marin"}}, **session)

    async def speak(self, pcm: Any, *, silence_s: float = 1.0, before_s: float = 0.5) -> None:
        """Append speech (int16 at 8 kHz) as µ-law in frames of 20 ms, a pause before and after it, as fast as it goes."""
        line = np.concatenate(
            [np.zeros(int(8000 * before_s), np.int16), pcm, np.zeros(int(8000 * silence_s), np.int16)]
        )
        encoded = g711.ulaw_encode(line)
        for start in range(0, len(encoded), 160):
            await self.send("input_audio_buffer.append", audio=base64.b64encode(encoded[start : start + 160]).decode())

    async def until(self, kind: str, where: Callable[[dict[str, Any]], bool] = lambda event: True) -> dict[str, Any]:
        """The next event of this type, those before it kept. Raises Closed, and TimeoutError naming what came."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    event = await self.next()
                    if event["type"] == kind and where(event):
                        return event
        except TimeoutError:
            raise TimeoutError(f"no {kind}; got {self.types()}") from None

    async def next(self) -> dict[str, Any]:
        message = await self._socket.receive()
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
            raise Closed(self._socket.close_code, message.extra if message.type is aiohttp.WSMsgType.CLOSE else "")
        if message.type is aiohttp.WSMsgType.ERROR:
            raise Closed(None, str(message.data))
        event: dict[str, Any] = json.loads(message.data)
        if self._strict:
            conform(event)
        self.events.append(event)
        if event["type"] == "response.output_audio.delta":
            item = event["item_id"]
            self.audio[item] = self.audio.get(item, b"") + base64.b64decode(event["delta"])
        return event

    async def reply(self) -> dict[str, Any]:
        """The next response, done."""
        done: dict[str, Any] = (await self.until("response.done"))["response"]
        return done

    async def error(self) -> dict[str, Any]:
        error: dict[str, Any] = (await self.until("error"))["error"]
        return error

    async def asks(self, text: str) -> dict[str, Any]:
        """Writes instead of speaking; returns the response."""
        content = [{"type": "input_text", "text": text}]
        await self.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await self.send("response.create")
        return await self.reply()

    async def closed(self) -> tuple[int | None, str]:
        """Close code and reason, once the server has closed."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self.next()
        except Closed as end:
            return end.args[0], end.args[1]

    def types(self) -> list[str]:
        """Types of all events so far, runs of one type once."""
        kinds = [event["type"] for event in self.events]
        return [kind for index, kind in enumerate(kinds) if index == 0 or kinds[index - 1] != kind]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]


@asynccontextmanager
async def connected(
    model: LabModel,
    query: str = "model=gpt-realtime-2.1",
    headers: dict[str, str] = KEY,
    *,
    strict: bool = True,
    created: bool = True,
) -> AsyncIterator[Client]:
    """A connection on which session.created has come, unless ``created`` is false. ``strict``: every event conforms."""
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(f"{model.url}?{query}", headers=headers, max_msg_size=0) as socket:
            client = Client(socket, strict)
            if created:
                await client.until("session.created")
            yield client


def said(response: dict[str, Any]) -> str:
    """Transcript of a response's words."""
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return " ".join(part.get("transcript") or part.get("text") or "" for part in parts)


def calls(response: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (item["name"], json.loads(item["arguments"])) for item in response["output"] if item["type"] == "function_call"
    ]
