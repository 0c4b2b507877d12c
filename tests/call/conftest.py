"""One world a switch, shared by the scenarios; each scenario runs against every switch that this machine has."""

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from lab import softphone
from lab.capture import Capture
from lab.site import Site
from lab.switches import SwitchKind, available
from lab.world import World
from tests.call.caller import (
    API_TOKEN,
    ASKED,
    BRIEF,
    BRIEF_GREETING,
    CLERK,
    GUARD,
    HOUSE,
    KEYPAD,
    LADDER,
    MESSAGES_SECRET,
    PATIENCE_S,
    RECORDED,
    RECORDING_KEY,
    REGRET,
    Pbx,
)

HERE = Path(__file__).parent
WEBHOOK_SECRET = "call-scenarios-secret"


def _scenario_site(data: dict[str, Any]) -> None:
    data["numbers"][BRIEF] = {"agent": "brief", "fallback": "operator"}
    for name, dial in (("busy", "2002"), ("nobody", "2003"), ("declines", "2004"), ("operator", "2009")):
        data["destinations"][name] = {"description": name, "dial": dial, "trunk": "pbx", "ring_seconds": 5}
    data["destinations"]["premium"] = {"description": "premium", "dial": "+19005550199", "trunk": "carrier"}
    data["destinations"]["partner"] = {
        "description": "our partner", "dial": "+12025550160", "trunk": "carrier", "transfer": "refer",
    }  # fmt: skip
    data["destinations"]["colleague"] = {
        "description": "a colleague", "dial": "2001", "trunk": "pbx", "transfer": "replaces",
    }  # fmt: skip
    data["destinations"]["doctor"] = {"description": "the doctor", "dial": "2005", "trunk": "pbx", "transfer": "warm"}
    data["ring_groups"] = {
        "support": {"description": "support", "members": ["busy", "nobody", "sales"]},
        "branch": {"description": "branch office", "members": ["declines", "nobody", "sales"], "ring": "in_order"},
        "nightshift": {"description": "at night", "members": ["busy", "declines"], "ring": "in_order"},
    }
    data["destinations"]["guard"] = {"description": "security guard", "dial": GUARD, "trunk": "carrier"}
    data["policy"] = {
        "rules": [
            {"name": "guard", "prefixes": [GUARD], "max_calls": 1},
            {"name": "house", "prefixes": [HOUSE], "max_calls_per_hour": 100},
        ]
    }
    data["numbers"][RECORDED] = {"agent": "recorded"}
    data["numbers"][ASKED] = {"agent": "asked"}
    data["numbers"][KEYPAD] = {"agent": "keypad"}
    data["recordings"] = {"folder": "../recordings", "identity": RECORDING_KEY}
    net = data["edge"]["rpc"].rpartition(":")[0].rpartition(".")[0]
    data["trunks"]["pbx"]["context"] = "full"
    data["trunks"]["carrier"]["context"] = "key"
    data["transfers"] = {
        "webhooks": {"desk": {"url": f"http://{net}.7:9000/transfers", "secret": WEBHOOK_SECRET}},
        "journal": "../transfers",
    }
    softphone.allow(data)
    data["numbers"][CLERK] = {"agent": "clerk"}
    data["numbers"][LADDER] = {"agent": "brief", "fallback": ["busy", "declines", "voicemail"]}
    data["numbers"][REGRET] = {"agent": "brief", "fallback": ["voicemail", "busy", "regret"]}
    data["voicemail"] = {
        "recipients": {
            "desk": {
                "type": "webhook", "url": f"{_away()}/messages", "secret": MESSAGES_SECRET, "numbers": [LADDER],
            }
        },
        "journal": "../messages",
    }  # fmt: skip
    data["media_fork"] = {"tool_failures": 1, "tool_rest_seconds": 1}
    data["model"]["reconnect_within_ms"] = 2500
    data["esl_app"] = {"fork_within_ms": 3000, "voicemail_seconds": 5, "api_token": API_TOKEN}
    data["outbound"] = {"windows": ["daily 00:00-24:00"]}
    data["dialler"] = {"listen": f"{data['edge']['listen'][0]['address']}:8087", "token": API_TOKEN}
    contacts = [{"name": "Ann", "dial": "+12025550141"}, {"name": "Bob", "dial": "+12025550142"}]
    data["on_call"] = {"night": {"agent": "brief", "contacts": contacts, "answer_within_seconds": 3}}


BRIEF_AGENT = {
    "instructions": "You are brief.",
    "voice": "cedar",
    "greeting": BRIEF_GREETING,
    "destinations": [
        "sales",
        "busy",
        "nobody",
        "declines",
        "premium",
        "partner",
        "colleague",
        "doctor",
        "support",
        "branch",
        "nightshift",
        "guard",
    ],
    "free_numbers": ["house"],
    "tools": [],
}
RECORDED_AGENT = BRIEF_AGENT | {
    "destinations": ["sales"],
    "recording": {"mode": "always", "agent_pauses": True},
}
ASKED_AGENT = BRIEF_AGENT | {
    "destinations": [],
    "recording": {"mode": "always", "consent": "answer", "format": "opus", "keep_days": 7},
}
AGENTS = {"brief": BRIEF_AGENT, "recorded": RECORDED_AGENT, "asked": ASKED_AGENT}


def _away() -> str:
    """Where nobody listens, until a scenario does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def _keypad() -> dict[str, Any]:
    """An agent whose sink of secrets is away, until a scenario starts it."""
    card = {
        "name": "card",
        "description": "their card",
        "min_digits": 12,
        "max_digits": 19,
        "sink": {"url": f"{_away()}/card"},
    }
    return BRIEF_AGENT | {
        "collect": [card],
        "sends_digits": True,
        "holds": True,
        "recording": {"mode": "always", "consent": "nothing"},
    }


def _clerk() -> dict[str, Any]:
    """An agent whose tool's server is away, until a scenario starts it."""
    tool = {"name": "lookup_order", "description": "Tells where an order is.", "url": f"{_away()}/orders"}
    return BRIEF_AGENT | {"tools": [tool]}


class Worlds:
    """A world a switch, each made when the first scenario asks for it, and kept for those that follow."""

    def __init__(self, stack: contextlib.AsyncExitStack, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._stack = stack
        self._tmp_path_factory = tmp_path_factory
        self._made: dict[SwitchKind, World] = {}

    async def of(self, switch: SwitchKind) -> World:
        if switch not in self._made:
            async with contextlib.AsyncExitStack() as stack:
                self._made[switch] = await self._make(switch, stack)
                self._stack.push_async_exit(stack.pop_all())
        return self._made[switch]

    async def _make(self, switch: SwitchKind, stack: contextlib.AsyncExitStack) -> World:
        folder = self._tmp_path_factory.mktemp(f"world-{switch}")
        agents = AGENTS | {"clerk": _clerk(), "keypad": _keypad()}
        site = Site(
            folder, change=_scenario_site, agents={name: yaml.safe_dump(agent) for name, agent in agents.items()}
        )
        world = await stack.enter_async_context(World(site, switch=switch, scenario=HERE / "scenario.yaml"))
        capture = Capture(folder / "sip.pcapng", network=site.network, names=site.names)
        world.capture = await stack.enter_async_context(capture)
        return world


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def worlds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worlds]:
    async with contextlib.AsyncExitStack() as stack:
        yield Worlds(stack, tmp_path_factory)


@pytest_asyncio.fixture(loop_scope="session", params=list(SwitchKind), ids=lambda kind: str(kind))
async def shared_world(request: pytest.FixtureRequest, worlds: Worlds) -> World:
    reason = available()[request.param]
    if reason:
        pytest.skip(reason)
    return await worlds.of(request.param)


@pytest_asyncio.fixture(loop_scope="session")
async def world(shared_world: World) -> AsyncIterator[World]:
    """The shared world with every process up, no faults scripted and no call of an earlier scenario left."""
    for name, process in list(shared_world.processes.items()):
        if not process.running:
            await shared_world.start_process(name)
    await shared_world.clear_faults()
    await shared_world.until(shared_world.workers_up, PATIENCE_S, "the edge to see every worker")
    shared_world.pbx.on_invite = Pbx().on_invite
    await shared_world.idle(PATIENCE_S)
    yield shared_world
    for phone in (shared_world.carrier, shared_world.pbx):
        for call in phone.calls:
            await call.hangup()
