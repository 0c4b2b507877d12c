"""An agent whose tool server is down does without, and has the tool again when the server is back."""

from urllib.parse import urlsplit

import pytest
from aiohttp import web

from lab.world import World
from tandem.outcome import Outcome
from tests.call.caller import CLERK, PATIENCE_S, Caller

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def shipped(request: web.Request) -> web.Response:
    return web.json_response({"status": "shipped", "asked": await request.json()})


async def test_a_tool_server_that_is_down_is_done_without_until_it_is_back(world: World) -> None:
    url = urlsplit(world.settings.agents["clerk"].tools[0].url)
    caller = await Caller.talks_to_agent(world, CLERK)

    async def offered() -> bool:
        """Whether the model has the tool, as it was last told."""
        updates = [event for event in await world.model_events("session.update") if "tools" in event["session"]]
        return any(tool["name"] == "lookup_order" for tool in updates[-1]["session"]["tools"])

    async def withdrawn() -> bool:
        return not await offered()

    assert await offered()
    await caller.says("Where is my order?")
    await caller.agent_says("cannot find your order")
    await world.until(withdrawn, PATIENCE_S, "the tool to be withdrawn")
    app = web.Application()
    app.router.add_post(url.path, shipped)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, url.hostname, url.port, reuse_address=True).start()
        await world.until(offered, PATIENCE_S, "the tool to be offered again")
        await caller.says("Where is my order?")
        await caller.agent_says("has been shipped")
    finally:
        await runner.cleanup()
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    assert [call.status for call in story.tool_calls] == ["unreachable", "ok"]
