"""What went over a connection of the lab's model, for tests to look at: every event with its time, audio as its size.

What the clients of the newest connections said is there in full as well, in the session's own format.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

MAX_ENTRIES: Final = 5000
MAX_SESSIONS: Final = 500
AUDIO_FIELDS: Final = {"input_audio_buffer.append": "audio", "response.output_audio.delta": "delta"}
MAX_TEXT: Final = 2000
MAX_AUDIO: Final = 1 << 20
"""Bytes of what the client sent, the newest."""
MAX_WITH_AUDIO: Final = 8
"""Connections whose audio is kept, the newest."""


class ConnectionLog:
    """One connection's, the newest MAX_ENTRIES. Consecutive audio events of one direction are one entry with a count."""

    def __init__(self, session: str, model: str, clock: Callable[[], float] = time.time) -> None:
        self.session = session
        self._model = model
        self._clock = clock
        self._opened = clock()
        self._closed: float | None = None
        self._close_code: int | None = None
        self._close_reason = ""
        self._entries: deque[dict[str, Any]] = deque(maxlen=MAX_ENTRIES)
        self._left_out = 0
        self._audio: bytearray | None = bytearray()

    def client(self, event: dict[str, Any], audio: bytes = b"") -> None:
        """A client event, as received; of an append its audio, decoded from base64."""
        self._add("client", self.told(event), len(audio))
        if self._audio is not None:
            self._audio += audio
            del self._audio[:-MAX_AUDIO]

    @property
    def audio(self) -> bytes:
        """The newest MAX_AUDIO bytes that the client sent; none where newer connections have taken the room."""
        return bytes(self._audio or b"")

    def forget_audio(self) -> None:
        self._audio = None

    def server(self, told: dict[str, Any], audio_bytes: int = 0) -> None:
        """A server event that was sent; ``told`` is what ``told`` made of it when it was emitted."""
        self._add("server", told, audio_bytes)

    def told(self, event: dict[str, Any]) -> dict[str, Any]:
        """A copy of ``event`` for the log: without audio, long texts cut."""
        audio = AUDIO_FIELDS.get(event["type"])
        return {key: _short(value) for key, value in event.items() if key != audio}

    def note(self, what: str) -> None:
        """Something that is no event: a fault that struck, a frame that is no JSON."""
        self._append({"at": self._clock(), "from": "lab", "note": what})

    def close(self, code: int | None, reason: str = "") -> None:
        if self._closed is None:
            self._closed, self._close_code, self._close_reason = self._clock(), code, reason

    def summary(self) -> dict[str, Any]:
        return {
            "session": self.session,
            "model": self._model,
            "opened": self._opened,
            "closed": self._closed,
            "close_code": self._close_code,
            "close_reason": self._close_reason,
            "entries": len(self._entries),
            "left_out": self._left_out,
        }

    def full(self) -> dict[str, Any]:
        return {**self.summary(), "entries": list(self._entries)}

    def _add(self, sender: str, event: dict[str, Any], audio_bytes: int) -> None:
        now = self._clock()
        if event["type"] not in AUDIO_FIELDS:
            self._append({"at": now, "from": sender, "event": event})
            return
        last = self._entries[-1] if self._entries else None
        if last is not None and last["from"] == sender and last.get("audio", {}).get("of") == _same(event):
            last["audio"]["events"] += 1
            last["audio"]["bytes"] += audio_bytes
            last["until"] = now
            return
        audio = {"of": _same(event), "events": 1, "bytes": audio_bytes}
        self._append({"at": now, "until": now, "from": sender, "event": event, "audio": audio})

    def _append(self, entry: dict[str, Any]) -> None:
        if len(self._entries) == MAX_ENTRIES:
            self._left_out += 1
        self._entries.append(entry)


class SessionLogs:
    """The newest MAX_SESSIONS connections."""

    def __init__(self) -> None:
        self._logs: dict[str, ConnectionLog] = {}

    def add(self, log: ConnectionLog) -> None:
        self._logs[log.session] = log
        while len(self._logs) > MAX_SESSIONS:
            del self._logs[next(iter(self._logs))]
        for older in list(self._logs.values())[-MAX_WITH_AUDIO - 1 : -MAX_WITH_AUDIO]:
            older.forget_audio()

    def get(self, session: str) -> ConnectionLog | None:
        """By id, or ``latest``."""
        if session == "latest":
            return next(reversed(self._logs.values()), None)
        return self._logs.get(session)

    def all(self) -> list[ConnectionLog]:
        """Oldest first."""
        return list(self._logs.values())


def _same(event: dict[str, Any]) -> str:
    """Audio events with the same of these belong together."""
    return f"{event.get('type')} {event.get('item_id', '')}".rstrip()


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"{value[:MAX_TEXT]}… ({len(value)} characters)"
    if isinstance(value, dict):
        return {key: _short(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_short(part) for part in value]
    return value
