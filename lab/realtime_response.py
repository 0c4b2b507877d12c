"""One response of the model: its events in order, its audio paced, and its end, whichever that is."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson

from lab.faults import Faults
from lab.realtime_config import AudioFormat, SessionConfig
from lab.realtime_conversation import Conversation, new_id
from lab.realtime_output import Output
from lab.realtime_wire import Wire
from lab.scenario import FunctionCall, Pace, Reply
from lab.voice import VoiceError, speak

CUSTOM_VOICE: Final = "alloy"
"""Speaks for voices of the customer's own, ``{"id": ...}``."""
ARGUMENT_CHARACTERS: Final = 16
"""Of a function call's arguments in a delta."""
TRANSCRIPT_LEAD_MS: Final = 200
"""The transcript runs so much ahead of the audio."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """What a response is made with: the session's configuration, and what response.create says otherwise."""

    modalities: list[str]
    output_format: dict[str, Any]
    voice: Any
    speed: float
    tools: frozenset[str]
    tool_choice: Any
    max_output_tokens: int | str
    metadata: dict[str, str] | None

    @classmethod
    def of(cls, config: SessionConfig, params: dict[str, Any]) -> "Setting":
        output = params.get("audio", {}).get("output", {})
        return cls(
            modalities=params.get("output_modalities", config.output_modalities),
            output_format=output.get("format", config.output_format),
            voice=output.get("voice", config.voice),
            speed=config.speed,
            tools=frozenset(tool["name"] for tool in params.get("tools", config.tools) if "name" in tool),
            tool_choice=params.get("tool_choice", config.tool_choice),
            max_output_tokens=params.get("max_output_tokens", config.max_output_tokens),
            metadata=params.get("metadata"),
        )


@dataclass(frozen=True)
class _Strike:
    """A scripted fault: after so much audio do something, or hold the reply up."""

    after_ms: int
    do: Callable[[], None] = lambda: None
    held_s: float = 0.0


class _Over(Exception):
    """The response ended while it was being made."""


class Response:
    """``start`` has it made; ``on_done`` is called once, when response.done has been emitted.

    ``conversation`` is None for a response outside of it. ``faults`` are those of this response: of a connection's
    other responses they are none but the pace.
    """

    def __init__(
        self,
        setting: Setting,
        conversation: Conversation | None,
        wire: Wire,
        pace: Pace,
        faults: Faults,
        on_done: Callable[["Response"], None],
        on_call: Callable[[str, Reply], None],
        input_tokens: tuple[int, int],
    ) -> None:
        self.id = new_id("resp")
        self.spoken_ms = 0
        """Audio sent."""
        self.done = False
        self._setting = setting
        self._conversation = conversation
        self._wire = wire
        self._pace = pace
        self._faults = faults
        self._on_done = on_done
        self._on_call = on_call
        self._input_tokens = input_tokens
        self._status = "in_progress"
        self._output = Output(self.id, conversation, wire)
        self._task: asyncio.Task[None] | None = None

    @property
    def in_conversation(self) -> bool:
        return self._conversation is not None

    @property
    def said_nothing(self) -> bool:
        """It was cut off, or failed, before its first output."""
        return self._status not in ("in_progress", "completed") and not self._output

    def start(self, reply: Awaitable[Reply]) -> None:
        self._wire.emit({"type": "response.created", "response": self._resource()})
        self._wire.emit({"type": "rate_limits.updated", "rate_limits": _rate_limits()})
        self._task = asyncio.ensure_future(self._run(reply))

    def cancel(self, reason: str) -> None:
        """``turn_detected`` or ``client_cancelled``."""
        self._finish("cancelled", {"type": "cancelled", "reason": reason})

    def abandon(self) -> None:
        """The connection is gone: nothing more is made."""
        self.done = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self, reply: Awaitable[Reply]) -> None:
        try:
            script = await reply
            if self._faults.never == "reply":
                return
            if self._faults.fail is not None and not self._faults.fail.after_ms:
                self._fail()
            if script.say:
                await self._say(script.say)
            for call in script.calls:
                await self._call(call, script)
            self._finish("completed", None)
        except _Over:
            return
        except VoiceError as error:
            _log.error("response failed: %s", error)
            self._finish("failed", _failure("server_error", "voice_unavailable", str(error)))

    async def _say(self, text: str) -> None:
        if self._setting.modalities == ["text"]:
            await self._write(text)
            return
        audio_format = AudioFormat(self._setting.output_format["type"])
        voice = self._setting.voice if isinstance(self._setting.voice, str) else CUSTOM_VOICE
        pcm = await asyncio.to_thread(speak, text, voice, audio_format.rate, self._setting.speed)
        self._stop_if_over()
        self._output.open_speech(audio_format)
        total_ms = len(pcm) * 1000 // audio_format.rate
        chunk_ms = max(total_ms, 1) if self._faults.huge_delta else self._pace.chunk_ms
        words = _timed_words(text, total_ms)
        began = asyncio.get_running_loop().time()
        strikes = self._strikes()
        for start_ms in range(0, total_ms, chunk_ms):
            began += await self._strike(strikes, start_ms)
            await self._until(began, start_ms)
            while words and words[0][0] <= start_ms + TRANSCRIPT_LEAD_MS:
                self._output.transcript(words.pop(0)[1])
            samples = slice(start_ms * audio_format.rate // 1000, (start_ms + chunk_ms) * audio_format.rate // 1000)
            self.spoken_ms = self._output.audio(audio_format.encode(pcm[samples]))
            self._spend()
        for _, word in words:
            self._output.transcript(word)
        await self._strike(strikes, None)
        self._output.close("completed")

    async def _write(self, text: str) -> None:
        self._output.open_text()
        for _, word in _timed_words(text, 0):
            self._output.text(word)
            self._spend()
            await self._breathe()
        self._output.close("completed")

    async def _call(self, call: FunctionCall, reply: Reply) -> None:
        call_id = self._output.open_call(call.name)
        arguments = orjson.dumps(call.arguments).decode()
        for start in range(0, len(arguments), ARGUMENT_CHARACTERS):
            self._output.arguments(arguments[start : start + ARGUMENT_CHARACTERS])
            self._spend()
            await self._breathe()
        self._on_call(call_id, reply)
        self._output.close("completed")

    # Pace, bounds and faults

    async def _until(self, began: float, audio_ms: int) -> None:
        """Wait until audio from ``audio_ms`` on is due."""
        loop = asyncio.get_running_loop()
        due = began + audio_ms / 1000 / self._pace.factor if self._pace.factor else began
        await asyncio.sleep(max(0.0, due - loop.time()))
        self._stop_if_over()

    async def _breathe(self) -> None:
        """Let what else there is to do be done."""
        await asyncio.sleep(0)
        self._stop_if_over()

    def _stop_if_over(self) -> None:
        if self.done:
            raise _Over

    def _spend(self) -> None:
        """End the response where it has used up max_output_tokens."""
        limit = self._setting.max_output_tokens
        if isinstance(limit, int) and sum(self._output.tokens()) > limit:
            self._finish("incomplete", {"type": "incomplete", "reason": "max_output_tokens"})
            raise _Over

    def _strikes(self) -> list[_Strike]:
        """Faults of this reply, by the audio after which they strike."""
        faults, wire = self._faults, self._wire
        strikes: list[_Strike] = []
        if garbage := faults.garbage:
            strikes += [_Strike(garbage.after_ms, partial(wire.garbage, kind)) for kind in garbage.frames]
        if error := faults.error:
            event = {"type": "error", "error": error.model_dump(exclude={"after_ms"})}
            strikes.append(_Strike(error.after_ms, partial(wire.emit, event)))
        if stall := faults.stall:
            strikes.append(_Strike(stall.after_ms, held_s=stall.for_ms / 1000))
        if fail := faults.fail:
            strikes.append(_Strike(fail.after_ms, self._fail))
        if faults.drop_after_ms is not None:
            strikes.append(_Strike(faults.drop_after_ms, partial(self._cut, wire.drop)))
        if close := faults.close:
            strikes.append(_Strike(close.after_ms, partial(self._cut, partial(wire.close, close.code, close.reason))))
        return sorted(strikes, key=lambda strike: strike.after_ms)

    async def _strike(self, strikes: list[_Strike], sent_ms: int | None) -> float:
        """Have those strike that are due; None: all that are left. Returns the seconds the reply was held up."""
        held_s = 0.0
        while strikes and (sent_ms is None or strikes[0].after_ms <= sent_ms):
            strike = strikes.pop(0)
            strike.do()
            held_s += strike.held_s
        if held_s:
            await asyncio.sleep(held_s)
            self._stop_if_over()
        return held_s

    def _fail(self) -> None:
        fault = self._faults.fail
        assert fault is not None
        self._finish("failed", _failure(fault.type, fault.code, fault.message))
        raise _Over

    def _cut(self, cut: Callable[[], None]) -> None:
        cut()
        self.done = True
        raise _Over

    # The end

    def _finish(self, status: str, details: dict[str, Any] | None) -> None:
        if self.done:
            return
        self._output.close("completed" if status == "completed" else "incomplete")
        self.done = True
        self._status = status
        self._wire.emit({"type": "response.done", "response": self._resource(details)})
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._on_done(self)

    def _resource(self, details: dict[str, Any] | None = None) -> dict[str, Any]:
        setting = self._setting
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self._status,
            "status_details": details,
            "output": self._output.shown(),
            "conversation_id": self._conversation.id if self._conversation is not None else None,
            "output_modalities": setting.modalities,
            "max_output_tokens": setting.max_output_tokens,
            "audio": {
                "output": {
                    "format": setting.output_format,
                    "voice": setting.voice if isinstance(setting.voice, str) else setting.voice["id"],
                }
            },
            "usage": self._usage() if self.done else None,
            "metadata": setting.metadata,
        }

    def _usage(self) -> dict[str, Any]:
        input_text, input_audio = self._input_tokens
        output_text, output_audio = self._output.tokens()
        cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
        return {
            "total_tokens": input_text + input_audio + output_text + output_audio,
            "input_tokens": input_text + input_audio,
            "output_tokens": output_text + output_audio,
            "input_token_details": {
                "text_tokens": input_text,
                "audio_tokens": input_audio,
                "image_tokens": 0,
                "cached_tokens": 0,
                "cached_tokens_details": cached,
            },
            "output_token_details": {"text_tokens": output_text, "audio_tokens": output_audio},
        }


def _timed_words(text: str, total_ms: int) -> list[tuple[int, str]]:
    """Words with the space before them, and about when each begins in ``total_ms`` of speech."""
    timed = []
    at = 0
    for word in text.split(" "):
        timed.append((total_ms * at // max(len(text), 1), f" {word}" if at else word))
        at += len(word) + 1
    return timed


def _failure(kind: str, code: str, message: str) -> dict[str, Any]:
    return {"type": "failed", "error": {"type": kind, "code": code, "message": message}}


def _rate_limits() -> list[dict[str, Any]]:
    return [
        {"name": "requests", "limit": 10_000, "remaining": 9_999, "reset_seconds": 0.006},
        {"name": "tokens", "limit": 2_000_000, "remaining": 1_995_000, "reset_seconds": 0.15},
    ]
