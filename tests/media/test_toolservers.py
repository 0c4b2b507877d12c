"""Tool servers that fail: their tools are withdrawn from every call, and offered again when they are back."""

import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from tests.media.test_errands import output


class ToolServer:
    """A tool's server that may be away: nothing listens on its port until ``start``."""

    def __init__(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: int = taken.getsockname()[1]
        self.status = 200
        self.requests = 0
        self._runner: web.AppRunner | None = None

    @property
    def tool(self) -> dict[str, str]:
        return {"name": "look_up", "description": "looks it up", "url": f"http://127.0.0.1:{self.port}/x"}

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/x", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.requests += 1
        return web.json_response({"found": True}, status=self.status)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ToolServer]:
    server = ToolServer()
    yield server
    await server.stop()


@pytest.fixture
def careful(unstarted, server):
    unstarted.agent(tools=[server.tool])
    unstarted.configure(media_fork={"tool_failures": 2, "tool_rest_seconds": 0.2})
    return unstarted


async def looks_up(session, number: int) -> dict:
    """The result of the ``number``-th look-up of a session."""
    await session.call(f"resp_{number}", f"fc_{number}", "look_up", {})
    return output(await session.event("conversation.item.create", number))


def names(update: dict) -> set[str]:
    return {tool["name"] for tool in update["session"]["tools"]}


async def test_tools_of_a_server_that_is_down_are_withdrawn_from_calls_under_way_and_from_new_ones(careful, model):
    careful.configure(media_fork={"tool_rest_seconds": 60})
    await careful.start()
    fork, session = await careful.call()
    other, second = await careful.call(call="call-2")
    assert "could not be reached" in (await looks_up(session, 1))["error"]
    assert len(second.of("session.update")) == 1
    assert "could not be reached" in (await looks_up(session, 2))["error"]
    for under_way in (session, second):
        change = await under_way.event("session.update", 2)
        assert names(change) == {"transfer", "hang_up"}
        assert "look_up" in change["session"]["instructions"]
        assert set(change["session"]) == {"type", "instructions", "tools"}
    assert "out of order" in (await looks_up(session, 3))["error"]
    await careful.reserve(call="call-3")
    update = await (await model.session(3)).event("session.update")
    assert names(update) == {"transfer", "hang_up"}
    assert "tool_servers_down 1.0" in (await careful.get("/metrics"))[1]
    await fork.close()
    await other.close()
    await careful.stop()


async def test_tools_are_back_when_the_server_is_and_the_first_request_went_well(careful, server):
    await careful.start()
    fork, session = await careful.call()
    for number in (1, 2):
        await looks_up(session, number)
    await session.event("session.update", 2)
    await server.start()
    back = await session.event("session.update", 3)
    assert "look_up" in names(back)
    assert back["session"]["instructions"] == session.of("session.update")[0]["session"]["instructions"]
    assert await looks_up(session, 3) == {"found": True}
    await careful.until(lambda: careful.metrics.tool_servers_down == 0, "the end of the trial")
    await fork.close()
    await careful.stop()


async def test_a_server_that_fails_its_trial_is_down_again(careful, server):
    server.status = 503
    await server.start()
    await careful.start()
    fork, session = await careful.call()
    for number in (1, 2):
        assert "HTTP status 503" in (await looks_up(session, number))["error"]
    await session.event("session.update", 3)
    assert "HTTP status 503" in (await looks_up(session, 3))["error"]
    withdrawn = await session.event("session.update", 4)
    assert "look_up" not in names(withdrawn)
    assert server.requests == 3
    await fork.close()
    await careful.stop()


async def test_what_a_server_refuses_is_no_failure_of_the_server(careful, server):
    server.status = 404
    await server.start()
    await careful.start()
    fork, session = await careful.call()
    for number in range(1, 5):
        assert "HTTP status 404" in (await looks_up(session, number))["error"]
    assert len(session.of("session.update")) == 1
    await fork.close()
    await careful.stop()


async def test_an_agents_own_instructions_for_that_stand_in_place_of_the_usual_ones(careful, server):
    careful.agent(tools=[server.tool], safe_instructions="The order system is away. Take a message.")
    await careful.start()
    fork, session = await careful.call()
    for number in (1, 2):
        await looks_up(session, number)
    change = await session.event("session.update", 2)
    assert change["session"]["instructions"].startswith("The order system is away. Take a message.\n")
    assert "receptionist" not in change["session"]["instructions"]
    await fork.close()
    await careful.stop()


async def test_a_model_that_takes_over_is_told_what_changed_while_it_was_made_ready(careful, model):
    careful.configure(media_fork={"tool_rest_seconds": 60, "tool_failures": 1})
    await careful.start()
    fork, session = await careful.call()
    other, second = await careful.call(call="call-2")
    model.greet = False
    await session.close(1011, "internal")
    following = await model.session(3)
    await following.send("session.created", session={"type": "realtime"})
    assert "look_up" in names(await following.event("session.update"))
    await looks_up(second, 1)
    await second.event("session.update", 2)
    await following.send("session.updated", session={"type": "realtime"})
    assert "look_up" not in names(await following.event("session.update", 2))
    await fork.close()
    await other.close()
    await careful.stop()
