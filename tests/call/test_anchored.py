"""A whole call over a trunk that speaks SRTP: rtpengine has it as RTP inside, and the agent and the caller hear each other."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from lab import hearing
from lab.site import STRANGER, Site
from lab.switches import SwitchKind, available
from lab.voice import speak
from lab.world import World
from media_fork.g711 import ulaw_decode, ulaw_encode
from tests.call.caller import PATIENCE_S, until
from tests.edge import rtpengine
from tests.edge.endpoints import Endpoint, caller_dialog
from tests.edge.rtpengine import RtpEngine, Voice

NUMBER = "+12025550100"
FRAME = 160
SILENCE = b"\xff" * FRAME
HERE = Path(__file__).parent


def secure_trunk(data: dict[str, Any]) -> None:
    """A second carrier, whose media are anchored and who wants SRTP."""
    net = data["edge"]["rpc"].rpartition(":")[0].rpartition(".")[0]
    address = f"{net}.{STRANGER}"
    data["trunks"]["secure"] = {"kind": "generic", "sources": [f"{address}/32"], "media": "anchored", "srtp": True}
    data["rtpengine"] = {
        "media-1": {
            "control": f"{net}.41:2223",
            "metrics": f"{net}.41:2225",
            "public": f"{net}.51",
            "private": f"{net}.61",
        }
    }


@pytest_asyncio.fixture(loop_scope="session")
async def anchored(tmp_path: Path) -> AsyncIterator[tuple[World, RtpEngine]]:
    """A world with an rtpengine; its switch is a FreeSWITCH where there is one."""
    switch = SwitchKind.LAB if available()[SwitchKind.FREESWITCH] else SwitchKind.FREESWITCH
    if reason := available()[switch]:
        pytest.skip(reason)
    site = Site(tmp_path, workers=1, change=secure_trunk)
    async with World(site, switch=switch, scenario=HERE / "scenario.yaml") as world:
        engine = rtpengine.install(site.rendered / "rtpengine", world.settings.rtpengine)["media-1"]
        await asyncio.to_thread(engine.start)
        # It was away when the edge first asked, and would be asked again only seconds later.
        await world.edge_rpc("rtpengine.enable", "all", 1)
        yield world, engine
        engine.kill()


class Line:
    """A caller's RTP on its clock: what it is told to say goes out, 20 ms at a time, else silence."""

    def __init__(self, voice: Voice) -> None:
        self.voice = voice
        self._saying: deque[bytes] = deque()
        self.heard = bytearray()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._speak, self._listen)]
        for thread in self._threads:
            thread.start()

    def say(self, pcmu: bytes) -> None:
        self._saying.extend(pcmu[at : at + FRAME].ljust(FRAME, b"\xff") for at in range(0, len(pcmu), FRAME))

    def _speak(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            self.voice.say(self._saying.popleft() if self._saying else SILENCE)
            due += 0.02
            self._over.wait(max(0.0, due - time.monotonic()))

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                self.heard += self.voice.hear()
            except TimeoutError:
                continue

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)


def carried(heard: bytes, said: hearing.Pcm) -> int:
    """How many loud frames of ``said`` are on the line, by their very bytes."""
    frames = np.flatnonzero(hearing.loud_frames(said)).tolist()
    return sum(ulaw_encode(said[at * FRAME :][:FRAME]) in heard for at in frames)


@pytest.mark.asyncio(loop_scope="session")
async def test_caller_in_srtp_and_agent_hear_each_other(anchored: tuple[World, RtpEngine]) -> None:
    world, engine = anchored
    phone = Endpoint(world.site.address(STRANGER))
    voice = Voice(phone.address, srtp=True)
    line: Line | None = None
    try:
        calling = phone.invite(NUMBER, world.site.edge, body=voice.sdp)
        answer = await asyncio.to_thread(calling.final, PATIENCE_S)
        assert answer.status == 200, answer.start
        near = caller_dialog(calling, answer)
        near.send("ACK")
        outside = voice.connect(answer.body)
        assert (outside.address, outside.profile) == (world.site.address(51), "RTP/SAVP")
        line = Line(voice)
        agent = world.settings.agents["reception"]
        greeting = ulaw_decode(ulaw_encode(speak(agent.greeting, agent.voice)))
        await until(
            lambda: carried(bytes(line.heard), greeting) >= 50, "a second of the greeting, byte for byte", every_s=0.3
        )
        line.say(ulaw_encode(speak("What are your opening hours?", "caller")))

        async def understood() -> bool:
            live = world.records().calls(limit=1)
            story = world.records().call(live[0].id) if live else None
            return story is not None and any("opening hours" in turn.text.lower() for turn in story.turns)

        await world.until(understood, PATIENCE_S, "the question on record")
        assert engine.calls == [calling.call_id]
        near.send("BYE")
        await until(lambda: not engine.calls, "the ports to be closed")
        await world.idle(PATIENCE_S)
    finally:
        if line is not None:
            line.close()
        voice.close()
        phone.close()
