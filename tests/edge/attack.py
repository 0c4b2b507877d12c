"""Parts of the tests of attacks: messages byte for byte, connections, and the calls that must go out meanwhile."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.edge.endpoints import Calling, Endpoint, Message
from tests.edge.world import Edge

CORPUS = sorted((Path(__file__).parent / "torture").rglob("*.dat"))
BATCH = 50
"""So many fit in a socket's buffer, whatever their length."""


def tcp(site: dict[str, Any]) -> None:
    net = site["edge"]["rpc"].rpartition(".")[0]
    site["edge"]["listen"].append({"transport": "tcp", "address": f"{net}.1", "port": 5060})


@contextlib.contextmanager
def refusing(edge: Edge) -> Iterator[None]:
    """The workers and carriers refuse every INVITE that gets there."""
    stopped = threading.Event()
    everybody = [*edge.workers, edge.carrier, edge.second_carrier]

    def refuse() -> None:
        done = dict.fromkeys(everybody, 0)
        while not stopped.wait(0.005):
            for party in everybody:
                for message in party.seen[done[party] :]:
                    done[party] += 1
                    if message.is_request and message.method == "INVITE":
                        party.reply(message, 486)

    thread = threading.Thread(target=refuse)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def emergency_call(edge: Edge) -> tuple[Calling, Message]:
    """A call to 911, and its INVITE at the carrier. Sent again every half second, as a UAC does (RFC 3261 section 17.1.1.2): a
    datagram may find the socket's buffer full.
    """
    calling = edge.from_pbx("911")
    for _ in range(10):
        with contextlib.suppress(TimeoutError):
            return calling, edge.carrier.request("INVITE", calling.call_id, 0.5)
        calling.retransmit()
    raise TimeoutError("the emergency call did not reach the carrier")


def emergency_call_gets_out(edge: Edge) -> None:
    """Every carrier refuses it."""
    calling, _ = emergency_call(edge)
    assert calling.final().status == 503


def next_call_works(edge: Edge) -> None:
    calling = edge.from_carrier()
    edge.first_worker(calling.call_id)
    assert calling.final().status == 486


def request(
    edge: Edge, phone: Endpoint, method: str, name: str, length: int | str, *, uri: str = "", over: str = "TCP"
) -> bytes:
    """A request of ``phone`` without its body. What follows ``length`` after CRLF is a header more."""
    target = uri or f"sip:{edge.at[0]}"
    tag = ";tag=1" if method in ("BYE", "REFER") else ""
    lines = [
        f"{method} {target} SIP/2.0",
        f"Via: SIP/2.0/{over} {phone.host};branch=z9hG4bK-{name}",
        "Max-Forwards: 70",
        *([f"Route: <sip:{edge.at[0]};lr;call=x;mark=y>"] if tag else []),
        f"From: <sip:+12025550147@{phone.host}>;tag=from",
        f"To: <{target}>{tag}",
        f"Call-ID: {name}",
        f"CSeq: 1 {method}",
        f"Contact: <sip:caller@{phone.host}>",
        *(["Refer-To: <sip:+12025550199@x?Replaces=a%3Bb>"] if method == "REFER" else []),
        f"Content-Length: {length}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def connect(edge: Edge, phone: Endpoint) -> socket.socket:
    return socket.create_connection(edge.at, timeout=5, source_address=(phone.address, 0))


def read_all(connection: socket.socket, until: bytes = b"") -> bytes:
    """What comes until the peer closes, or until ``until`` has come."""
    received = b""
    connection.settimeout(8)
    while not (until and until in received):
        data = connection.recv(65536)
        if not data:
            return received
        received += data
    return received
