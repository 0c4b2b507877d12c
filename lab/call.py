"""One call of a Phone: a dialog with its media. See lab.phone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sipmessage import Request, Response

from lab import message as sip_message
from lab import sdp
from lab.dialog import Dialog, DialogState, End
from lab.negotiation import CANNOT_BE_SPOKEN_TO, Negotiation
from lab.phone_audio import PhoneAudio
from lab.refer import Referral
from lab.transaction import HeaderList, ServerTransaction
from lab.transport import TracedMessage
from lab.uac import Uac
from lab.uas import Uas

CallHandler = Callable[["Call", ServerTransaction], Awaitable[None]]
"""Called with an in-dialog request; answers it, or leaves it to the default. See lab.transferee for ready-made ones."""

_log = logging.getLogger(__name__)


class Call:
    """A call placed or received. Its answers can be scripted; left alone, it behaves like a plain desk phone."""

    def __init__(
        self,
        dialog: Dialog,
        audio: PhoneAudio,
        *,
        codecs: tuple[str, ...],
        offer: bytes | None = None,
        telephone_event: bool = True,
    ) -> None:
        self.dialog = dialog
        self.audio = audio
        self.handlers: dict[str, CallHandler] = {}
        """By method. The default, where there is none or it leaves the request unanswered: INVITE and UPDATE
        with the fitting SDP answer, REFER 501, NOTIFY 481, all others 200.
        """
        self.requests: list[Request] = []
        """In-dialog requests received, in order."""
        self.replaces: Call | None = None
        """The call that this one asks to take the place of (RFC 3891)."""
        self.on_ended: Callable[[End], None] | None = None
        self._offered = offer
        """The body of our INVITE; None where it is made here."""
        self._negotiation = Negotiation(audio.stream, codecs, telephone_event)
        self._answered = asyncio.Event()
        self._request_came = asyncio.Event()
        dialog.on_request = self._on_request
        dialog.on_confirmed = self._on_confirmed
        dialog.on_ended = self._on_ended
        dialog.ack_body = self._answer_in_ack
        if isinstance(dialog, Uac):
            dialog.on_provisional = self._on_provisional
        elif dialog.invite.body:
            self._negotiation.take_offer(dialog.invite.body)

    def __repr__(self) -> str:
        return f"<Call {self.call_id} {self.dialog.role} {self.dialog.state}>"

    # What it is

    @property
    def call_id(self) -> str:
        return self.dialog.call_id

    @property
    def state(self) -> DialogState:
        return self.dialog.state

    @property
    def called(self) -> str:
        """User part of the INVITE's Request-URI: the number dialled; of a URI that is not sip:, all of it."""
        parts = sip_message.sip_uri(str(self.dialog.invite.uri))
        return parts.user if parts is not None else str(self.dialog.invite.uri)

    @property
    def caller(self) -> str:
        """User part of the INVITE's From."""
        uri = sip_message.name_addr(self.dialog.invite.headers["From"]).uri
        parts = sip_message.sip_uri(uri)
        return parts.user if parts is not None else uri

    @property
    def caller_name(self) -> str:
        """Display name of the INVITE's From."""
        return sip_message.name_addr(self.dialog.invite.headers["From"]).display

    def header(self, name: str) -> str | None:
        """A header of the INVITE."""
        return self.dialog.invite.headers.get(name)

    @property
    def provisionals(self) -> list[Response]:
        """1xx received, 100 included; none where we were called."""
        return self.dialog.provisionals if isinstance(self.dialog, Uac) else []

    @property
    def final(self) -> Response | None:
        """Final response received; None where we were called."""
        return self.dialog.final if isinstance(self.dialog, Uac) else None

    @property
    def final_status(self) -> int | None:
        return self.dialog.final_status

    @property
    def end(self) -> End | None:
        return self.dialog.end

    @property
    def messages(self) -> list[TracedMessage]:
        return self.dialog.messages

    @property
    def remote_media_address(self) -> str | None:
        """IP address to which our audio goes."""
        return self.audio.stream.remote[0] if self.audio.stream.remote is not None else None

    @property
    def codec(self) -> str | None:
        return self.audio.stream.codec

    # Called side

    @property
    def _uas(self) -> Uas:
        if not isinstance(self.dialog, Uas):
            raise TypeError("this call was placed from here; only the called side answers it")
        return self.dialog

    async def ringing(self, status: int = 180, *, early_media: bool = False, headers: HeaderList = ()) -> None:
        """180 (181, 182, 183); ``early_media``: with SDP, and audio flows from now on."""
        self._uas.respond(status, headers=headers, body=self._negotiation.answer() if early_media else b"")

    async def answer(self, *, headers: HeaderList = ()) -> None:
        """200 with the SDP answer (an offer, where the INVITE had none). Returns when it is sent.

        Nothing happens where the caller has given up meanwhile.
        """
        if self.end is not None:
            return
        self.audio.answered()
        body = self._negotiation.answer() if self.remote_sdp is not None else self._negotiation.offer()
        self._uas.respond(200, headers=headers, body=body)
        if self.replaces is not None:
            self.replaces.dialog.hang_up(headers=[("Reason", 'SIP;cause=200;text="Replaced"')])

    async def reject(self, status: int, reason: str | None = None, *, headers: HeaderList = ()) -> None:
        """A final failure: 486, 603, 404, 503 …, or 302 with a Contact among ``headers``."""
        self._uas.respond(status, reason, headers=headers)

    # Either side

    async def cancel(self, *, headers: HeaderList = ()) -> None:
        """CANCEL a call that we placed; see wait_ended() for what came of it."""
        if isinstance(self.dialog, Uac):
            self.dialog.cancel(headers=headers)

    async def hangup(self, *, headers: HeaderList = ()) -> None:
        """End it in whatever state. Returns when the peer has answered the BYE; nothing happens where it has ended."""
        if self.state is DialogState.CONFIRMED:
            answered = self.dialog.bye(headers=headers)
            if answered is not None:
                await answered
        elif self.end is None:
            self.dialog.hang_up(headers=headers)

    async def wait_ringing(self, timeout_s: float) -> Response:
        """The first provisional above 100. Raises TimeoutError, or DialogEnded where the call ended first."""
        if not isinstance(self.dialog, Uac):
            raise TypeError("only the calling side waits for ringing")
        return await self.dialog.wait_provisional(timeout_s)

    async def wait_answered(self, timeout_s: float) -> None:
        """Raises TimeoutError, or DialogEnded where the call ended first."""
        await self.dialog.wait_confirmed(timeout_s)

    async def wait_ended(self, timeout_s: float) -> End:
        """Raises TimeoutError."""
        return await self.dialog.wait_ended(timeout_s)

    async def dtmf(self, digits: str, *, duration_ms: int = 160, pause_ms: int = 80) -> None:
        """RFC 4733 events; returns when the last is sent."""
        await self.audio.send_digits(digits, duration_ms=duration_ms, pause_ms=pause_ms)

    async def refer(self, target: str, *, headers: HeaderList = ()) -> Referral:
        """Send REFER to ``target`` (a URI): returns when it is answered. ``.response_status``, ``.wait_done()``."""
        referral = self.dialog.refer(target, headers=headers)
        await referral.response()
        return referral

    async def info(self, body: bytes, content_type: str, *, headers: HeaderList = ()) -> Response:
        return await self.dialog.request("INFO", headers=headers, body=body, content_type=content_type)

    async def hold(self, direction: sdp.Direction = "sendonly") -> Response:
        """re-INVITE with ``direction`` (sendonly or inactive): its final response."""
        return await self._reinvite(direction)

    async def resume(self) -> Response:
        """re-INVITE with sendrecv: its final response."""
        return await self._reinvite("sendrecv")

    async def offer_again(self, codecs: tuple[str, ...]) -> Response:
        """re-INVITE with other codecs: its final response."""
        return await self._reinvite(self._negotiation.direction, codecs)

    async def wait_request(self, method: str, timeout_s: float) -> Request:
        """The first in-dialog request of ``method``, already received or still to come. Raises TimeoutError."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    for request in self.requests:
                        if request.method == method:
                            return request
                    self._request_came.clear()
                    await self._request_came.wait()
        except TimeoutError:
            raise TimeoutError(f"waited {timeout_s:g} s for {method} in call {self.call_id}") from None

    # Offer and answer

    @property
    def local_sdp(self) -> sdp.Session | None:
        """Our last description."""
        return self._negotiation.local

    @property
    def remote_sdp(self) -> sdp.Session | None:
        """The peer's last description."""
        return self._negotiation.remote

    def first_offer(self) -> bytes:
        """The body of our INVITE."""
        made = self._negotiation.offer()
        return made if self._offered is None else self._offered

    def _take_answer(self, body: bytes) -> None:
        """An answer too late to be refused: where it cannot be spoken to, the call ends."""
        try:
            self._negotiation.take_answer(body)
        except CANNOT_BE_SPOKEN_TO as error:
            self._incompatible(error)

    def _answer_in_ack(self, response: Response) -> bytes:
        try:
            self._negotiation.take_offer(response.body)
        except CANNOT_BE_SPOKEN_TO as error:
            self._incompatible(error)
            return b""
        return self._negotiation.answer()

    def _incompatible(self, error: Exception) -> None:
        _log.warning("call %s: %s", self.call_id, error)
        self.dialog.hang_up(headers=[("Reason", 'SIP;cause=488;text="Not Acceptable Here"')])

    async def _reinvite(self, direction: sdp.Direction, codecs: tuple[str, ...] | None = None) -> Response:
        negotiation = self._negotiation
        before = negotiation.direction, negotiation.codecs
        negotiation.direction, negotiation.codecs = direction, codecs or negotiation.codecs
        response = await self.dialog.request("INVITE", body=negotiation.offer())
        if response.code < 300:
            self._take_answer(response.body)
        else:
            negotiation.direction, negotiation.codecs = before
        return response

    # What the dialog tells

    def _on_provisional(self, response: Response) -> None:
        if response.body and response.code > 100:
            try:
                self._negotiation.take_answer(response.body)
            except CANNOT_BE_SPOKEN_TO as error:
                _log.warning("call %s: %d with a body that is no answer: %s", self.call_id, response.code, error)

    def _on_confirmed(self) -> None:
        self.audio.answered()
        body = b""
        if isinstance(self.dialog, Uac):
            if self.dialog.final is not None and self.dialog.invite.body:
                body = self.dialog.final.body
        elif not self.dialog.invite.body and self.dialog.ack is not None:
            body = self.dialog.ack.body
        if body or self.remote_sdp is None:
            self._take_answer(body)

    def _on_ended(self, end: End) -> None:
        self.audio.close()
        if self.on_ended is not None:
            self.on_ended(end)

    async def _on_request(self, transaction: ServerTransaction) -> None:
        self.requests.append(transaction.request)
        self._request_came.set()
        handler = self.handlers.get(transaction.method)
        if handler is not None:
            await handler(self, transaction)
        if transaction.method in ("INVITE", "UPDATE") and not transaction.settled:
            self._answer_reinvite(transaction)

    def _answer_reinvite(self, transaction: ServerTransaction) -> None:
        if not transaction.request.body:
            transaction.respond(200, body=self._negotiation.offer() if transaction.method == "INVITE" else b"")
            return
        try:
            self._negotiation.take_offer(transaction.request.body)
        except CANNOT_BE_SPOKEN_TO as error:
            transaction.respond(488, headers=[sip_message.warning(self.audio.stream.local[0], str(error))])
            return
        transaction.respond(200, body=self._negotiation.answer())
