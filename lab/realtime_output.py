"""The output items of one response: each opened, filled by deltas and closed, with every event that tells of it."""

from typing import Any

from lab.realtime_config import AudioFormat
from lab.realtime_conversation import ASSISTANT_TOKEN_MS, Conversation, Item, new_id, text_tokens
from lab.realtime_wire import Wire


class Output:
    """``conversation`` is None for a response outside of it. One item is open at a time."""

    def __init__(self, response_id: str, conversation: Conversation | None, wire: Wire) -> None:
        self._response_id = response_id
        self._conversation = conversation
        self._wire = wire
        self._items: list[Item] = []
        self._open: Item | None = None
        self._text = ""
        """Of the open item, so far."""
        self._previous: str | None = None
        """The conversation's item before the open one."""

    def __bool__(self) -> bool:
        return bool(self._items)

    def shown(self) -> list[dict[str, Any]]:
        """All items as they are now."""
        return [_copy(item) for item in self._items]

    def tokens(self) -> tuple[int, int]:
        """Of text and of audio."""
        text = text_tokens(self._text) + sum(text_tokens(item.text) for item in self._items)
        return text, sum(item.audio_ms // ASSISTANT_TOKEN_MS for item in self._items)

    def open_speech(self, audio_format: AudioFormat) -> None:
        self._open_message(
            {"type": "output_audio", "transcript": ""}, {"type": "audio", "transcript": ""}
        ).format = audio_format

    def open_text(self) -> None:
        self._open_message({"type": "output_text", "text": ""}, {"type": "text", "text": ""})

    def open_call(self, name: str) -> str:
        """Returns the call_id."""
        call_id = new_id("call")
        fields = {"type": "function_call", "name": name, "call_id": call_id, "arguments": ""}
        self._open_item(fields)
        return call_id

    def transcript(self, delta: str) -> None:
        self._delta("response.output_audio_transcript.delta", delta, content_index=0)

    def text(self, delta: str) -> None:
        self._delta("response.output_text.delta", delta, content_index=0)

    def arguments(self, delta: str) -> None:
        assert self._open is not None
        self._delta("response.function_call_arguments.delta", delta, call_id=self._open.fields["call_id"])

    def audio(self, audio: bytes) -> int:
        """Returns the item's duration so far, ms."""
        item = self._open
        assert item is not None and item.format is not None
        item.audio += audio
        item.audio_ms = item.format.milliseconds(len(item.audio))
        self._wire.emit({"type": "response.output_audio.delta", **self._ids(item), "content_index": 0}, audio)
        return item.audio_ms

    def close(self, status: str) -> None:
        """Close the open item, if there is one: ``completed`` or ``incomplete``."""
        item, text = self._open, self._text
        if item is None:
            return
        item.fields["status"] = status
        if item.fields["type"] == "function_call":
            item.fields["arguments"] = text
            call = {"call_id": item.fields["call_id"], "name": item.fields["name"], "arguments": text}
            self._wire.emit({"type": "response.function_call_arguments.done", **self._ids(item), **call})
        elif item.format is None:
            item.fields["content"][0]["text"] = text
            self._content(item, "response.output_text.done", text=text)
            self._content(item, "response.content_part.done", part={"type": "text", "text": text})
        else:
            item.fields["content"][0]["transcript"] = text
            self._content(item, "response.output_audio.done")
            self._content(item, "response.output_audio_transcript.done", transcript=text)
            self._content(item, "response.content_part.done", part={"type": "audio", "transcript": text})
        self._open, self._text = None, ""
        self._item_event("response.output_item.done", item)
        if self._conversation is not None:
            event = {"type": "conversation.item.done", "previous_item_id": self._previous, "item": _copy(item)}
            self._wire.emit(event)

    def _open_message(self, content: dict[str, Any], part: dict[str, Any]) -> Item:
        item = self._open_item({"type": "message", "role": "assistant", "content": []})
        item.fields["content"] = [content]
        self._content(item, "response.content_part.added", part=part)
        return item

    def _open_item(self, fields: dict[str, Any]) -> Item:
        item = Item({"id": new_id("item"), "object": "realtime.item", "status": "in_progress", **fields})
        self._open = item
        self._items.append(item)
        self._item_event("response.output_item.added", item)
        if self._conversation is not None:
            self._previous = self._conversation.add(item)
            event = {"type": "conversation.item.added", "previous_item_id": self._previous, "item": _copy(item)}
            self._wire.emit(event)
        return item

    def _delta(self, kind: str, delta: str, **fields: Any) -> None:
        assert self._open is not None
        self._text += delta
        self._wire.emit({"type": kind, **self._ids(self._open), **fields, "delta": delta})

    def _content(self, item: Item, kind: str, **fields: Any) -> None:
        self._wire.emit({"type": kind, **self._ids(item), "content_index": 0, **fields})

    def _item_event(self, kind: str, item: Item) -> None:
        index = self._items.index(item)
        self._wire.emit({"type": kind, "response_id": self._response_id, "output_index": index, "item": _copy(item)})

    def _ids(self, item: Item) -> dict[str, Any]:
        return {"response_id": self._response_id, "item_id": item.id, "output_index": self._items.index(item)}


def _copy(item: Item) -> dict[str, Any]:
    """As an event shows it now: the item goes on changing."""
    content = item.fields.get("content")
    return {**item.fields, **({} if content is None else {"content": [dict(part) for part in content]})}
