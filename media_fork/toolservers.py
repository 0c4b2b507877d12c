"""The servers of the agents' HTTP tools, each behind a circuit breaker: one that fails is left alone, and agents do without.

fit ──▶ failures in a row ──▶ down, resting ──▶ can be connected to ──▶ on trial ──▶ a call went well: fit
                                 ▲   └── cannot: rests longer              └── it failed: down again
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from media_fork import tools
from media_fork.breaker import Breaker
from media_fork.clock import Clock
from media_fork.metrics import Metrics
from media_fork.tools import Result
from tandem.settings import HttpTool, MediaFork

CONNECT_S: Final = 2.0
"""Given to a server that is to show that it is back."""
Place = tuple[str, int]
"""Host and port of a tool's URL."""

_log = logging.getLogger(__name__)


class _Server:
    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.offered = True
        """Its tools are: it is fit, or on trial."""


class ToolServers:
    """Of one process. ``on_change`` is called when tools are to be withdrawn, or offered again."""

    def __init__(self, settings: MediaFork, clock: Clock, metrics: Metrics) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._servers: dict[Place, _Server] = {}
        self._probes: set[asyncio.Task[None]] = set()

    def is_offered(self, tool: HttpTool) -> bool:
        server = self._servers.get(_place(tool))
        return server is None or server.offered

    async def request(
        self, client: aiohttp.ClientSession, tool: HttpTool, arguments: dict[str, Any], call: str
    ) -> Result:
        """Carry ``tool`` out, see tools.request; at once ``server_down`` where its server is left alone."""
        place = _place(tool)
        server = self._servers.setdefault(place, self._server())
        if not server.offered or not server.breaker.admits():
            message = f"{tool.name} is out of order at the moment; go on without it"
            return tools.failure("server_down", message)
        try:
            result = await tools.request(client, tool, arguments, call)
        except BaseException:
            server.breaker.untried()
            raise
        if not result.unfit:
            server.breaker.succeeded()
        else:
            server.breaker.failed()
            if server.breaker.is_open:
                self._down(place, server)
        self._count()
        return result

    def _server(self) -> _Server:
        return _Server(Breaker(self._clock, self._settings.tool_failures, self._settings.tool_rest_seconds))

    def _down(self, place: Place, server: _Server) -> None:
        if not server.offered:
            return
        server.offered = False
        rest_s = server.breaker.rest_s
        _log.error("tool server %s:%d is down; its tools are withdrawn for %.0f s", *place, rest_s)
        self._probe_later(place, server)
        self.on_change()

    def _probe_later(self, place: Place, server: _Server) -> None:
        def probe() -> None:
            task = asyncio.get_running_loop().create_task(self._probe(place, server))
            self._probes.add(task)
            task.add_done_callback(self._probes.discard)

        self._clock.call_at(self._clock.now() + server.breaker.rest_s, probe)

    async def _probe(self, place: Place, server: _Server) -> None:
        """Its rest is over."""
        if not server.breaker.admits():
            self._probe_later(place, server)
            return
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(*place)
        except (OSError, TimeoutError):
            server.breaker.failed()
            self._probe_later(place, server)
            return
        writer.close()
        server.breaker.untried()
        server.offered = True
        _log.warning("tool server %s:%d can be connected to again; its tools are offered", *place)
        self.on_change()

    def _count(self) -> None:
        self._metrics.tool_servers_down = sum(server.breaker.is_open for server in self._servers.values())


def _place(tool: HttpTool) -> Place:
    url = urlsplit(tool.url)
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
