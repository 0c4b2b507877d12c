"""The event socket: clients that dial in, and the ``socket`` application that dials out for a call."""

import asyncio
import logging
from typing import TYPE_CHECKING

from lab.switch.channel import ChannelState
from lab.switch.listener import MAX_LINE, Listener
from lab.switch.park import park, resumes

if TYPE_CHECKING:
    from lab.switch.core import Switch
    from lab.switch.session import Session

DEFAULT_PORT = 8084
CONNECT_TIMEOUT_S = 10.0
_POLL_S = 0.02

_log = logging.getLogger(__name__)


class EventSocketServer:
    """Listens for inbound clients, which must know the password."""

    def __init__(self, switch: "Switch", address: str, port: int) -> None:
        self._switch = switch
        self._address = address
        self._port = port
        self._server: asyncio.Server | None = None
        self._listeners: dict[Listener, asyncio.Task[None] | None] = {}

    async def start(self) -> None:
        """Bind. Raises OSError naming address and port."""
        self._server = await asyncio.start_server(self._serve, self._address, self._port, limit=MAX_LINE)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener = Listener(self._switch, reader, writer)
        self._listeners[listener] = asyncio.current_task()
        try:
            await listener.run()
        except TimeoutError:
            self._switch.counters["unauthenticated_clients"] += 1
        finally:
            del self._listeners[listener]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        serving = dict(self._listeners)
        for listener in serving:
            listener.stop()
        await asyncio.gather(*(task for task in serving.values() if task is not None), return_exceptions=True)


async def socket(session: "Session", argument: str) -> None:
    """``socket HOST[:PORT][|HOST[:PORT]…] async full``: hand the call to a controller until it lets go.

    Where none can be reached the application just returns, and the extension goes on.
    """
    channel = session.channel
    for host in argument.split(" ")[0].split("|"):
        name, _, port = host.rpartition(":")
        channel.set("socket_host", name or port)
        target = (name, int(port)) if name and port.isdecimal() else (host, DEFAULT_PORT)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(*target, limit=MAX_LINE)
            break
        except OSError as error:
            _log.warning("channel %s: no controller at %s: %s", channel.uuid, host, error)
    else:
        return
    listener = Listener(session.switch, reader, writer, session)
    session.hold(listener)
    session.switch.spawn(listener.run())
    while channel.ready and not listener.connected.is_set():
        try:
            await asyncio.wait_for(listener.connected.wait(), _POLL_S)
        except TimeoutError:
            continue
    await park(session)
    await session.parse_all_events()
    if resumes(session.channel):
        channel.state = ChannelState.EXECUTE
