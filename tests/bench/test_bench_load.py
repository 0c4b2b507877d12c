"""The bench's load tells the truth: it sees the delay a bridge adds and the frames it loses, and nothing else."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from websockets import ConnectionClosed
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from bench.load import Load, LoadFailed, Sample, build
from media_fork.g711 import ulaw_decode, ulaw_encode

ADDRESS = "127.0.43.1"
CALLS = 8
SECONDS = 3


class Bridge:
    """The least that carries a call as G.711, with faults to order."""

    def __init__(self, model: str, *, delay_s: float = 0.0, lose_every: int = 0) -> None:
        self._model = model
        self._delay_s = delay_s
        self._lose_every = lose_every

    async def serve(self, leg: ServerConnection) -> None:
        async with connect(self._model) as model, asyncio.TaskGroup() as tasks:
            pcmu = {"type": "audio/pcmu"}
            session = {"type": "realtime", "audio": {"input": {"format": pcmu}, "output": {"format": pcmu}}}
            await model.send(json.dumps({"type": "session.update", "session": session}))
            down = tasks.create_task(self._to_leg(leg, model))
            async for number, frame in _numbered(leg):
                if self._lose_every and number % self._lose_every == 0:
                    continue
                tasks.create_task(self._to_model(model, frame))
            down.cancel()

    async def _to_model(self, model: ClientConnection, frame: bytes) -> None:
        audio = base64.b64encode(ulaw_encode(np.frombuffer(frame, np.int16))).decode()
        await asyncio.sleep(self._delay_s)
        with suppress(ConnectionClosed):
            await model.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))

    async def _to_leg(self, leg: ServerConnection, model: ClientConnection) -> None:
        async for message in model:
            event = json.loads(message)
            if event["type"] == "response.output_audio.delta":
                await asyncio.sleep(self._delay_s)
                await leg.send(ulaw_decode(base64.b64decode(event["delta"])).tobytes())


async def _numbered(leg: ServerConnection) -> AsyncIterator[tuple[int, bytes]]:
    number = 0
    async for message in leg:
        if isinstance(message, bytes):
            yield number, message
            number += 1


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    try:
        return build(tmp_path_factory.mktemp("load"))
    except LoadFailed as error:
        pytest.skip(str(error))


@asynccontextmanager
async def loaded(program: Path, tmp_path: Path, **faults: float) -> AsyncIterator[Load]:
    core = min(os.sched_getaffinity(0))
    load = await Load.start(program, core, ADDRESS, 8060, tmp_path / "load.log")
    bridge = Bridge(f"ws://{ADDRESS}:8060/v1/realtime", **faults)
    try:
        async with serve(bridge.serve, ADDRESS, 8061):
            for number in range(CALLS):
                await load.open(ADDRESS, 8061, "/", json.dumps({"call": number}))
            yield load
            await load.stop()
    finally:
        await load.stop()


async def measured(program: Path, tmp_path: Path, **faults: float) -> Sample:
    async with loaded(program, tmp_path, **faults) as load:
        return await load.measure(SECONDS)


async def test_a_faithful_bridge_has_no_faults(program, tmp_path):
    sample = await measured(program, tmp_path)
    assert sample.calls == CALLS
    assert sample.frames_sent >= CALLS * SECONDS * 50 * 0.9
    assert sample.frames_received == pytest.approx(sample.frames_sent, abs=4 * CALLS)
    assert sample.responses_heard > 0
    assert {name: count for name, count in sample.faults.items() if name != "stalls"} == {}


async def test_the_delay_that_a_bridge_adds_is_seen_both_ways(program, tmp_path):
    sample = await measured(program, tmp_path, delay_s=0.1)
    assert sample.up_ms.p50 >= 100
    assert sample.down_ms.p50 >= 100
    assert sample.frames_lost == 0


async def test_frames_that_a_bridge_loses_are_counted(program, tmp_path):
    sample = await measured(program, tmp_path, lose_every=5)
    assert sample.frames_lost == pytest.approx(sample.frames_sent / 5, abs=2 * CALLS)


async def test_a_bridge_that_is_not_there_fails_the_call(program, tmp_path):
    load = await Load.start(program, min(os.sched_getaffinity(0)), ADDRESS, 8060, tmp_path / "load.log")
    try:
        with pytest.raises(LoadFailed, match="Connection refused"):
            await load.open(ADDRESS, 8062, "/", "{}")
    finally:
        await load.stop()
