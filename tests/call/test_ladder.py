"""Down the ladder: where a rung is broken the next one has the caller, and a message reaches those who are to have it."""

import base64
import io
import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
from aiohttp import web

from lab import hearing
from lab.voice import speak
from lab.world import World
from tandem.notify.channels import SIGNATURE, signature
from tandem.outcome import Outcome, RefusalCause, TransferOutcome
from tests.call.caller import LADDER, MESSAGES_SECRET, PATIENCE_S, REGRET, Caller, pbx_of, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


def sound(file: bytes) -> hearing.Pcm:
    """What a mono WAV holds."""
    with wave.open(io.BytesIO(file)) as wav:
        return np.frombuffer(wav.readframes(wav.getnframes()), np.int16)


@asynccontextmanager
async def receiving(url: str) -> AsyncIterator[list[tuple[str, bytes]]]:
    """What a webhook's server is sent: the signature and the body of each."""
    received: list[tuple[str, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        received.append((request.headers[SIGNATURE], await request.read()))
        return web.Response()

    place = urlsplit(url)
    app = web.Application(client_max_size=16 << 20)
    app.router.add_post(place.path, take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, place.hostname, place.port, reuse_address=True).start()
        yield received
    finally:
        await runner.cleanup()


async def test_a_message_left_behind_broken_rungs_reaches_its_webhook(world: World) -> None:
    pbx = pbx_of(world)
    await world.model_faults(refuse=503, connections=10)
    caller = await Caller.rings(world, LADDER)
    await caller.call.wait_answered(PATIENCE_S)
    audio = caller.call.audio
    await until(lambda: hearing.tone_seconds(audio.heard(), 1000) > 0.3, "the tone after the prompt")
    await audio.wait_quiet(300, PATIENCE_S)
    message = speak("This is Ann. Please call me back tomorrow morning.", "caller")
    await audio.play(message)
    await caller.call.hangup()
    story = await caller.story()
    assert list(pbx.calls) == ["2002", "2004"]
    assert (story.call.outcome, story.call.cause) == (Outcome.FELL_BACK, RefusalCause.MODEL_UNAVAILABLE)
    assert [(row.destination, row.outcome) for row in story.transfers] == [
        ("busy", TransferOutcome.BUSY),
        ("declines", TransferOutcome.REJECTED),
        ("voicemail", TransferOutcome.ANSWERED),
    ]
    url = getattr(world.settings.voicemail.recipients["desk"], "url", "")
    async with receiving(url) as received:
        await until(lambda: bool(received), "the message")
        signed, body = received[0]
    assert signed == signature(MESSAGES_SECRET, int(signed.removeprefix("t=").partition(",")[0]), body)
    told = json.loads(body)
    assert (told["number"], told["caller"], told["call"]) == (LADDER, story.call.caller, story.call.id)
    kept = sound(base64.b64decode(told["audio"]["base64"]))
    assert hearing.likeness(kept, message) > hearing.ALIKE


async def test_where_nobody_takes_the_call_the_caller_is_told_so(world: World) -> None:
    pbx = pbx_of(world)
    await world.model_faults(refuse=503, connections=10)
    folder = world.settings.freeswitch.voicemail
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.touch()
    try:
        caller = await Caller.rings(world, REGRET)
        await caller.call.wait_answered(PATIENCE_S)
        end = await caller.call.wait_ended(2 * PATIENCE_S)
    finally:
        folder.unlink()
        aside.rename(folder)
    assert end.by == "peer"
    assert list(pbx.calls) == ["2002"]
    regret = sound((world.settings.freeswitch.prompts / "regret.wav").read_bytes())
    assert hearing.likeness(caller.call.audio.heard(), regret) > hearing.ALIKE
    story = await caller.story()
    assert (story.call.outcome, story.call.cause) == (Outcome.FAILED, RefusalCause.MODEL_UNAVAILABLE)
    assert [(row.destination, row.outcome) for row in story.transfers] == [
        ("voicemail", TransferOutcome.FAILED),
        ("busy", TransferOutcome.BUSY),
    ]
