"""What an attacker sends: floods, mutilated messages by the ten thousand, slow and half-open connections, messages inside
messages. The edge neither falls nor grows, and 911 goes out.
"""

import contextlib
import random
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge.endpoints import SDP, Endpoint
from tests.edge.world import DID, Edge, MakeEdge

CORPUS = sorted((Path(__file__).parent / "torture").rglob("*.dat"))
HOSTILE = 10_000
BATCH = 50
"""So many fit in a socket's buffer, whatever their length."""
GROWTH_BYTES = 64 * 1024
"""What the tables of the last seconds may hold more after HOSTILE messages than before."""
SEED = 4475


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


def emergency_call_gets_out(edge: Edge) -> None:
    """Sent again every half second, as a UAC does (RFC 3261 section 17.1.1.2): a datagram may find the socket's buffer full."""
    calling = edge.from_pbx("911")
    for _ in range(10):
        with contextlib.suppress(TimeoutError):
            edge.carrier.request("INVITE", calling.call_id, 0.5)
            break
        calling.retransmit()
    assert calling.final().status == 503  # as every carrier refuses


def next_call_works(edge: Edge) -> None:
    calling = edge.from_carrier()
    edge.first_worker(calling.call_id)
    assert calling.final().status == 486


def shared_memory(edge: Edge) -> int:
    """Bytes in use once every transaction is over."""
    edge.until(lambda: edge.rpc("tm.stats")["current"] == 0, "transactions to end", 30)
    return int(edge.rpc("core.shmmem")["used"])


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


def valid(edge: Edge) -> list[bytes]:
    """Messages as peers send them, to be mutilated."""
    uri = f"sip:{DID}@{edge.at[0]}"
    methods = ("INVITE", "OPTIONS", "REGISTER", "REFER", "BYE", "ACK", "CANCEL", "MESSAGE")
    return [
        request(edge, edge.carrier, method, "valid", len(SDP), uri=uri, over="UDP") + SDP.encode() for method in methods
    ]


def mutilated(rng: random.Random, corpus: list[bytes]) -> bytes:
    """One of the corpus with one to four wounds."""
    raw = bytearray(rng.choice(corpus))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw) + 1)
        wound = rng.randrange(8)
        if wound == 0 and raw:
            raw[at % len(raw)] = rng.randrange(256)
        elif wound == 1:
            raw[at:at] = rng.choice([b"\0", b"\r\n", b"\r\n ", b"%00", b'"', b"<", b";;", b"\xff" * 9, b"9" * 40])
        elif wound == 2:
            del raw[at : at + rng.randrange(40)]
        elif wound == 3:
            del raw[at:]
        elif wound == 4:
            lines = bytes(raw).split(b"\r\n")
            line = rng.randrange(len(lines))
            lines.insert(rng.randrange(len(lines)), lines[line])
            raw = bytearray(b"\r\n".join(lines))
        elif wound == 5:
            other = rng.choice(corpus)
            raw[at:] = other[rng.randrange(len(other)) :]
        elif wound == 6:
            raw = bytearray(bytes(raw).replace(b":", b": " + b"x" * rng.randrange(2000), 1 + rng.randrange(3)))
        else:
            raw = bytearray(
                re.sub(rb"[0-9]+", lambda _: str(rng.choice([-1, 0, 2**32, 10**30])).encode(), bytes(raw), count=2)
            )
    return bytes(raw[:60000])


def test_ten_thousand_hostile_messages_leave_nothing_behind(make_edge: MakeEdge):
    # OPTIONS to the workers would be transactions too.
    edge = make_edge(lambda site: site["edge"].update(probe_seconds=60))
    edge.expected_errors.append(".")  # Kamailio says much about them; it must only survive them
    rng = random.Random(SEED)
    corpus = [file.read_bytes() for file in CORPUS] + valid(edge) * 4
    senders = [edge.carrier, edge.carrier, edge.pbx, edge.worker(1), edge.stranger]

    def attack(messages: int) -> None:
        for _ in range(messages // BATCH):
            for _ in range(BATCH):
                rng.choice(senders).send(mutilated(rng, corpus), edge.at)
            assert edge.carrier.options_of(edge.at) == 200
            for party in senders:
                party.seen.clear()

    with refusing(edge):
        next_call_works(edge)
        emergency_call_gets_out(edge)
        attack(10 * BATCH)
        before = shared_memory(edge)
        attack(HOSTILE)
        emergency_call_gets_out(edge)
        next_call_works(edge)
        grown = shared_memory(edge) - before
    assert grown < GROWTH_BYTES, f"{grown} bytes more of shared memory in use"


def test_emergency_calls_go_out_while_strangers_and_a_trunk_flood(make_edge: MakeEdge):
    def change(site: dict[str, Any]) -> None:
        for trunk in ("carrier", "pbx"):
            site["trunks"][trunk]["calls_per_second_in"] = 5

    edge = make_edge(change)
    stopped = threading.Event()

    def flood(phone: Endpoint) -> None:
        while not stopped.is_set():
            for _ in range(10):
                phone.invite(DID, edge.at)
            stopped.wait(0.01)

    threads = [threading.Thread(target=flood, args=(phone,)) for phone in (edge.stranger, edge.carrier, edge.pbx)]
    with refusing(edge):
        for thread in threads:
            thread.start()
        try:
            edge.until(lambda: edge.counter("dropped_total", "flood") > 100, "strangers to be dropped")
            edge.until(lambda: edge.counter("refused_total", "incoming_rate") > 100, "the trunk to be held")
            for _ in range(10):
                emergency_call_gets_out(edge)
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
    assert edge.log.count("cause=unknown_source") <= 2


def test_a_flood_of_malformed_messages_writes_no_log(edge: Edge):
    edge.expected_errors.append(".")
    raw = next(file for file in CORPUS if file.stem == "ncl").read_bytes()
    for _ in range(40):
        for _ in range(BATCH):
            edge.stranger.send(raw, edge.at)
        assert edge.carrier.options_of(edge.at) == 200
    edge.until(lambda: edge.counter("dropped_total", "flood") >= 1900, "the flood to be dropped")
    assert edge.log.count("Content-Length") < 150


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


def connect(edge: Edge, phone: Endpoint) -> socket.socket:
    return socket.create_connection(edge.at, timeout=5, source_address=(phone.address, 0))


def test_slow_and_silent_connections_hold_nobody_up(make_edge: MakeEdge):
    edge = make_edge(tcp, "-A", "STRANGER_SILENT_SECONDS=3")
    edge.expected_errors.append("message processing timeout")  # Kamailio 6, of those who never end their message
    with contextlib.ExitStack() as held, refusing(edge):
        silent = [held.enter_context(connect(edge, edge.stranger)) for _ in range(100)]
        slow = [held.enter_context(connect(edge, edge.carrier)) for _ in range(50)]
        message = request(edge, edge.carrier, "OPTIONS", "slow", 0)
        for byte in message[:8]:
            for connection in slow:
                connection.sendall(bytes([byte]))
        with connect(edge, edge.carrier) as quick:
            quick.sendall(request(edge, edge.carrier, "OPTIONS", "quick", 0))
            assert read_all(quick, b"\r\n\r\n").startswith(b"SIP/2.0 200")
            emergency_call_gets_out(edge)
            for connection in silent:
                assert read_all(connection) == b""
            quick.sendall(request(edge, edge.carrier, "OPTIONS", "still-there", 0))
            assert read_all(quick, b"still-there").startswith(b"SIP/2.0 200")


def test_a_flood_over_tcp_costs_a_stranger_the_connection(make_edge: MakeEdge):
    edge = make_edge(tcp)
    with connect(edge, edge.stranger) as connection, contextlib.suppress(ConnectionError):
        for number in range(200):
            connection.sendall(request(edge, edge.stranger, "OPTIONS", f"flood-{number}", 0))
        read_all(connection)
    edge.until(lambda: edge.counter("dropped_total", "flood") > 0, "the flood to be dropped")


SMUGGLED: dict[str, tuple[str, str]] = {
    "two-content-lengths": (f"0\r\nContent-Length: {len(SDP)}", SDP),
    "negative-content-length": ("-1", ""),
    "content-length-with-a-sign": ("+0", ""),
    "huge-content-length": (str(2**40), ""),
    "header-of-64-kilobytes": ("0\r\nX-Long: " + "x" * 65536, ""),
    "nul-in-a-header-name": ("0\r\nTo\0: <sip:911@x>\r\nFrom: <sip:b@x>;tag=2", ""),
}
"""The outer message's Content-Length and what follows it, and its body."""


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_hides_in_a_stream_reaches_nobody(make_edge: MakeEdge, name: str):
    edge = make_edge(tcp)
    edge.expected_errors.append(".")
    with connect(edge, edge.carrier) as connection, contextlib.suppress(ConnectionError, TimeoutError):
        length, body = SMUGGLED[name]
        outer = request(edge, edge.carrier, "INVITE", "outer", length, uri=f"sip:{DID}@{edge.at[0]}")
        connection.sendall(outer + body.encode())
        connection.sendall(request(edge, edge.carrier, "INVITE", "inner", 0, uri=f"sip:911@{edge.at[0]}"))
        connection.settimeout(0.5)
        connection.recv(65536)
    with refusing(edge):
        next_call_works(edge)
        emergency_call_gets_out(edge)
    assert not [m for worker in edge.workers for m in worker.got("INVITE") if m.call_id in ("outer", "inner")]
    assert not edge.carrier.got("INVITE", "inner")


def test_a_second_message_in_a_stream_is_judged_by_itself(make_edge: MakeEdge):
    edge = make_edge(tcp)
    outer = request(edge, edge.carrier, "OPTIONS", "outer", 0)
    inner = request(edge, edge.carrier, "INVITE", "inner", 0, uri=f"sip:911@{edge.at[0]}")
    with connect(edge, edge.carrier) as connection:
        connection.sendall(outer + inner)
        received = read_all(connection, b"emergency from carrier")
    assert re.findall(rb"(?m)^SIP/2.0 (\d+)", received) == [b"200", b"403"]
    assert not edge.carrier.got("INVITE")


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_tls_is_not_negotiated_a_second_time(make_edge: MakeEdge, tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=edge", "-days", "1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, *subject],
        check=True,
        capture_output=True,
    )

    def change(site: dict[str, Any]) -> None:
        net = site["edge"]["rpc"].rpartition(".")[0]
        site["edge"]["listen"].append({"transport": "tls", "address": f"{net}.1", "port": 5061})
        site["edge"]["tls"] = {"certificate": str(certificate), "key": str(key), "ca": str(certificate)}

    edge = make_edge(change)
    edge.expected_errors.append(".")
    host = f"{edge.at[0]}:5061"
    client = subprocess.run(
        ["openssl", "s_client", "-connect", host, "-tls1_2"],
        input=b"R\n" * 3,
        check=False,
        capture_output=True,
        timeout=20,
    )
    assert b"RENEGOTIATING" in client.stdout + client.stderr
    assert client.returncode != 0
    with refusing(edge):
        emergency_call_gets_out(edge)


def test_the_flood_of_one_address_is_forgotten_after_a_while(edge: Edge):
    for _ in range(60):
        edge.stranger.invite(DID, edge.at)
    causes = ("flood", "unknown_source")
    edge.until(
        lambda: sum(edge.counter("dropped_total", cause) for cause in causes) >= 59, "all but the first to be dropped"
    )
    assert edge.counter("dropped_total", "flood") >= 30
    edge.rpc("htable.flush", "heard")  # what ten seconds do
    edge.rpc("htable.flush", "strangers")
    assert edge.stranger.invite(DID, edge.at).final().status == 403
