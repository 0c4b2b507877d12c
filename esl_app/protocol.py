"""The event socket's protocol, hardened: what greenswitch's two session classes share here.

greenswitch decodes a block before it splits it into lines, so that a caller's display name with %0A writes headers of its own;
it trusts Content-Length, dies of a stray byte, and waits for ever. :class:`Hardened` replaces its reading, sending and
dispatching, and keeps its names: ``send``, ``register_handle``, ``handle_event``, ``stop``.

An event comes in two blocks: an outer one (Content-Type, Content-Length), raw, and inside it the event itself, whose values
FreeSWITCH percent-encodes one by one, then a blank line and the event's own body, raw. Blocks are split into lines first;
a value is decoded once; of a header that is given twice the first counts, which is FreeSWITCH's own.
"""

import contextlib
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import gevent
from gevent import socket
from gevent.event import AsyncResult
from gevent.lock import RLock
from gevent.queue import Queue
from greenswitch.esl import ESLEvent, NotConnectedError, OutboundSessionHasGoneAway

from esl_app.metrics import DUTY_ERRORS

MAX_BLOCK = 256 * 1024
"""Bytes of one block of headers; a channel with a large SDP has some 20 kB."""
MAX_BODY = 4 * 1024 * 1024
MAX_EVENTS = 2000
"""Events that may wait for their handlers."""
MAX_PENDING = 64
"""Commands that may wait for their replies."""
COMMAND_S = 5.0
EXIT_S = 0.5
_READ = 65536
_UNDEFINED = "_undef_"
"""How FreeSWITCH spells a header without a value."""
_FORBIDDEN = re.compile(r"[\r\n\0]")

Log = logging.LoggerAdapter[logging.Logger]
Handler = Callable[["Event"], None]


class Headers(Mapping[str, str]):
    """One block's headers. ``encoded``: values are percent-encoded (events' are, plain replies' are not).

    A channel's event has some 150 headers, of which two or three are ever looked at: a value is found and decoded when it
    is asked for.
    """

    __slots__ = ("_block", "_encoded")

    def __init__(self, block: bytes, encoded: bool) -> None:
        self._block = b"\n" + block
        self._encoded = encoded

    def __getitem__(self, name: str) -> str:
        label = _label(name)
        at = self._block.find(label)
        if at < 0:
            raise KeyError(name)
        at += len(label)
        end = self._block.find(b"\n", at)
        value = (self._block[at:] if end < 0 else self._block[at:end]).removeprefix(b" ")
        if self._encoded and b"%" in value:
            value = unquote_to_bytes(value)
        text = value.decode("utf-8", "replace")
        return "" if text == _UNDEFINED else text

    def __iter__(self) -> Iterator[str]:
        named = (line.partition(b":")[0] for line in self._block.split(b"\n") if b":" in line)
        # In order, each once. A name that is no UTF-8 is nobody's to ask for.
        return iter(dict.fromkeys(name.decode() for name in named if name.isascii()))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@lru_cache(512)
def _label(name: str) -> bytes:
    return b"\n%s:" % name.encode()


class Event(ESLEvent):  # type: ignore[misc]
    """A block of headers with its body. ``data`` is the body, or a reply's text."""

    def __init__(self, headers: Mapping[str, str], data: str = "") -> None:
        self.headers = headers
        self.data = data

    @cached_property
    def name(self) -> str:
        """Event-Name, or the Event-Subclass of a CUSTOM event."""
        name = self.headers.get("Event-Name", "")
        return self.headers.get("Event-Subclass", name) if name == "CUSTOM" else name

    def get(self, header: str) -> str:
        return self.headers.get(header, "")


class Dropped(Exception):
    """The peer broke the protocol or a bound; the connection is given up. ``cause`` is one word for log and metric."""

    def __init__(self, cause: str, message: str) -> None:
        self.cause = cause
        super().__init__(message)


class CommandRefused(ValueError):
    """A command that would be two: a line end or NUL in one of its parts. Nothing was sent."""


class CommandFailed(Exception):
    """FreeSWITCH answered ``-ERR`` or ``-USAGE``. The message is its text."""


class CommandTimeout(Exception):
    """No reply within the command's time."""


COMMAND_FAILURES = (CommandFailed, CommandTimeout, NotConnectedError, OutboundSessionHasGoneAway)
"""What a sound command may raise."""


def parse_event(content: bytes) -> Event:
    """The content of a text/event-plain: headers, a blank line, and the event's body."""
    block, _, body = content.partition(b"\n\n")
    return Event(Headers(block, encoded=True), body.decode("utf-8", "replace"))


def one_line(text: str) -> str:
    """``text`` as it is. Raises CommandRefused where it is more than one line."""
    if _FORBIDDEN.search(text):
        raise CommandRefused("a command's argument holds a line end or NUL")
    return text


class Hardened:
    """Mixed in before greenswitch's InboundESL or OutboundSession, whose attributes it uses.

    ``log`` is for everything about the connection and its call; set ``log.extra`` once the call has a name.
    ``on_drop(cause)`` is called once, when the connection is gone and its last event was handled: ``closed`` (by the
    peer), ``stopped`` (by us), ``write_failed``, or the cause of a :class:`Dropped`.
    """

    sock: socket.socket
    connected: bool
    event_handlers: dict[str, list[Handler]]
    _lingering: bool
    _run: bool

    def _harden(self, on_drop: Callable[[str], None] | None = None) -> None:
        """Call right after greenswitch's ``__init__``: its greenlets have not run yet."""
        self.on_drop = on_drop
        self.log: Log = logging.LoggerAdapter(logging.getLogger("esl_app"), {})
        self.drop_cause: str | None = None
        self._commands_sent: deque[AsyncResult[Event]] = deque()
        self._esl_event_queue: Queue[Any] = Queue()
        self._buffer = bytearray()
        self._write_lock = RLock()

    # Reading

    def receive_events(self) -> None:
        """Read until the connection ends, for whatever reason."""
        cause = "closed"
        try:
            while self._run:
                block = self._read_block()
                if block is None:
                    break
                self._receive(block)
        except Dropped as error:
            cause = error.cause
            self.log.error("event socket dropped: %s", error)
        except OSError as error:
            if self.drop_cause is None:
                self.log.info("event socket lost: %s", error)
        self._gone(cause)

    def _receive(self, block: bytes) -> None:
        headers = Headers(block, encoded=False)
        if "Event-Name" in headers:
            # The reply to `connect` is an event without an outer block.
            headers = Headers(block, encoded=True)
            body = b""
        else:
            body = self._read_exactly(_length(headers))
        self.handle_event(Event(headers), body)

    def handle_event(self, event: Event, body: bytes = b"") -> None:
        """Match a reply with its command, or hand an event to the queue. Raises Dropped."""
        match event.get("Content-Type"):
            case "command/reply":
                event.data = event.get("Reply-Text").strip()
                self._reply(event)
            case "api/response":
                event.data = body.decode("utf-8", "replace")
                self._reply(event)
            case "text/event-plain":
                self._queue(parse_event(body))
            case "text/disconnect-notice":
                self._lingering = event.get("Content-Disposition") == "linger"
                self._queue(event)
            case "auth/request":
                self._auth_requested()
            case "text/rude-rejection":
                raise Dropped("rejected", "FreeSWITCH's event socket refuses this address")
            case other:
                raise Dropped("malformed", f"unexpected Content-Type {other[:80]!r}")

    def _auth_requested(self) -> None:
        raise Dropped("malformed", "an authentication request on a connection that FreeSWITCH opened")

    def _reply(self, event: Event) -> None:
        if not self._commands_sent:
            raise Dropped("malformed", "a reply to no command")
        self._commands_sent.popleft().set(event)

    def _queue(self, event: Event) -> None:
        if self._esl_event_queue.qsize() >= MAX_EVENTS:
            raise Dropped("overflow", f"{MAX_EVENTS} events wait for their handlers")
        self._esl_event_queue.put(event)

    def _read_block(self) -> bytes | None:
        """Bytes up to a blank line, or None at the end of the stream."""
        searched = 0
        while True:
            if not searched and self._buffer.startswith(b"\n"):
                del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(b"\n"))]
            end = self._buffer.find(b"\n\n", searched)
            if 0 <= end <= MAX_BLOCK:
                block = bytes(self._buffer[:end])
                del self._buffer[: end + 2]
                return block
            if len(self._buffer) > MAX_BLOCK:
                raise Dropped("oversize", f"a block of headers beyond {MAX_BLOCK} bytes")
            searched = max(0, len(self._buffer) - 1)
            if not self._read_more():
                if self._buffer:
                    raise Dropped("truncated", "the stream ended within a block")
                return None

    def _read_exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            if not self._read_more():
                raise Dropped("truncated", "the stream ended within a body")
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _read_more(self) -> bool:
        data = self.sock.recv(_READ)
        self._buffer += data
        return bool(data)

    # Sending

    def send(self, data: str) -> Event:
        """One command on one line; returns its reply, whatever that says."""
        return self.command(data)

    def command(self, line: str, headers: Iterable[tuple[str, str]] = (), timeout_s: float = COMMAND_S) -> Event:
        """Send a command with its headers and wait for the reply; replies come in the order of commands.

        Raises CommandRefused, CommandTimeout, NotConnectedError (before sending), OutboundSessionHasGoneAway (the
        connection went while waiting).
        """
        return self.commands([written(line, headers)], timeout_s)[0]

    def commands(self, several: Sequence[str], timeout_s: float = COMMAND_S) -> list[Event]:
        """Send commands (see :func:`written`) in one go, and wait for the replies to all of them. Raises as command()."""
        results: list[AsyncResult[Event]] = [AsyncResult() for _ in several]
        named = " ".join(several[0].split(maxsplit=2)[:2])
        # A result stays in its place when time is up: the reply that comes late must not be taken for the next one's.
        with gevent.Timeout(timeout_s, CommandTimeout(f"no reply to `{named}` in {timeout_s:g} s")):
            with self._write_lock:
                if not self.connected:
                    raise NotConnectedError("the event socket is closed")
                if len(self._commands_sent) + len(results) > MAX_PENDING:
                    raise CommandTimeout(f"{MAX_PENDING} commands wait for FreeSWITCH's replies")
                self._commands_sent.extend(results)
                try:
                    self.sock.sendall("".join(several).encode())
                except BaseException as error:
                    # Part of it may be on the wire: no later command could be told from the rest of this one.
                    self._gone("write_failed")
                    if isinstance(error, OSError):
                        raise OutboundSessionHasGoneAway(str(error)) from error
                    raise
            return [cast(Event, result.get()) for result in results]

    def api(self, *words: str, timeout_s: float = COMMAND_S) -> str:
        """``api WORDS``; returns the text. Raises CommandFailed where it says -ERR or -USAGE, and what command() raises."""
        return result_of(words[0], self.command(f"api {' '.join(words)}", timeout_s=timeout_s))

    # Dispatching

    def process_events(self) -> None:
        """Hand each event to its handlers, in order; after the last one tell that the connection is gone."""
        for event in self._esl_event_queue:
            for handler in self._handlers_of(event):
                self._safe_exec_handler(handler, event)
        if self.on_drop is not None:
            self.on_drop(self.drop_cause or "stopped")

    def _handlers_of(self, event: Event) -> list[Handler]:
        if event.get("Content-Type") == "text/disconnect-notice":
            return list(self.event_handlers.get("DISCONNECT", []))
        return list(self.event_handlers.get(event.name) or self.event_handlers.get("*", []))

    def _safe_exec_handler(self, handler: Handler, event: Event) -> None:
        try:
            handler(event)
        except Exception:
            DUTY_ERRORS.labels("handler").inc()
            self.log.exception("a handler of %s failed", event.name)

    # Ending

    def _gone(self, cause: str) -> None:
        """The connection is no more: fail what waits for it, end the queue of events; once."""
        if self.drop_cause is not None:
            return
        self.drop_cause = cause
        self.connected = False
        self._run = False
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        while self._commands_sent:
            self._commands_sent.popleft().set_exception(OutboundSessionHasGoneAway(cause))
        self._esl_event_queue.put(StopIteration)

    def give_up(self) -> None:
        """Close without a word."""
        self._gone("stopped")

    def stop(self) -> None:
        """Say goodbye where that is possible, and close."""
        if self.connected and not self._lingering:
            with contextlib.suppress(CommandTimeout, NotConnectedError, OutboundSessionHasGoneAway):
                self.command("exit", timeout_s=EXIT_S)
        self._gone("stopped")


def written(line: str, headers: Iterable[tuple[str, str]] = ()) -> str:
    """A command as it is sent. Raises CommandRefused where a part of it is more than one line."""
    return "\n".join([one_line(line), *(f"{one_line(name)}: {one_line(value)}" for name, value in headers)]) + "\n\n"


def result_of(api: str, reply: Event) -> str:
    """The text of an api command's reply. Raises CommandFailed where it says -ERR or -USAGE."""
    text: str = reply.data.strip()
    if text.startswith(("-ERR", "-USAGE")):
        raise CommandFailed(f"{api}: {text}")
    return text


def _length(headers: Mapping[str, str]) -> int:
    text = headers.get("Content-Length", "0")
    if not text.isascii() or not text.isdigit():
        raise Dropped("malformed", f"Content-Length {text[:40]!r}")
    if len(text) > 12 or int(text) > MAX_BODY:
        raise Dropped("oversize", f"a body of {text[:40]} bytes, beyond {MAX_BODY}")
    return int(text)
