"""The API: nobody without the token gets anything, and every request that comes to nothing says why."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from gevent import socket
from pydantic import BaseModel, ConfigDict

from esl_app.api import MAX_BODY, Api, ApiError, Reply, Request
from tests.esl.conftest import World, free_address, metric

TOKEN = "0123456789abcdef-test"
AUTHORIZED = f"Authorization: Bearer {TOKEN}\r\n"


class Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    action: str


def echo(request: Request) -> Reply:
    return Reply(
        201, {"call": request.parameters["call"], "query": request.query, "action": request.json(Wanted).action}
    )


def conflict(request: Request) -> Reply:
    raise ApiError(409, "busy", "not now")


def fail(request: Request) -> Reply:
    raise RuntimeError("unforeseen")


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    host = free_address()
    api = Api(host, 8086, TOKEN)
    api.route("POST", "/v1/calls/{call}/thing", echo)
    api.route("GET", "/v1/conflict", conflict)
    api.route("GET", "/v1/fail", fail)
    api.start()
    yield host, 8086
    api.stop()


def ask(
    address: tuple[str, int], method: str, path: str, body: bytes = b"", headers: str = AUTHORIZED
) -> tuple[int, Any, str]:
    with socket.create_connection(address, 5) as sock:
        length = f"Content-Length: {len(body)}\r\n"
        sock.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{headers}\r\n".encode() + body
        )
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, answer = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), orjson.loads(answer) if answer else None, head.decode()


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Authorization: Bearer wrong\r\n",
        f"Authorization: Basic {TOKEN}\r\n",
        f"Authorization: Bearer {TOKEN[:-1]}\r\n",
        "Authorization: Bearer \xe4\xf6\r\n",
        f"X-Authorization: Bearer {TOKEN}\r\n",
    ],
)
@pytest.mark.parametrize("path", ["/v1/calls/c1/thing", "/nothing"])
def test_without_the_token_there_is_nothing(address: tuple[str, int], headers: str, path: str) -> None:
    status, body, head = ask(address, "POST", path, b'{"action": "x"}', headers)
    assert (status, body["error"]) == (401, "unauthorized")
    assert "WWW-Authenticate: Bearer" in head


def test_a_route_gets_its_parameters_query_and_body(address: tuple[str, int]) -> None:
    before = metric("tandem_api_requests_total", route="POST /v1/calls/{call}/thing", status="201")
    status, body, _ = ask(address, "POST", "/v1/calls/c-1.x/thing?a=1&a=2&b=", b'{"action": "pause"}')
    assert (status, body) == (201, {"call": "c-1.x", "query": {"a": "2", "b": ""}, "action": "pause"})
    assert metric("tandem_api_requests_total", route="POST /v1/calls/{call}/thing", status="201") == before + 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("GET", "/v1/other", b"", 404, "not_found"),
        ("POST", "/v1/calls/a/b/thing", b"{}", 404, "not_found"),
        ("GET", "/v1/calls/a/thing", b"", 405, "method_not_allowed"),
        ("POST", "/v1/calls/a/thing", b"", 422, "invalid"),
        ("POST", "/v1/calls/a/thing", b'{"action": 1, "other": 2}', 422, "invalid"),
        ("POST", "/v1/calls/a/thing", b"x" * (MAX_BODY + 1), 413, "too_large"),
        ("GET", "/v1/conflict", b"", 409, "busy"),
        ("GET", "/v1/fail", b"", 500, "unforeseen"),
    ],
)
def test_what_comes_to_nothing_says_why(
    address: tuple[str, int], method: str, path: str, body: bytes, status: int, error: str
) -> None:
    answer = ask(address, method, path, body)
    assert (answer[0], answer[1]["error"]) == (status, error)
    assert answer[1]["message"]


def test_all_that_is_wrong_with_a_body_is_told_but_not_what_it_said(address: tuple[str, int]) -> None:
    _, body, _ = ask(address, "POST", "/v1/calls/a/thing", b'{"other": "secret"}')
    assert "action: " in body["message"] and "other: " in body["message"]
    assert "secret" not in body["message"]


def test_a_body_that_does_not_come_is_not_waited_for(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_app.api.BODY_S", 0.1)
    with socket.create_connection(address, 5) as sock:
        sock.sendall(f"POST /v1/calls/a/thing HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n{AUTHORIZED}\r\n{{".encode())
        assert b" 408 " in sock.recv(65536)


def test_there_is_no_api_without_a_token(world: World) -> None:
    cell = world.settings.workers["worker-1"]
    with pytest.raises(OSError):
        socket.create_connection((cell.loopback, world.settings.esl_app.api_port), 2)


class TestWithToken:
    @pytest.fixture
    def changes(self) -> dict[str, Any]:
        return {"esl_app": {"api_token": TOKEN}}

    def test_esl_app_serves_it(self, world: World) -> None:
        cell = world.settings.workers["worker-1"]
        status, body, _ = ask((cell.loopback, world.settings.esl_app.api_port), "GET", "/v1/nothing")
        assert (status, body["error"]) == (404, "not_found")


@pytest.mark.parametrize("said", [b"", b"GET /v1/conflict HTTP/1.1\r\nHost"])
def test_a_connection_that_falls_silent_is_closed(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr("esl_app.web.SILENT_S", 0.2)
    with socket.create_connection(address, 20) as sock:
        sock.sendall(said)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert not answer or b" 400 " in answer.partition(b"\r\n")[0]
