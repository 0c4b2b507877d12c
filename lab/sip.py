"""A SIP user agent's endpoint (RFC 3261): a transport, its transactions and its dialogs.

endpoint = Endpoint("127.0.0.1", 5060)
endpoint.on_invite = answer          # async def answer(call: Uas)
await endpoint.start()
call = endpoint.invite("sip:2001@127.0.0.2:5060", from_uri="sip:1000@127.0.0.1", body=offer)
"""

import asyncio
import contextlib
import ipaddress
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any

from sipmessage import Request, Response

from lab import clock as lab_clock
from lab import message as sip_message
from lab.dialog import MAX_TRACED, Dialog, RequestHandler
from lab.transaction import (
    Address,
    ClientTransaction,
    HeaderList,
    ServerTransaction,
    Timers,
    TransactionKey,
    transaction_key,
)
from lab.transaction_layer import TransactionLayer
from lab.transport import TracedMessage, UdpTransport
from lab.uac import Uac
from lab.uas import Uas

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, REFER, NOTIFY, INFO, UPDATE, MESSAGE"
SUPPORTED = "replaces"
STOP_S = 2.0
"""How long stop() waits for the answers to its BYEs and CANCELs."""

_log = logging.getLogger(__name__)


class Endpoint:
    """SIP over UDP on address:port. A handler that raises is logged and counted, and its request answered 500.

    Destinations are IP addresses; an in-dialog request for a URI with a host name goes to where the dialog began.
    """

    def __init__(
        self,
        address: str,
        port: int = 5060,
        *,
        user_agent: str = "Tandem lab",
        timers: Timers | None = None,
        clock: lab_clock.Clock = lab_clock.now,
    ) -> None:
        self.address = address
        self.user_agent = user_agent
        self.timers = timers or Timers()
        self.counters: Counter[str] = Counter()
        """malformed, keepalive, unsent, socket_error, handler_error, stray_response, stray_ack, repeated_in,
        repeated_out, no_address."""
        self.options_status: int | None = 200
        """Answer to OPTIONS outside dialogs; None: silence."""
        self.on_invite: Callable[[Uas], Coroutine[Any, Any, None]] | None = None
        """Initial INVITE. None: 480. May return while the call goes on; an INVITE unanswered then stays so."""
        self.on_request: RequestHandler | None = None
        """Any other request outside dialogs, OPTIONS included.

        Left unanswered: the default, which for OPTIONS is ``options_status``, else 405.
        """
        self.dialogs: dict[tuple[str, str], Dialog] = {}
        """By Call-ID and our tag; those that ended stay for 64*T1."""
        self._udp = UdpTransport(
            address, port, counters=self.counters, clock=clock, on_message=self._received, on_trace=self._traced
        )
        self._transactions = TransactionLayer(
            self.send,
            self.timers,
            self.counters,
            on_request=self._receive_request,
            on_success_ack=self._receive_ack,
            on_stray_response=self._receive_stray_response,
            decorate=self._decorate,
        )
        self._invites: dict[TransactionKey, Uas] = {}
        """Calls by the transaction of their initial INVITE, until they end."""
        self._by_call: dict[str, list[Dialog]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # Life

    @property
    def port(self) -> int:
        return self._udp.port

    @property
    def messages(self) -> deque[TracedMessage]:
        """The last messages of all dialogs and none, malformed ones included."""
        return self._udp.messages

    async def start(self) -> None:
        """Bind; port 0 takes a free one. Raises OSError naming address and port."""
        await self._udp.open()

    async def stop(self) -> None:
        """End every dialog as its state asks, wait a moment for the answers, then close the socket."""
        if not self._udp.is_open:
            return
        for dialog in list(self.dialogs.values()):
            dialog.stop()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_S
        while self._transactions.awaits_responses and loop.time() < deadline:
            await asyncio.sleep(0.01)
        self._udp.close()
        self._transactions.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # Out

    def send(self, message: Request | Response, destination: Address, repeated: bool) -> None:
        """Put a message on the wire."""
        self._udp.send(message, destination, repeated)

    def send_raw(self, data: bytes, destination: Address) -> None:
        """Bytes as they are, malformed ones too."""
        self._udp.send_raw(data, destination)

    def new_request(self, method: str, uri: str) -> Request:
        """A request with a Via of its own and the headers that every request has."""
        request = Request(method, sip_message.verbatim(uri))
        headers = request.headers
        headers.set("Via", f"SIP/2.0/UDP {self.address}:{self.port};rport;branch={sip_message.new_branch()}")
        headers.set("Max-Forwards", "70")
        headers.set("User-Agent", self.user_agent)
        if method in ("INVITE", "OPTIONS", "UPDATE", "REFER"):
            headers.set("Allow", ALLOW)
            headers.set("Supported", SUPPORTED)
        return request

    def destination(self, uri: str, otherwise: Address | None) -> Address:
        """Where a URI's requests go; ``otherwise`` where its host is a name. ValueError where both are lacking."""
        parts = sip_message.sip_uri(uri)
        if parts is not None:
            host = parts.parameters.get("maddr") or parts.host
            with contextlib.suppress(ValueError):
                return str(ipaddress.ip_address(host.strip("[]"))), parts.port or 5060
        self.counters["no_address"] += 1
        if otherwise is None:
            raise ValueError(f"{uri} names no IP address; give next_hop")
        return otherwise

    def start_client(
        self,
        request: Request,
        destination: Address,
        *,
        on_response: Callable[[Response], None],
        on_timeout: Callable[[], None],
    ) -> ClientTransaction:
        """Send a request in a new client transaction."""
        return self._transactions.start_client(request, destination, on_response=on_response, on_timeout=on_timeout)

    def invite(
        self,
        uri: str,
        *,
        from_uri: str,
        from_name: str | None = None,
        to_uri: str | None = None,
        next_hop: Address | None = None,
        route: str | None = None,
        headers: HeaderList = (),
        body: bytes = b"",
        contact_user: str | None = None,
        prepare: Callable[[Uac], None] | None = None,
    ) -> Uac:
        """Send an INVITE for ``uri``, with To ``to_uri`` or ``uri``.

        It goes to ``next_hop``, else to ``route``, else where ``uri`` points. ``route``: the value of a Route header,
        e.g. ``<sip:127.0.0.1:5060;lr>``. ``headers``: extra ones. ``prepare`` may set the call's handlers before the
        INVITE leaves. Raises ValueError where no destination follows from these.
        """
        sdp = "application/sdp"
        request = self._initial_request("INVITE", uri, from_uri, from_name, to_uri, route, headers, body, sdp)
        destination = next_hop or self.destination(sip_message.name_addr(route).uri if route else uri, None)
        user = contact_user or (sip_message.sip_uri(from_uri) or sip_message.SipUri("tandem", "", None)).user
        contact = self._contact(user)
        request.headers.set("Contact", contact)
        call = Uac(self, request, contact=contact, peer=destination)
        self._remember(call)
        if prepare is not None:
            prepare(call)
        call.call()
        return call

    async def request(
        self,
        method: str,
        uri: str,
        *,
        from_uri: str,
        next_hop: Address | None = None,
        route: str | None = None,
        headers: HeaderList = (),
        body: bytes = b"",
        content_type: str = "text/plain",
    ) -> Response:
        """A request outside dialogs (OPTIONS …): its final response, or one of 408 made locally when none came."""
        request = self._initial_request(method, uri, from_uri, None, None, route, headers, body, content_type)
        request.headers.set("Contact", self._contact(""))
        destination = next_hop or self.destination(sip_message.name_addr(route).uri if route else uri, None)
        done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def received(response: Response) -> None:
            if response.code >= 200 and not done.done():
                done.set_result(response)

        def timed_out() -> None:
            if not done.done():
                done.set_result(sip_message.response_to(request, destination, 408))

        client = self.start_client(request, destination, on_response=received, on_timeout=timed_out)
        try:
            return await done
        finally:
            if client.final is None:
                client.abandon()

    def _initial_request(
        self,
        method: str,
        uri: str,
        from_uri: str,
        from_name: str | None,
        to_uri: str | None,
        route: str | None,
        extra: HeaderList,
        body: bytes,
        content_type: str,
    ) -> Request:
        request = self.new_request(method, uri)
        headers = request.headers
        headers.set("From", f"{sip_message.format_name_addr(from_uri, from_name)};tag={sip_message.new_tag()}")
        headers.set("To", sip_message.format_name_addr(to_uri or uri))
        headers.set("Call-ID", f"{secrets.token_hex(12)}@{self.address}")
        headers.set("CSeq", f"{secrets.randbelow(10000) + 1} {method}")
        if route:
            headers.set("Route", route)
        for name, value in extra:
            headers.add(name, value)
        if body:
            headers.set("Content-Type", content_type)
            request.body = body
        return request

    def _contact(self, user: str) -> str:
        return f"<sip:{user + '@' if user else ''}{self.address}:{self.port}>"

    # In

    def _received(self, message: Request | Response, source: Address) -> None:
        self._transactions.receive(message, source)

    def _receive_stray_response(self, response: Response) -> None:
        dialog = self.dialogs.get((sip_message.call_id(response), sip_message.from_tag(response)))
        if dialog is not None and sip_message.cseq(response).method == "INVITE" and 200 <= response.code < 300:
            dialog.success_repeated(response)
        else:
            self.counters["stray_response"] += 1

    def _receive_ack(self, request: Request) -> None:
        dialog = self.dialogs.get((sip_message.call_id(request), sip_message.to_tag(request)))
        if dialog is None:
            self.counters["stray_ack"] += 1
        else:
            dialog.acknowledged_by(request)

    def _receive_request(self, transaction: ServerTransaction) -> None:
        request = transaction.request
        if request.method == "CANCEL":
            self._cancel(transaction)
        elif sip_message.to_tag(request):
            dialog = self.dialogs.get((sip_message.call_id(request), sip_message.to_tag(request)))
            if dialog is None or (dialog.remote_tag and dialog.remote_tag != sip_message.from_tag(request)):
                transaction.respond(481)
            else:
                dialog.receive(transaction)
        elif request.method == "INVITE":
            self._receive_invite(transaction)
        else:
            self._receive_outside_dialogs(transaction)

    def _cancel(self, transaction: ServerTransaction) -> None:
        invite = self._transactions.invite_of(transaction.request)
        transaction.respond(481 if invite is None else 200)
        if invite is None:
            return
        call = self._invites.get(invite.key)
        if call is not None:
            call.cancelled(transaction.request)
        else:
            invite.respond(487)

    def _receive_invite(self, transaction: ServerTransaction) -> None:
        request = transaction.request
        wanted = {option.lower() for option in sip_message.values(request, "Require")} - {SUPPORTED}
        if wanted:
            transaction.respond(420, headers=[("Unsupported", ", ".join(sorted(wanted)))])
            return
        if self.on_invite is None:
            transaction.respond(480)
            return
        user = (sip_message.sip_uri(str(request.uri)) or sip_message.SipUri("", "", None)).user
        call = Uas(self, transaction, contact=self._contact(user))
        call.messages.append(self.messages[-1])  # the INVITE, traced just now
        self._remember(call)
        self._invites[transaction.key] = call
        transaction.respond(100)
        self.spawn(self.on_invite(call), transaction, lambda: None)

    def _receive_outside_dialogs(self, transaction: ServerTransaction) -> None:
        def default() -> None:
            if transaction.method != "OPTIONS":
                transaction.respond(405)
            elif self.options_status is None:
                transaction.ignore()
            else:
                transaction.respond(self.options_status)

        if self.on_request is None:
            default()
        else:
            self.spawn(self.on_request(transaction), transaction, default)

    def spawn(
        self, handler: Coroutine[Any, Any, None], transaction: ServerTransaction, default: Callable[[], None]
    ) -> None:
        """Run a handler as a task; then ``default()``, or 500 where it raised, if the request is still unanswered."""

        def done(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self.counters["handler_error"] += 1
                told = "handler of %s on %s:%d raised"
                _log.error(told, transaction.method, self.address, self.port, exc_info=error)
                call = self._invites.get(transaction.key)
                (call or transaction).respond(500)
            elif not transaction.settled and not task.cancelled():
                default()

        task = asyncio.get_running_loop().create_task(handler)
        self._tasks.add(task)
        task.add_done_callback(done)

    def _decorate(self, request: Request, response: Response) -> None:
        """Headers that depend on the endpoint and, for a response that makes or refreshes a dialog, on the request."""
        if response.code == 100:
            return
        headers, method = response.headers, request.method
        headers.set("User-Agent", self.user_agent)
        if method in ("INVITE", "UPDATE", "REFER", "NOTIFY") and response.code < 300:
            call = self._invites.get(transaction_key(request))
            dialog = call or self.dialogs.get((sip_message.call_id(request), sip_message.to_tag(request)))
            sip_message.copy_header(request, response, "Record-Route")
            headers.set("Contact", dialog.contact if dialog is not None else self._contact(""))
        if method in ("INVITE", "OPTIONS") or response.code == 405:
            headers.set("Allow", ALLOW)
            headers.set("Supported", SUPPORTED)
        if method == "OPTIONS":
            headers.set("Accept", "application/sdp")

    # Books

    def _remember(self, dialog: Dialog) -> None:
        self.dialogs[(dialog.call_id, dialog.local_tag)] = dialog
        self._by_call.setdefault(dialog.call_id, []).append(dialog)

    def forget(self, dialog: Dialog) -> None:
        """A dialog ended: its retransmissions and late NOTIFYs are still answered for 64*T1."""
        asyncio.get_running_loop().call_later(self.timers.timeout, self._drop, dialog)

    def _drop(self, dialog: Dialog) -> None:
        key = (dialog.call_id, dialog.local_tag)
        if self.dialogs.get(key) is dialog:
            del self.dialogs[key]
        if isinstance(dialog, Uas):
            self._invites.pop(dialog.transaction.key, None)
        others = [other for other in self._by_call.get(dialog.call_id, []) if other is not dialog]
        if others:
            self._by_call[dialog.call_id] = others
        else:
            self._by_call.pop(dialog.call_id, None)

    def _traced(self, traced: TracedMessage) -> None:
        if traced.message is None:
            return
        for dialog in self._by_call.get(sip_message.call_id(traced.message), ()):
            if len(dialog.messages) < MAX_TRACED:
                dialog.messages.append(traced)
