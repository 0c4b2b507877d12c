"""A media_fork in this process: the real HTTP server, fork listener and model client, with a scripted model."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import uvloop

from media_fork import leg, tools
from media_fork.batches import Batches
from media_fork.clock import LoopClock
from media_fork.conversation import World
from media_fork.events import LiveEvents
from media_fork.metrics import Counts, Metrics
from media_fork.server import Server
from media_fork.session import Sessions
from media_fork.toolservers import ToolServers
from tandem.rows import Row
from tandem.seam import LiveEvent
from tandem.settings import Agent, Settings, load
from tests.media.fork_client import QUIET, ForkClient
from tests.media.scripted_model import ModelSession, ScriptedModel

CONFIG = Path(__file__).parents[2] / "lab/config/tandem.yaml"


class Plane:
    """The media plane under test. ``settings`` may be changed by ``configure`` before ``start``."""

    def __init__(self, model: ScriptedModel) -> None:
        self.model = model
        self.rows: list[Row] = []
        self.settings: Settings = load(CONFIG, {"TANDEM_EVENT_SOCKET_PASSWORD": "test-password"})
        self.counts = Counts()
        self.configure(
            model={"url": model.url, "reconnect_within_ms": 20_000}, media_fork={"http_port": 1, "fork_port": 2}
        )
        self.live: list[LiveEvent] = []

    def configure(self, **sections: dict[str, Any]) -> None:
        update = {name: getattr(self.settings, name).model_copy(update=part) for name, part in sections.items()}
        self.settings = self.settings.model_copy(update=update)

    def agent(self, **changes: Any) -> None:
        agent = Agent.model_validate(self.settings.agents["reception"].model_dump() | changes)
        self.settings = self.settings.model_copy(update={"agents": {"reception": agent}})

    async def start(self) -> None:
        clock = LoopClock(asyncio.get_running_loop())
        self.metrics = Metrics(self.counts, self.settings.media_fork.max_sessions)
        self.events = LiveEvents(self.counts, clock)
        self._http = tools.client()
        servers = ToolServers(self.settings.media_fork, clock, self.metrics)
        world = World(self.settings.media_fork, clock, self.metrics, self.events, self.rows.append, self._http, servers)
        self.batches = Batches(clock, self.counts, asyncio.get_running_loop().call_soon)
        self.sessions = Sessions(self.settings, world, self.batches, "127.0.0.1")
        self._forks = await leg.listen(
            "127.0.0.1",
            0,
            self.sessions.claim,
            self.settings.media_fork.first_frame_ms / 1000,
            self.counts,
            clock,
        )
        self.fork_port = self._forks.sockets[0].getsockname()[1]
        within_s = self.settings.media_fork.first_frame_ms / 1000
        self._runner = await Server(self.sessions, self.metrics, self.events, within_s).start("127.0.0.1", 0)
        self.http = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.client = aiohttp.ClientSession()

    async def stop(self) -> None:
        self.sessions.close("stopped")
        self._forks.close()
        await self._runner.cleanup()
        await self._http.close()
        await self.client.close()

    async def post(self, **changes: Any) -> tuple[int, dict[str, Any]]:
        request = {
            "call": "call-1",
            "agent": "reception",
            "caller": "+12025550199",
            "number": "+12025550100",
            "codec": "PCMU",
        }
        async with self.client.post(f"{self.http}/v1/sessions", json=request | changes) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, str]:
        async with self.client.get(self.http + path) as response:
            return response.status, await response.text()

    def url(self, reply: dict[str, Any]) -> str:
        """The fork's URL, on the port that this plane really has."""
        return str(reply["url"]).replace(":2/", f":{self.fork_port}/")

    async def reserve(self, **changes: Any) -> dict[str, Any]:
        status, reply = await self.post(**changes)
        assert status == 201, reply
        return reply

    async def fork(self, reply: dict[str, Any], call: str = "call-1") -> ForkClient:
        """A fork that has said hello and sent its first frame."""
        fork = await ForkClient.connect(self.url(reply))
        await fork.hello(call, reply["session"])
        await fork.send(QUIET)
        return fork

    async def call(self, **changes: Any) -> tuple[ForkClient, ModelSession]:
        """A live call, greeted (without a word of audio)."""
        count = len(self.model.sessions) + 1
        reply = await self.reserve(**changes)
        session = await self.model.session(count)
        fork = await self.fork(reply, changes.get("call", "call-1"))
        await session.event("response.create")
        await session.created("resp_greeting")
        await session.done("resp_greeting")
        return fork, session

    async def until(self, condition: Callable[[], bool], what: str = "condition") -> None:
        try:
            async with asyncio.timeout(15):
                while not condition():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"no {what} in 15 s") from None

    def of(self, kind: type[Row]) -> list[Any]:
        """The rows of one kind, the last of each key."""
        last: dict[Any, Row] = {}
        for row in self.rows:
            if isinstance(row, kind):
                key = tuple(getattr(row, name) for name in ("call", "item", "id", "kind") if hasattr(row, name))
                last[key] = row
        return list(last.values())


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that media_fork runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    model = ScriptedModel()
    await model.start()
    yield model
    await model.stop()


@pytest_asyncio.fixture
async def plane(model: ScriptedModel) -> AsyncIterator[Plane]:
    plane = Plane(model)
    await plane.start()
    yield plane
    await plane.stop()


@pytest_asyncio.fixture
async def hasty(model: ScriptedModel) -> AsyncIterator[Plane]:
    """A plane that soon gives up where it has lost the model."""
    plane = Plane(model)
    plane.configure(model={"reconnect_within_ms": 300})
    await plane.start()
    yield plane
    await plane.stop()


@pytest.fixture
def unstarted(model: ScriptedModel) -> Plane:
    """A plane whose settings the test changes before it starts it."""
    return Plane(model)
