"""The lab's model: a local server of the OpenAI GA Realtime protocol that listens and speaks, as its scenario has it.

    python -m lab.model --scenario lab/scenarios/reception.yaml --listen 127.0.0.5:8765

``ws://ADDR:PORT/v1/realtime?model=gpt-realtime-2.1`` is the protocol (any key is good, unless ``--key`` names those that
are), ``POST /lab/faults`` scripts faults for the next connections (lab/faults.py), ``GET /lab/log`` tells what went over
the newest ones (``?session=ID`` or ``latest`` one of them in full), ``GET /lab/audio`` what one of them was sent to hear, ``GET /healthz`` how many there are now.
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, Self

import orjson
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from lab import scenario as scenarios
from lab.ears import Ears
from lab.faults import SCRIPT, Faults, FaultScript
from lab.realtime_config import DEPRECATED, SHUTDOWN, offered_models
from lab.realtime_conversation import new_id
from lab.realtime_log import ConnectionLog, SessionLogs
from lab.realtime_session import Session
from lab.realtime_wire import Wire
from lab.scenario import Scenario, ScenarioError, Understanding
from tandem import telemetry

MAX_FRAME_BYTES: Final = 24 << 20
"""An append of 15 MiB, in base64 and JSON."""
CLOSE_WITHIN_S: Final = 2.0
DRAIN_S: Final = 2.0

_log = logging.getLogger(__name__)


class LabModel:
    """The server, in this process: ``async with LabModel(scenario, "127.0.0.5", 0) as model``; port 0 picks one.

    ``keys`` are the API keys that are good; None: any that is not empty.
    """

    def __init__(
        self,
        scenario: Scenario,
        address: str,
        port: int,
        *,
        keys: Collection[str] | None = None,
        faults: Faults | None = None,
        ear_processes: int = 2,
    ) -> None:
        self.scenario = scenario
        self.address = address
        self.port = port
        self.faults = FaultScript()
        self.logs = SessionLogs()
        self._keys = keys
        self._sockets: dict[web.WebSocketResponse, Session] = {}
        self._ears = Ears(
            Understanding(scenario).phrases,
            before=scenario.before,
            after=scenario.after,
            words=scenario.words,
            processes=ear_processes,
        )
        self._stack = contextlib.AsyncExitStack()
        if faults is not None:
            self.faults.add(faults)

    @property
    def url(self) -> str:
        return f"ws://{self.address}:{self.port}/v1/realtime"

    @property
    def sessions(self) -> int:
        """Connections that are open."""
        return len(self._sockets)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 20)
        app.add_routes(
            [
                web.get("/v1/realtime", self._realtime),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{model}", self._models),
                web.post("/lab/faults", self._add_faults),
                web.delete("/lab/faults", self._clear_faults),
                web.get("/lab/log", self._show_log),
                web.get("/lab/audio", self._show_audio),
                web.get("/healthz", self._health),
            ]
        )
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=CLOSE_WITHIN_S)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._ears)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, self.address, self.port, reuse_address=True).start()
            self._stack = stack.pop_all()
        self.port = int(runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        closing = [socket.close(code=1001, message=b"server shutting down") for socket in list(self._sockets)]
        await asyncio.gather(*closing, return_exceptions=True)
        await self._stack.aclose()

    async def drained(self) -> None:
        """Returns when the last connection has ended."""
        while self._sockets:
            await asyncio.sleep(0.05)

    # The protocol

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        faults = self.faults.take()
        await asyncio.sleep(faults.connect_delay_ms / 1000)
        if faults.never == "handshake":
            await asyncio.Event().wait()
        if faults.refuse is not None:
            return _refusal(faults.refuse, "refused", "Refused by a scripted fault.")
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            return _refusal(401, None, "Missing bearer authentication in header.")
        if self._keys is not None and key not in self._keys:
            return _refusal(401, "invalid_api_key", "Incorrect API key provided.")
        if "call_id" in request.query:
            return _refusal(404, "call_id_not_found", f"No session found for call_id {request.query['call_id']}.")
        model = request.query.get("model", "")
        socket = web.WebSocketResponse(
            max_msg_size=MAX_FRAME_BYTES, compress=False, protocols=("realtime",), timeout=CLOSE_WITHIN_S
        )
        await socket.prepare(request)
        log = ConnectionLog(new_id("sess"), model)
        self.logs.add(log)
        wire = Wire(socket, request.transport, faults, log)
        session = Session(log.session, model or offered_models()[0], self.scenario, self._ears, wire, faults)
        self._sockets[socket] = session
        sending = asyncio.create_task(wire.run())
        try:
            if not self._refuse_in_words(request, model, wire):
                await self._talk(socket, session, faults)
            else:
                await self._ignore(socket)
        finally:
            session.close()
            del self._sockets[socket]
            sending.cancel()
            log.close(socket.close_code)
        return socket

    async def _talk(self, socket: web.WebSocketResponse, session: Session, faults: Faults) -> None:
        if faults.never == "created":
            await self._ignore(socket)
            return
        await asyncio.sleep(faults.created_delay_ms / 1000)
        session.start()
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                session.on_message(message.data)
            elif message.type is WSMsgType.BINARY:
                session.on_binary()

    async def _ignore(self, socket: web.WebSocketResponse) -> None:
        async for _ in socket:
            pass

    def _refuse_in_words(self, request: web.Request, model: str, wire: Wire) -> bool:
        """What OpenAI refuses after the handshake: by an error event, and close 4000."""
        code = ""
        if "OpenAI-Beta" in request.headers:
            code, message = "beta_api_shape_disabled", "The Realtime Beta API is no longer supported. Use the GA API."
        elif request.query.get("intent") == "transcription":
            code, message = "invalid_value", "The lab's model has no transcription sessions."
        elif not model:
            code, message = "missing_model", "You must provide a model parameter."
        elif model not in offered_models():
            code, message = "invalid_model", f'Model "{model}" is not supported in realtime mode.'
        if code:
            error = {"type": "invalid_request_error", "code": code, "message": message, "param": None, "event_id": None}
            wire.emit({"type": "error", "error": error})
            wire.close(4000, f"invalid_request_error.{code}")
        return bool(code)

    async def _models(self, request: web.Request) -> web.Response:
        models = [
            {"id": model, "object": "model", "owned_by": "lab", "created": 0}
            | ({"shutdown_date": SHUTDOWN} if model in DEPRECATED else {})
            for model in offered_models()
        ]
        if "model" not in request.match_info:
            return _json({"object": "list", "data": models})
        wanted = request.match_info["model"]
        for model in models:
            if model["id"] == wanted:
                return _json(model)
        return _refusal(404, "model_not_found", f"The model '{wanted}' does not exist.")

    # The lab

    async def _add_faults(self, request: web.Request) -> web.Response:
        try:
            script = SCRIPT.validate_json(await request.read())
        except ValidationError as error:
            return _json({"errors": error.errors(include_url=False, include_context=False)}, 422)
        for faults in script if isinstance(script, list) else [script]:
            self.faults.add(faults)
        return _json({"connections": self.faults.waiting})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        del request
        self.faults.clear()
        return _json({"connections": 0})

    async def _show_log(self, request: web.Request) -> web.Response:
        wanted = request.query.get("session")
        if wanted is None:
            return _json({"sessions": [log.summary() for log in self.logs.all()]})
        log = self.logs.get(wanted)
        return _unknown_session(wanted) if log is None else _json(log.full())

    async def _show_audio(self, request: web.Request) -> web.Response:
        wanted = request.query.get("session", "latest")
        log = self.logs.get(wanted)
        return _unknown_session(wanted) if log is None else web.Response(body=log.audio)

    async def _health(self, request: web.Request) -> web.Response:
        del request
        return _json({"status": "ok", "sessions": self.sessions})


def _unknown_session(wanted: str) -> web.Response:
    return _json({"error": f"no session {wanted}; GET /lab/log lists those there were"}, 404)


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def _refusal(status: int, code: str | None, message: str) -> web.Response:
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    return _json({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


async def serve(scenario: Scenario, address: str, port: int, keys: Collection[str] | None, drain_s: float) -> None:
    """Until SIGTERM or SIGINT; open sessions then have ``drain_s`` to end by themselves."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with LabModel(scenario, address, port, keys=keys) as model:
        _log.info("listening on %s", model.url)
        await stopped.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(model.drained(), drain_s)


def main() -> int:
    parser = argparse.ArgumentParser(prog="lab.model", description="A local server of the OpenAI Realtime protocol.")
    parser.add_argument("--scenario", type=Path, required=True, help="what it understands, says and does (YAML)")
    parser.add_argument("--listen", required=True, metavar="ADDR:PORT")
    parser.add_argument("--key", action="append", help="an API key that is good; default: any")
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_S, help="for open sessions, on SIGTERM")
    options = parser.parse_args()
    telemetry.configure("lab.model")
    address, _, port = options.listen.rpartition(":")
    if not address or not port.isdecimal():
        parser.error(f"--listen {options.listen}: expected ADDR:PORT")
    try:
        asyncio.run(serve(scenarios.load(options.scenario), address, int(port), options.key, options.drain_seconds))
    except (ScenarioError, OSError) as error:
        print(f"lab.model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
