"""The edge on IPv6. Loopback has one address of it, so that edge, carrier and gateway share it."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tandem.render import render
from tandem.settings import Socket
from tests.edge.endpoints import Endpoint, establish
from tests.edge.world import Edge, load_site


def _free_port() -> int:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    try:
        port = _free_port()
    except OSError:
        pytest.skip("this machine has no IPv6")
    gateway = _free_port()

    def change(site: dict[str, Any]) -> None:
        site["edge"]["rpc"] = f"::1:{port}"
        site["trunks"]["carrier"] |= {"sources": ["::1/128"], "gateways": [f"sip:[::1]:{gateway}"]}
        site["numbers"]["+12025550101"] = {"trunk": "carrier"}

    settings = load_site("127.99.98", tmp_path, change)
    # A file cannot say this: an address that is both the edge's and a carrier's.
    listen = [*settings.edge.listen, Socket(address="::1", port=port)]
    settings = settings.model_copy(update={"edge": settings.edge.model_copy(update={"listen": listen})})
    render(settings, tmp_path / "site")
    edge = Edge(settings, tmp_path, "127.99.98")
    edge.start()
    yield edge
    edge.close()
    assert not edge.unexpected_errors()


def test_call_and_requests_within_it(edge: Edge):
    listen = edge.settings.edge.listen[1]
    gateway_port = int(edge.settings.trunks["carrier"].gateways[0].rpartition(":")[2])
    caller, gateway = Endpoint("::1", _free_port()), Endpoint("::1", gateway_port)
    try:
        calling = caller.invite("", ("::1", listen.port), uri=f"sip:+12025550101@[::1]:{listen.port}")
        near, far = establish(calling, gateway, gateway.request("INVITE", calling.call_id))
        near.send("INFO")
        gateway.reply(gateway.request("INFO"), 200)
        far.send("BYE")
        caller.reply(caller.request("BYE"), 200)
    finally:
        caller.close()
        gateway.close()
