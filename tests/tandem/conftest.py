"""Databases for the records' tests: SQLite in a file, and a PostgreSQL server of our own on loopback; logging put back."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tandem import settings

PATIENCE_S = 30.0
"""A deadline, not an expectation: busy machines are slow."""


def wait_for(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
        time.sleep(0.01)


def _program(name: str) -> str | None:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or (str(installed[0]) if installed else None)


class PostgresServer:
    """One PostgreSQL, as a user other than root, that tests may stop and start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._as_user = []
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
            self._as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        initdb = _program("initdb")
        assert initdb
        command = [initdb, "-D", str(folder / "data"), "-A", "trust", "-U", "tandem", "--no-sync", "-E", "UTF8"]
        subprocess.run([*self._as_user, *command], check=True, capture_output=True, cwd=folder)
        self.start()

    def start(self) -> None:
        postgres = _program("postgres")
        assert postgres
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": 30,
        }
        arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, postgres, "-D", str(self._folder / "data"), *arguments],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        wait_for(self._answers, f"PostgreSQL answers; see {self._folder}/log")

    def stop(self) -> None:
        """At once, connections cut."""
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(PATIENCE_S)
            self._process = None

    def create_database(self, encoding: str = "UTF8") -> str:
        """The URL of a database of its own."""
        self._databases += 1
        name = f"test{self._databases}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(
                f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
            )
        return f"postgresql+psycopg://tandem@127.0.0.1:{self.port}/{name}"

    def _dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=tandem dbname={database} connect_timeout=5"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._dsn("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Logging is as before afterwards."""
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    if not _program("initdb"):
        pytest.skip("no initdb on this machine (Debian package postgresql)")
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("PostgreSQL does not run as root and there is no setpriv")
    folder = Path(tempfile.mkdtemp(prefix="tandem-postgres-", dir="/tmp"))
    folder.chmod(0o755)
    server = PostgresServer(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """The server, running again afterwards if the test stopped it."""
    yield postgres_server
    if not postgres_server._answers():
        postgres_server.start()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/tandem.db"
    url: str = request.getfixturevalue("postgres").create_database()
    return url


@pytest.fixture
def records_settings(database_url: str, tmp_path: Path) -> settings.Records:
    return settings.Records(url=database_url, spool=tmp_path / "spool", spool_mb=8)
