"""What the model is offered for a transfer: names, and numbers only where its agent has rules for them."""

from typing import Any

import pytest

from media_fork.tools import TRANSFER, definitions
from tandem.destinations import Destination
from tandem.settings import Agent

SALES = Destination(description="the sales team", dial="2001", trunk="pbx")


def transfer(**agent: Any) -> Any:
    configured = Agent(instructions="x", greeting="x", **agent)
    tools = {tool["name"]: tool for tool in definitions(configured, {"sales": SALES})}
    return tools.get(TRANSFER, {}).get("parameters")


@pytest.mark.parametrize(
    ("agent", "properties", "required"),
    [
        ({"destinations": ["sales"]}, ["destination", "reason", "summary"], ["destination", "reason", "summary"]),
        ({"free_numbers": ["local"]}, ["number", "reason", "summary"], ["number", "reason", "summary"]),
        (
            {"destinations": ["sales"], "free_numbers": ["local"]},
            ["destination", "number", "reason", "summary"],
            ["reason", "summary"],
        ),
    ],
)
def test_a_number_is_asked_for_where_the_agents_rules_allow_some(
    agent: dict[str, Any], properties: list[str], required: list[str]
) -> None:
    offered = transfer(**agent)
    assert list(offered["properties"]) == properties
    assert offered["required"] == required
    assert offered["additionalProperties"] is False


def test_who_may_transfer_nowhere_is_offered_no_transfer() -> None:
    assert transfer() is None
