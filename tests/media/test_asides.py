"""What the model is not to hear it is not sent; keys that are asked for go where they belong; keys are pressed, callers wait."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from aiohttp import web

from tandem.rows import ToolCallRecord
from tandem.seam import LiveEventKind
from tests.media.conftest import Plane
from tests.media.fork_client import ForkClient
from tests.media.scripted_model import ModelSession

CARD = "4111222233334444"
LOUD = bytes([0, 0x40]) * 160
SILENCE = {0xFF, 0x7F}
"""Of µ-law."""


class Vault:
    """Where secrets go."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, Any], str]] = []

    async def take(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.received.append((body, request.headers["X-Tandem-Call"]))
        return web.json_response({"token": "tok-1", "received": body["digits"]})


@pytest_asyncio.fixture
async def vault() -> AsyncIterator[tuple[Vault, str]]:
    vault = Vault()
    app = web.Application()
    app.router.add_post("/card", vault.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield vault, f"http://127.0.0.1:{runner.addresses[0][1]}/card"
    await runner.cleanup()


async def heard(fork: ForkClient, session: ModelSession) -> set[int]:
    """The codes that the model is sent of a loud frame."""
    count = len(session.of("input_audio_buffer.append"))
    await fork.send(LOUD)
    event = await session.event("input_audio_buffer.append", count + 1)
    return set(base64.b64decode(event["audio"]))


def output(event: dict[str, Any]) -> dict[str, Any]:
    return json.loads(event["item"]["output"])


async def press(fork: ForkClient, digits: str) -> None:
    for digit in digits:
        await fork.notice(notice="dtmf", digit=digit, duration_ms=100)


async def test_a_secret_is_neither_heard_nor_told_nor_put_on_record(unstarted: Plane, vault: tuple[Vault, str]) -> None:
    took, url = vault
    card = {"name": "card", "description": "the card", "min_digits": 12, "max_digits": 16, "sink": {"url": url}}
    unstarted.agent(collect=[card])
    await unstarted.start()
    fork, session = await unstarted.call()
    assert await heard(fork, session) - SILENCE
    with unstarted.events.subscribe("call-1") as watched:
        await session.call("resp_1", "fc_1", "collect_secret", {"name": "card"})
        assert await fork.command() == {"command": "private", "id": "fc_1", "on": True}
        assert await heard(fork, session) <= SILENCE
        await press(fork, CARD)
        item = await session.event("conversation.item.create")
        live = [watched.get_nowait() for _ in range(watched.qsize())]
    assert output(item) == {
        "outcome": "accepted", "entered": "16 digits", "reply": '{"token":"tok-1","received":"****************"}',
    }  # fmt: skip
    assert took.received == [({"name": "card", "digits": CARD}, "call-1")]
    assert await fork.command(2) == {"command": "private", "id": "fc_1", "on": False}
    assert await heard(fork, session) - SILENCE
    assert [event.text for event in live if event.event is LiveEventKind.DTMF] == [""] * 16
    assert CARD not in repr(unstarted.rows) + repr(live)
    assert not any("[DTMF]" in json.dumps(event) for event in session.of("conversation.item.create"))
    await fork.close()


async def test_digits_for_the_agent_are_masked_on_record(unstarted: Plane) -> None:
    unstarted.agent(collect=[{"name": "pin", "description": "their PIN", "min_digits": 4, "max_digits": 4}])
    await unstarted.start()
    fork, session = await unstarted.call()
    await press(fork, "1")
    await session.call("resp_1", "fc_1", "collect_digits", {"name": "pin"})
    await fork.command()
    await press(fork, "234")
    assert output(await session.event("conversation.item.create")) == {"outcome": "collected", "digits": "1234"}
    await fork.command(2)
    [row] = [row for row in unstarted.rows if isinstance(row, ToolCallRecord) and row.ended_at is not None]
    assert json.loads(row.result) == {"outcome": "collected", "digits": "****"}
    await fork.close()


async def test_keys_are_pressed_and_the_agent_is_told_when_they_were(unstarted: Plane) -> None:
    unstarted.agent(sends_digits=True)
    await unstarted.start()
    fork, session = await unstarted.call()
    await session.call("resp_1", "fc_1", "send_dtmf", {"digits": "1w42#"})
    assert await fork.command() == {"command": "send_dtmf", "id": "fc_1", "digits": "1w42#"}
    await fork.notice(notice="acted", id="fc_1", outcome="done", detail="the keys were pressed")
    assert output(await session.event("conversation.item.create"))["outcome"] == "done"
    await session.event("response.create", 2)
    await session.call("resp_2", "fc_2", "send_dtmf", {"digits": "1;rm"})
    assert "expected 0 to 9" in output(await session.event("conversation.item.create", 2))["error"]
    await fork.close()


async def test_a_caller_on_hold_is_not_heard_until_there_is_something_to_say(unstarted: Plane) -> None:
    unstarted.agent(holds=True)
    await unstarted.start()
    fork, session = await unstarted.call()
    await session.call("resp_1", "fc_1", "hold", {"seconds": 60})
    assert await fork.command() == {"command": "hold", "id": "fc_1", "on": True, "music": True}
    assert await heard(fork, session) <= SILENCE
    asked = len(session.of("response.create"))
    await press(fork, "5#")
    assert await fork.command(2) == {"command": "hold", "id": "fc_1", "on": False, "music": True}
    assert await heard(fork, session) - SILENCE
    items = [await session.event("conversation.item.create", count) for count in (1, 2)]
    assert any("[DTMF] 5" in json.dumps(item) for item in items)
    assert any("resumed" in json.dumps(item) for item in items)
    await session.event("response.create", asked + 1)
    await fork.close()


async def test_an_agent_has_the_tools_that_its_file_turns_on_and_no_others(unstarted: Plane) -> None:
    await unstarted.start()
    fork, session = await unstarted.call()
    offered = {tool["name"] for tool in session.of("session.update")[0]["session"]["tools"]}
    assert offered == {"transfer", "hang_up"}
    for count, name in enumerate(("collect_secret", "collect_digits", "send_dtmf", "hold", "recording"), 1):
        await session.call(f"resp_{count}", f"fc_{count}", name, {"name": "x", "digits": "1", "action": "start"})
        told = output(await session.event("conversation.item.create", count))
        assert told == {"error": f"there is no tool named {name!r}"}
    await fork.close()
