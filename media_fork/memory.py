"""What a conversation has come to, in words: told to a model that takes over from another in mid-call.

The caller's turns and typed keys are user messages, what the agent said as far as it was heard assistant messages; tool
calls stand with their results. Bounded: of a long call the beginning is left out, and the model told so.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

from media_fork import client_events

MAX_ENTRIES: Final = 200
MAX_CHARACTERS: Final = 32_000
LEFT_OUT: Final = "The beginning of this call is left out here. It goes on; do not greet the caller again."

Who = Literal["user", "assistant"]


class _Entry:
    """A message of either side, or a tool call with its result."""

    __slots__ = ("arguments", "id", "name", "output", "text", "told", "who")

    def __init__(self, number: int, who: Who | None) -> None:
        self.id = f"tandem_kept_{number}"
        self.who = who
        self.text = ""
        self.name = self.arguments = ""
        self.output: str | None = None
        self.told = False
        """The model that the conversation has now knows it by ``id``."""

    @property
    def size(self) -> int:
        return len(self.text) + len(self.name) + len(self.arguments) + len(self.output or "")

    @property
    def last_id(self) -> str:
        return self.id if self.output is None else f"{self.id}_out"


class Memory:
    """One conversation's, by item id, and tool calls by call_id."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._count = 0
        self._left_out = False

    def __len__(self) -> int:
        return len(self._entries)

    def said(self, item: str, who: Who, text: str) -> None:
        """All the words of ``item`` as far as they are known and were heard; its place is that of the first time."""
        self._entry(item, who).text = text.strip()
        self._forget()

    def called(self, call_id: str, name: str, arguments: str) -> None:
        """The agent has called a tool."""
        entry = self._entry(call_id, None)
        entry.name, entry.arguments = name, arguments
        self._forget()

    def came_of(self, call_id: str, output: str) -> None:
        """The result of a tool call."""
        entry = self._entries.get(call_id)
        if entry is not None:
            entry.output = output
            self._forget()

    def retell(self) -> Iterator[dict[str, Any]]:
        """conversation.item.create for all of it, for a model that knows nothing."""
        if self._left_out:
            yield client_events.system_message("tandem_left_out", LEFT_OUT)
        for call_id, entry in self._entries.items():
            entry.told = bool(entry.who is None or entry.text)
            if entry.who is None:
                yield client_events.function_call(entry.id, call_id, entry.name, entry.arguments)
                if entry.output is not None:
                    yield client_events.function_call_output(entry.last_id, call_id, entry.output)
            elif entry.text:
                yield _message(entry)

    def amend(self, item: str) -> Iterator[dict[str, Any]]:
        """What tells the model, where it was told of ``item``, that its words are others now."""
        entry = self._entries.get(item)
        if entry is None or not entry.told:
            return
        yield client_events.item_delete(entry.id)
        entry.told = bool(entry.text)
        if entry.told:
            before = "root"
            for other in self._entries.values():
                if other is entry:
                    break
                before = other.last_id if other.told else before
            yield _message(entry) | {"previous_item_id": before}

    def _entry(self, key: str, who: Who | None) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            self._count += 1
            entry = self._entries[key] = _Entry(self._count, who)
        return entry

    def _forget(self) -> None:
        size = sum(entry.size for entry in self._entries.values())
        while len(self._entries) > MAX_ENTRIES or (size > MAX_CHARACTERS and len(self._entries) > 1):
            size -= self._entries.pop(next(iter(self._entries))).size
            self._left_out = True


def _message(entry: _Entry) -> dict[str, Any]:
    if entry.who == "user":
        return client_events.user_message(entry.id, entry.text)
    return client_events.assistant_message(entry.id, entry.text)
