"""The items of a conversation on the server's side: their order, their audio, and what may be done to them."""

import asyncio
import base64
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from lab.realtime_config import AudioFormat
from lab.realtime_schema import RequestError

MAX_ITEMS: Final = 1000
"""The oldest are dropped beyond this, as the API's truncation drops what no longer fits the model."""
KEEP_AUDIO: Final = 20
"""The newest items with audio keep it for conversation.item.retrieve; the others keep its duration."""
USER_TOKEN_MS: Final = 100
ASSISTANT_TOKEN_MS: Final = 50


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(10)}"


def text_tokens(text: str) -> int:
    """About as many as a tokenizer would make."""
    return (len(text) + 3) // 4


@dataclass(eq=False)
class Item:
    """One item. ``fields`` is what events show of it, without audio."""

    fields: dict[str, Any]
    format: AudioFormat | None = None
    audio: bytes = b""
    """In ``format``; empty where there is none, or it was not kept."""
    audio_ms: int = 0
    heard: "asyncio.Task[str | None] | None" = field(default=None, repr=False)
    """The phrase that the ears make of a caller's audio."""

    @property
    def id(self) -> str:
        return str(self.fields["id"])

    @property
    def is_user(self) -> bool:
        return self.fields.get("role") == "user"

    @property
    def text(self) -> str:
        """What was typed, said or called, all parts of it."""
        parts = [part.get("text") or part.get("transcript") or "" for part in self.fields.get("content", ())]
        parts += [self.fields.get(key, "") for key in ("arguments", "output")]
        return " ".join(part for part in parts if part)

    @property
    def audio_tokens(self) -> int:
        return self.audio_ms // (USER_TOKEN_MS if self.is_user else ASSISTANT_TOKEN_MS)

    def with_audio(self) -> dict[str, Any]:
        """``fields`` with the audio, for conversation.item.retrieved."""
        content = [
            {**part, "audio": base64.b64encode(self.audio).decode()} if "audio" in part.get("type", "") else part
            for part in self.fields.get("content", ())
        ]
        return {**self.fields, "content": content} if content else dict(self.fields)


class Conversation:
    def __init__(self) -> None:
        self.id = new_id("conv")
        self._items: dict[str, Item] = {}

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def get(self, item_id: str) -> Item | None:
        return self._items.get(item_id)

    def last_id(self) -> str | None:
        return next(reversed(self._items), None)

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Put ``item`` at the end, or after another; ``"root"`` is the beginning. Returns the id of the one before it.

        Raises RequestError where there is no such other item, or one of the same id.
        """
        if item.id in self._items:
            raise RequestError(
                "invalid_value", f"Error adding item: an item with id '{item.id}' already exists.", "item.id"
            )
        if after is None:
            previous = self.last_id()
            self._items[item.id] = item
        else:
            previous = None if after == "root" else after
            if previous is not None and previous not in self._items:
                raise RequestError(
                    "invalid_value",
                    f"Error adding item: the previous item with id '{after}' does not exist.",
                    "previous_item_id",
                )
            others = list(self._items.values())
            at = 0 if previous is None else list(self._items).index(previous) + 1
            self._items = {other.id: other for other in (*others[:at], item, *others[at:])}
        self._forget()
        return previous

    def delete(self, item_id: str) -> None:
        del self._items[self._existing(item_id, "delete", "deleting").id]

    def retrieve(self, item_id: str) -> Item:
        return self._existing(item_id, "retrieve", "retrieving")

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cut an assistant's audio, and with it its transcript. Raises RequestError."""
        item = self._existing(item_id, "truncate", "truncating")
        if item.is_user or item.format is None or not item.audio_ms:
            raise RequestError("invalid_value", "Only model output audio messages can be truncated", "item_id")
        content = item.fields["content"]
        if content_index >= len(content):
            raise RequestError("invalid_value", f"The item has no content part {content_index}.", "content_index")
        if audio_end_ms > item.audio_ms:
            raise RequestError(
                "invalid_value",
                f"Audio content of {item.audio_ms}ms is already shorter than {audio_end_ms}ms",
                "audio_end_ms",
            )
        item.audio = item.audio[: audio_end_ms * item.format.rate // 1000 * item.format.bytes_a_sample]
        item.audio_ms = audio_end_ms
        content[content_index]["transcript"] = ""

    def require_call(self, call_id: str) -> None:
        """Raises RequestError where no function_call has this id."""
        if not any(item.fields["type"] == "function_call" and item.fields["call_id"] == call_id for item in self):
            raise RequestError("invalid_tool_call_id", f"Tool call ID '{call_id}' not found in conversation.")

    def tokens(self) -> tuple[int, int]:
        """Of text and of audio, all items together."""
        return sum(text_tokens(item.text) for item in self), sum(item.audio_tokens for item in self)

    def _existing(self, item_id: str, request: str, doing: str) -> Item:
        item = self._items.get(item_id)
        if item is None:
            raise RequestError(
                f"item_{request}_invalid_item_id",
                f"Error {doing} item: the item with id '{item_id}' does not exist.",
                "item_id",
            )
        return item

    def _forget(self) -> None:
        while len(self._items) > MAX_ITEMS:
            del self._items[next(iter(self._items))]
        with_audio = [item for item in self if item.audio]
        for item in with_audio[:-KEEP_AUDIO]:
            item.audio = b""
