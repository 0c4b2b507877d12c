"""``python -m dialler --config PATH``: jobs and escalations of a site. SIGTERM or SIGINT ends it; what it was at goes on with the next."""

import asyncio
import logging
import signal
import socket
import sys

from aiohttp import web
from dbos import DBOS, DBOSConfig
from sqlalchemy.exc import SQLAlchemyError

from dialler.cells import Cells
from dialler.escalation import Escalations
from dialler.jobs import Jobs, register_queues
from dialler.server import Server
from tandem import entry
from tandem.settings import Settings

VERSION = "1"
"""Of the workflows' steps: what an older version left undone, a newer one does not go on with. To be raised when they change."""
EXECUTOR = "dialler"
"""Under one name: the next process takes over what the last one left."""
THREADS = 256
"""Workflows at one time: two for each call, one for each escalation and page."""
SHUTDOWN_S = 2.0

_log = logging.getLogger(__name__)


def listen(place: str) -> socket.socket:
    """``place``: ADDRESS:PORT. Raises OSError where somebody listens there."""
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def launch(settings: Settings) -> Server:
    """DBOS with this site's workflows, which go on where they were. Raises SQLAlchemyError."""
    config: DBOSConfig = {
        "name": "tandem-dialler",
        "system_database_url": settings.dialler.jobs,
        "application_version": VERSION,
        "executor_id": EXECUTOR,
        "max_executor_threads": THREADS,
        "log_level": "WARNING",
        "notification_listener_polling_interval_sec": 0.25,
    }
    DBOS(config=config)
    cells = Cells(settings)
    jobs, escalations = Jobs(settings, cells), Escalations(settings, cells)
    DBOS.launch()
    register_queues(settings)
    assert settings.dialler.token is not None
    return Server(jobs, escalations, settings.dialler.token.get_secret_value())


async def serve(listener: socket.socket, server: Server) -> None:
    """Until a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        _log.info("ready on %s:%d", *listener.getsockname()[:2])
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> int:
    settings = entry.begin(
        "dialler", entry.command_line("dialler", "Jobs and escalations of a site.", of_worker=False).parse_args()
    )
    if settings.dialler.token is None:
        _log.error("dialler.token is not set: nobody could ask for a job")
        return entry.BAD_CONFIGURATION
    try:
        # Before anything is taken up: a second dialler would go on with what this one is at.
        listener = listen(settings.dialler.listen)
        asyncio.run(serve(listener, launch(settings)))
    except (OSError, SQLAlchemyError) as error:
        _log.error("cannot serve: %s", error)
        return 1
    finally:
        DBOS.destroy()
    return 0


if __name__ == "__main__":
    sys.exit(main())
