"""The real dialler, on SQLite and on PostgreSQL, with a scripted worker."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tandem.client import Client, ClientError
from tests.dialler.worker import Worker
from tests.tandem.conftest import postgres_server, wait_for
from tests.tandem.site_files import write_site

__all__ = ["postgres_server"]

TOKEN = "dialler-test-token"
ROOT = Path(__file__).resolve().parents[2]
ON_SQLITE = pytest.mark.parametrize("site_dialler", ["sqlite"], indirect=True)
"""For what the database has no say in."""
ANN, BOB, CAROL = "+12025550161", "+12025550162", "+12025550163"


class Dialler:
    """One site's dialler, which may be killed and started again."""

    def __init__(self, host: str, config: Path, worker: Worker) -> None:
        self.worker = worker
        self._config = config
        self._client = Client(host, 8087, TOKEN)
        self._log = config.parent / "dialler.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dialler", "--config", str(self._config)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        wait_for(self._is_up, f"the dialler serves; see {self._log}", 60)

    def start_another(self) -> "subprocess.CompletedProcess[str]":
        """Beside the one that runs; to its end."""
        command = [sys.executable, "-m", "dialler", "--config", str(self._config)]
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=60,
            text=True,
            check=False,
        )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return self._client.ask(method, path, body)

    def job(self, to: str, **options: Any) -> str:
        return str(self.ask("POST", "/v1/jobs", {"to": to, "agent": "reception"} | options)["id"])

    def done(self, id: str) -> dict[str, Any]:
        return self.until(f"/v1/jobs/{id}", lambda state: state["state"] not in ("waiting", "calling"))

    def until(self, path: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        state: dict[str, Any] = {}

        def reached() -> bool:
            state.clear()
            state.update(self.ask("GET", path))
            return condition(state)

        try:
            wait_for(reached, path)
        except AssertionError:
            raise AssertionError(f"{path} stays {state}; {self._log.read_text()[-2000:]}") from None
        return state

    def _is_up(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self._log.read_text()
        try:
            return self.ask("GET", "/healthz") == {"status": "ok"}
        except ClientError:
            return False


def _free_address() -> str:
    while True:
        host = f"127.{random.randint(20, 250)}.{random.randint(0, 255)}.{random.randint(2, 250)}"
        with socket.socket() as probe:
            try:
                probe.bind((host, 8086))
            except OSError:
                continue
            return host


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site_dialler(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dialler]:
    folder = tmp_path_factory.mktemp(f"dialler-{request.param}")
    jobs = "sqlite:///jobs.db"
    if request.param == "postgresql":
        jobs = request.getfixturevalue("postgres_server").create_database()
    host = _free_address()
    contacts = [{"name": name, "dial": dial, "sms": dial} for name, dial in (("Ann", ANN), ("Bob", BOB))]
    config = write_site(
        folder,
        {
            "workers/worker-1/loopback": host,
            "esl_app": {"api_token": "worker-test-token-0"},
            "outbound": {"windows": ["daily 00:00-24:00"], "max_calls": 2},
            "trunks/slow": {
                "kind": "twilio", "regions": ["us1"], "gateways": ["sip:127.0.0.22:5060"], "caller_ids": ["+12025550101"],
                "domain": "slow.example", "tenant": "slow",
            },
            "dialler": {"listen": f"{host}:8087", "token": TOKEN, "jobs": jobs},
            "on_call": {
                "platform": {
                    "agent": "reception", "contacts": contacts, "answer_within_seconds": 2, "rounds": 1,
                    "webhook": {"url": f"http://{host}:8086/webhook", "secret": "0123456789abcdef"},
                },
            },
        },
    )  # fmt: skip
    worker = Worker(host, 8086, 8085)
    dialler = Dialler(host, config, worker)
    try:
        dialler.start()
        yield dialler
    finally:
        dialler.kill()
        worker.close()


@pytest.fixture
def dialler(site_dialler: Dialler) -> Dialler:
    """With nothing of an earlier test in its worker's memory."""
    worker = site_dialler.worker
    for memory in (worker.placed, worker.told, worker.deleted, worker.webhook, worker.endings, worker.lasts_s):
        memory.clear()
    return site_dialler
