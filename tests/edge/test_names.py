"""Gateways by name: what DNS has when the site is rendered is where calls go."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from tandem import names
from tandem.render import RenderError, render
from tests.edge.endpoints import establish
from tests.edge.world import CONNECTED, MakeEdge, free_network, load_site

DEAF = "deaf.example."
"""A name that the server does not answer for."""


class NameServer:
    """A DNS server on loopback with a few records: (name, type) → values."""

    def __init__(self, records: dict[tuple[str, str], list[str]]) -> None:
        import socket

        self._records = records
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(4096)
            if not data:
                return
            query = dns.message.from_wire(data)
            question = query.question[0]
            name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
            if name == DEAF:
                continue
            answer = dns.message.make_response(query)
            if values := self._records.get((name, kind)):
                answer.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *values))
            elif not any(known == name for known, _ in self._records):
                answer.set_rcode(dns.rcode.NXDOMAIN)
            self._socket.sendto(answer.to_wire(), peer)

    def close(self) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(2)
        self._socket.close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    servers = []

    def start(records: dict[tuple[str, str], list[str]]) -> None:
        server = NameServer(records)
        servers.append(server)
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], server.port
        monkeypatch.setattr(dns.resolver, "default_resolver", resolver)

    yield start
    for server in servers:
        server.close()


def test_srv_records_are_followed_in_the_order_of_priority_then_weight(serve: Any):
    serve({
        ("_sip._udp.carrier.example.", "SRV"): ["20 1 5080 c.example.", "10 1 5060 b.example.", "10 9 5060 a.example."],
        ("a.example.", "A"): ["192.0.2.2", "192.0.2.1"],
        ("b.example.", "A"): ["192.0.2.3"],
        ("c.example.", "AAAA"): ["2001:db8::1"],
    })  # fmt: skip
    assert names.look_up(["sip:carrier.example"]) == {
        "sip:carrier.example": (
            "sip:192.0.2.1:5060",
            "sip:192.0.2.2:5060",
            "sip:192.0.2.3:5060",
            "sip:[2001:db8::1]:5080",
        )
    }


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("sip:plain.example", ("sip:192.0.2.9:5060",)),
        ("sip:plain.example:5070", ("sip:192.0.2.9:5070",)),
        ("sip:plain.example;transport=tls", ("sip:192.0.2.9:5061;transport=tls",)),
        ("sip:secure.example;transport=tls", ("sip:192.0.2.9:5091;transport=tls",)),
        ("sip:secure.example:5061;transport=tls", ("sip:192.0.2.8:5061;transport=tls",)),
        ("sip:switched.example;transport=tcp", ("sip:192.0.2.9:5092;transport=tcp",)),
    ],
)
def test_port_and_transport_decide_what_is_asked(serve: Any, uri: str, found: tuple[str, ...]):
    serve({
        ("plain.example.", "A"): ["192.0.2.9"],
        ("secure.example.", "A"): ["192.0.2.8"],
        ("_sips._tcp.secure.example.", "SRV"): ["1 1 5091 plain.example."],
        ("_sip._tcp.switched.example.", "SRV"): ["1 1 5092 plain.example."],
    })  # fmt: skip
    assert names.look_up([uri]) == {uri: found}


def test_addresses_are_not_asked_for():
    assert names.look_up(["sip:192.0.2.1", "sip:[2001:db8::1]:5060;transport=tcp"]) == {}


@pytest.mark.parametrize("host", ["nowhere.example", "closed.example", "deaf.example"])
def test_name_that_leads_nowhere_is_told_and_keeps_the_old_files(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
):
    monkeypatch.setattr(names, "PATIENCE_S", 0.5)
    serve({("_sip._udp.closed.example.", "SRV"): ["0 0 0 ."]})
    good = load_site("127.99.99", tmp_path)
    render(good, tmp_path / "site")
    before = (tmp_path / "site/kamailio/dispatcher.list").read_text()

    def change(site: dict[str, Any]) -> None:
        site["trunks"]["second"]["gateways"] = [f"sip:{host}"]

    with pytest.raises(RenderError, match=host):
        render(load_site("127.99.99", tmp_path, change), tmp_path / "site")
    assert (tmp_path / "site/kamailio/dispatcher.list").read_text() == before


def test_calls_go_to_the_addresses_of_a_name_in_order(serve: Any, make_edge: MakeEdge):
    net = free_network()
    serve({
        ("_sip._udp.pbx.example.", "SRV"): ["20 1 5060 b.example.", "10 1 5060 a.example."],
        ("a.example.", "A"): [f"{net}.61"],
        ("b.example.", "A"): [f"{net}.62"],
    })  # fmt: skip
    edge = make_edge(lambda site: site["trunks"]["pbx"].update(gateways=["sip:pbx.example"]))
    first, second = (type(edge.pbx)(f"{net}.{host}") for host in (61, 62))
    try:
        calling = edge.from_carrier(CONNECTED)
        invite = first.request("INVITE", calling.call_id)
        assert invite.uri == f"sip:{CONNECTED}@pbx.example"
        first.reply(invite, 503)
        establish(calling, second, second.request("INVITE", calling.call_id))
    finally:
        first.close()
        second.close()
