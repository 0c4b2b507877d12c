"""SIP transactions over UDP with the retransmission timers of RFC 3261 section 17 and RFC 6026."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sipmessage import Request, Response

from lab import message as sip_message

Address = tuple[str, int]
"""IP address and UDP port."""
HeaderList = Sequence[tuple[str, str]]
"""Header names and values, in order."""
Send = Callable[[Request | Response, Address, bool], None]
"""Puts a message on the wire: message, destination, whether it is a retransmission."""


@dataclass(frozen=True)
class Timers:
    """RFC 3261 timer values, seconds."""

    t1: float = 0.5
    """Round trip estimate; a request is given up after 64 of it."""
    t2: float = 4.0
    """Longest interval between retransmissions."""
    t4: float = 5.0
    """How long a message may linger in the network."""

    @property
    def timeout(self) -> float:
        """Timers B, F, H, J and L."""
        return 64 * self.t1


class _Timer:
    """One restartable timer."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, delay_s: float, action: Callable[[], None]) -> None:
        self.stop()
        self._handle = asyncio.get_running_loop().call_later(delay_s, action)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class ClientTransaction:
    """A request on its way: retransmitted until answered, given up after 64*T1.

    ``on_response`` gets every response, retransmitted 2xx to INVITE included, other retransmissions not.
    ``on_timeout`` is called once where no final response came in time. ``on_gone`` is called once, at the very end.
    """

    def __init__(
        self,
        request: Request,
        destination: Address,
        send: Send,
        timers: Timers,
        *,
        on_response: Callable[[Response], None],
        on_timeout: Callable[[], None],
        on_gone: Callable[["ClientTransaction"], None],
    ) -> None:
        self.request = request
        self.destination = destination
        self.key = (sip_message.top_via(request).branch, request.method)
        self.final: Response | None = None
        self.provisional: Response | None = None
        self._send = send
        self._timers = timers
        self._on_response = on_response
        self._on_timeout = on_timeout
        self._on_gone = on_gone
        self._ack: Request | None = None
        self._interval = timers.t1
        self._retransmit = _Timer()
        self._end = _Timer()

    @property
    def _is_invite(self) -> bool:
        return self.request.method == "INVITE"

    def start(self) -> None:
        self._send(self.request, self.destination, False)
        self._retransmit.start(self._interval, self._again)
        self._end.start(self._timers.timeout, self._give_up)

    def _again(self) -> None:
        self._send(self.request, self.destination, True)
        self._interval *= 2
        if not self._is_invite:
            self._interval = self._timers.t2 if self.provisional else min(self._interval, self._timers.t2)
        self._retransmit.start(self._interval, self._again)

    def receive(self, response: Response) -> None:
        if self.final is not None:
            if self._is_invite and 200 <= response.code < 300:
                self._on_response(response)
            elif self._ack is not None:
                self._send(self._ack, self.destination, True)
            return
        if response.code < 200:
            self.provisional = response
            if self._is_invite:
                self._retransmit.stop()
                self._end.stop()
            self._on_response(response)
            return
        self.final = response
        self._retransmit.stop()
        if not self._is_invite:
            self._end.start(self._timers.t4, self.abandon)
        else:
            self._end.start(self._timers.timeout, self.abandon)
            if response.code >= 300:
                self._ack = _ack_of_failure(self.request, response)
                self._send(self._ack, self.destination, False)
        self._on_response(response)

    def expire_in(self, delay_s: float) -> None:
        """Give up after ``delay_s`` more, where no final response comes: a cancelled INVITE (RFC 3261 section 9.1)."""
        if self.final is None:
            self._end.start(delay_s, self._give_up)

    def _give_up(self) -> None:
        self._on_timeout()
        self.abandon()

    def abandon(self) -> None:
        """Stop every timer and forget the transaction."""
        self._retransmit.stop()
        self._end.stop()
        self._on_gone(self)


def _ack_of_failure(invite: Request, response: Response) -> Request:
    """The ACK of a 300-699, part of the INVITE's own transaction (RFC 3261 section 17.1.1.3)."""
    ack = Request("ACK", invite.uri)
    ack.headers.set("Via", sip_message.values(invite, "Via")[0])
    sip_message.copy_header(invite, ack, "Route")
    ack.headers.set("Max-Forwards", "70")
    ack.headers.set("From", invite.headers["From"])
    ack.headers.set("To", response.headers["To"])
    ack.headers.set("Call-ID", sip_message.call_id(invite))
    ack.headers.set("CSeq", f"{sip_message.cseq(invite).number} ACK")
    return ack


class ServerTransaction:
    """A request that came in, and the one place where it is answered."""

    def __init__(
        self,
        request: Request,
        source: Address,
        send: Send,
        timers: Timers,
        *,
        tag: str,
        decorate: Callable[[Request, Response], None],
        on_gone: Callable[["ServerTransaction"], None],
    ) -> None:
        self.request = request
        self.source = source
        self.tag = tag
        """Our To tag, where the request had none."""
        hop = sip_message.top_via(request)
        self.key = transaction_key(request)
        self.response: Response | None = None
        """The last one sent."""
        self.on_unacknowledged: Callable[[], None] | None = None
        """An INVITE's final response had no ACK for 64*T1."""
        self._destination = _reply_address(hop, source)
        self._send = send
        self._timers = timers
        self._decorate = decorate
        self._on_gone = on_gone
        self._ignored = False
        self._interval = timers.t1
        self._retransmit = _Timer()
        self._end = _Timer()
        self.acknowledged = False

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def final_status(self) -> int | None:
        """Status of the final response that was sent, or None."""
        return self.response.code if self.response is not None and self.response.code >= 200 else None

    @property
    def settled(self) -> bool:
        """Answered finally, or ignored on purpose."""
        return self._ignored or self.final_status is not None

    def respond(
        self,
        status: int,
        reason: str | None = None,
        *,
        headers: HeaderList = (),
        body: bytes = b"",
        content_type: str = "application/sdp",
    ) -> None:
        """Send a response. A provisional one may be followed by others; after a final one this does nothing.

        A final response to INVITE is retransmitted until its ACK, for 64*T1. ValueError: the status is no SIP status.
        """
        if not 100 <= status <= 699:
            raise ValueError(f"status {status} is not in 100..699")
        if self.settled:
            return
        response = sip_message.response_to(self.request, self.source, status, reason, tag=self.tag)
        self._decorate(self.request, response)
        for name, value in headers:
            response.headers.add(name, value)
        if body:
            response.headers.set("Content-Type", content_type)
            response.body = body
        self.response = response
        self._send(response, self._destination, False)
        if status < 200:
            return
        if self.method == "INVITE":
            self._retransmit.start(self._interval, self._again)
            self._end.start(self._timers.timeout, self._unacknowledged)
        else:
            self._end.start(self._timers.timeout, self.abandon)

    def ignore(self) -> None:
        """Never answer this request, nor its retransmissions."""
        self._ignored = True
        self._end.start(self._timers.timeout, self.abandon)

    def repeat(self) -> None:
        """The request was retransmitted: so is the last response."""
        if self.response is not None and not self.acknowledged:
            self._send(self.response, self._destination, True)

    def acknowledge(self) -> None:
        """The ACK came: stop retransmitting the final response, linger for late retransmissions of either."""
        if self.acknowledged:
            return
        self.acknowledged = True
        self._retransmit.stop()
        self._end.start(self._timers.t4, self.abandon)

    def _again(self) -> None:
        if self.response is not None:
            self._send(self.response, self._destination, True)
        self._interval = min(self._interval * 2, self._timers.t2)
        self._retransmit.start(self._interval, self._again)

    def _unacknowledged(self) -> None:
        self.abandon()
        if self.on_unacknowledged is not None:
            self.on_unacknowledged()

    def abandon(self) -> None:
        """Stop every timer and forget the transaction."""
        self._retransmit.stop()
        self._end.stop()
        self._on_gone(self)


TransactionKey = tuple[str, str, str]


def transaction_key(request: Request, method: str | None = None) -> TransactionKey:
    """What a request and its retransmissions share (RFC 3261 section 17.2.3). ACK, CANCEL: of their INVITE."""
    hop = sip_message.top_via(request)
    if hop.branch.startswith(sip_message.MAGIC_COOKIE):
        return hop.branch, hop.sent_by, method or request.method
    identity = f"{sip_message.call_id(request)} {sip_message.from_tag(request)} {sip_message.cseq(request).number}"
    return identity, hop.sent_by, method or request.method


def _reply_address(hop: sip_message.ViaHop, source: Address) -> Address:
    if "rport" in hop.parameters:
        return source
    return source[0], hop.port or 5060
