"""An independent user agent, baresip as the demonstration says to start it, talks to the agent."""

import asyncio
import contextlib
import os
import pty
import shutil
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from sipmessage import Request

from lab import hearing, softphone
from lab.voice import speak
from lab.world import World
from tandem.outcome import Outcome
from tandem.records import CallStory
from tests.call.caller import BRIEF, PATIENCE_S, until

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(not shutil.which("baresip"), reason="no baresip on this machine (Debian package baresip-core)"),
]

LISTENS_S = 4.5
"""Silence in what baresip plays, for the greeting."""
ASKS_AGAIN_S = 9.0
"""What was not caught is said again, as people do."""
LAG_S = 1.0
"""How far what baresip has written may be behind what was said to it."""
GOES_ON_S = 60.0
"""Silence behind it all: at its end the call would end too."""
CONFIG = """\
module_path {modules}
module stdio.so
module g711.so
module aufile.so
module sndfile.so
module_tmp account.so
module_app menu.so
audio_source aufile,{folder}/says.wav
snd_path {folder}
"""
"""In place of a sound card: a file to say, and a WAV of what is heard."""


class Baresip:
    """A running baresip, its keyboard and its screen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.screen = ""
        self._child: asyncio.subprocess.Process | None = None
        self._terminal = -1

    async def start(self, argv: list[str]) -> None:
        self._terminal, line = pty.openpty()
        self._child = await asyncio.create_subprocess_exec(
            *argv, "-f", str(self.folder), stdin=line, stdout=line, stderr=line, cwd=self.folder
        )
        os.close(line)
        asyncio.get_running_loop().add_reader(self._terminal, self._read)

    def _read(self) -> None:
        try:
            self.screen += os.read(self._terminal, 4096).decode(errors="replace")
        except OSError:
            asyncio.get_running_loop().remove_reader(self._terminal)

    def press(self, key: str) -> None:
        os.write(self._terminal, key.encode())

    async def shows(self, text: str) -> None:
        try:
            await until(lambda: text in self.screen, f"baresip to show {text!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}; its screen:\n{self.screen}") from None

    async def ended(self) -> int:
        assert self._child is not None
        return await asyncio.wait_for(self._child.wait(), PATIENCE_S)

    async def stop(self) -> None:
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()
        asyncio.get_running_loop().remove_reader(self._terminal)
        os.close(self._terminal)

    def heard(self) -> hearing.Pcm:
        [file] = self.folder.glob("dump-*-dec.wav")
        with wave.open(str(file)) as wav:
            assert (wav.getframerate(), wav.getnchannels()) == (hearing.RATE, 1)
            return np.frombuffer(wav.readframes(wav.getnframes()), "<i2").astype(np.int16)


def silence(seconds: float) -> hearing.Pcm:
    return np.zeros(round(seconds * hearing.RATE), np.int16)


@pytest_asyncio.fixture(loop_scope="session")
async def baresip(tmp_path: Path) -> AsyncIterator[Baresip]:
    question = speak("What are your opening hours?", "caller")
    says = np.concatenate([silence(LISTENS_S), question, silence(ASKS_AGAIN_S), question, silence(GOES_ON_S)])
    with wave.open(str(tmp_path / "says.wav"), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(hearing.RATE)
        wav.writeframes(says.astype("<i2").tobytes())
    program = Path(str(shutil.which("baresip"))).resolve()
    modules = next((program.parents[1] / "lib").glob("**/baresip/modules"))
    (tmp_path / "config").write_text(CONFIG.format(modules=modules, folder=tmp_path))
    for name in ("accounts", "contacts"):
        (tmp_path / name).touch()
    phone = Baresip(tmp_path)
    yield phone
    await phone.stop()


async def test_baresip_asks_the_agent_as_the_demonstration_says(world: World, baresip: Baresip) -> None:
    since = len(world.capture.messages) if world.capture is not None else 0
    agent = world.settings.agents[str(world.settings.numbers[BRIEF].agent)]
    answer = "We are open Monday to Friday, nine to five."
    await baresip.start(softphone.baresip(BRIEF, world.site.edge))
    await baresip.shows("Call established")
    story = await live(world)

    async def answered() -> bool:
        found = world.records().call(story.call.id)
        said = [turn for turn in found.turns if turn.who == "agent" and turn.ended_at is not None] if found else []
        return any("nine" in turn.text for turn in said)

    await world.until(answered, PATIENCE_S, "the agent's answer, to its end")
    await asyncio.sleep(LAG_S)
    baresip.press("b")
    await baresip.shows("terminated")
    baresip.press("q")
    assert await baresip.ended() == 0
    for words in (agent.greeting, answer):
        assert hearing.likeness(baresip.heard(), speak(words, agent.voice)) > hearing.ALIKE, words
    ended = await world.record(lambda row: row.id == story.call.id)
    assert ended.call.outcome is Outcome.CALLER_HUNG_UP
    assert any("opening hours" in turn.text.lower() for turn in ended.turns if turn.who == "caller")
    assert world.capture is not None
    sent = [
        wire.message.method
        for wire in world.capture.messages[since:]
        if wire.source == softphone.ADDRESS and isinstance(wire.message, Request)
    ]
    assert "INVITE" in sent
    assert set(sent) <= {"INVITE", "ACK", "BYE"}, "nothing is registered"


async def live(world: World) -> CallStory:
    """The softphone's call, on record."""
    found: list[CallStory] = []

    async def there() -> bool:
        rows = [row for row in world.records().calls(limit=5) if row.trunk == softphone.TRUNK and row.outcome is None]
        found[:] = [story for story in map(world.records().call, [row.id for row in rows]) if story is not None]
        return len(found) == 1

    await world.until(there, PATIENCE_S, "the softphone's call to be on record")
    return found[0]
