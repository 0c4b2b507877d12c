"""An INVITE dialog (RFC 3261 sections 12, 14 and 15): what its two sides share. See lab.uac.Uac and lab.uas.Uas."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol

from sipmessage import Request, Response

from lab import message as sip_message
from lab.refer import Referral
from lab.transaction import Address, ClientTransaction, HeaderList, ServerTransaction, Timers
from lab.transport import TracedMessage

MAX_TRACED = 1000
"""Messages that a dialog remembers, the first ones."""

RequestHandler = Callable[[ServerTransaction], Coroutine[Any, Any, None]]

_DEFAULT_ANSWERS = {"REFER": 501, "NOTIFY": 481, "INVITE": 488, "UPDATE": 488}
"""To in-dialog requests that nobody answered; 200 to all others."""


class DialogState(StrEnum):
    CALLING = "calling"
    """INVITE sent or received, no provisional above 100 yet."""
    EARLY = "early"
    CONFIRMED = "confirmed"
    """2xx sent or received."""
    TERMINATED = "terminated"


@dataclass(frozen=True)
class End:
    """How a dialog ended."""

    by: Literal["us", "peer"]
    cause: Literal["bye", "cancel", "refused", "timeout", "no_ack", "stopped"]
    status: int | None
    """Final status of the INVITE; None where there was none."""
    reason_header: str | None = None
    """The Reason header (RFC 3326) of the BYE, CANCEL or final response, whoever sent it."""


class DialogEnded(ConnectionError):
    """What was asked needs a live dialog, and this one has ended; ``end`` says how."""

    def __init__(self, end: End) -> None:
        self.end = end
        reason = end.reason_header or "no Reason header"
        super().__init__(f"the call ended: {end.cause} by {end.by}, status {end.status}, {reason}")


class UserAgent(Protocol):
    """What a dialog needs of its endpoint."""

    timers: Timers

    def start_client(
        self,
        request: Request,
        destination: Address,
        *,
        on_response: Callable[[Response], None],
        on_timeout: Callable[[], None],
    ) -> ClientTransaction: ...

    def send(self, message: Request | Response, destination: Address, repeated: bool) -> None: ...

    def new_request(self, method: str, uri: str) -> Request: ...

    def destination(self, uri: str, otherwise: Address | None) -> Address: ...

    def spawn(
        self, handler: Coroutine[Any, Any, None], transaction: ServerTransaction, default: Callable[[], None]
    ) -> None: ...

    def forget(self, dialog: "Dialog") -> None: ...


class Dialog(ABC):
    """One call leg, from its INVITE to its end."""

    role: Literal["uac", "uas"]

    def __init__(
        self, agent: UserAgent, invite: Request, *, contact: str, peer: Address, local: str, remote: str
    ) -> None:
        self.invite = invite
        """The initial INVITE: ``invite.headers.get("X-…")``, SDP in ``invite.body``, ``str(invite.uri)``."""
        self.call_id = sip_message.call_id(invite)
        self.state = DialogState.CALLING
        self.contact = contact
        """Our Contact, a name-addr."""
        self.local_uri = sip_message.without_tag(local)
        """Our side of From and To, without the tag."""
        self.remote_uri = sip_message.without_tag(remote)
        self.local_tag = ""
        self.remote_tag = ""
        self.remote_target = ""
        """Request-URI of in-dialog requests: the peer's Contact."""
        self.route_set: list[str] = []
        """Route values, in the order in which they are sent."""
        self.local_cseq = 0
        self.remote_cseq = -1
        self.final_status: int | None = None
        """Of the initial INVITE, sent or received."""
        self.acknowledged = False
        """The initial 2xx has its ACK."""
        self.ack: Request | None = None
        """The ACK of the last 2xx, sent or received."""
        self.end: End | None = None
        self.messages: list[TracedMessage] = []
        self.referrals: list[Referral] = []
        """REFERs that we sent, with what the NOTIFYs told."""

        self.on_request: RequestHandler | None = None
        """Each in-dialog request: re-INVITE, BYE, REFER, INFO, UPDATE, MESSAGE, OPTIONS, and a NOTIFY of no referral.

        One left unanswered when the handler returns gets the default: 200, but 501 for REFER, 481 for NOTIFY, 488 for
        INVITE and UPDATE. A BYE has already ended the dialog when the handler sees it.
        """
        self.on_confirmed: Callable[[], None] | None = None
        """2xx received (uac, the ACK already sent) or ACK received (uas)."""
        self.on_ended: Callable[[End], None] | None = None
        """Called once."""
        self.ack_body: Callable[[Response], bytes] | None = None
        """SDP answer for our ACK, where our INVITE or re-INVITE had no offer."""

        self._agent = agent
        self._peer = peer
        self._acks: dict[tuple[str, int], tuple[Request, Address]] = {}
        """ACKs of 2xx by remote tag and CSeq, repeated for each 2xx that is."""
        self._reinvited: ServerTransaction | None = None
        self._reinviting = asyncio.Lock()
        self._changed = asyncio.Event()

    # Waiting

    async def _until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            told = f"waited {timeout_s:g} s for {what} of call {self.call_id}, which is {self.state}"
            raise TimeoutError(told) from None

    def _notify(self) -> None:
        self._changed.set()

    async def wait_confirmed(self, timeout_s: float) -> None:
        """Until answered and ACKed. Raises TimeoutError, or DialogEnded where the dialog ended first."""
        await self._until(lambda: self.acknowledged or self.end is not None, timeout_s, "the answer")
        if self.end is not None and not self.acknowledged:
            raise DialogEnded(self.end)

    async def wait_ended(self, timeout_s: float) -> End:
        """Raises TimeoutError."""
        await self._until(lambda: self.end is not None, timeout_s, "the end")
        assert self.end is not None
        return self.end

    # Requests that we send

    def _in_dialog(self, method: str, number: int) -> Request:
        request = self._agent.new_request(method, self.remote_target)
        headers = request.headers
        if self.route_set:
            headers.setlist("Route", list(self.route_set))
        headers.set("From", f"{self.local_uri};tag={self.local_tag}")
        headers.set("To", f"{self.remote_uri};tag={self.remote_tag}" if self.remote_tag else self.remote_uri)
        headers.set("Call-ID", self.call_id)
        headers.set("CSeq", f"{number} {method}")
        if method not in ("ACK", "BYE"):
            headers.set("Contact", self.contact)
        return request

    def _next_hop(self) -> Address:
        uri = sip_message.name_addr(self.route_set[0]).uri if self.route_set else self.remote_target
        return self._agent.destination(uri, self._peer)

    def _acknowledge(self, response: Response, body: bytes) -> None:
        """Send the ACK of a 2xx, and keep it for the 2xx's retransmissions."""
        number = sip_message.cseq(response).number
        ack = self._in_dialog("ACK", number)
        if body:
            ack.headers.set("Content-Type", "application/sdp")
            ack.body = body
        destination = self._next_hop()
        self.ack = ack
        self._acks[(self.remote_tag, number)] = (ack, destination)
        self._agent.send(ack, destination, False)

    def success_repeated(self, response: Response) -> None:
        """A 2xx to our INVITE or re-INVITE came again: the ACK was lost."""
        known = self._acks.get((sip_message.to_tag(response), sip_message.cseq(response).number))
        if known is not None:
            self._agent.send(*known, True)

    def _start(
        self,
        method: str,
        headers: HeaderList = (),
        body: bytes = b"",
        content_type: str = "application/sdp",
        on_provisional: Callable[[Response], None] | None = None,
    ) -> tuple[int, "asyncio.Future[Response]"]:
        self.local_cseq += 1
        number = self.local_cseq
        request = self._in_dialog(method, number)
        for name, value in headers:
            request.headers.add(name, value)
        if body:
            request.headers.set("Content-Type", content_type)
            request.body = body
        done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def received(response: Response) -> None:
            if response.code < 200:
                if on_provisional is not None:
                    on_provisional(response)
                return
            if done.done():
                self.success_repeated(response)
                return
            if method in ("INVITE", "UPDATE") and response.code < 300:
                self._refresh_target(response)
            if method == "INVITE" and response.code < 300:
                answers = self.ack_body is not None and not body
                self._acknowledge(response, self.ack_body(response) if answers and self.ack_body else b"")
            done.set_result(response)

        def timed_out() -> None:
            if not done.done():
                done.set_result(sip_message.response_to(request, self._peer, 408))

        self._agent.start_client(request, self._next_hop(), on_response=received, on_timeout=timed_out)
        return number, done

    async def request(
        self,
        method: str,
        *,
        headers: HeaderList = (),
        body: bytes = b"",
        content_type: str = "application/sdp",
        on_provisional: Callable[[Response], None] | None = None,
    ) -> Response:
        """Any in-dialog request: its final response, or one of 408 made locally when none came.

        The 2xx of a re-INVITE is ACKed here; 408 or 481 to one ends the dialog with BYE (RFC 3261 section 14.1).
        Raises DialogEnded where the dialog has ended (a NOTIFY is sent nevertheless).
        """
        if self.end is not None and method != "NOTIFY":
            raise DialogEnded(self.end)
        if method != "INVITE":
            return await self._start(method, headers, body, content_type, on_provisional)[1]
        async with self._reinviting:
            response = await self._start(method, headers, body, content_type, on_provisional)[1]
        if response.code in (408, 481):
            self.bye(headers=[("Reason", f"SIP;cause={response.code}")])
        return response

    def refer(self, target: str, *, headers: HeaderList = ()) -> Referral:
        """Send a REFER to ``target`` (a URI, or a name-addr with its headers) and follow its NOTIFYs."""
        if self.end is not None:
            raise DialogEnded(self.end)
        refer_to = target if "<" in target else f"<{target}>"
        number, accepted = self._start("REFER", [("Refer-To", refer_to), *headers])
        referral = Referral(number, accepted)
        self.referrals.append(referral)
        return referral

    def bye(self, *, headers: HeaderList = ()) -> "asyncio.Future[Response] | None":
        """End a confirmed dialog, e.g. with ``[("Reason", 'Q.850;cause=16;text="NORMAL_CLEARING"')]``.

        The dialog has ended when this returns; the future is the answer to the BYE. None where it had ended before, or
        where the BYE has to wait for the ACK of our 2xx (RFC 3261 section 15).
        """
        if self.end is not None:
            return None
        self._finish(End("us", "bye", self.final_status, sip_message.reason_in(headers)))
        return self._send_bye(headers)

    def _send_bye(self, headers: HeaderList) -> "asyncio.Future[Response] | None":
        return self._start("BYE", headers)[1]

    @abstractmethod
    def hang_up(self, *, status: int = 480, headers: HeaderList = ()) -> None:
        """End it in whatever state: BYE, CANCEL, or (called side) a final response of ``status``, with ``headers``."""

    # Requests that we receive

    def receive(self, transaction: ServerTransaction) -> None:
        """An in-dialog request arrived, and is no retransmission."""
        request = transaction.request
        number = sip_message.cseq(request).number
        if number < self.remote_cseq:
            transaction.respond(500, "CSeq Out Of Order")
            return
        self.remote_cseq = number
        if request.method == "BYE":
            self._bye_received(request)
        elif request.method == "NOTIFY" and self._notified(request):
            transaction.respond(200)
            return
        elif self.end is not None:
            transaction.respond(481)
            return
        elif request.method == "INVITE":
            if self._reinviting.locked() or (self._reinvited is not None and not self._reinvited.settled):
                transaction.respond(491)
                return
            self._reinvited = transaction
            transaction.respond(100)
        if request.method in ("INVITE", "UPDATE"):
            self._refresh_target(request)

        def default() -> None:
            transaction.respond(_DEFAULT_ANSWERS.get(request.method, 200))

        if self.on_request is None:
            default()
        else:
            self._agent.spawn(self.on_request(transaction), transaction, default)

    def _bye_received(self, request: Request) -> None:
        self._finish(End("peer", "bye", self.final_status, request.headers.get("Reason")))

    def _notified(self, request: Request) -> bool:
        return any(referral.notified(request) for referral in reversed(self.referrals))

    def acknowledged_by(self, request: Request) -> None:
        """The ACK of a 2xx that we sent."""
        self.ack = request
        server = self._reinvited
        if server is not None and sip_message.cseq(server.request).number == sip_message.cseq(request).number:
            server.acknowledge()
        self._notify()

    def _refresh_target(self, message: Request | Response) -> None:
        contacts = sip_message.values(message, "Contact")
        if contacts:
            self.remote_target = sip_message.name_addr(contacts[0]).uri

    # The end

    def _finish(self, end: End) -> None:
        if self.end is not None:
            return
        self.end = end
        self.state = DialogState.TERMINATED
        self._agent.forget(self)
        if self.on_ended is not None:
            self.on_ended(end)
        self._notify()

    def stop(self) -> None:
        """The endpoint goes away: end the dialog as its state asks, without waiting for the peer."""
        self.hang_up(status=503)
        self._finish(End("us", "stopped", self.final_status))
