"""The WebSocket of one fork: dialled by the switch, text ahead of audio, a slow server buffered up to two seconds."""

import ssl
from collections.abc import Callable

from picows import (
    WSCloseCode,
    WSFrame,
    WSHandshakeError,
    WSInvalidStatusError,
    WSInvalidURL,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)
from picows.url import parse_url

SUBPROTOCOL = "audio.drachtio.org"
HANDSHAKE_TIMEOUT_S = 10.0
MAX_TEXT = 65 * 1024 * 10
"""Longest fragmented text message; a longer one is dropped as a whole."""


class ConnectFailed(OSError):
    """The connection was not made; the text is libwebsockets' reason."""


class ForkConnection(WSListener):
    """Callbacks: ``on_text`` and ``on_binary`` for whole messages, ``on_dropped`` when the far end closed or broke it."""

    def __init__(
        self,
        *,
        on_text: Callable[[bytes], None],
        on_binary: Callable[[bytes], None],
        on_dropped: Callable[[], None],
        buffer_bytes: int,
    ) -> None:
        self._on_text = on_text
        self._on_binary = on_binary
        self._on_dropped = on_dropped
        self._buffer_bytes = buffer_bytes
        self._transport: WSTransport | None = None
        self._closing = False
        self._paused = False
        self._backlog = bytearray()
        self._message = bytearray()
        self._message_type = WSMsgType.TEXT

    async def connect(self, url: str) -> None:
        """Dial. Raises ConnectFailed; LookupError for a URL or host that cannot be used, which the module never reports."""
        try:
            host = parse_url(url).host
        except WSInvalidURL as error:
            raise LookupError(str(error)) from None
        headers = {
            "Pragma": "no-cache",
            "Cache-Control": "no-cache",
            "Host": host,
            "Origin": f"http://{host}",
            "Sec-WebSocket-Protocol": SUBPROTOCOL,
        }
        try:
            self._transport, _ = await ws_connect(
                lambda: self,
                url,
                extra_headers=headers,
                websocket_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                proxy=None,
            )
        except WSInvalidStatusError as error:
            unauthorized = error.response is not None and error.response.status == 401
            raise ConnectFailed(f"HS: ws upgrade {'unauthorized' if unauthorized else 'response not 101'}") from None
        except WSHandshakeError as error:
            raise ConnectFailed(f"HS: {error}") from None
        except TimeoutError:
            raise ConnectFailed("Timed out waiting server reply") from None
        except ssl.SSLError as error:
            raise ConnectFailed(f"tls: {error.reason}") from None
        except OSError as error:
            if error.errno is None or error.errno < 0:
                raise LookupError(str(error)) from None
            raise ConnectFailed(f"conn fail: {error.errno}") from None
        self._transport.underlying_transport.set_write_buffer_limits(high=0)

    # What the far end does

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            if not self._closing:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
            return
        if frame.msg_type is WSMsgType.BINARY or frame.msg_type is WSMsgType.TEXT:
            self._message_type = frame.msg_type
            self._message.clear()
        elif frame.msg_type is not WSMsgType.CONTINUATION:
            return
        self._message += frame.get_payload_as_memoryview()
        if self._closing:
            return
        if self._message_type is WSMsgType.BINARY:
            # The module takes each piece as it comes.
            self._on_binary(bytes(self._message))
            self._message.clear()
        elif frame.fin:
            message = bytes(self._message)
            self._message.clear()
            if frame.msg_type is WSMsgType.TEXT or len(message) <= MAX_TEXT:
                self._on_text(message)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        if not self._closing:
            self._on_dropped()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._backlog:
            audio = bytes(self._backlog)
            self._backlog.clear()
            self._send(WSMsgType.BINARY, audio)

    # What we send

    @property
    def connected(self) -> bool:
        return self._transport is not None and not self._closing

    def send_text(self, text: bytes) -> None:
        """One text frame; dropped where there is no connection."""
        if self.connected:
            self._send(WSMsgType.TEXT, text)

    def send_audio(self, audio: bytes) -> bool:
        """One binary frame, or part of a later one while the server does not read. False: the backlog had to be dropped."""
        if not self.connected:
            return True
        if not self._paused:
            self._send(WSMsgType.BINARY, audio)
            return True
        kept = len(self._backlog) + len(audio) <= self._buffer_bytes
        if not kept:
            self._backlog.clear()
        self._backlog += audio
        return kept

    def send_empty(self) -> None:
        """The zero-length binary frame of a graceful shutdown."""
        if self.connected:
            self._send(WSMsgType.BINARY, b"")

    def close(self) -> None:
        """Close 1000 without a reason."""
        if self._transport is not None and not self._closing:
            self._closing = True
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    def abandon(self) -> None:
        """Break the connection without a word."""
        self._closing = True
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def _send(self, kind: WSMsgType, payload: bytes) -> None:
        assert self._transport is not None
        self._transport.send(kind, payload)
