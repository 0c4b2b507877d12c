"""SIP endpoints for these tests: they send the bytes they are told and keep what arrives, message by message."""

import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.edge.message import LOCAL_TAG, SDP, Headers, Message, acknowledgement, reply
from tests.edge.transport import Transport

PATIENCE_S = 15.0
_numbers = itertools.count(1)

__all__ = ["PATIENCE_S", "SDP", "Calling", "Dialog", "Endpoint", "Headers", "Message", "establish", "reply"]


class Endpoint:
    """One SIP address. Answers OPTIONS with ``options_status`` (None: not at all) and acknowledges what refuses its
    INVITEs; everything else waits to be asked for.
    """

    def __init__(
        self,
        address: str,
        port: int = 5060,
        server: ssl.SSLContext | None = None,
        client: ssl.SSLContext | None = None,
    ) -> None:
        self.address = address
        self.options_status: int | None = 200
        self.options_seen = 0
        self.seen: list[Message] = []
        """Everything that arrived, but for OPTIONS."""
        self.sent: list[Message] = []
        """Everything that went out, but for replies to OPTIONS; ``at`` is when."""
        self._invites: dict[str, Message] = {}
        self._new = threading.Condition()
        self.transport = Transport(address, port, self._arrived, server, client)
        self.port = self.transport.port

    @property
    def host(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def close(self) -> None:
        self.transport.close()

    def send(self, data: bytes | str, to: tuple[str, int], over: str = "udp") -> Message:
        """Send bytes as they stand; what was sent."""
        raw = data.encode() if isinstance(data, str) else data
        message = Message(raw, time.monotonic(), to, over)
        self._went(message)
        self.transport.send(raw, to, over)
        return message

    def _went(self, message: Message) -> None:
        with self._new:
            self.sent.append(message)
            if message.start.startswith("INVITE ") and message.branch:
                self._invites[message.branch] = message

    def _answer(self, request: Message, raw: bytes) -> None:
        if request.back:
            request.back(raw)
        else:
            self.transport.send(raw, request.peer)

    def _arrived(self, message: Message) -> None:
        if message.start.startswith("OPTIONS "):
            self.options_seen += 1
            if self.options_status is not None:
                self._answer(message, reply(message, self.options_status))
            return
        with self._new:
            self.seen.append(message)
            invite = self._invites.get(message.branch)
            self._new.notify_all()
        if invite and not message.is_request and message.method == "INVITE" and message.status >= 300:
            raw = acknowledgement(invite, message)
            self._went(Message(raw, time.monotonic(), invite.peer, invite.over))
            self.transport.send(raw, invite.peer, invite.over)

    def wait(self, match: Callable[[Message], bool], what: str, timeout_s: float = PATIENCE_S) -> Message:
        """The first message ever received that matches. Raises TimeoutError saying what was awaited and what came."""
        deadline = time.monotonic() + timeout_s
        with self._new:
            while True:
                for message in self.seen:
                    if match(message):
                        return message
                if not self._new.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    came = [f"{message.start} ({message.call_id})" for message in self.seen[-20:]]
                    raise TimeoutError(f"{self.host} waited {timeout_s} s for {what}; it has seen last {came}")

    def request(self, method: str, call_id: str | None = None, timeout_s: float = PATIENCE_S) -> Message:
        """The first request of that method (and call)."""
        return self.wait(
            lambda m: m.is_request and m.method == method and call_id in (None, m.call_id), method, timeout_s
        )

    def got(self, method: str, call_id: str | None = None) -> list[Message]:
        """Requests of that method that came so far (not waiting)."""
        with self._new:
            return [m for m in self.seen if m.is_request and m.method == method and call_id in (None, m.call_id)]

    def ask(self, method: str, edge: tuple[str, int], *, uri: str | None = None, headers: Headers = ()) -> Message:
        """Send a request outside any dialog; its final reply."""
        asking = Calling(self, edge, uri or f"sip:{edge[0]}", "tester")
        asking.send(method, headers=headers)
        return self.wait(
            lambda m: not m.is_request and m.call_id == asking.call_id and m.status >= 200, f"a reply to {method}"
        )

    def options_of(self, edge: tuple[str, int]) -> int:
        """Status that the edge gives to OPTIONS."""
        return self.ask("OPTIONS", edge).status

    def send_tcp(self, data: str, to: tuple[str, int], *, wait: bool = False) -> bytes:
        """Send over a TCP connection of its own; with ``wait`` what comes back until it is closed or still."""
        with socket.create_connection(to, timeout=3, source_address=(self.address, 0)) as connection:
            connection.sendall(data.encode())
            connection.settimeout(1)
            with contextlib.suppress(TimeoutError):
                return connection.recv(65535) if wait else b""
        return b""

    def reply(
        self,
        request: Message,
        status: int,
        reason: str = "",
        *,
        headers: Headers = (),
        body: str | bytes = "",
    ) -> None:
        """Reply to a request, wherever it came to; over TCP and TLS on the connection that it came by."""
        raw = reply(request, status, reason, headers=headers, body=body, contact=contact(self, request.over))
        self._went(Message(raw, time.monotonic(), request.peer, request.over))
        self._answer(request, raw)

    def invite(
        self,
        to: str,
        edge: tuple[str, int],
        *,
        caller: str = "+12025550147",
        headers: Headers = (),
        body: str | bytes = SDP,
        content_type: str = "application/sdp",
        uri: str | None = None,
    ) -> "Calling":
        """Send an INVITE for ``to`` (a user at the edge, or ``uri`` as it stands)."""
        calling = Calling(self, edge, uri or f"sip:{to}@{edge[0]}", caller)
        calling.send("INVITE", headers=headers, body=body, content_type=content_type)
        return calling


def contact(phone: Endpoint, over: str) -> str:
    """Host part of a Contact: where requests within the dialog reach the phone over the same transport."""
    if over == "tls":
        return f"{phone.address}:5061;transport=tls"
    return phone.host + (";transport=tcp" if over == "tcp" else "")


def compose(start: str, lines: Headers, given: Headers, without: tuple[str, ...], body: bytes) -> bytes:
    """A message: ``lines``, but for those whose name is in ``without`` or in ``given``, and then ``given``."""
    replaced = {name.lower() for name, _ in given} | {name.lower() for name in without}
    kept = [(name, value) for name, value in lines if name.lower() not in replaced]
    length = [] if "content-length" in replaced else [("Content-Length", str(len(body)))]
    head = [start, *(f"{name}: {value}" for name, value in [*kept, *given, *length])]
    return ("\r\n".join(head) + "\r\n\r\n").encode("utf-8", "surrogateescape") + body


class Calling:
    """A call from the side that placed it."""

    def __init__(self, phone: Endpoint, edge: tuple[str, int], uri: str, caller: str, over: str = "udp") -> None:
        number = next(_numbers)
        self.phone, self.edge, self.uri, self.over = phone, edge, uri, over
        self.call_id = f"{number}-{time.monotonic_ns()}@{phone.address}"
        self.branch = f"z9hG4bK-{number}-{time.monotonic_ns()}"
        self.sender = f"<sip:{caller}@{phone.host}>;tag=from-{number}"
        self.cseq = 1
        self.sent_at = 0.0
        self.invite = b""

    def compose(
        self,
        method: str,
        *,
        headers: Headers = (),
        body: str | bytes = "",
        content_type: str = "",
        to: str | None = None,
        without: tuple[str, ...] = (),
    ) -> bytes:
        """A request; ``headers`` take the place of its own of the same name, those in ``without`` are left out."""
        data = body.encode() if isinstance(body, str) else body
        typed = [("Content-Type", content_type)] if data and content_type else []
        lines = [
            ("Via", f"SIP/2.0/{self.over.upper()} {self.phone.host};branch={self.branch}"),
            ("Max-Forwards", "70"),
            ("From", self.sender),
            ("To", to or f"<{self.uri}>"),
            ("Call-ID", self.call_id),
            ("CSeq", f"{self.cseq} {method}"),
            ("Contact", f"<sip:caller@{contact(self.phone, self.over)}>"),
            *typed,
        ]
        return compose(f"{method} {self.uri} SIP/2.0", lines, headers, without, data)

    def send(self, method: str, **parts: Any) -> Message:
        """Send a request made of :meth:`compose`'s parts."""
        raw = self.compose(method, **parts)
        if method == "INVITE":
            self.invite = raw
        self.sent_at = time.monotonic()
        return self.phone.send(raw, self.edge, self.over)

    def retransmit(self) -> None:
        self.phone.send(self.invite, self.edge, self.over)

    def status(self, at_least: int = 101, timeout_s: float = PATIENCE_S) -> Message:
        """The first reply to the INVITE with that status or a higher one."""
        return self.phone.wait(
            lambda m: not m.is_request and m.call_id == self.call_id and m.method == "INVITE" and m.status >= at_least,
            f"a reply of at least {at_least} to {self.uri}",
            timeout_s,
        )

    def final(self, timeout_s: float = PATIENCE_S) -> Message:
        """The final reply."""
        return self.status(200, timeout_s)

    def cancel(self) -> Message:
        """Send CANCEL; its own reply."""
        self.send("CANCEL")
        return self.phone.wait(
            lambda m: not m.is_request and m.call_id == self.call_id and m.method == "CANCEL", "a reply to CANCEL"
        )

    def replies(self, at_least: int = 200) -> list[Message]:
        return [
            m
            for m in list(self.phone.seen)
            if not m.is_request and m.call_id == self.call_id and m.method == "INVITE" and m.status >= at_least
        ]


@dataclass
class Dialog:
    """An established dialog from one side: enough to send requests along its route set (RFC 3261 section 12.2)."""

    phone: Endpoint
    edge: tuple[str, int]
    call_id: str
    local: str
    remote: str
    target: str
    route: list[str]
    cseq: int = 1000
    over: str = "udp"

    def send(
        self,
        method: str,
        *,
        headers: Headers = (),
        body: str | bytes = "",
        content_type: str = "",
        without: tuple[str, ...] = (),
        target: str | None = None,
        phone: Endpoint | None = None,
    ) -> Message:
        """Send a request along the route; ``phone`` forges it from elsewhere, ``target`` to elsewhere."""
        if method != "ACK":
            self.cseq += 1
        phone = phone or self.phone
        data = body.encode() if isinstance(body, str) else body
        typed = [("Content-Type", content_type)] if data and content_type else []
        lines = [
            ("Via", f"SIP/2.0/{self.over.upper()} {phone.host};branch=z9hG4bK-{next(_numbers)}-{time.monotonic_ns()}"),
            ("Max-Forwards", "70"),
            *(("Route", entry) for entry in self.route),
            ("From", self.local),
            ("To", self.remote),
            ("Call-ID", self.call_id),
            ("CSeq", f"{self.cseq} {method}"),
            ("Contact", f"<sip:me@{contact(phone, self.over)}>"),
            *typed,
        ]
        raw = compose(f"{method} {target or self.target} SIP/2.0", lines, headers, without, data)
        return phone.send(raw, self.edge, self.over)

    def ask(self, method: str, *, headers: Headers = (), body: str = "", content_type: str = "") -> Message:
        """Send a request; its final reply."""
        branch = self.send(method, headers=headers, body=body, content_type=content_type).branch
        return self.phone.wait(
            lambda m: not m.is_request and branch in m["Via"] and m.status >= 200, f"a final reply to {method}"
        )


def establish(calling: Calling, phone: Endpoint, request: Message) -> tuple[Dialog, Dialog]:
    """Answer ``request`` at ``phone`` and acknowledge it: both sides' dialogs, the caller's first."""
    phone.reply(request, 200, headers=[("Content-Type", "application/sdp")], body=SDP)
    answer = calling.final()
    assert answer.status == 200, answer.start
    near = caller_dialog(calling, answer)
    near.send("ACK")
    phone.request("ACK", request.call_id)
    return near, callee_dialog(phone, calling.edge, request)


def caller_dialog(calling: Calling, answer: Message) -> Dialog:
    """The dialog that the answer made at the side that called."""
    return Dialog(
        calling.phone,
        calling.edge,
        calling.call_id,
        answer["From"],
        answer["To"],
        _uri(answer["Contact"]),
        _entries(answer.all("Record-Route"))[::-1],
        calling.cseq,
        calling.over,
    )


def callee_dialog(phone: Endpoint, edge: tuple[str, int], request: Message) -> Dialog:
    """The dialog that answering ``request`` made at the side that was called."""
    return Dialog(
        phone,
        edge,
        request.call_id,
        request["To"] + f";tag={LOCAL_TAG}",
        request["From"],
        _uri(request["Contact"]),
        _entries(request.all("Record-Route")),
        over=request.over,
    )


def _uri(value: str) -> str:
    return value.partition("<")[2].partition(">")[0]


def _entries(values: list[str]) -> list[str]:
    return [entry.strip() for value in values for entry in value.split(",")]
