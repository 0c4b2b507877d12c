"""A Realtime server that does what a test tells it, over the websockets package, and judges every event it is sent by
the typed models of the openai package: an unknown or ill-typed field is a failed test."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

_CLIENT = TypeAdapter(RealtimeClientEvent)
_SERVER = TypeAdapter(RealtimeServerEvent)
DEADLINE_S = 15.0


def unknown_fields(model: Any, path: str = "") -> list[str]:
    """Where a parsed openai model holds fields that the specification does not know."""
    found: list[str] = []
    if isinstance(model, BaseModel):
        found += [f"{path}.{name}" for name in model.model_extra or {}]
        for name, value in model:
            found += unknown_fields(value, f"{path}.{name}")
    elif isinstance(model, list):
        for index, value in enumerate(model):
            found += unknown_fields(value, f"{path}[{index}]")
    return found


def judge_client_event(event: dict[str, Any]) -> None:
    parsed = _CLIENT.validate_python(event)
    assert not unknown_fields(parsed), f"unknown fields in {event['type']}: {unknown_fields(parsed)}"
    assert parsed.type == event["type"]


class ModelSession:
    """One connection, as the test sees it."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self._changed = asyncio.Condition()
        self.closed = False
        self._ids = 0

    async def note(self, event: dict[str, Any]) -> None:
        try:
            judge_client_event(event)
        except (ValueError, AssertionError) as error:
            self.problems.append(str(error))
        async with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    async def ended(self) -> None:
        async with self._changed:
            self.closed = True
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool], what: str = "condition") -> None:
        async with self._changed:
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await self._changed.wait_for(condition)
            except TimeoutError:
                seen = [event["type"] for event in self.events if event["type"] != "input_audio_buffer.append"]
                raise AssertionError(f"no {what} in {DEADLINE_S} s; seen: {seen}") from None

    async def event(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The ``count``-th event of this type, awaited."""
        await self.until(lambda: len(self.of(kind)) >= count, f"{kind} number {count}")
        return self.of(kind)[count - 1]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    @property
    def audio(self) -> bytes:
        """All audio that was appended."""
        return b"".join(base64.b64decode(event["audio"]) for event in self.of("input_audio_buffer.append"))

    async def send(self, kind: str, *, unchecked: bool = False, **fields: Any) -> None:
        self._ids += 1
        event = {"type": kind, "event_id": f"event_{self._ids}", **fields}
        if not unchecked:
            _SERVER.validate_python(event)
        await self.connection.send(json.dumps(event, separators=(",", ":")))

    async def send_raw(self, text: str | bytes) -> None:
        await self.connection.send(text)

    # What a Realtime server says in the course of a conversation.

    async def created(self, response: str) -> None:
        await self.send("response.created", response={"id": response, "object": "realtime.response"})

    async def audio_delta(self, response: str, item: str, audio: bytes) -> None:
        await self.send(
            "response.output_audio.delta",
            response_id=response,
            item_id=item,
            output_index=0,
            content_index=0,
            delta=base64.b64encode(audio).decode(),
        )

    async def transcript(self, response: str, item: str, text: str) -> None:
        place = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        await self.send("response.output_audio_transcript.done", transcript=text, **place)

    async def audio_done(self, response: str, item: str) -> None:
        await self.send(
            "response.output_audio.done", response_id=response, item_id=item, output_index=0, content_index=0
        )

    async def done(self, response: str, status: str = "completed", calls: tuple[dict[str, Any], ...] = ()) -> None:
        body = {"id": response, "object": "realtime.response", "status": status, "output": list(calls)}
        await self.send("response.done", response=body)

    async def say(self, response: str, item: str, audio: bytes, text: str = "words") -> None:
        """A whole response of one message, faster than real time."""
        await self.created(response)
        for start in range(0, len(audio), 1600):
            await self.audio_delta(response, item, audio[start : start + 1600])
        await self.transcript(response, item, text)
        await self.audio_done(response, item)
        await self.done(response)

    async def call(self, response: str, call_id: str, name: str, arguments: dict[str, Any]) -> None:
        """A whole response of one function call."""
        await self.created(response)
        await self.done(response, calls=(function_call(call_id, name, arguments),))

    async def speech_started(self, item: str, audio_start_ms: int = 0) -> None:
        await self.send("input_audio_buffer.speech_started", item_id=item, audio_start_ms=audio_start_ms)

    async def speech_stopped(self, item: str, audio_end_ms: int = 0) -> None:
        await self.send("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=audio_end_ms)

    async def committed(self, item: str) -> None:
        await self.send("input_audio_buffer.committed", item_id=item, previous_item_id=None)

    async def error(self, code: str, event_id: str | None = None) -> None:
        body = {"type": "invalid_request_error", "code": code, "message": code, "event_id": event_id}
        await self.send("error", error=body)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.connection.close(code, reason)

    async def acknowledge(self, item: dict[str, Any]) -> None:
        await self.send("conversation.item.added", item=item, previous_item_id=None)


def function_call(call_id: str, name: str, arguments: dict[str, Any], status: str = "completed") -> dict[str, Any]:
    return {
        "id": f"item_{call_id}",
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": json.dumps(arguments),
    }


class ScriptedModel:
    """The server. ``greet`` answers session.update by itself; turned off, the test answers or does not."""

    def __init__(self) -> None:
        self.sessions: list[ModelSession] = []
        self.requests: list[Request] = []
        self.greet = True
        self.status: int | None = None
        """Answer the handshake with this status instead."""
        self.accept = True
        self._server: Server | None = None
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}/v1/realtime"

    async def start(self) -> None:
        self._server = await serve(
            self._on_connection, "127.0.0.1", 0, process_request=self._on_request, compression=None, max_size=None
        )

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        problems = [problem for session in self.sessions for problem in session.problems]
        assert not problems, problems

    async def session(self, count: int = 1) -> ModelSession:
        """The ``count``-th session that was opened, awaited."""
        async with self._changed, asyncio.timeout(DEADLINE_S):
            await self._changed.wait_for(lambda: len(self.sessions) >= count)
        return self.sessions[count - 1]

    def _on_request(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        return None if self.status is None else connection.respond(self.status, "no\n")

    async def _on_connection(self, connection: ServerConnection) -> None:
        session = ModelSession(connection)
        async with self._changed:
            self.sessions.append(session)
            self._changed.notify_all()
        try:
            if self.greet:
                await session.send("session.created", session={"type": "realtime"})
            async for message in connection:
                event = json.loads(message)
                await session.note(event)
                if event["type"] == "session.update" and self.greet:
                    await session.send("session.updated", session={"type": "realtime"})
        except ConnectionClosed:
            pass
        await session.ended()
