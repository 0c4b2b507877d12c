"""The copy of SIP for a collector: HEPv3 as sipcapture/HEP has it, read from a UDP socket."""

import contextlib
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.edge.endpoints import Message, establish
from tests.edge.world import DID, Edge, MakeEdge

CAPTURE_ID = 4711
PIDF = "<presence><location>4 Privet Drive</location></presence>"


@dataclass(frozen=True)
class Packet:
    """One HEPv3 packet: its chunks of the generic vendor by their type."""

    raw: bytes
    chunks: dict[int, bytes]

    @classmethod
    def read(cls, raw: bytes) -> "Packet":
        magic, length = struct.unpack_from("!4sH", raw)
        assert (magic, length) == (b"HEP3", len(raw))
        chunks, at = {}, 6
        while at < len(raw):
            vendor, kind, size = struct.unpack_from("!HHH", raw, at)
            assert vendor == 0 and size >= 6 and at + size <= len(raw)
            chunks[kind] = raw[at + 6 : at + size]
            at += size
        return cls(raw, chunks)

    @property
    def message(self) -> Message:
        return Message(self.chunks[0x0F], 0.0, ("", 0))

    @property
    def path(self) -> tuple[str, str]:
        """Source and destination addresses."""
        return socket.inet_ntoa(self.chunks[0x03]), socket.inet_ntoa(self.chunks[0x04])

    @property
    def correlation_id(self) -> str:
        return self.chunks.get(0x11, b"").decode()


@contextlib.contextmanager
def collector(edge: Edge) -> Iterator[list[Packet]]:
    """Reads what was sent; complete when the context is left."""
    found: list[Packet] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind((edge.address(7), 9060))
        yield found
        listening.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                found.append(Packet.read(listening.recv(65535)))


@pytest.fixture
def mirrored(make_edge: MakeEdge) -> Edge:
    def change(site: dict[str, Any]) -> None:
        net = site["edge"]["rpc"].rpartition(".")[0]
        site["edge"]["hep"] = {"collector": f"{net}.7:9060", "capture_id": CAPTURE_ID}

    return make_edge(change)


def test_collector_gets_every_message_of_a_call_once_each_way(mirrored: Edge):
    with collector(mirrored) as packets:
        calling = mirrored.from_carrier(DID)
        worker, invite = mirrored.first_worker(calling.call_id)
        worker.reply(invite, 180)
        near, _ = establish(calling, worker, invite)
        worker.reply(worker.request("BYE", near.send("BYE").call_id), 200)
        mirrored.carrier.wait(lambda m: m.method == "BYE" and m.status == 200, "the 200 to BYE")
    token = invite["X-Tandem-Call"]
    edge, carrier, far = mirrored.at[0], mirrored.carrier.address, worker.address
    seen = [
        (packet.message.start.partition(" sip:")[0].removeprefix("SIP/2.0 ")[:6].strip(), packet.path)
        for packet in packets
    ]
    for start in ("INVITE", "BYE"):
        assert seen.count((start, (carrier, edge))) == 1
        assert seen.count((start, (edge, far))) == 1
    assert seen.count(("ACK", (carrier, edge))) == 1
    for status in ("180", "200"):
        assert [path for start, path in seen if start.startswith(status)].count((far, edge)) == (
            1 if status == "180" else 2
        )
        assert [path for start, path in seen if start.startswith(status)].count((edge, carrier)) == (
            1 if status == "180" else 2
        )
    assert {packet.chunks[0x0C] for packet in packets} == {struct.pack("!I", CAPTURE_ID)}
    assert {packet.chunks[0x0B] for packet in packets} == {b"\x01"}  # SIP
    assert {packet.message.call_id for packet in packets} == {calling.call_id}
    received = [packet for packet in packets if packet.path == (carrier, edge)]
    assert {packet.correlation_id for packet in received} == {token}
    assert f"X-Tandem-Call: {token}".encode() in next(packet.raw for packet in packets if packet.path == (edge, far))


def test_nothing_of_an_emergency_call_is_copied(mirrored: Edge):
    with collector(mirrored) as packets:
        calling = mirrored.from_pbx("911", body=PIDF, content_type="application/pidf+xml")
        invite = mirrored.carrier.request("INVITE", calling.call_id)
        assert PIDF in invite.raw.decode()
        near, far = establish(calling, mirrored.carrier, invite)
        mirrored.pbx.reply(mirrored.pbx.request("INFO", far.send("INFO", body=PIDF).call_id), 200)
        mirrored.carrier.reply(mirrored.carrier.request("BYE", near.send("BYE").call_id), 200)
        mirrored.pbx.wait(lambda m: m.method == "BYE" and m.status == 200, "the 200 to BYE")
        # The same process takes an ordinary call.
        after = mirrored.from_carrier(DID)
        mirrored.arrival(after)
    assert {packet.message.call_id for packet in packets} == {after.call_id}


def test_strangers_and_options_are_not_copied(mirrored: Edge):
    with collector(mirrored) as packets:
        assert mirrored.stranger.invite(DID, mirrored.at).final().status == 403
        assert mirrored.carrier.options_of(mirrored.at) == 200
        seen = mirrored.worker(1).options_seen
        mirrored.until(lambda: mirrored.worker(1).options_seen > seen, "the edge to ask a worker for OPTIONS")
    assert packets == []


def test_refused_and_cancelled_calls_are_copied(mirrored: Edge):
    with collector(mirrored) as packets:
        refused = mirrored.from_carrier("+14155550100")
        refused.final()
        given_up = mirrored.from_carrier(DID)
        worker, invite = mirrored.first_worker(given_up.call_id)
        worker.reply(invite, 180)
        given_up.status()
        given_up.cancel()
        worker.reply(worker.request("CANCEL"), 200)
        worker.reply(invite, 487)
        given_up.final()
    starts = {(packet.message.call_id, packet.message.start.split(" sip:")[0]) for packet in packets}
    assert {(refused.call_id, "INVITE"), (refused.call_id, "SIP/2.0 404 Not Found")} <= starts
    assert {(given_up.call_id, "CANCEL"), (given_up.call_id, "SIP/2.0 487 Because")} <= starts


def test_a_collector_that_is_away_is_harmless(mirrored: Edge):
    """Nobody listens there; that Kamailio logs no error is seen to at the end of every test."""
    for _ in range(3):
        mirrored.arrival(mirrored.from_carrier(DID))


@pytest.mark.skipif(not shutil.which("sngrep"), reason="sngrep is not installed")
def test_sngrep_reads_the_copy(mirrored: Edge, tmp_path: Path):
    """A decoder that others wrote."""
    file = tmp_path / "calls.pcap"
    place = mirrored.settings.edge.hep
    assert place is not None
    listening = ["sngrep", "-F", "-N", "-q", "-L", f"udp:{place.collector}", "-O", str(file)]
    with subprocess.Popen(listening, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as sngrep:
        try:
            mirrored.until(lambda: is_taken(place.collector), "sngrep to listen")
            mirrored.arrival(mirrored.from_carrier(DID))
            wanted = [b"INVITE sip:", b"SIP/2.0 486", b"ACK sip:", b"X-Tandem-Call: "]
            mirrored.until(lambda: all(part in file.read_bytes() for part in wanted), "the call in what sngrep wrote")
        finally:
            sngrep.kill()


def is_taken(place: str) -> bool:
    host, _, port = place.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, int(port)))
        except OSError:
            return True
    return False


def test_without_a_collector_the_module_is_not_loaded(edge: Edge):
    assert "siptrace.status" not in edge.rpc("system.listMethods")
