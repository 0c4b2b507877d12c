"""Recordings in the scenarios: asked for over the API, waited for, decrypted, and listened to."""

import io
from typing import Any

import aiohttp
import numpy as np
import soundfile

from lab import hearing
from lab.world import World
from tandem.archive import seal
from tandem.outcome import RecordingState
from tandem.records import CallStory
from tandem.rows import RecordingRecord
from tests.call.caller import API_TOKEN, PATIENCE_S, RECORDING_KEY, Caller

Sides = tuple[hearing.Pcm, hearing.Pcm]
"""Left: what the caller said; right: what they heard."""


async def ask(
    world: World, caller: Caller, method: str, action: str | None = None, *, token: str = API_TOKEN
) -> tuple[int, Any]:
    """``/v1/calls/CALL/recording`` of the worker that has the call: status and body."""
    cell = world.settings.workers[world.worker_of(caller.call)]
    call = next(row.id for row in world.records().calls(limit=50) if row.sip_call_id == caller.call.call_id)
    url = f"http://{cell.loopback}:{world.settings.esl_app.api_port}/v1/calls/{call}/recording"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
        async with http.request(method, url, json=None if action is None else {"action": action}) as response:
            return response.status, await response.json()


async def settled(world: World, story: CallStory) -> RecordingRecord:
    """The call's only recording, once nothing more will become of it by itself."""
    found: list[RecordingRecord] = []

    async def is_settled() -> bool:
        found[:] = world.records().recordings(call=story.call.id)
        return bool(found) and found[0].state not in (RecordingState.RECORDING, RecordingState.WAITING)

    await world.until(is_settled, PATIENCE_S, f"the recording of {story.call.id}, of which there is {found}")
    [row] = found
    return row


def listen(world: World, row: RecordingRecord) -> Sides:
    """What is in a recording, at 8 kHz."""
    opened = io.BytesIO()
    file = world.settings.recordings.folder / row.file
    assert b"RIFF" not in file.read_bytes() and b"OggS" not in file.read_bytes(), "it is encrypted"
    seal.unseal(file, opened, seal.identity(RECORDING_KEY))
    opened.seek(0)
    samples, rate = soundfile.read(opened, dtype="int16", always_2d=True)
    assert samples.shape[1] == 2
    step = rate // hearing.RATE
    return np.ascontiguousarray(samples[::step, 0]), np.ascontiguousarray(samples[::step, 1])
