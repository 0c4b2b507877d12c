"""A SIP phone for tests and demonstrations: the caller who speaks, the sales phone, the carrier, the PBX.

    phone = Phone("127.0.0.31", name="pbx")
    phone.on_invite = sales              # async def sales(call: Call): await call.ringing(); await call.answer()
    await phone.start()
    call = await phone.invite("+12025550100", proxy=("127.0.0.1", 5060), from_number="+12025550147")
    await call.wait_answered(5)
    await call.audio.play(speech)

Both sides of every call speak G.711, or G.722 where asked to, over RTP with RFC 4733 events; see lab.call and lab.phone_audio.
"""

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from lab import clock as lab_clock
from lab import message as sip_message
from lab.call import Call, CallHandler
from lab.codec import G711
from lab.negotiation import CANNOT_BE_SPOKEN_TO
from lab.pacer import Pacer
from lab.phone_audio import PhoneAudio
from lab.rtp import RtpStream
from lab.sip import Endpoint
from lab.transaction import Address, HeaderList, Timers
from lab.uac import Uac
from lab.uas import Uas

__all__ = ["Call", "Phone"]

MAX_CALLS = 1000
"""Calls at a time; those beyond are refused with 503."""


class Phone:
    """A user agent on address:port, with any number of lines."""

    def __init__(
        self,
        address: str,
        port: int = 5060,
        name: str = "",
        *,
        codecs: tuple[str, ...] = G711,
        rtp_ports: range = range(0),
        record: bool = True,
        pacer: Pacer | None = None,
        timers: Timers | None = None,
        clock: lab_clock.Clock = lab_clock.now,
    ) -> None:
        """``rtp_ports`` empty: any. ``record`` False: no audio and no packets are kept (load)."""
        self.name = name
        self.endpoint = Endpoint(
            address, port, user_agent=f"Tandem lab phone {name}".rstrip(), timers=timers, clock=clock
        )
        self.on_invite: Callable[[Call], Awaitable[None]] | None = None
        """A call came in. None: 480. An INVITE with an unusable body was already answered 488."""
        self.handlers: dict[str, CallHandler] = {}
        """In-dialog handlers by method that every new call begins with."""
        self.calls: list[Call] = []
        """Every call so far, oldest first; of a phone that does not record, the live ones only."""
        self._codecs = codecs
        self._ports = rtp_ports
        self._record = record
        self._pacer = pacer or Pacer()
        self._now = clock
        self.endpoint.on_invite = self._invited

    @property
    def address(self) -> str:
        return self.endpoint.address

    @property
    def port(self) -> int:
        return self.endpoint.port

    @property
    def uri(self) -> str:
        return f"sip:{self.address}:{self.port}"

    @property
    def options_status(self) -> int | None:
        """Answer to OPTIONS; None: silence."""
        return self.endpoint.options_status

    @options_status.setter
    def options_status(self, status: int | None) -> None:
        self.endpoint.options_status = status

    async def start(self) -> None:
        """Bind. Raises OSError naming address and port."""
        await self.endpoint.start()

    async def stop(self) -> None:
        """End every call, then close the socket."""
        await self.endpoint.stop()
        for call in self.calls:
            call.audio.close()

    async def invite(
        self,
        number_or_uri: str,
        *,
        from_number: str,
        proxy: Address | None = None,
        from_name: str | None = None,
        from_host: str | None = None,
        headers: HeaderList = (),
        codecs: tuple[str, ...] | None = None,
        body: bytes | None = None,
        telephone_event: bool = True,
    ) -> Call:
        """Place a call; returns once the INVITE has left.

        A number becomes ``sip:NUMBER@PROXY``; a URI (sip:, tel:, urn:) is used as it is. It goes to ``proxy``, or
        without one to where the URI points. ``body``: None for our offer, b"" for none (the answer goes in the ACK), or
        any bytes. Without ``telephone_event`` keys are not to be had as events. Raises ValueError where no destination follows.
        """
        uri = number_or_uri
        if ":" not in uri:
            if proxy is None:
                raise ValueError(f"{uri} is no URI, and no proxy is given to send it to")
            uri = f"sip:{uri}@{proxy[0]}:{proxy[1]}"
        audio = await self._open_audio()
        placed: list[Call] = []

        def prepare(dialog: Uac) -> None:
            call = self._new_call(dialog, audio, codecs or self._codecs, offer=body, telephone_event=telephone_event)
            dialog.invite.body = call.first_offer()
            if dialog.invite.body:
                dialog.invite.headers.set("Content-Type", "application/sdp")
            placed.append(call)

        try:
            self.endpoint.invite(
                uri,
                from_uri=f"sip:{from_number}@{from_host or self.address}",
                from_name=from_name,
                next_hop=proxy,
                headers=headers,
                prepare=prepare,
            )
        except ValueError:
            audio.close()
            raise
        return placed[0]

    async def options(self, target: Address, *, timeout_s: float = 5.0, headers: HeaderList = ()) -> int:
        """Status of the answer to an OPTIONS; 408 where none came."""
        uri = f"sip:{target[0]}:{target[1]}"
        asking = self.endpoint.request("OPTIONS", uri, from_uri=self.uri, next_hop=target, headers=headers)
        try:
            return (await asyncio.wait_for(asking, timeout_s)).code
        except TimeoutError:
            return 408

    async def _open_audio(self) -> PhoneAudio:
        stream = await RtpStream.open(
            self.address, self._ports, pacer=self._pacer, record=self._record, clock=self._now
        )
        return PhoneAudio(stream, record=self._record, clock=self._now)

    def _new_call(
        self,
        dialog: Uac | Uas,
        audio: PhoneAudio,
        codecs: tuple[str, ...],
        *,
        offer: bytes | None = None,
        telephone_event: bool = True,
    ) -> Call:
        call = Call(dialog, audio, codecs=codecs, offer=offer, telephone_event=telephone_event)
        call.handlers.update(self.handlers)
        self.calls.append(call)
        if not self._record:
            call.on_ended = lambda end: self.calls.remove(call)
        return call

    async def _invited(self, dialog: Uas) -> None:
        if self.on_invite is None:
            dialog.respond(480)
            return
        if sum(call.end is None for call in self.calls) >= MAX_CALLS:
            dialog.respond(503, headers=[("Retry-After", "10")])
            return
        replaces = dialog.invite.headers.get("Replaces")
        replaced = self._replaced(replaces) if replaces is not None else None
        if replaces is not None and replaced is None:
            dialog.respond(481)
            return
        try:
            audio = await self._open_audio()
        except OSError:
            dialog.respond(503, "No RTP Port")
            return
        try:
            call = self._new_call(dialog, audio, self._codecs)
        except CANNOT_BE_SPOKEN_TO as error:
            audio.close()
            dialog.respond(488, headers=[sip_message.warning(self.address, str(error))])
            return
        call.replaces = replaced
        if call.end is not None:
            call.audio.close()
            return
        await self.on_invite(call)

    def _replaced(self, header: str) -> Call | None:
        """The live call that a Replaces header names (RFC 3891 section 3)."""
        call_id, _, rest = unquote(header).partition(";")
        tags = sip_message.parameters(f";{rest}")
        for call in self.calls:
            dialog = call.dialog
            identity = (dialog.call_id, dialog.local_tag, dialog.remote_tag)
            if dialog.end is None and identity == (call_id.strip(), tags.get("to-tag"), tags.get("from-tag")):
                return call
        return None
