"""OPTIONS to the gateways come at the pace that is set, and to those without any not at all."""

from typing import Any

from tests.edge.world import MakeEdge


def test_each_gateway_is_asked_at_its_own_pace(make_edge: MakeEdge):
    def change(site: dict[str, Any]) -> None:
        site["trunks"]["carrier"]["keepalive_seconds"] = 1
        site["trunks"]["second"] |= {"kind": "generic", "keepalive_seconds": 2}
        site["trunks"]["pbx"]["keepalive_seconds"] = 0

    edge = make_edge(change)
    edge.until(lambda: edge.carrier.options_seen >= 5, "OPTIONS to the first")
    assert 2 <= edge.second_carrier.options_seen <= 3
    assert edge.pbx.options_seen == 0
