"""RFC 3261 section 17's layer: matches what arrives to its transaction, and hands on what begins a new one."""

from collections import Counter
from collections.abc import Callable

from sipmessage import Request, Response

from lab import message as sip_message
from lab.transaction import (
    Address,
    ClientTransaction,
    Send,
    ServerTransaction,
    Timers,
    TransactionKey,
    transaction_key,
)


class TransactionLayer:
    """All transactions of one endpoint. Retransmissions end here."""

    def __init__(
        self,
        send: Send,
        timers: Timers,
        counters: Counter[str],
        *,
        on_request: Callable[[ServerTransaction], None],
        on_success_ack: Callable[[Request], None],
        on_stray_response: Callable[[Response], None],
        decorate: Callable[[Request, Response], None],
    ) -> None:
        """``on_success_ack``: the ACK of a 2xx, which is no transaction's. ``decorate``: adds to each response."""
        self._send = send
        self._timers = timers
        self._counters = counters
        self._on_request = on_request
        self._on_success_ack = on_success_ack
        self._on_stray_response = on_stray_response
        self._decorate = decorate
        self._clients: dict[tuple[str, str], ClientTransaction] = {}
        self._servers: dict[TransactionKey, ServerTransaction] = {}

    @property
    def awaits_responses(self) -> bool:
        """A request of ours has no final response yet."""
        return any(client.final is None for client in self._clients.values())

    def start_client(
        self,
        request: Request,
        destination: Address,
        *,
        on_response: Callable[[Response], None],
        on_timeout: Callable[[], None],
    ) -> ClientTransaction:
        """Send a request in a new client transaction."""
        client = ClientTransaction(
            request,
            destination,
            self._send,
            self._timers,
            on_response=on_response,
            on_timeout=on_timeout,
            on_gone=self._client_gone,
        )
        self._clients[client.key] = client
        client.start()
        return client

    def receive(self, message: Request | Response, source: Address) -> None:
        if isinstance(message, Response):
            self._receive_response(message)
        elif message.method == "ACK":
            self._receive_ack(message)
        else:
            self._receive_request(message, source)

    def invite_of(self, request: Request) -> ServerTransaction | None:
        """The INVITE that a CANCEL, or the ACK of a failure, belongs to."""
        return self._servers.get(transaction_key(request, "INVITE"))

    def stop(self) -> None:
        """Forget all of them; nothing is sent any more."""
        for client in list(self._clients.values()):
            client.abandon()
        for server in list(self._servers.values()):
            server.abandon()

    def _receive_response(self, response: Response) -> None:
        key = (sip_message.top_via(response).branch, sip_message.cseq(response).method)
        client = self._clients.get(key)
        if client is not None:
            client.receive(response)
        else:
            self._on_stray_response(response)

    def _receive_ack(self, request: Request) -> None:
        server = self.invite_of(request)
        if server is not None and (server.final_status or 0) >= 300:
            server.acknowledge()
        else:
            self._on_success_ack(request)

    def _receive_request(self, request: Request, source: Address) -> None:
        key = transaction_key(request)
        known = self._servers.get(key)
        if known is not None:
            self._counters["repeated_in"] += 1
            known.repeat()
            return
        server = ServerTransaction(
            request,
            source,
            self._send,
            self._timers,
            tag=sip_message.new_tag(),
            decorate=self._decorate,
            on_gone=self._server_gone,
        )
        self._servers[key] = server
        self._on_request(server)

    def _client_gone(self, client: ClientTransaction) -> None:
        self._clients.pop(client.key, None)

    def _server_gone(self, server: ServerTransaction) -> None:
        self._servers.pop(server.key, None)
