"""Metrics, JSON-RPC and health: on their own port, which serves nothing else."""

from typing import Any

import pytest

from tests.edge.endpoints import Calling
from tests.edge.world import Edge, MakeEdge


def test_sip_on_the_port_of_metrics_is_dropped(edge: Edge):
    port = int(edge.settings.edge.rpc.rpartition(":")[2])
    Calling(edge.carrier, (edge.at[0], port), f"sip:{edge.at[0]}", "tester", "tcp").send("OPTIONS")
    edge.until(lambda: edge.counter("dropped_total", "sip_on_rpc_port") == 1, "the request to be dropped")
    assert edge.carrier.seen == []


@pytest.mark.parametrize("path", ["/metrics", "/rpc", "/healthz"])
def test_metrics_and_rpc_are_served_on_their_own_port_alone(make_edge: MakeEdge, path: str):
    def change(site: dict[str, Any]) -> None:
        net = site["edge"]["rpc"].rpartition(".")[0]
        site["edge"]["listen"].append({"transport": "tcp", "address": f"{net}.1", "port": 5060})

    edge = make_edge(change)
    answer = edge.carrier.send_tcp(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n", edge.at, wait=True)
    assert answer.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    ("path", "status", "part"),
    [
        ("/metrics", b"200", b"tandem_edge_calls_total"),
        ("/healthz", b"200", b'{"status":"ok"}'),
    ],
)
def test_each_path_is_served(edge: Edge, path: str, status: bytes, part: bytes):
    host, _, port = edge.settings.edge.rpc.rpartition(":")
    answer = edge.carrier.send_tcp(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n", (host, int(port)), wait=True)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert part in answer
