"""``python -m media_fork`` as it is run: ready, draining on SIGTERM, exits, live events over HTTP."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest_asyncio
import yaml

from tests.media.fork_client import QUIET, ForkClient

ROOT = Path(__file__).parents[2]
HOST = "127.0.83.1"
REQUEST = {"call": "call-1", "agent": "desk", "caller": "+12025550199", "number": "+12025550100", "codec": "PCMU"}


class Process:
    def __init__(self, directory: Path, model_url: str) -> None:
        self.directory = directory
        self.config = directory / "tandem.yaml"
        settings = {
            "edge": {"listen": [{"address": HOST}]},
            "trunks": {},
            "workers": {"w1": {"address": HOST, "loopback": HOST}},
            "freeswitch": {"password": "test-password"},
            "media_fork": {"drain_seconds": 20},
            "model": {"url": model_url, "key": "sk-do-not-log-this"},
        }
        (directory / "agents").mkdir()
        self.config.write_text(yaml.safe_dump(settings))
        (directory / "agents" / "desk.yaml").write_text(yaml.safe_dump({"instructions": "Help.", "greeting": "Hello."}))
        self.http = f"http://{HOST}:8090"

    async def start(self, worker: str = "w1") -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "media_fork",
            "--config",
            str(self.config),
            "--worker",
            worker,
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    async def ready(self, client: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    async with client.get(f"{self.http}/healthz") as response:
                        assert response.status == 200
                        return
                except aiohttp.ClientConnectionError:
                    assert self.process.returncode is None, await self.log()
                    await asyncio.sleep(0.05)

    async def log(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    async def exit(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 15)


@pytest_asyncio.fixture
async def process(tmp_path, model) -> AsyncIterator[Process]:
    process = Process(tmp_path, model.url)
    await process.start()
    yield process
    if process.process.returncode is None:
        process.process.kill()
        await process.process.wait()


@pytest_asyncio.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


async def fork_of(client: aiohttp.ClientSession, process: Process) -> ForkClient:
    async with client.post(f"{process.http}/v1/sessions", json=REQUEST) as response:
        assert response.status == 201, await response.text()
        reply = await response.json()
    fork = await ForkClient.connect(reply["url"])
    await fork.hello("call-1", reply["session"])
    await fork.send(QUIET)
    return fork


async def test_sigterm_drains_the_calls_go_on_and_the_exit_is_0(process, client, model):
    await process.ready(client)
    fork = await fork_of(client, process)
    session = await model.session()
    await session.event("response.create")
    process.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(5):
        while True:
            async with client.post(f"{process.http}/v1/sessions", json=REQUEST) as response:
                if response.status == 503:
                    assert (await response.json())["cause"] == "draining"
                    break
    await session.say("resp_1", "item_1", b"\x10" * 1600)
    await fork.until(lambda: len(fork.audio) >= 3200, "audio while draining")
    assert process.process.returncode is None
    await fork.close()
    assert await process.exit() == 0
    log = await process.log()
    assert "sk-do-not-log-this" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    assert any(line.get("call") == "call-1" for line in lines)


async def test_a_second_signal_hands_the_callers_to_their_fallback_and_exits(process, client):
    await process.ready(client)
    fork = await fork_of(client, process)
    process.process.send_signal(signal.SIGTERM)
    process.process.send_signal(signal.SIGINT)
    assert (await fork.command())["command"] == "model_lost"
    await fork.close()
    assert await process.exit() == 0


async def test_live_events_are_served_as_they_happen(process, client, model):
    await process.ready(client)
    async with client.get(f"{process.http}/v1/events", params={"call": "call-1"}) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        fork = await fork_of(client, process)
        session = await model.session()
        await session.say("resp_1", "item_1", b"\x10" * 1600, "Hello.")
        kinds = []
        async with asyncio.timeout(5):
            async for line in stream.content:
                if line.startswith(b"data: "):
                    event = json.loads(line.removeprefix(b"data: "))
                    assert event["call"] == "call-1"
                    kinds.append(event["event"])
                    if event["event"] == "agent_said":
                        break
        assert kinds == ["session_ready", "fork_connected", "agent_speaking", "agent_said"]
        await fork.close()


async def test_an_unknown_worker_is_an_error_that_names_the_known_ones(process, client):
    await process.ready(client)
    other = Process.__new__(Process)
    other.config = process.config
    await other.start("w9")
    assert await other.exit() == 2
    assert "no worker named 'w9'; expected one of: w1" in await other.log()


async def test_an_address_in_use_is_an_error_in_one_line(process, client):
    await process.ready(client)
    other = Process.__new__(Process)
    other.config = process.config
    await other.start()
    assert await other.exit() == 1
    last = json.loads((await other.log()).splitlines()[-1])
    assert last["message"].startswith("cannot serve:")
