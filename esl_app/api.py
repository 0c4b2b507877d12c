"""The HTTP API of esl_app, for the operator's programs: JSON on loopback, every request with the bearer token.

Whatever is asked for is found by :meth:`Api.route`; the nouns that may be asked for live in modules of their own. Each request
has a greenlet of its own, and what goes wrong in one is that one's alone.
"""

import hmac
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import gevent
import orjson
from gevent.pool import Pool
from pydantic import BaseModel, ValidationError

from esl_app.metrics import API_REQUESTS, DUTY_ERRORS
from esl_app.web import WebServer

MAX_BODY = 64 * 1024
MAX_REQUESTS = 64
"""At one time; more wait to be accepted."""
BODY_S = 5.0
"""For a request's body to come."""

_PHRASES = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_M = TypeVar("_M", bound=BaseModel)
_log = logging.getLogger(__name__)


class ApiError(Exception):
    """The request comes to nothing: ``status`` of HTTP, ``cause`` in one word, and what to say about it."""

    def __init__(self, status: int, cause: str, message: str) -> None:
        self.status = status
        self.cause = cause
        super().__init__(message)


@dataclass(frozen=True)
class Request:
    """``parameters`` are the ``{names}`` of the route's path; ``query`` has the last value of each name."""

    method: str
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes

    def json(self, model: type[_M]) -> _M:
        """The body as a ``model``. Raises ApiError (422) with everything that is wrong with it."""
        try:
            return model.model_validate_json(self.body)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_input=False, include_context=False)
            )
            raise ApiError(422, "invalid", problems) from None


@dataclass(frozen=True)
class Reply:
    """``body``: a model, or what JSON can hold; None for no body."""

    status: int = 200
    body: Any = None


Handler = Callable[[Request], Reply]


class Api:
    """On ``host:port``; ``token`` is what ``Authorization: Bearer`` must have. Routes are added before :meth:`start`."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._token = token.encode()
        self._routes: list[tuple[str, str, re.Pattern[str], Handler]] = []
        self._open: list[re.Pattern[str]] = []
        pool = Pool(MAX_REQUESTS)
        self._server = WebServer((host, port), self._serve, spawn=pool)

    def route(self, method: str, path: str, handler: Handler, *, open_to_all: bool = False) -> None:
        """``path``: as ``/v1/calls/{call}``, where a name in braces stands for one step. ``handler`` may raise ApiError.

        ``open_to_all``: without the token, because the path itself has something that cannot be guessed.
        """
        steps = (f"(?P<{step[1:-1]}>[^/]+)" if step.startswith("{") else re.escape(step) for step in path.split("/"))
        pattern = re.compile("/".join(steps))
        self._routes.append((method, path, pattern, handler))
        if open_to_all:
            self._open.append(pattern)

    def start(self) -> None:
        """Raises OSError where the port is taken."""
        self._server.start()

    def stop(self) -> None:
        self._server.stop(timeout=1)

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        route = "none"
        headers: list[tuple[str, str]] = []
        try:
            if not any(pattern.fullmatch(environ.get("PATH_INFO", "")) for pattern in self._open):
                self._authenticate(environ)
            route, handler, parameters = self._find(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
            query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
            reply = handler(Request(environ["REQUEST_METHOD"], parameters, query, _body(environ)))
        except ApiError as error:
            reply = Reply(error.status, {"error": error.cause, "message": str(error)})
            if error.status == 401:
                headers.append(("WWW-Authenticate", 'Bearer realm="tandem"'))
        except Exception:  # noqa: BLE001 - counted and logged
            DUTY_ERRORS.labels("api").inc()
            _log.exception("a request to the API failed unforeseen")
            reply = Reply(500, {"error": "unforeseen", "message": "see the log of esl_app"})
        API_REQUESTS.labels(route, str(reply.status)).inc()
        body = _encoded(reply.body)
        if body:
            headers.append(("Content-Type", "application/json"))
        headers.append(("Content-Length", str(len(body))))
        start_response(f"{reply.status} {_PHRASES[reply.status]}", headers)
        return [body] if body else []

    def _authenticate(self, environ: Mapping[str, Any]) -> None:
        scheme, _, token = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
        # WSGI gives headers as Latin-1.
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode("latin-1"), self._token):
            raise ApiError(401, "unauthorized", "expected Authorization: Bearer with esl_app.api_token")

    def _find(self, method: str, path: str) -> tuple[str, Handler, dict[str, str]]:
        allowed = []
        for verb, template, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if verb == method:
                return f"{verb} {template}", handler, match.groupdict()
            allowed.append(verb)
        if allowed:
            raise ApiError(405, "method_not_allowed", f"expected {', '.join(allowed)}")
        raise ApiError(404, "not_found", "there is nothing of this name; see docs/api.md")


def _body(environ: Mapping[str, Any]) -> bytes:
    try:
        with gevent.Timeout(BODY_S, TimeoutError()):
            body: bytes = environ["wsgi.input"].read(MAX_BODY + 1)
    except TimeoutError:
        raise ApiError(408, "timeout", f"the body did not come in {BODY_S:g} s") from None
    except (OSError, ValueError):
        raise ApiError(400, "bad_request", "the body ended early, or its length is no number") from None
    if len(body) > MAX_BODY:
        raise ApiError(413, "too_large", f"the body has more than {MAX_BODY} bytes")
    return body


def _encoded(body: Any) -> bytes:
    if body is None:
        return b""
    return body.model_dump_json().encode() if isinstance(body, BaseModel) else orjson.dumps(body)
