"""The outbound ESL server: a greenlet a call, never more calls than the worker may have, and an orderly end."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, cast

import gevent
from gevent import socket
from gevent.event import Event as Flag
from gevent.server import StreamServer

from esl_app import recording, screen_pop, voicemail
from esl_app.api import Api, ApiError
from esl_app.archivist import Archivist
from esl_app.arrival import is_resumed
from esl_app.call import Call, Shutdown
from esl_app.fitness import Fitness
from esl_app.inbound import Inbound
from esl_app.line import Recorder, Services
from esl_app.media import MediaFork
from esl_app.messages import Messages
from esl_app.metrics import ACTIVE, DRAINING, DROPPED, DUTY_ERRORS
from esl_app.operating import Operating
from esl_app.placing import Placing
from esl_app.protocol import COMMAND_FAILURES
from esl_app.screen_pop import ScreenPop
from esl_app.session import Session
from esl_app.status import Status
from esl_app.survivors import Survivors
from esl_app.webhooks import Webhooks
from tandem import dial_policy
from tandem.archive import notes
from tandem.outcome import RefusalCause
from tandem.settings import REGRET, VOICEMAIL, Settings

LAST_CALLS_S = 10.0
"""Given to calls that are cut short, for their hangups and records."""

_Greenlet: TypeAlias = "gevent.Greenlet[..., None]"
_log = logging.getLogger(__name__)


class Server:
    """esl_app of one worker. ``recorder`` is the caller's to close, after :meth:`run`. ``config``: where ``settings`` come
    from, for the archive of recordings; None: there is no archive.
    """

    def __init__(self, settings: Settings, worker: str, recorder: Recorder, config: Path | None = None) -> None:
        cell = settings.workers[worker]
        self._max_calls = cell.max_calls
        self._drain_s = settings.esl_app.drain_seconds
        self._calls: set[_Greenlet] = set()
        self._taken = 0
        self._idle = Flag()
        self._idle.set()
        self._draining = Flag()
        self._hurry = Flag()
        password = settings.freeswitch.password.get_secret_value()
        self._inbound = Inbound(cell.loopback, settings.freeswitch.event_socket_port, password, self._switch_is_there)
        recordings = notes.incoming(settings.recordings.folder, worker)
        self._survivors = Survivors(self._inbound, recorder, settings.records.url, worker, recordings)
        self._archivist = Archivist(settings.recordings, worker, config)
        self._webhooks = Webhooks(settings.transfers, settings.transfers.journal / worker)
        self._messages = Messages(settings.voicemail, settings.voicemail.journal / worker)
        media_fork = MediaFork(cell.loopback, settings.media_fork.http_port)
        self._services = Services(
            settings, worker, media_fork, self._inbound, recorder, self._webhooks.put, self._messages.put
        )
        stands_in = any({VOICEMAIL, REGRET}.intersection(route.fallback) for route in settings.numbers.values())
        self._fitness = Fitness(self._inbound, media_fork, lambda: recorder.is_full, stands_in)
        self._listener = StreamServer((cell.loopback, settings.esl_app.port), self._serve, backlog=1024)
        self._status = Status(cell.loopback, settings.esl_app.metrics_port, self.health)
        token = settings.esl_app.api_token
        self._api = Api(cell.loopback, settings.esl_app.api_port, token.get_secret_value()) if token else None
        self._placing = Placing(self._services, self._begin)
        if self._api is not None:
            Operating(self._api, self._services)
            self._placing.serve(self._api)
            self._api.route("GET", screen_pop.ROUTE, ScreenPop(settings.records.url).answer, open_to_all=True)

    @property
    def port(self) -> int:
        assert self._listener.server_port is not None
        return self._listener.server_port

    def start(self) -> None:
        """Raises OSError where a port is taken."""
        voicemail.make_folder(self._services.settings)
        recording.prepare(self._services.settings, self._services.worker)
        self._judge_destinations()
        self._webhooks.start()
        self._messages.start()
        self._status.start()
        if self._api is not None:
            self._api.start()
        self._listener.start()
        self._archivist.start()
        self._inbound.start()
        self._fitness.start()
        _log.info("waiting for calls on %s:%d", self._listener.server_host, self.port)

    def _judge_destinations(self) -> None:
        """Tell which destinations no agent will ever reach; and have phonenumbers' tables loaded before the first call."""
        for name in self._services.settings.destinations:
            decision = dial_policy.resolve_ever(self._services.settings, name, self._services.now())
            if isinstance(decision, dial_policy.Refused):
                _log.warning("destination %s will be refused: %s", name, decision.refusal.value)

    def run(self) -> None:
        """Until :meth:`drain` was called and the last call has ended, or the time for that ran out."""
        self.start()
        self._draining.wait()
        self._finish()

    def drain(self) -> None:
        """Take no new call, finish those under way. Called a second time: at once."""
        if self._draining.is_set():
            self._hurry.set()
        self._draining.set()

    def health(self) -> dict[str, str | int | bool]:
        return {
            "status": "draining" if self._draining.is_set() else "ok",
            "calls": len(self._calls),
            "max_calls": self._max_calls,
            "switch": self._inbound.up,
            "unfit": self._fitness.unfit or "",
        }

    # Calls

    def _serve(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """One connection of FreeSWITCH's, in its own greenlet."""
        session = Session(address, sock)
        try:
            # First of all: FreeSWITCH parks a call for good whose socket closes before `connect`.
            session.connect()
        except COMMAND_FAILURES as error:
            DROPPED.labels(session.drop_cause or "no_call").inc()
            _log.warning("a connection that is no call: %s", error)
            session.give_up()
            return
        placed = self._placing.claims(session)
        if placed is not None:
            placed.attach(session)
            return
        refusal = None if is_resumed(session.session_data) else self._refusal()
        self._enter(taken=refusal is None)
        try:
            Call(session, self._services, refusal).run()
        except Exception:  # noqa: BLE001 - counted and logged
            DUTY_ERRORS.labels("server").inc()
            _log.exception("a call ended unforeseen")
        finally:
            if session.drop_cause not in ("stopped", "closed"):
                DROPPED.labels(session.drop_cause or "unknown").inc()
            self._leave(taken=refusal is None)

    def _begin(self, run: Callable[[], None]) -> None:
        """Run a call that we place, as one of the worker's. Raises ApiError where the worker takes no more."""
        refusal = self._refusal()
        if refusal is not None:
            raise ApiError(503, refusal.value, "this worker takes no call now")
        # Counted at once: the greenlet runs later.
        self._taken += 1
        gevent.spawn(self._run_placed, run)

    def _run_placed(self, run: Callable[[], None]) -> None:
        self._taken -= 1
        self._enter(taken=True)
        try:
            run()
        finally:
            self._leave(taken=True)

    def _refusal(self) -> RefusalCause | None:
        if self._draining.is_set():
            return RefusalCause.DRAINING
        return RefusalCause.AT_CAPACITY if self._taken >= self._max_calls else None

    def _enter(self, taken: bool) -> None:
        self._calls.add(cast("_Greenlet", gevent.getcurrent()))
        self._idle.clear()
        self._taken += taken
        ACTIVE.set(self._taken)

    def _leave(self, taken: bool) -> None:
        self._calls.discard(cast("_Greenlet", gevent.getcurrent()))
        self._taken -= taken
        ACTIVE.set(self._taken)
        if not self._calls:
            self._idle.set()

    # Beginning and end

    def _switch_is_there(self) -> None:
        self._fitness.apply()
        self._survivors.close()

    def _finish(self) -> None:
        DRAINING.set(1)
        _log.info("draining: %d calls to finish within %d s", len(self._calls), self._drain_s)
        self._fitness.drain()
        gevent.wait([self._idle, self._hurry], timeout=self._drain_s, count=1)
        if self._calls:
            _log.warning("cutting %d calls short", len(self._calls))
            gevent.killall(list(self._calls), Shutdown, timeout=LAST_CALLS_S)
        self.stop()
        _log.info("drained")

    def stop(self) -> None:
        """Close every socket; what calls there still are is not waited for."""
        self._fitness.stop()
        self._listener.stop(timeout=1)
        self._webhooks.close()
        self._messages.close()
        self._inbound.stop()
        if self._api is not None:
            self._api.stop()
        self._archivist.stop()
        self._status.stop()
