"""A worker as the dialler sees it: its API and its health, over HTTP, scripted."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENDED = {"outcome": "callee_hung_up", "cause": "", "answered_by": "human"}


class Worker:
    """``script(number, attempt)``: the fields that a call ends with, or a refusal (``refused``); ``lasts_s`` from POST to then."""

    def __init__(self, host: str, api_port: int, health_port: int) -> None:
        self.lasts_s: dict[str, float] = {}
        """By number called; default 0."""
        self.endings: dict[str, list[dict[str, Any]]] = {}
        """By number called, in turn; the last one stays."""
        self.calls: dict[str, dict[str, Any]] = {}
        self.placed: list[tuple[float, str, dict[str, Any]]] = []
        """When, which number, what was asked for."""
        self.told: list[tuple[str, str]] = []
        self.deleted: list[str] = []
        self.webhook: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self._servers = [_server(host, port, self) for port in (api_port, health_port)]

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def up(self, moment: float) -> int:
        """Calls that were up at ``moment``."""
        return sum(
            call["began"] <= moment < (call["ended"] or call["began"] + call["lasts"]) for call in self.calls.values()
        )

    def acknowledge(self, call: str) -> None:
        with self.lock:
            self.calls[call]["acknowledged"] = "key"

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/healthz":
            return 200, {"status": "ok", "calls": 0, "max_calls": 100, "switch": True}
        if path == "/webhook":
            self.webhook.append(body)
            return 204, None
        with self.lock:
            return self._api(method, path.removeprefix("/v1/calls").strip("/").split("/"), body)

    def _api(self, method: str, words: list[str], body: Any) -> tuple[int, Any]:
        id = words[0]
        if method == "POST" and not id:
            known = self.calls.get(body["call"])
            return (200, self._shown(known)) if known else self._place(body)
        call = self.calls.get(id)
        if call is None:
            return 404, {"error": "unknown_call", "message": "no such call"}
        if method == "DELETE":
            self.deleted.append(id)
            call["ended"] = call["ended"] or time.time()
            call["ending"] = {"outcome": "not_reached", "cause": "cancelled"}
        elif words[1:] == ["tell"]:
            self.told.append((id, body["text"]))
            return 204, None
        return 200, self._shown(call)

    def _place(self, asked: dict[str, Any]) -> tuple[int, Any]:
        number = asked["to"]
        endings = self.endings.get(number, [ENDED])
        ending = endings.pop(0) if len(endings) > 1 else endings[0]
        self.placed.append((time.time(), number, asked))
        if "refused" in ending:
            return ending["status"], {"error": ending["refused"], "message": "as the test wants"}
        lasts = self.lasts_s.get(number, 0.0)
        call = {"began": time.time(), "lasts": lasts, "ended": None, "ending": ending, "acknowledged": None}
        self.calls[asked["call"]] = call | {"call": asked["call"]}
        return 202, self._shown(self.calls[asked["call"]])

    def _shown(self, call: dict[str, Any]) -> dict[str, Any]:
        over = call["ended"] is not None or time.time() >= call["began"] + call["lasts"]
        state = {"call": call["call"], "state": "ended" if over else "answered", "acknowledged": call["acknowledged"]}
        nothing = {"outcome": None, "cause": "", "answered_by": None}
        return state | nothing | (call["ending"] if over else {})


def _server(host: str, port: int, worker: Worker) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, reply = worker.answer(self.command, self.path, body)
            data = b"" if reply is None else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server
