"""One session of the Realtime protocol, server side: client events in, the caller's turns, and the session's end."""

import asyncio
import base64
import binascii
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from lab.faults import Faults
from lab.realtime_config import AudioFormat, SessionConfig, check_modalities
from lab.realtime_conversation import Conversation, Item, new_id
from lab.realtime_floor import Floor
from lab.realtime_input import MIN_COMMIT_MS, AudioInput, Segment
from lab.realtime_listener import Ears, Listener
from lab.realtime_mind import Mind
from lab.realtime_schema import RequestError, check
from lab.realtime_wire import Wire
from lab.scenario import Reply, Scenario
from media_fork.voice_activity import SpeechStarted

SESSION_SECONDS: Final = 3600.0
MAX_APPEND_BYTES: Final = 15 << 20


class Session:
    """Made when the WebSocket is open. ``on_message`` is given what the client sends, ``close`` says that it is gone."""

    def __init__(
        self,
        session_id: str,
        model: str,
        scenario: Scenario,
        ears: Ears,
        wire: Wire,
        faults: Faults,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.id = session_id
        self._idle_words = Reply(say=scenario.idle)
        self._wire = wire
        self._faults = faults
        self._config = SessionConfig.default(model)
        self._input = AudioInput(self._config.input_format, self._config.turn_detection)
        self._conversation = Conversation()
        self._listener = Listener(ears, self._conversation, wire)
        self._mind = Mind(scenario, self._conversation, wire)
        self._floor = Floor(self._conversation, wire, self._mind, scenario.pace, faults, self._on_quiet)
        self._speech_item = ""
        self._speech_start_ms = 0
        self._turn_end_ms = 0
        self._quiet_since_ms = 0
        self._idle: asyncio.TimerHandle | None = None
        self._seconds = faults.session_seconds or SESSION_SECONDS
        self._expires_at = int(clock() + self._seconds)
        self._expiry: asyncio.TimerHandle | None = None
        self._loss: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Say session.created."""
        self._expiry = asyncio.get_running_loop().call_later(self._seconds, self._expire)
        self._wire.emit({"type": "session.created", "session": self._public()})
        conversation = {"id": self._conversation.id, "object": "realtime.conversation"}
        self._wire.emit({"type": "conversation.created", "conversation": conversation})

    def close(self) -> None:
        for timer in (self._idle, self._expiry, self._loss):
            if timer is not None:
                timer.cancel()
        self._floor.close()
        self._listener.close()

    def on_message(self, message: str) -> None:
        """One text frame."""
        event: Any = None
        try:
            event = _parsed(message)
            kind = check(event)["type"]
            if kind == "input_audio_buffer.append":
                audio = _audio_of(event["audio"], self._config.input_format)
                self._wire.log.client(event, audio)
                self._on_audio(audio)
            else:
                self._wire.log.client(event)
                _HANDLERS[kind](self, event)
        except RequestError as error:
            self._wire.log.note(f"refused: {error.message} {message[:200]}")
            self._refuse(error, event)

    def on_binary(self) -> None:
        self._wire.log.note("client sent a binary frame")
        self._refuse(RequestError("invalid_event", "Binary frames are not supported; send JSON in text frames."), None)

    # Client events

    def _on_session_update(self, event: dict[str, Any]) -> None:
        self._config = self._config.updated(event["session"], self._floor.has_spoken)
        self._input.configure(self._config.input_format, self._config.turn_detection)
        if self._faults.never != "updated":
            updated = {"type": "session.updated", "session": self._public()}
            delay_s = self._faults.updated_delay_ms / 1000
            if delay_s:
                asyncio.get_running_loop().call_later(delay_s, self._wire.emit, updated)
            else:
                self._wire.emit(updated)
        if self._faults.lost_after_ms is not None and self._loss is None:
            self._loss = asyncio.get_running_loop().call_later(self._faults.lost_after_ms / 1000, self._wire.drop)

    def _on_commit(self, event: dict[str, Any]) -> None:
        del event
        if self._input.buffered_ms < MIN_COMMIT_MS:
            raise RequestError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio,"
                f" but buffer only has {self._input.buffered_ms:.2f}ms of audio.",
            )
        self._commit(new_id("item"), self._input.take_all())

    def _on_clear(self, event: dict[str, Any]) -> None:
        del event
        self._input.clear()
        self._wire.emit({"type": "input_audio_buffer.cleared"})

    def _on_output_clear(self, event: dict[str, Any]) -> None:
        raise RequestError("invalid_event", f"'{event['type']}' is only supported for WebRTC and SIP sessions.", "type")

    def _on_item_create(self, event: dict[str, Any]) -> None:
        item = self._item_from(event["item"])
        previous = self._conversation.add(item, event.get("previous_item_id"))
        self._wire.emit({"type": "conversation.item.added", "previous_item_id": previous, "item": item.fields})
        self._wire.emit({"type": "conversation.item.done", "previous_item_id": previous, "item": item.fields})
        if item.is_user or item.fields["type"] == "function_call_output":
            self._floor.ask(item)
        elif item.fields["type"] == "function_call":
            self._mind.recall(item)
        elif item.fields.get("role") == "assistant" and item.text.endswith((".", "?", "!")):
            # As told by a client that resumes a conversation: what came before it was answered, unless it breaks off.
            self._floor.forget()

    def _on_item_retrieve(self, event: dict[str, Any]) -> None:
        item = self._conversation.retrieve(event["item_id"])
        self._wire.emit({"type": "conversation.item.retrieved", "item": item.with_audio()})

    def _on_item_truncate(self, event: dict[str, Any]) -> None:
        self._conversation.truncate(event["item_id"], event["content_index"], event["audio_end_ms"])
        told = {key: event[key] for key in ("item_id", "content_index", "audio_end_ms")}
        self._wire.emit({"type": "conversation.item.truncated", **told})

    def _on_item_delete(self, event: dict[str, Any]) -> None:
        self._conversation.delete(event["item_id"])
        self._wire.emit({"type": "conversation.item.deleted", "item_id": event["item_id"]})

    def _on_response_create(self, event: dict[str, Any]) -> None:
        params = event.get("response", {})
        check_modalities(params.get("output_modalities"), "response.output_modalities")
        where = params.get("conversation", "auto")
        if where not in ("auto", "none"):
            raise RequestError(
                "invalid_value", f"Invalid value: '{where}'. Supported values are: 'auto' and 'none'.",
                "response.conversation",
            )  # fmt: skip
        inputs = None
        if "input" in params:
            inputs = [self._input_item(item, f"response.input[{index}]") for index, item in enumerate(params["input"])]
        self._cancel_idle()
        self._floor.respond(self._config, params, inputs, aside=where == "none")

    def _on_response_cancel(self, event: dict[str, Any]) -> None:
        self._floor.cancel(event.get("response_id"))

    # Turns

    def _on_audio(self, audio: bytes) -> None:
        for event in self._input.append(audio):
            if isinstance(event, SpeechStarted):
                self._speech_started(event.at_ms)
            else:
                self._speech_stopped(event.at_ms)

    def _speech_started(self, at_ms: int) -> None:
        self._cancel_idle()
        self._speech_item = new_id("item")
        self._speech_start_ms = max(self._turn_end_ms, at_ms - self._input.prefix_padding_ms)
        self._wire.emit(
            {
                "type": "input_audio_buffer.speech_started",
                "audio_start_ms": self._speech_start_ms,
                "item_id": self._speech_item,
            }
        )
        if self._turn_detection("interrupt_response"):
            self._floor.interrupt()

    def _speech_stopped(self, at_ms: int) -> None:
        self._turn_end_ms = at_ms
        self._wire.emit(
            {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": at_ms, "item_id": self._speech_item}
        )
        self._commit(self._speech_item, self._input.take(self._speech_start_ms, at_ms))
        if self._turn_detection("create_response"):
            self._respond_unasked()

    def _commit(self, item_id: str, segment: Segment) -> None:
        """The caller's words become an item, and are listened to."""
        transcribe = self._config.transcription is not None
        self._floor.ask(self._listener.commit(item_id, segment, self._config.input_format, transcribe=transcribe))

    def _respond_unasked(self, reply: Reply | None = None) -> None:
        """As voice activity and the idle timeout have it: a response that cannot be is an error of no client event."""
        self._cancel_idle()
        try:
            self._floor.respond(self._config, {}, reply=reply)
        except RequestError as error:
            self._refuse(error, None)

    # Idle timeout and expiry

    def _on_quiet(self, playback_ms: int) -> None:
        """A response is done; its audio takes the client so long to play."""
        self._quiet_since_ms = self._input.position_ms + playback_ms
        timeout_ms = (self._config.turn_detection or {}).get("idle_timeout_ms")
        if timeout_ms is not None and not self._input.speaking:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later((playback_ms + timeout_ms) / 1000, self._on_idle)

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _on_idle(self) -> None:
        self._idle = None
        item_id = new_id("item")
        end_ms = self._input.position_ms
        start_ms = min(self._quiet_since_ms, end_ms)
        self._turn_end_ms = end_ms
        self._wire.emit(
            {
                "type": "input_audio_buffer.timeout_triggered",
                "audio_start_ms": start_ms,
                "audio_end_ms": end_ms,
                "item_id": item_id,
            }
        )
        self._commit(item_id, self._input.take(start_ms, end_ms))
        self._floor.forget()
        self._respond_unasked(self._idle_words)

    def _expire(self) -> None:
        minutes = f"{self._seconds / 60:.0f} minutes" if self._seconds >= 60 else f"{self._seconds:g} seconds"
        message = f"Your session hit the maximum duration of {minutes}."
        self._refuse(RequestError("session_expired", message), None)
        self._wire.close(1001, message)

    # Parts

    def _public(self) -> dict[str, Any]:
        return self._config.public(self.id, self._expires_at)

    def _turn_detection(self, flag: str) -> bool:
        return bool((self._config.turn_detection or {}).get(flag))

    def _item_from(self, fields: dict[str, Any], path: str = "item") -> Item:
        """An item of the client's making. Raises RequestError for what the types let through but the API does not."""
        if fields["type"] == "function_call_output":
            self._conversation.require_call(fields["call_id"])
        item = Item({"id": new_id("item"), "object": "realtime.item", "status": "completed", **fields})
        if fields["type"] == "function_call":
            item.fields.setdefault("call_id", new_id("call"))
        content = []
        for index, part in enumerate(fields.get("content", ())):
            where = f"{path}.content[{index}]"
            needed = {"input_audio": "audio", "input_image": "image_url"}.get(part.get("type"), "text")
            for key in ("type", needed):
                if key not in part:
                    raise RequestError(
                        "missing_required_parameter", f"Missing required parameter: '{where}.{key}'.", where
                    )
            if needed == "audio":
                audio_format = item.format = self._config.input_format
                item.audio = _audio_of(part["audio"], audio_format)
                item.audio_ms = audio_format.milliseconds(len(item.audio))
                item.heard = self._listener.hear(audio_format.decode(item.audio), audio_format.rate)
                part = {"type": "input_audio", "transcript": part.get("transcript")}
            content.append(part)
        if "content" in fields:
            item.fields["content"] = content
        return item

    def _input_item(self, fields: dict[str, Any], path: str) -> Item:
        if fields["type"] != "item_reference":
            return self._item_from(fields, path)
        item = self._conversation.get(fields["id"])
        if item is None:
            raise RequestError("invalid_value", f"The item with id '{fields['id']}' does not exist.", f"{path}.id")
        return item

    def _refuse(self, error: RequestError, event: Any) -> None:
        event_id = event.get("event_id") if isinstance(event, dict) else None
        told = {
            "type": error.kind,
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "event_id": event_id if isinstance(event_id, str) else None,
        }
        self._wire.emit({"type": "error", "error": told})


def _parsed(message: str) -> Any:
    try:
        return orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise RequestError("invalid_json", f"The event is not valid JSON: {error}.") from None


def _audio_of(encoded: str, audio_format: AudioFormat) -> bytes:
    try:
        audio = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            "invalid_value",
            f"Invalid 'audio'. Expected base64-encoded audio bytes ({audio_format.type}) but got an invalid value.",
            "audio",
        ) from None
    if len(audio) > MAX_APPEND_BYTES:
        raise RequestError("invalid_value", "Invalid 'audio': more than 15 MiB in one event.", "audio")
    return audio


_HANDLERS: Final[dict[str, Callable[[Session, dict[str, Any]], None]]] = {
    "session.update": Session._on_session_update,
    "input_audio_buffer.commit": Session._on_commit,
    "input_audio_buffer.clear": Session._on_clear,
    "output_audio_buffer.clear": Session._on_output_clear,
    "conversation.item.create": Session._on_item_create,
    "conversation.item.retrieve": Session._on_item_retrieve,
    "conversation.item.truncate": Session._on_item_truncate,
    "conversation.item.delete": Session._on_item_delete,
    "response.create": Session._on_response_create,
    "response.cancel": Session._on_response_cancel,
}
