"""The HTTP side of media_fork, on loopback: sessions for esl_app, health, metrics, live events."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web
from prometheus_client import REGISTRY, generate_latest

from media_fork.events import LiveEvents, TooManySubscribersError
from media_fork.metrics import Metrics
from media_fork.session import RefusedError, Sessions, parse_request
from tandem.outcome import RefusalCause
from tandem.seam import MAX_ID, SessionRefusal

MAX_BODY_BYTES: Final = 64 << 10
HEARTBEAT_S: Final = 15.0
STATUS: Final[dict[RefusalCause, int]] = {
    RefusalCause.UNKNOWN_AGENT: 404,
    RefusalCause.BAD_CALL: 422,
}
"""Of a refusal; 503 for every other cause."""
EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Silent(asyncio.Protocol):
    """Stands before ``inner``, aiohttp's protocol, and closes the connection where no request comes ``within_s``."""

    def __init__(self, inner: asyncio.Protocol, waiting: dict[Any, asyncio.TimerHandle], within_s: float) -> None:
        self._inner = inner
        self._waiting = waiting
        self._within_s = within_s
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._waiting[transport] = loop.call_later(self._within_s, self._transport.abort)
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if timer := self._waiting.pop(self._transport, None):
            timer.cancel()
        self._inner.connection_lost(error)


class _Site(web.BaseSite):
    """A TCP port whose connections are aiohttp's, each ``wrapped``."""

    def __init__(
        self, runner: web.AppRunner, host: str, port: int, wrapped: Callable[[asyncio.Protocol], asyncio.Protocol]
    ) -> None:
        super().__init__(runner)
        self._host, self._port, self._wrapped = host, port, wrapped

    @property
    def name(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        made = self._runner.server
        assert made is not None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: self._wrapped(made()), self._host, self._port, reuse_address=True
        )


class Server:
    """The application; ``sessions`` does the work. A connection whose first request does not come ``within_s`` is closed."""

    def __init__(self, sessions: Sessions, metrics: Metrics, events: LiveEvents, within_s: float) -> None:
        self._within_s = within_s
        self._waiting: dict[Any, asyncio.TimerHandle] = {}
        self._sessions = sessions
        self._metrics = metrics
        self._events = events
        self.app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._spoke])
        self.app.router.add_post("/v1/sessions", self._reserve)
        self.app.router.add_delete("/v1/sessions/{session}", self._release)
        self.app.router.add_get("/healthz", self._healthz)
        self.app.router.add_get("/metrics", self._exposition)
        self.app.router.add_get("/v1/events", self._live_events)

    async def start(self, host: str, port: int) -> web.AppRunner:
        """Listen. The runner's ``cleanup`` ends it."""
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await _Site(runner, host, port, self._patient).start()
        return runner

    def _patient(self, inner: asyncio.Protocol) -> asyncio.Protocol:
        return _Silent(inner, self._waiting, self._within_s)

    @web.middleware
    async def _spoke(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A whole request has come."""
        if timer := self._waiting.pop(request.transport, None):
            timer.cancel()
        return await handler(request)

    async def _reserve(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return self._refusal(RefusalCause.BAD_CALL, f"the body has more than {MAX_BODY_BYTES} bytes")
        try:
            reply = await self._sessions.reserve(parse_request(body))
        except RefusedError as refused:
            return self._refusal(refused.cause, str(refused))
        return web.Response(status=201, text=reply.model_dump_json(), content_type="application/json")

    def _refusal(self, cause: RefusalCause, message: str) -> web.Response:
        self._metrics.counts.add("sessions_refused", cause.value)
        refusal = SessionRefusal(cause=cause.value, message=message)
        return web.Response(
            status=STATUS.get(cause, 503), text=refusal.model_dump_json(), content_type="application/json"
        )

    async def _release(self, request: web.Request) -> web.Response:
        return web.Response(status=204 if self._sessions.release(request.match_info["session"]) else 404)

    async def _healthz(self, request: web.Request) -> web.Response:
        del request
        draining = self._sessions.draining
        state = {
            "status": "draining" if draining else "ok",
            "sessions": len(self._sessions),
            "max_sessions": self._metrics.max_sessions,
            "model": "resting" if self._sessions.model_is_resting else "ok",
        }
        return web.json_response(state, status=503 if draining else 200)

    async def _exposition(self, request: web.Request) -> web.Response:
        del request
        body = generate_latest(REGISTRY) + self._metrics.exposition()
        return web.Response(body=body, headers={"Content-Type": EXPOSITION})

    async def _live_events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events, until the client leaves; ``?call=ID`` for one call's."""
        try:
            with self._events.subscribe(request.query.get("call", "")[:MAX_ID]) as queue:
                response = web.StreamResponse(
                    headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
                )
                await response.prepare(request)
                while True:
                    try:
                        async with asyncio.timeout(HEARTBEAT_S):
                            event = await queue.get()
                    except TimeoutError:
                        await response.write(b": alive\n\n")
                    else:
                        await response.write(b"data: " + event.model_dump_json().encode() + b"\n\n")
        except TooManySubscribersError as error:
            return web.Response(status=503, text=str(error))
        except ConnectionResetError:
            return response
