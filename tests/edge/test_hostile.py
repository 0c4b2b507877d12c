"""What an attacker sends: mutilated messages by the ten thousand, slow and half-open connections, messages inside
messages. The edge neither falls nor grows, and 911 goes out.
"""

import contextlib
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.edge.attack import (
    BATCH,
    CORPUS,
    connect,
    emergency_call_gets_out,
    next_call_works,
    read_all,
    refusing,
    request,
    tcp,
)
from tests.edge.endpoints import SDP
from tests.edge.world import DID, Edge, MakeEdge

HOSTILE = 10_000
GROWTH_BYTES = 64 * 1024
"""What the tables of the last seconds may hold more after HOSTILE messages than before."""
SEED = 4475


def shared_memory(edge: Edge) -> int:
    """Bytes in use once every transaction is over."""
    edge.until(lambda: edge.rpc("tm.stats")["current"] == 0, "transactions to end", 30)
    return int(edge.rpc("core.shmmem")["used"])


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
