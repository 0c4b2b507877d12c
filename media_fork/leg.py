"""A fork leg: mod_audio_fork's WebSocket, where a call's audio comes from and goes to.

FreeSWITCH connects to ``/v1/fork/TOKEN`` with the subprotocol audio.drachtio.org. Its first message is the Hello, as
text; then come binary messages of L16, little-endian, of any size, and text messages with notices from esl_app. What is
malformed costs at most the connection that it came on.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)
from pydantic import ValidationError

from media_fork.clock import Clock, Timer
from media_fork.metrics import Counts
from tandem.seam import NOTICE, Hello, Notice

PATH: Final = "/v1/fork/"
SUBPROTOCOL: Final = "audio.drachtio.org"
MAX_TEXT_BYTES: Final = 16 << 10
"""Of a notice; a longer text is ignored."""
MAX_MESSAGE_BYTES: Final = 2 << 20
"""Of any message; a longer one closes the connection. mod_audio_fork holds back at most 5 s of audio."""
FULL_BYTES: Final = 64 << 10
"""Unsent bytes at which playout waits: FreeSWITCH has stopped reading."""
CLOSE_WITHIN_S: Final = 1.0

_BINARY: Final = WSMsgType.BINARY
_TEXT: Final = WSMsgType.TEXT
_CONTINUATION: Final = WSMsgType.CONTINUATION

_log = logging.getLogger(__name__)


class Reservation(Protocol):
    """The session that a leg belongs to."""

    call: str
    session: str
    on_audio: Callable[[bytes], None]

    def on_hello(self, leg: "Leg") -> None: ...

    def on_notice(self, notice: Notice) -> None: ...

    def on_leg_full(self, full: bool) -> None: ...

    def on_leg_closed(self, why: str) -> None: ...


class Leg(WSListener):
    """One connection, admitted by its token. Dropped where it says nothing, or sends no audio, in ``first_frame_s``."""

    def __init__(self, reservation: Reservation, first_frame_s: float, counts: Counts, clock: Clock) -> None:
        self._reservation = reservation
        self._on_audio: Callable[[bytes], None] = reservation.on_audio
        self._first_frame_s = first_frame_s
        self._counts = counts
        self._clock = clock
        self._transport: WSTransport | None = None
        self._greeted = False
        self._heard = False
        self._timer: Timer | None = None
        self._fragments: bytearray | None = None
        self._together: list[bytes] = []
        """Audio of messages that another one followed in what was read."""
        self._closed = False
        self._why = "fork_closed"

    def send_audio(self, l16: bytes) -> None:
        assert self._transport is not None
        self._transport.send(_BINARY, l16)

    def send_text(self, text: bytes) -> None:
        assert self._transport is not None
        self._transport.send(_TEXT, text)

    def close(self, code: WSCloseCode = WSCloseCode.OK) -> None:
        """Close the connection from this side."""
        if self._closed or self._transport is None:
            return
        self._closed = True
        self._transport.send_close(code)
        self._clock.call_at(self._clock.now() + CLOSE_WITHIN_S, self._abort)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=FULL_BYTES)
        self._timer = self._clock.call_at(self._clock.now() + self._first_frame_s, self._on_nothing)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is _BINARY and self._heard:
            self._on_frame(frame)
            return
        if self._together:
            self._pass_on()
        if self._closed:
            if kind is WSMsgType.CLOSE:
                transport.disconnect()
        elif kind is _BINARY:
            self._on_first_audio(frame)
        elif kind is _TEXT and frame.fin:
            self._on_text(frame.get_payload_as_bytes())
        elif kind is _TEXT:
            self._fragments = bytearray(frame.get_payload_as_bytes())
        elif kind is _CONTINUATION:
            self._on_continuation(frame)
        elif kind is WSMsgType.CLOSE:
            self._closed = True
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._closed = True
        self._cancel_timer()
        self._reservation.on_leg_closed(self._why)

    def pause_writing(self) -> None:
        self._reservation.on_leg_full(True)

    def resume_writing(self) -> None:
        self._reservation.on_leg_full(False)

    def _on_first_audio(self, frame: WSFrame) -> None:
        if not self._greeted:
            self._refuse("audio_before_hello")
            return
        self._heard = True
        self._cancel_timer()
        self._on_frame(frame)

    def _on_frame(self, frame: WSFrame) -> None:
        """Pass it on, together with those that came before it where this process was late to read them."""
        counts = self._counts
        counts.leg_frames += 1
        counts.leg_bytes += frame.payload_size
        if self._together or not frame.last_in_buffer:
            self._together.append(frame.get_payload_as_bytes())
            if frame.last_in_buffer:
                self._pass_on()
        else:
            self._on_audio(frame.get_payload_as_bytes())

    def _pass_on(self) -> None:
        together, self._together = self._together, []
        self._on_audio(b"".join(together))

    def _on_continuation(self, frame: WSFrame) -> None:
        if self._fragments is None:
            self._on_audio(frame.get_payload_as_bytes())
            return
        if len(self._fragments) <= MAX_TEXT_BYTES:
            self._fragments += frame.get_payload_as_bytes()
        if frame.fin:
            text, self._fragments = bytes(self._fragments), None
            self._on_text(text)

    def _on_text(self, text: bytes) -> None:
        if not self._greeted:
            self._on_hello(text)
        elif len(text) > MAX_TEXT_BYTES:
            self._counts.add("leg_texts_ignored", "too_long")
        else:
            try:
                notice = NOTICE.validate_json(text)
            except ValidationError:
                self._counts.add("leg_texts_ignored", "not_understood")
                return
            self._reservation.on_notice(notice)

    def _on_hello(self, text: bytes) -> None:
        try:
            hello = Hello.model_validate_json(text[: MAX_TEXT_BYTES + 1])
        except ValidationError:
            self._refuse("no_hello")
            return
        if hello.call != self._reservation.call or hello.session != self._reservation.session:
            self._refuse("wrong_hello")
            return
        self._greeted = True
        self._reservation.on_hello(self)

    def _on_nothing(self) -> None:
        self._timer = None
        self._refuse("no_audio" if self._greeted else "silent")

    def _refuse(self, why: str) -> None:
        self._counts.add("legs_refused", why)
        _log.warning("fork dropped: %s", why, extra={"call": self._reservation.call})
        self._why = why
        self._cancel_timer()
        self.close(WSCloseCode.POLICY_VIOLATION)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.disconnect(graceful=False)


async def listen(
    host: str,
    port: int,
    claim: Callable[[str], Reservation | None],
    first_frame_s: float,
    counts: Counts,
    clock: Clock,
) -> asyncio.Server:
    """Listen for forks. ``claim`` gives the reservation of a token, once, or None."""

    def admit(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        path = request.path.decode("ascii", "replace").partition("?")[0]
        if not path.startswith(PATH):
            return _turned_away(404, "not_found")
        if request.headers.get("upgrade", "").lower() != "websocket" or "sec-websocket-key" not in request.headers:
            return _turned_away(400, "not_websocket")
        reservation = claim(path.removeprefix(PATH))
        if reservation is None:
            return _turned_away(403, "bad_token")
        offered = request.headers.get("sec-websocket-protocol", "")
        chosen = SUBPROTOCOL in (name.strip() for name in offered.split(","))
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": SUBPROTOCOL} if chosen else None)
        return WSUpgradeResponseWithListener(response, Leg(reservation, first_frame_s, counts, clock))

    def _turned_away(status: int, why: str) -> WSUpgradeResponseWithListener:
        counts.add("legs_refused", why)
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, why.encode()), None)

    return await ws_create_server(
        admit,
        host,
        port,
        websocket_handshake_timeout=first_frame_s,
        max_frame_size=MAX_MESSAGE_BYTES,
        backlog=1024,
    )
