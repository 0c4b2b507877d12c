"""Floods: of strangers, of a trunk, of one address. None of them stops 911, and none shuts out who did not take part in it."""

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

from tests.edge.attack import (
    BATCH,
    CORPUS,
    connect,
    emergency_call,
    emergency_call_gets_out,
    read_all,
    refusing,
    request,
    tcp,
)
from tests.edge.certificates import Certificates
from tests.edge.endpoints import SDP, Calling, Endpoint
from tests.edge.world import DID, Edge, MakeEdge


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


def test_a_flood_of_trunks_without_limits_leaves_memory_for_emergency_calls(make_edge: MakeEdge):
    """With the least memory that there may be, and workers that are silent, so that each call is kept as long as can be."""

    def change(site: dict[str, Any]) -> None:
        site["edge"] |= {"shared_memory_mb": 64, "silent_worker_ms": 5000, "probe_seconds": 60}

    edge = make_edge(change)
    flooding, sent = [edge.carrier, edge.second_carrier], 0
    most = 64 << 20
    used = 0
    begun = time.monotonic()
    while sent < 12_000 and time.monotonic() - begun < 30:
        for phone in flooding:
            for _ in range(BATCH // 2):
                phone.invite(DID, edge.at)
        sent += BATCH
        if sent % 1000 == 0:
            used = max(used, int(edge.rpc("core.shmmem")["real_used"]))
            calling, invite = emergency_call(edge)
            edge.carrier.reply(invite, 200)
            assert calling.final().status == 200
    print(f"{sent} calls in {time.monotonic() - begun:.1f} s, {used >> 20} MB of shared memory at most")
    assert edge.counter("refused_total", "incoming_rate") > sent / 2
    assert used < most / 2


def test_a_flood_of_malformed_messages_writes_no_log(edge: Edge):
    edge.expected_errors.append(".")
    raw = next(file for file in CORPUS if file.stem == "ncl").read_bytes()
    for _ in range(40):
        for _ in range(BATCH):
            edge.stranger.send(raw, edge.at)
        assert edge.carrier.options_of(edge.at) == 200
    edge.until(lambda: edge.counter("dropped_total", "flood") >= 1900, "the flood to be dropped")
    assert edge.log.count("Content-Length") < 150


def test_a_flood_over_tcp_costs_a_stranger_the_connection(make_edge: MakeEdge):
    edge = make_edge(tcp)
    with connect(edge, edge.stranger) as connection, contextlib.suppress(ConnectionError):
        for number in range(200):
            connection.sendall(request(edge, edge.stranger, "OPTIONS", f"flood-{number}", 0))
        read_all(connection)
    edge.until(lambda: edge.counter("dropped_total", "flood") > 0, "the flood to be dropped")


def test_a_flood_over_tls_shuts_out_nobody_but_its_sender(make_edge: MakeEdge, tmp_path: Path):
    """A PBX that is known by certificate alone comes from an unknown address when it dials 911 for the first time."""
    certificates = Certificates(tmp_path / "tls")

    def change(site: dict[str, Any]) -> None:
        certificates.serve(site)
        site["trunks"]["branch"] = {"kind": "pbx", "certificate": "branch"}

    edge = make_edge(change, "-A", "STRANGERS_MESSAGES=60")
    edge.expected_errors.append("tls|tcp|connection")
    at, context = (edge.at[0], 5061), certificates.client()
    for number in range(70):
        source = (edge.stranger.address, 0)
        with (
            socket.create_connection(at, timeout=5, source_address=source) as plain,
            context.wrap_socket(plain, server_hostname=at[0]) as secure,
        ):
            secure.sendall(request(edge, edge.stranger, "OPTIONS", f"flood-{number}", 0, over="TLS"))
    edge.until(lambda: edge.counter("dropped_total", "flood") >= 40, "its flood to be dropped")
    branch = Endpoint(edge.address(51), 5060, *certificates.contexts("branch", edge.address(51)))
    try:
        calling = Calling(branch, at, f"sip:911@{at[0]}", "+12025550101", "tls")
        calling.send("INVITE", body=SDP, content_type="application/sdp")
        edge.carrier.reply(edge.carrier.request("INVITE", calling.call_id), 486)
    finally:
        branch.close()


def test_strangers_over_udp_are_limited_all_together_for_each_may_be_forged(make_edge: MakeEdge):
    edge = make_edge(None, "-A", "STRANGERS_MESSAGES=60")
    for host in range(100, 200):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((edge.address(host), 0))
            stranger.sendto(request(edge, edge.stranger, "OPTIONS", f"flood-{host}", 0, over="UDP"), edge.at)
    edge.until(lambda: edge.counter("dropped_total", "flood") == 40, "all but the first 60 to be dropped unread")


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
