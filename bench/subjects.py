"""What is measured: media_fork exactly as shipped, and the two bridges of ``bench/peers``."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import yaml

from tandem.seam import Codec, Hello, SessionReply, SessionRequest

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
MEDIA_FORK = "media_fork"
FASTAPI = "fastapi"
NODE = "node"


class CannotRun(RuntimeError):
    """A subject that this machine cannot run; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where one subject and its model listen: loopback addresses of its own, ports fixed."""

    subject: str
    model: str
    directory: Path
    port: int = 8090
    model_port: int = 8060

    @property
    def model_url(self) -> str:
        return f"ws://{self.model}:{self.model_port}/v1/realtime"


@dataclass(frozen=True)
class Leg:
    """Where a mod_audio_fork connects for one call, and what it says first."""

    host: str
    port: int
    path: str
    hello: str


@dataclass(frozen=True)
class Program:
    """How a subject is started."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    name: str
    title: str
    prepare: Callable[[Place], Program]
    """Everything before the start. Raises CannotRun."""
    reserves: bool = False
    """Calls are reserved with POST /v1/sessions; else every call connects to the same URL."""

    async def leg(self, place: Place, number: int, http: aiohttp.ClientSession) -> Leg:
        """Call ``number``'s way in. Raises aiohttp.ClientError where it is refused."""
        if not self.reserves:
            return Leg(place.subject, place.port, "/fork", f'{{"call":"{number}"}}')
        request = SessionRequest(
            call=f"bench-{number}",
            agent="bench",
            caller="+12025550123",
            number="+12025550100",
            codec=Codec.PCMU,
            trunk="carrier",
        )
        url = f"http://{place.subject}:{place.port}/v1/sessions"
        async with http.post(url, json=request.model_dump(mode="json")) as response:
            body = await response.read()
            if response.status != 201:
                raise aiohttp.ClientError(f"session {number} refused with {response.status}: {body.decode()}")
        reply = SessionReply.model_validate_json(body)
        fork = urlsplit(reply.url)
        path = fork.path + (f"?{fork.query}" if fork.query else "")
        hello = Hello(call=request.call, session=reply.session)
        return Leg(fork.hostname or "", fork.port or 80, path or "/", hello.model_dump_json())


def _prepare_media_fork(place: Place) -> Program:
    """A configuration with what production has switched on: transcripts, records in SQLite, metrics."""
    settings = {
        "edge": {"listen": [{"address": place.subject}]},
        "trunks": {},
        "workers": {"bench": {"address": place.subject, "loopback": place.subject, "max_calls": 5000}},
        "freeswitch": {"password": "bench"},
        "media_fork": {"http_port": place.port, "max_sessions": 5000},
        "model": {"url": place.model_url, "key": "bench"},
        "records": {"url": "sqlite:///bench.db", "spool": "spool"},
    }
    agent = {"instructions": "You are a helpful assistant.", "greeting": "Hello, how may I help you?"}
    (place.directory / "agents").mkdir()
    config = place.directory / "tandem.yaml"
    config.write_text(yaml.safe_dump(settings))
    (place.directory / "agents" / "bench.yaml").write_text(yaml.safe_dump(agent))
    return Program([sys.executable, "-m", "media_fork", "--config", str(config), "--worker", "bench"])


def _prepare_fastapi(place: Place) -> Program:
    argv = [sys.executable, str(PEERS / "fastapi_bridge.py"), "--host", place.subject, "--port", str(place.port)]
    return Program(argv, {"MODEL_URL": f"{place.model_url}?model=gpt-realtime-2.1"})


def _prepare_node(place: Place) -> Program:
    folder = PEERS / "node_bridge"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise CannotRun("node or npm is missing; run: apt-get install nodejs npm")
    installed = folder / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (folder / "package-lock.json").stat().st_mtime:
        command = [npm, "ci", "--no-audit", "--no-fund"]
        result = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
        if result.returncode:
            raise CannotRun(f"npm ci failed in {folder}: {result.stderr.strip()[-300:]}")
    argv = [node, str(folder / "index.js"), place.subject, str(place.port)]
    return Program(argv, {"MODEL_URL": f"{place.model_url}?model=gpt-realtime-2.1", "NODE_ENV": "production"})


SUBJECTS = (
    Subject(FASTAPI, "FastAPI", _prepare_fastapi),
    Subject(NODE, "Node", _prepare_node),
    Subject(MEDIA_FORK, "media_fork", _prepare_media_fork, reserves=True),
)


def environment(program: Program) -> dict[str, str]:
    """This process's environment without what would change a subject, and with what it needs."""
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "TANDEM_", "PYTHON"))
    }
    return {**inherited, "PYTHONPATH": str(ROOT), **program.env}
