"""A SIP peer without any intelligence: it sends the bytes that a test writes, and keeps what it receives."""

import asyncio
from collections.abc import Callable

from sipmessage import Request, Response

from lab import message as sip_message
from lab.transaction import Address

PATIENCE_S = 10.0


class RawPeer(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: list[Request | Response] = []
        self.sources: list[Address] = []
        self._came = asyncio.Event()
        self._transport: asyncio.DatagramTransport

    @classmethod
    async def open(cls, address: str = "127.0.0.1") -> "RawPeer":
        loop = asyncio.get_running_loop()
        transport, peer = await loop.create_datagram_endpoint(cls, local_addr=(address, 0))
        peer._transport = transport
        return peer

    @property
    def address(self) -> Address:
        return self._transport.get_extra_info("sockname")

    @property
    def uri(self) -> str:
        host, port = self.address
        return f"sip:{host}:{port}"

    def close(self) -> None:
        self._transport.close()

    def datagram_received(self, data: bytes, source: Address) -> None:
        self.received.append(sip_message.parse(data))
        self.sources.append(source)
        self._came.set()

    def send(self, message: bytes | Request | Response, to: Address) -> None:
        data = message if isinstance(message, bytes) else sip_message.serialise(message)
        self._transport.sendto(data, to)

    def respond(self, request: Request, status: int, **headers: str) -> None:
        """Answer a request that was received; underscores in header names stand for hyphens."""
        source = self.sources[self.received.index(request)]
        response = sip_message.response_to(request, source, status, tag="peer")
        if status < 300:
            response.headers.set("Contact", f"<{self.uri}>")
        for name, value in headers.items():
            response.headers.set(name.replace("_", "-"), value)
        self.send(response, source)

    async def until(self, found: Callable[[Request | Response], bool], what: str) -> Request | Response:
        """The first message received that fits."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    for message in self.received:
                        if found(message):
                            return message
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            raise AssertionError(f"no {what} came; received {[start(m) for m in self.received]}") from None

    async def request(self, method: str, count: int = 1) -> Request:
        """The ``count``-th request of ``method``, retransmissions counted."""

        def nth(message: Request | Response) -> bool:
            requests = self.requests(method)
            return len(requests) >= count and message is requests[count - 1]

        message = await self.until(nth, f"{method} number {count}")
        assert isinstance(message, Request)
        return message

    async def response(self, status: int, method: str = "") -> Response:
        message = await self.until(
            lambda m: (
                isinstance(m, Response) and m.code == status and (not method or m.headers["CSeq"].endswith(method))
            ),
            f"{status} {method}",
        )
        assert isinstance(message, Response)
        return message

    async def falls_silent(self, silent_s: float = 0.32) -> None:
        """Until nothing came for ``silent_s``: four times the longest retransmission interval of the tests' timers."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), silent_s)
            except TimeoutError:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"messages keep coming: {[start(m) for m in self.received[-5:]]}")

    def requests(self, method: str) -> list[Request]:
        return [m for m in self.received if isinstance(m, Request) and m.method == method]

    def invite(self, to: Address, *, body: bytes = b"", branch: str = "z9hG4bKraw", **headers: str) -> Request:
        """Build and send an INVITE."""
        request = Request("INVITE", sip_message.verbatim(f"sip:2001@{to[0]}:{to[1]}"))
        host, port = self.address
        values = {
            "Via": f"SIP/2.0/UDP {host}:{port};branch={branch}",
            "From": '"Raw" <sip:raw@127.0.0.1>;tag=raw',
            "To": f"<sip:2001@{to[0]}:{to[1]}>",
            "Call-ID": "raw-call",
            "CSeq": "1 INVITE",
            "Contact": f"<{self.uri}>",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in values.items():
            request.headers.set(name, value)
        request.body = body
        self.send(request, to)
        return request

    def follow(self, response: Response, method: str, number: int, to: Address, **headers: str) -> Request:
        """Send an in-dialog request (or the ACK of a 2xx) after a response to our INVITE."""
        request = Request(method, sip_message.verbatim(f"sip:{to[0]}:{to[1]}"))
        host, port = self.address
        values = {
            "Via": f"SIP/2.0/UDP {host}:{port};branch=z9hG4bK{method}{number}",
            "From": response.headers["From"],
            "To": response.headers["To"],
            "Call-ID": sip_message.call_id(response),
            "CSeq": f"{number} {method}",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in values.items():
            request.headers.set(name, value)
        self.send(request, to)
        return request


def start(message: Request | Response) -> str:
    return message.method if isinstance(message, Request) else str(message.code)
