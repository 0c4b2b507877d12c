"""What goes along with a transferred caller: headers, a key whose screen-pop has the conversation, and a signed webhook."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import aiohttp
import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from lab.transferee import reports
from lab.world import World
from tandem.notify.channels import SIGNATURE, signature
from tests.call.caller import PATIENCE_S, Caller, extension_says, pbx_of, until
from tests.call.conftest import WEBHOOK_SECRET

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Desk:
    """The operator's server that webhooks go to. ``status``: what it answers. It is told of earlier scenarios as well."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.refused = 0
        self.status = 204

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        sent = request.headers[SIGNATURE]
        timestamp = int(sent.partition(",")[0].removeprefix("t="))
        assert sent == signature(WEBHOOK_SECRET, timestamp, body)
        if self.status < 300:
            self.told.append(orjson.loads(body))
        else:
            self.refused += 1
        return web.Response(status=self.status)

    async def told_of(self, call: str) -> list[dict[str, Any]]:
        """Once it is told of that call's transfers."""
        await until(lambda: any(notice["call"] == call for notice in self.told), "the webhook to be told")
        return [notice for notice in self.told if notice["call"] == call]


@pytest_asyncio.fixture(loop_scope="session")
async def desk(world: World) -> AsyncIterator[Desk]:
    desk = Desk()
    app = web.Application()
    app.router.add_post("/transfers", desk.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, world.site.address(7), 9000).start()
    yield desk
    await runner.cleanup()


async def screen_pop(world: World, worker: str, key: str) -> tuple[int, Any]:
    cell = world.settings.workers[worker]
    url = f"http://{cell.loopback}:{world.settings.esl_app.api_port}/v1/context/{key}"
    async with aiohttp.ClientSession() as http, http.get(url) as reply:
        return reply.status, await reply.json()


async def test_who_takes_the_call_is_told_of_the_caller_and_the_operator_of_the_transfer(
    world: World, desk: Desk
) -> None:
    pbx = pbx_of(world)
    desk.status = 503
    caller = await Caller.talks_to_agent(world)
    worker = world.worker_of(caller.call)
    await caller.says("Please put me through to sales.")
    await until(lambda: "2001" in pbx.calls, "the sales phone to be rung")
    invited = pbx.calls["2001"]
    user_to_user = invited.header("User-to-User") or ""
    key = invited.header("X-Context-Key") or ""
    assert user_to_user == f"04{key.encode().hex()};encoding=hex"
    assert unquote(invited.header("X-Context-Summary") or "") == "Ann wants prices, 5 % off; {x=y}."
    assert unquote(invited.header("X-Context-Reason") or "") == "The caller asks."
    other = next(name for name in world.site.workers if name != worker)
    status, told = await screen_pop(world, other, key)
    assert status == 200
    assert (told["destination"], told["summary"]) == ("sales", "Ann wants prices, 5 % off; {x=y}.")
    assert "put me through to sales" in " ".join(turn["text"].lower() for turn in told["transcript"])
    assert (await screen_pop(world, worker, key[:-1] + ("A" if key[-1] != "A" else "B")))[0] == 404
    await caller.hears(extension_says("2001"))
    await caller.call.hangup()
    story = await caller.story()
    # What is not taken is told again.
    await until(lambda: desk.refused > 0, "a first attempt")
    desk.status = 204
    [notice] = await desk.told_of(story.call.id)
    assert (notice["event"], notice["outcome"]) == ("transfer", "answered")
    assert (notice["destination"], notice["answered_by"], notice["method"]) == ("sales", "sales", "bridge")
    assert key not in orjson.dumps(notice).decode()


async def test_a_refer_carries_the_key_inside_its_refer_to(world: World, desk: Desk) -> None:
    caller = await Caller.talks_to_agent(world)
    caller.call.handlers["REFER"] = reports(100, 200)
    await caller.says("Please put me through to the partner.")
    refer = await caller.call.wait_request("REFER", PATIENCE_S)
    _, _, user_to_user = refer.headers["Refer-To"].strip("<>").partition("?User-to-User=04")
    digits, _, encoding = user_to_user.partition("%3B")
    assert encoding == "encoding%3Dhex"
    await caller.call.wait_ended(PATIENCE_S)
    status, told = await screen_pop(world, world.site.workers[0], bytes.fromhex(digits).decode())
    assert (status, told["destination"]) == (200, "partner")
    [notice] = await desk.told_of(told["call"])
    assert (notice["method"], notice["outcome"]) == ("refer", "answered")
