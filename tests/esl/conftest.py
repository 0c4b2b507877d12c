"""esl_app with everything around it scripted: a switch, a media_fork, and a recorder that keeps rows in a list."""

import random
import socket as native_socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import orjson
import pytest
import yaml
from gevent.pywsgi import WSGIServer
from prometheus_client import REGISTRY

from esl_app.server import Server
from tandem import settings as tandem_settings
from tandem.rows import CallRecord, Row, TransferRecord
from tandem.settings import Settings
from tests.esl.fake_switch import PASSWORD, FakeCall, FakeSwitch, running, until

ROOT = Path(__file__).resolve().parents[2]
NUMBER = "+12025550100"


def free_address() -> str:
    """A loopback address where nobody listens on esl_app's ports."""
    while True:
        address = f"127.{random.randint(20, 250)}.{random.randint(0, 255)}.{random.randint(2, 250)}"
        with native_socket.socket() as probe:
            try:
                probe.bind((address, 8084))
            except OSError:
                continue
            return address


def site(address: str, folder: Path, **changes: Any) -> Settings:
    """The shipped configuration on ``address``; ``changes`` are merged into its sections, ``agent`` into reception's."""
    of_agent = changes.pop("agent", {})
    data = yaml.safe_load((ROOT / "lab/config/tandem.yaml").read_text())
    data["workers"] = {"worker-1": {"address": address, "loopback": address, "max_calls": 3}}
    data["freeswitch"] = {"password": PASSWORD}
    data["model"]["key"] = "none"
    data["records"] = {"url": "sqlite:///records.db", "spool": "spool"}
    data["edge"]["listen"] = [{"address": address, "port": 5060}]
    data["numbers"]["+12025550102"] = {"agent": "reception", "fallback": "sales"}
    data["numbers"]["+12025550103"] = {"agent": "reception"}
    data["destinations"]["partner"] = {
        "description": "our partner", "dial": "+12025550160", "trunk": "carrier", "transfer": "refer",
    }  # fmt: skip
    data["destinations"]["premium"] = {"description": "premium", "dial": "+19005550199", "trunk": "carrier"}
    data["destinations"]["sales"]["ring_seconds"] = 5
    data["destinations"]["annex"] = {"description": "annex", "dial": "2002", "trunk": "pbx", "ring_seconds": 5}
    data["destinations"]["deskmate"] = {"description": "d", "dial": "2003", "trunk": "pbx", "transfer": "replaces"}
    data["destinations"]["doctor"] = {"description": "d", "dial": "2005", "trunk": "pbx", "transfer": "warm"}
    data["ring_groups"] = {
        "doctors": {
            "description": "one by one",
            "members": ["doctor", "annex"],
            "ring": "in_order",
            "transfer": "warm",
        },
        "team": {"description": "all", "members": ["sales", "annex"]},
        "rota": {"description": "one by one", "members": ["sales", "premium", "annex"], "ring": "in_order"},
    }
    for section, values in changes.items():
        data.setdefault(section, {}).update(values)
    config = folder / "tandem.yaml"
    config.write_text(yaml.safe_dump(data))
    agent = yaml.safe_load((ROOT / "lab/config/agents/reception.yaml").read_text())
    agent["destinations"] = ["sales", "partner", "premium", "deskmate", "doctor", "doctors", "team", "rota"]
    (folder / "agents").mkdir(exist_ok=True)
    (folder / "agents/reception.yaml").write_text(yaml.safe_dump(agent | of_agent))
    return tandem_settings.load(config, {})


class FakeMediaFork:
    """media_fork's HTTP side. ``answer``: (status, body); ``delay_s`` before it."""

    def __init__(self, host: str, port: int) -> None:
        self.reserved: list[dict[str, Any]] = []
        self.released: list[str] = []
        self.delay_s = 0.0
        self.health = {"status": "ok", "model": "ok"}
        self.answer: tuple[str, bytes] = ("201 Created", b"")
        self._server = WSGIServer((host, port), self._serve, log=None, error_log=None)
        self._url = f"ws://{host}:8091/fork"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop(timeout=0)

    def refuse(self, cause: str, status: str = "503 Service Unavailable") -> None:
        self.answer = (status, orjson.dumps({"cause": cause, "message": "no"}))

    def _serve(self, environ: Any, start_response: Any) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [orjson.dumps(self.health)]
        if environ["REQUEST_METHOD"] == "DELETE":
            self.released.append(environ["PATH_INFO"].rsplit("/", 1)[1])
            start_response("204 No Content", [])
            return []
        request = orjson.loads(environ["wsgi.input"].read())
        self.reserved.append(request)
        gevent.sleep(self.delay_s)
        status, body = self.answer
        if not body:
            session = f"s-{request['call']}"
            reply = {"session": session, "url": f"{self._url}?token=t", "rate": 8000, "expires_in_ms": 10000}
            body = orjson.dumps(reply)
        start_response(status, [("Content-Type", "application/json")])
        return [body]


class Rows(list[Row]):
    """A recorder. The newest row of each call and transfer is what counts."""

    is_full = False

    def put(self, row: Row) -> None:
        self.append(row)

    def call(self, call: FakeCall) -> CallRecord:
        """The ended call's record, once it is there."""
        sip_call_id = call.headers["variable_sip_call_id"]

        def ended() -> CallRecord | None:
            found = [row for row in self if isinstance(row, CallRecord) and row.sip_call_id == sip_call_id]
            return found[-1] if found and found[-1].outcome else None

        found: CallRecord = until(ended, "the call's record")
        return found

    def transfers(self) -> list[TransferRecord]:
        newest = {(row.call, row.id): row for row in self if isinstance(row, TransferRecord)}
        return list(newest.values())


class World:
    def __init__(self, settings: Settings) -> None:
        cell = settings.workers["worker-1"]
        self.settings = settings
        self.rows = Rows()
        self.media_fork = FakeMediaFork(cell.loopback, settings.media_fork.http_port)
        self.server = Server(settings, "worker-1", self.rows)
        self.switch = FakeSwitch(cell.loopback, settings.freeswitch.event_socket_port, settings.esl_app.port)

    def talking(self, **headers: str) -> FakeCall:
        """A call that is answered, its fork connected."""
        call = self.switch.call(**headers)
        until(lambda: call.answered.is_set() and call.fork, "the conversation to begin")
        until(lambda: metric("tandem_calls_active") >= 1, "the call to be counted")
        return call

    def transfer(self, call: FakeCall, destination: str, id: str = "t1") -> None:
        call.decides({"command": "transfer", "id": id, "destination": destination})

    def idle(self) -> None:
        """No call and no leg is left."""
        until(lambda: self.server.health()["calls"] == 0, "every call to end")
        until(lambda: not self.switch.channels, f"every channel to end; left: {self.switch.channels}")


@pytest.fixture
def changes() -> dict[str, Any]:
    """Override to change the configuration."""
    return {}


@pytest.fixture
def world(tmp_path: Path, changes: dict[str, Any]) -> Iterator[World]:
    made = World(site(free_address(), tmp_path, **changes))
    made.media_fork.start()
    with running(made.switch):
        made.server.start()
        until(lambda: made.server.health()["switch"], "the inbound event socket")
        try:
            yield made
        finally:
            made.server.stop()
            made.media_fork.stop()


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0
