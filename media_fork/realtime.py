"""A client of the OpenAI GA Realtime protocol over WebSocket, one connection a call, as OpenAI's reference has it.

``open`` connects, waits for session.created, sends session.update and waits for session.updated. From then on audio
deltas go to the sink decoded, every other server event as the object it is.
"""

import asyncio
import ssl
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

import orjson
from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from media_fork.batches import Batches
from media_fork.metrics import Counts, error_code
from tandem.realtime import Endpoint
from tandem.seam import MAX_ID

PING_S: Final = 4.0
"""A model that is silent for this long is pinged, and lost when it does not answer in as long again."""
MAX_FRAME_BYTES: Final = 8 << 20
FULL_BYTES: Final = 128 << 10
"""Unsent bytes at which caller audio is dropped: some seconds of it."""
STUCK_BYTES: Final = 4 << 20
"""Unsent bytes at which the model is given up."""
CLOSE_WITHIN_S: Final = 1.0

_TEXT: Final = WSMsgType.TEXT
_DELTA: Final = b'"type":"response.output_audio.delta"'
_ITEM: Final = b'"item_id":"'
_AUDIO: Final = b'"delta":"'
_HEAD_BYTES: Final = 256
"""Where the type of a delta stands, in what OpenAI sends. Elsewhere it is found too, by way of the JSON parser."""


class ModelUnavailableError(Exception):
    """No session is to be had. ``cause`` in one word, for a metric; the message says more, for the log."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Sink(Protocol):
    """Who gets what the model sends."""

    def on_audio(self, response: str, item: str, content_index: int, audio: bytes) -> None:
        """Part of an utterance, in the format of the session."""

    def on_event(self, event: dict[str, Any]) -> None:
        """Any other server event; its fields are as the model sent them, unchecked."""

    def on_model_full(self, full: bool) -> None:
        """The connection takes no more caller audio for now, or takes it again."""

    def on_model_lost(self, cause: str, message: str) -> None:
        """The session is over and was not closed by ``close``. Once."""


class _Nobody:
    """Listens to nothing: what comes before somebody does, or after the end."""

    def on_audio(self, response: str, item: str, content_index: int, audio: bytes) -> None: ...

    def on_event(self, event: dict[str, Any]) -> None: ...

    def on_model_full(self, full: bool) -> None: ...

    def on_model_lost(self, cause: str, message: str) -> None: ...


NOBODY: Final = _Nobody()


def place(endpoint: Endpoint) -> str:
    """Where the model is, for logs: its URL without user, query and fragment, which may hold keys."""
    url = urlsplit(endpoint.url)
    return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))


class Realtime(WSListener):
    """One session, set up by the session.update ``update``. Whoever listens is called on the event loop."""

    def __init__(self, endpoint: Endpoint, update: dict[str, Any], counts: Counts, batches: Batches) -> None:
        self.endpoint = endpoint
        self.expires_at: float | None = None
        """Unix seconds, where the model has said so."""
        self.update = update
        """The session.update that it was, or is to be, set up with."""
        self._sink: Sink = NOBODY
        self._lost: tuple[str, str] | None = None
        self._counts = counts
        self._batches = batches
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self._fragments = bytearray()
        self._response = ""
        self._item = ""
        self._item_bytes = b""
        self._content_index = 0
        self.send_audio: Callable[[bytes], None] = self._send_nothing
        """Send one input_audio_buffer.append, made already."""

    async def open(self, ssl_context: ssl.SSLContext | None, within_s: float) -> None:
        """Be ready in time, or raise ModelUnavailableError and leave nothing open."""
        try:
            async with asyncio.timeout(within_s):
                self._transport, _ = await ws_connect(
                    lambda: self,
                    self.endpoint.session_url,
                    ssl_context=ssl_context,
                    websocket_handshake_timeout=within_s,
                    extra_headers=self.endpoint.headers,
                    max_redirects=0,
                    max_frame_size=MAX_FRAME_BYTES,
                    enable_auto_ping=True,
                    auto_ping_idle_timeout=PING_S,
                    auto_ping_reply_timeout=PING_S,
                )
                await self._ready
        except TimeoutError:
            self.close()
            raise ModelUnavailableError("timeout", f"not ready within {within_s * 1000:.0f} ms") from None
        except (OSError, WSError) as error:
            self.close()
            raise ModelUnavailableError("connect", f"{place(self.endpoint)}: {error}") from error
        except BaseException:
            self.close()
            raise

    def listen(self, sink: Sink) -> None:
        """Have ``sink`` told from now on; of a loss before that too."""
        self._sink = sink
        if self._lost is not None:
            self._loop.call_soon(sink.on_model_lost, *self._lost)

    def send(self, event: dict[str, Any]) -> None:
        """Send one client event. A connection that is stuck is given up instead."""
        if self._transport is None or self._closing:
            return
        self._batches.flush()
        self._transport.send(_TEXT, orjson.dumps(event))
        if self._transport.underlying_transport.get_write_buffer_size() > STUCK_BYTES:
            self._transport.disconnect(graceful=False)

    def close(self) -> None:
        """End the session; the sink hears nothing any more."""
        if self._closing:
            return
        self._closing = True
        self._sink = NOBODY
        self.send_audio = self._send_nothing
        if self._transport is not None and not self._transport.is_disconnected:
            self._batches.flush()
            self._transport.send_close(WSCloseCode.OK)
            self._loop.call_later(CLOSE_WITHIN_S, self._transport.disconnect, False)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        if self._closing:
            transport.disconnect(graceful=False)
            return
        transport.underlying_transport.set_write_buffer_limits(high=FULL_BYTES)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is _TEXT and frame.fin:
            self._on_message(frame.get_payload_as_bytes())
        elif kind is _TEXT or kind is WSMsgType.CONTINUATION:
            self._fragments += frame.get_payload_as_bytes()
            if frame.fin:
                message, self._fragments = bytes(self._fragments), bytearray()
                self._on_message(message)
            elif len(self._fragments) > MAX_FRAME_BYTES:
                self._fragments = bytearray()
                transport.send_close(WSCloseCode.MESSAGE_TOO_BIG)
                transport.disconnect()
        elif kind is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif kind is not WSMsgType.PONG:
            self._counts.add("model_events_ignored", "not_text")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        cause, message = self._why_closed(transport)
        if self._closing:
            self._ready.cancel()
        elif not self._ready.done():
            self._ready.set_exception(ModelUnavailableError(cause, message))
        elif self._ready.exception() is None:
            self._lose(cause, message)

    def pause_writing(self) -> None:
        self._sink.on_model_full(True)

    def resume_writing(self) -> None:
        self._sink.on_model_full(False)

    def _on_message(self, payload: bytes) -> None:
        if payload.find(_DELTA, 0, _HEAD_BYTES) >= 0:
            start = payload.find(_ITEM) + len(_ITEM)
            end = payload.find(b'"', start)
            if payload[start:end] == self._item_bytes:
                start = payload.find(_AUDIO, end) + len(_AUDIO)
                if start >= len(_AUDIO):
                    self._on_audio(payload[start : payload.find(b'"', start)])
                    return
        try:
            event = orjson.loads(payload)
        except orjson.JSONDecodeError:
            self._counts.add("model_events_ignored", "not_json")
            return
        kind = event.get("type") if isinstance(event, dict) else None
        if not isinstance(kind, str):
            self._counts.add("model_events_ignored", "no_type")
        elif kind == "response.output_audio.delta":
            self._on_delta(event)
        elif self._ready.done():
            self._on_event(kind, event)
        else:
            self._on_opening(kind, event)

    def _on_delta(self, event: dict[str, Any]) -> None:
        """An audio delta in full: the first of an item, or one that was written another way."""
        response, item, delta = event.get("response_id"), event.get("item_id"), event.get("delta")
        content_index = event.get("content_index", 0)
        if not (
            isinstance(response, str) and isinstance(item, str) and 0 < len(item) <= MAX_ID and isinstance(delta, str)
        ) or not (isinstance(content_index, int)):
            self._counts.add("model_events_ignored", "malformed")
            return
        self._response, self._item, self._content_index = response, item, content_index
        self._item_bytes = item.encode()
        self._on_audio(delta.encode())

    def _on_audio(self, base64: bytes) -> None:
        try:
            audio = a2b_base64(base64)
        except Base64Error:
            self._counts.add("model_events_ignored", "malformed")
            return
        self._counts.model_deltas += 1
        self._counts.model_bytes += len(audio)
        self._sink.on_audio(self._response, self._item, self._content_index, audio)

    def _on_opening(self, kind: str, event: dict[str, Any]) -> None:
        if kind == "session.created":
            self.send(self.update)
        elif kind == "session.updated":
            session = event.get("session")
            expires_at = session.get("expires_at") if isinstance(session, dict) else None
            self.expires_at = float(expires_at) if isinstance(expires_at, int | float) else None
            assert self._transport is not None
            self.send_audio = partial(self._batches.post, partial(self._transport.send, _TEXT))
            self._ready.set_result(None)
        elif kind == "error":
            code, message = _error_of(event)
            self._counts.add("model_errors", error_code(code))
            self._ready.set_exception(ModelUnavailableError("refused", f"{code}: {message}"))

    def _on_event(self, kind: str, event: dict[str, Any]) -> None:
        if self._closing:
            return
        if kind == "error":
            code, message = _error_of(event)
            self._counts.add("model_errors", error_code(code))
            if code == "session_expired":
                self._lose("session_expired", message)
                return
        self._sink.on_event(event)

    def _lose(self, cause: str, message: str) -> None:
        sink = self._sink
        self.close()
        self._lost = cause, message
        sink.on_model_lost(cause, message)

    def _why_closed(self, transport: WSTransport) -> tuple[str, str]:
        handshake = transport.close_handshake
        if handshake is not None and handshake.recv is not None:
            return "closed", f"closed by the model: {handshake.recv.code:d} {handshake.recv.reason}".rstrip()
        if handshake is not None and handshake.sent is not None:
            if handshake.sent.code == WSCloseCode.GOING_AWAY:
                return "no_pong", f"no answer to a ping within {PING_S:.0f} s"
            return "protocol", f"closed on a protocol error: {handshake.sent.reason}"
        return "connection_lost", "the connection was lost"

    def _send_nothing(self, append: bytes) -> None:
        del append


def _error_of(event: dict[str, Any]) -> tuple[str, str]:
    """Code and message of an error event; the type where there is no code."""
    error = event.get("error")
    if not isinstance(error, dict):
        return "unknown", ""
    return str(error.get("code") or error.get("type") or "unknown"), str(error.get("message") or "")
