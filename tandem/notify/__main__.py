"""``python -m tandem.notify --config PATH``: the notifier. Health and metrics on emergency.notify.listen.

SIGTERM or SIGINT: ends at once, exit code 0; the journal has what is still to be told.
"""

import asyncio
import logging
import signal
import sys

import aiohttp
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tandem import entry
from tandem.notify.delivery import Metrics, Notifier
from tandem.notify.journal import Journal, JournalInUseError
from tandem.notify.mailbox import Mailbox
from tandem.notify.notice import Notice
from tandem.settings import Settings

_log = logging.getLogger(__name__)


def application(notifier: Notifier, journal: Journal[Notice], metrics: Metrics) -> web.Application:
    """/healthz and /metrics."""

    async def healthz(_: web.Request) -> web.Response:
        well = notifier.edge_up and journal.failure is None
        body = {
            "status": "ok" if well else "failing",
            "edge": "up" if notifier.edge_up else "down",
            "journal": "on disk" if journal.failure is None else f"in memory alone: {journal.failure}",
            "waiting": sum(notifier.waiting().values()),
        }
        return web.json_response(body, status=200 if well else 503)

    async def report(_: web.Request) -> web.Response:
        notifier.waiting()
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", report)])
    return app


async def serve(settings: Settings) -> None:
    """Fetch and tell until a signal. Raises JournalInUseError, and OSError where it cannot listen."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    notify = settings.emergency.notify
    journal = Journal(notify.journal, Notice.model_validate_json)
    if journal.failure:
        _log.error("the journal cannot be kept on disk, notices are in memory alone: %s", journal.failure)
    metrics = Metrics()
    async with aiohttp.ClientSession() as http:
        notifier = Notifier(settings.emergency, journal, Mailbox(http, settings.edge.rpc), http, metrics)
        runner = web.AppRunner(application(notifier, journal, metrics), access_log=None)
        await runner.setup()
        host, _, port = notify.listen.rpartition(":")
        try:
            await web.TCPSite(runner, host, int(port)).start()
            async with notifier.running():
                _log.info("ready: %d recipients, edge %s", len(notify.recipients), settings.edge.rpc)
                await stop.wait()
        finally:
            await runner.cleanup()
            journal.close()


def main() -> int:
    parser = entry.command_line("tandem.notify", "Tells people of emergency calls.", of_worker=False)
    settings = entry.begin("notify", parser.parse_args())
    try:
        asyncio.run(serve(settings))
    except (OSError, JournalInUseError) as error:
        _log.error("cannot serve: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
