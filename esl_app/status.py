"""The HTTP side of esl_app, for operators and probes: ``/healthz`` and ``/metrics``."""

from collections.abc import Callable, Iterable
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from esl_app.web import WebServer

Health = Callable[[], dict[str, Any]]


class Status:
    """On ``host:port``. It is served by the very loop that serves the calls: an answer shows that the loop turns.

    ``health`` has at least ``status``: ``ok`` is told with 200, everything else with 503.
    """

    def __init__(self, host: str, port: int, health: Health) -> None:
        self._health = health
        self._server = WebServer((host, port), self._serve)

    def start(self) -> None:
        """Raises OSError where the port is taken."""
        self._server.start()

    def stop(self) -> None:
        self._server.stop(timeout=1)

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, content_type, body = self._answer(environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", ""))
        start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        return [body]

    def _answer(self, method: str, path: str) -> tuple[str, str, bytes]:
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", "text/plain", b"GET only\n"
        if path == "/healthz":
            health = self._health()
            return (
                ("200 OK" if health["status"] == "ok" else "503 Service Unavailable"),
                "application/json",
                orjson.dumps(health),
            )
        if path == "/metrics":
            return "200 OK", CONTENT_TYPE_LATEST, generate_latest()
        return "404 Not Found", "text/plain", b"/healthz or /metrics\n"
