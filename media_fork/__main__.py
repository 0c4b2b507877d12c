"""``python -m media_fork --config PATH --worker NAME``: the media plane of one worker.

HTTP on LOOPBACK:http_port, fork WebSockets on LOOPBACK:fork_port. SIGTERM or SIGINT: takes no new sessions, serves the
ones it has, exits 0 when they are over or drain_seconds have passed; a second signal ends the wait.
"""

import asyncio
import gc
import logging
import signal
import sys

import uvloop

from media_fork import leg, tools
from media_fork.batches import Batches
from media_fork.clock import LoopClock
from media_fork.conversation import World
from media_fork.events import LiveEvents
from media_fork.metrics import Counts, Metrics
from media_fork.realtime import place
from media_fork.server import Server
from media_fork.session import Sessions
from media_fork.toolservers import ToolServers
from tandem import entry
from tandem.records import Recorder
from tandem.settings import Settings

RECORDS_WITHIN_S = 5.0
SWITCH_S = 0.0005
"""Longest that the threads of the records may hold the interpreter while audio waits for it."""
FILES_PER_SESSION = 2
"""A socket for the fork, one for the model."""
OTHER_FILES = 512
"""Listeners, HTTP, tools, records."""
FALLBACK_WITHIN_S = 3.0
"""For esl_app to take callers to their fallback when draining has been cut short."""

_log = logging.getLogger(__name__)


async def serve(settings: Settings, worker: str, recorder: Recorder) -> None:
    """Serve until a signal says to stop and the sessions are over."""
    loop = asyncio.get_running_loop()
    clock = LoopClock(loop)
    counts = Counts()
    batches = Batches(clock, counts, loop.call_soon)
    metrics = Metrics(counts, settings.media_fork.max_sessions)
    events = LiveEvents(counts, clock)
    host = settings.workers[worker].loopback
    stopping = [asyncio.Event(), asyncio.Event()]

    def stop() -> None:
        for event in stopping:
            if not event.is_set():
                event.set()
                return

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with tools.client() as http:
        servers = ToolServers(settings.media_fork, clock, metrics)
        world = World(settings.media_fork, clock, metrics, events, recorder.put, http, servers)
        sessions = Sessions(settings, world, batches, host)
        first_frame_s = settings.media_fork.first_frame_ms / 1000
        forks = await leg.listen(host, settings.media_fork.fork_port, sessions.claim, first_frame_s, counts, clock)
        runner = await Server(sessions, metrics, events, settings.media_fork.first_frame_ms / 1000).start(
            host, settings.media_fork.http_port
        )
        _log.info(
            "ready: http on %s:%d, forks on %s:%d, model %s",
            host,
            settings.media_fork.http_port,
            host,
            settings.media_fork.fork_port,
            ", ".join(place(endpoint) for endpoint in settings.model.endpoints),
        )
        gc.collect()
        gc.freeze()
        await stopping[0].wait()
        _log.info("draining: %d sessions", len(sessions))
        drained = asyncio.ensure_future(sessions.drain(settings.media_fork.drain_seconds))
        cut_short = asyncio.ensure_future(stopping[1].wait())
        await asyncio.wait((drained, cut_short), return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        cut_short.cancel()
        if len(sessions):
            sessions.lose_models("media_fork_stopped")
            await sessions.drain(FALLBACK_WITHIN_S)
            sessions.close("stopped")
        forks.close()
        await runner.cleanup()


def main() -> int:
    arguments = entry.command_line("media_fork", "The media plane of one worker.").parse_args()
    settings = entry.begin("media_fork", arguments)
    logging.getLogger("picows").setLevel(logging.WARNING)
    entry.allow_files(FILES_PER_SESSION * settings.media_fork.max_sessions + OTHER_FILES)
    sys.setswitchinterval(SWITCH_S)
    recorder = Recorder(settings.records, worker=arguments.worker, component="media_fork")
    try:
        uvloop.run(serve(settings, arguments.worker, recorder))
    except OSError as error:
        _log.error("cannot serve: %s", error)
        return 1
    finally:
        recorder.close(RECORDS_WITHIN_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
