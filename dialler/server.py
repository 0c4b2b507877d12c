"""The dialler's HTTP API: jobs and escalations, JSON on loopback, every request with the bearer token."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest
from pydantic import BaseModel, ValidationError

from dialler.asked import Acknowledgement, Alert, Job
from dialler.escalation import Escalations
from dialler.jobs import Jobs

MAX_BODY = 64 * 1024
REQUESTS = Counter("tandem_dialler_requests_total", "Requests to the dialler's API, by HTTP status.", ["status"])

_M = TypeVar("_M", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    def __init__(self, status: int, cause: str, message: str) -> None:
        self.status = status
        self.cause = cause
        super().__init__(message)


class Server:
    """``app`` serves. What asks the database runs in threads."""

    def __init__(self, jobs: Jobs, escalations: Escalations, token: str) -> None:
        self._jobs = jobs
        self._escalations = escalations
        self._token = token.encode()
        self.app = web.Application(client_max_size=MAX_BODY, middlewares=[self._guard])
        self.app.add_routes(
            [
                web.post("/v1/jobs", self._add_job),
                web.get("/v1/jobs/{id}", self._job),
                web.delete("/v1/jobs/{id}", self._cancel_job),
                web.post("/v1/escalations", self._add_escalation),
                web.get("/v1/escalations/{id}", self._escalation),
                web.post("/v1/escalations/{id}/acknowledge", self._acknowledge),
                web.get("/healthz", self._healthz),
                web.get("/metrics", self._metrics),
            ]
        )

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path not in ("/healthz", "/metrics"):
                scheme, _, token = request.headers.get("Authorization", "").partition(" ")
                if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self._token):
                    raise Refused(401, "unauthorized", "expected Authorization: Bearer with dialler.token")
            reply = await handler(request)
        except Refused as refused:
            body = {"error": refused.cause, "message": str(refused)}
            headers = {"WWW-Authenticate": 'Bearer realm="tandem"'} if refused.status == 401 else {}
            reply = web.json_response(body, status=refused.status, headers=headers)
        except web.HTTPException as error:
            body = {"error": (error.reason or "").lower().replace(" ", "_"), "message": "see docs/outbound.md"}
            reply = web.json_response(body, status=error.status)
        REQUESTS.labels(str(reply.status)).inc()
        return reply

    async def _add_job(self, request: web.Request) -> web.Response:
        job = await _read(request, Job)
        return web.json_response({"id": await asyncio.to_thread(self._jobs.add, job)}, status=202)

    async def _job(self, request: web.Request) -> web.Response:
        return _found(await asyncio.to_thread(self._jobs.state, request.match_info["id"]))

    async def _cancel_job(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        if not await asyncio.to_thread(self._jobs.cancel, id):
            _found(await asyncio.to_thread(self._jobs.state, id))
            raise Refused(409, "over", "the job is over")
        return _found(await asyncio.to_thread(self._jobs.state, id))

    async def _add_escalation(self, request: web.Request) -> web.Response:
        alert = await _read(request, Alert)
        try:
            id = await asyncio.to_thread(self._escalations.add, alert)
        except KeyError:
            raise Refused(422, "unknown_on_call", f"there is no on_call named {alert.on_call!r}") from None
        return web.json_response({"id": id}, status=202)

    async def _escalation(self, request: web.Request) -> web.Response:
        return _found(await asyncio.to_thread(self._escalations.state, request.match_info["id"]))

    async def _acknowledge(self, request: web.Request) -> web.Response:
        by = (await _read(request, Acknowledgement)).by
        id = request.match_info["id"]
        state = await asyncio.to_thread(self._escalations.state, id)
        _found(state)
        assert state is not None
        if state["state"] != "waking" and state["acknowledged_by"] is None:
            raise Refused(409, "over", "nobody was reached in time, the escalation is over")
        holder = await asyncio.to_thread(self._escalations.acknowledge, id, by)
        return web.json_response({"id": id, "acknowledged_by": holder, "yours": holder == by})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _found(state: dict[str, Any] | None) -> web.Response:
    if state is None:
        raise Refused(404, "not_found", "there is nothing of this id")
    return web.json_response(state)


async def _read(request: web.Request, model: type[_M]) -> _M:
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise Refused(422, "invalid", problems) from None
