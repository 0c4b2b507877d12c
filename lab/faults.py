"""Faults of the lab's model, scripted for its next connections with ``POST /lab/faults`` or from Python.

The body is one :class:`Faults` as JSON, or a list of them to be used one after the other. ``DELETE /lab/faults`` forgets
those that no connection has taken yet.
"""

from collections import deque
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Milliseconds = Annotated[int, Field(ge=0, le=3_600_000)]


class Fault(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Close(Fault):
    """The WebSocket is closed."""

    after_ms: Milliseconds = 0
    """Of audio of the reply."""
    code: Annotated[int, Field(ge=1000, le=4999)] = 1011
    reason: Annotated[str, Field(max_length=123)] = ""


class ErrorEvent(Fault):
    """An ``error`` event; the session goes on."""

    after_ms: Milliseconds = 0
    type: str = "server_error"
    code: str | None = None
    message: str = "The server had an error while processing your request."


class Fail(Fault):
    """The response ends with response.done, status failed."""

    after_ms: Milliseconds = 0
    type: str = "server_error"
    code: str = "rate_limit_exceeded"
    message: str = "Rate limit reached."


class Stall(Fault):
    """Nothing of the reply is sent for a while."""

    after_ms: Milliseconds = 0
    for_ms: Milliseconds = 1000


class Garbage(Fault):
    """Frames that no client should trip over."""

    after_ms: Milliseconds = 0
    frames: list[Literal["not_json", "not_utf8", "binary", "array", "no_type", "unknown_type", "bad_base64"]] = [
        "not_json",
        "binary",
        "array",
        "no_type",
        "unknown_type",
        "bad_base64",
    ]


class Reorder(Fault):
    """The next event of type ``event`` is held back until one of type ``until`` has been sent."""

    event: str
    until: str


class Faults(Fault):
    """What goes wrong with one connection, or with each of the next ``connections``. Nothing, by default.

    Those with ``after_ms`` strike in response number ``reply`` of the connection (1: the greeting, as a rule), once so much
    of its audio was sent.
    """

    connections: Annotated[int, Field(ge=1, le=100_000)] = 1
    refuse: Annotated[int, Field(ge=400, le=599)] | None = None
    """The handshake is answered with this HTTP status."""
    connect_delay_ms: Milliseconds = 0
    """Before the handshake is answered."""
    created_delay_ms: Milliseconds = 0
    """Before session.created."""
    updated_delay_ms: Milliseconds = 0
    """Before session.updated."""
    never: Literal["handshake", "created", "updated", "reply"] | None = None
    """What never comes; the connection stays open. ``reply``: response.created, and then nothing."""
    reply: Annotated[int, Field(ge=1)] = 1
    drop_after_ms: Milliseconds | None = None
    """The TCP connection is reset."""
    lost_after_ms: Milliseconds | None = None
    """The TCP connection is reset so long after session.updated, whatever goes on."""
    close: Close | None = None
    error: ErrorEvent | None = None
    fail: Fail | None = None
    stall: Stall | None = None
    garbage: Garbage | None = None
    factor: Annotated[float, Field(ge=0, le=1000)] | None = None
    """In place of the scenario's pace: 1 is real time, 0 all at once."""
    chunk_ms: Annotated[int, Field(ge=10, le=5000)] | None = None
    think_ms: Milliseconds | None = None
    huge_delta: bool = False
    """All audio of a reply in one delta."""
    duplicate: list[str] = []
    """Types of events that are sent twice."""
    reorder: Reorder | None = None
    session_seconds: Annotated[float, Field(gt=0)] | None = None
    """The session's maximum duration in place of 60 minutes."""


SCRIPT: TypeAdapter[Faults | list[Faults]] = TypeAdapter(Faults | list[Faults])
NONE = Faults()


class FaultScript:
    """Which connection gets which faults, in the order they were given."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Faults, int]] = deque()

    def add(self, faults: Faults) -> None:
        self._waiting.append((faults, faults.connections))

    def clear(self) -> None:
        self._waiting.clear()

    def take(self) -> Faults:
        """For the connection that comes now."""
        if not self._waiting:
            return NONE
        faults, left = self._waiting.popleft()
        if left > 1:
            self._waiting.appendleft((faults, left - 1))
        return faults

    @property
    def waiting(self) -> int:
        """Connections that faults are still scripted for."""
        return sum(left for _, left in self._waiting)
