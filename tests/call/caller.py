"""Who takes part in the scenarios: a caller who speaks, and the PBX's extensions."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from sipmessage import Request, Response

from lab import hearing
from lab.phone import Call, Phone
from lab.voice import speak
from lab.world import World
from tandem.records import CallStory, TurnRecord

PATIENCE_S = 20.0
"""A deadline, not an expectation: busy machines are slow."""

LONG = "+12025550100"
"""Answered by an agent with a long greeting and voicemail behind it."""
BRIEF = "+12025550102"
"""Answered by an agent with a short greeting and a person behind it (extension 2009)."""
CLERK = "+12025550108"
"""Answered by an agent with a short greeting and a tool whose server is away unless a scenario starts it."""
LADDER = "+12025550106"
"""Behind the agent a busy line, one that declines, and voicemail whose messages go to a webhook."""
REGRET = "+12025550107"
"""Behind the agent voicemail, a busy line, and words of regret."""
MESSAGES_SECRET = "the-secret-of-the-scenarios"
RECORDED = "+12025550121"
"""Answered by an agent whose calls are recorded after an announcement."""
ASKED = "+12025550122"
"""Answered by an agent whose calls are recorded once the caller agrees."""
KEYPAD = "+12025550123"
"""Answered by an agent who has callers key things in, presses keys itself, and lets them wait; its calls are recorded."""
API_TOKEN = "the-token-of-the-scenarios"
RECORDING_KEY = "AGE-SECRET-KEY-1R0V7TQF2M7PJUZMFVP8X07NFK5807MVGQK284KZJKF45VH2GFGSQ50WYKW"
"""Made for these scenarios."""
CALLER = "+12025550147"
GUARD = "+12025550171"
"""A destination of which the dial policy allows one call at a time."""
HOUSE = "+12025550181"
"""No destination: a number that the brief agent may name itself."""
NOT_CAUGHT = "did not catch"
"""In the agent's words when the lab's ears were not sure, as on a machine too busy to keep the line whole."""
BRIEF_GREETING = "Good day, this is Widgets."


def extension_says(extension: str) -> hearing.Pcm:
    return speak(f"This is extension {' '.join(extension)}, hello.", "sales")


async def _introduces_itself(call: Call) -> None:
    """Said again while nobody has hung up: a machine busy with other things may connect the caller late."""
    for _ in range(3):
        if not await call.audio.play(extension_says(call.called)):
            return
        await asyncio.sleep(1)


class Pbx:
    """The PBX's extensions: 2001 sales and 2009 the operator answer, 2002 is busy, 2003 rings on, 2004 declines."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}

    async def on_invite(self, call: Call) -> None:
        self.calls[call.called] = call
        match call.called:
            case "2001" | "2009":
                await call.ringing()
                await call.answer()
                await _introduces_itself(call)
            case "2002":
                await call.reject(486)
            case "2003":
                await call.ringing()
            case "2004":
                await call.ringing()
                await call.reject(603)
            case _:
                await call.reject(404)


def pbx_of(world: World) -> Pbx:
    """The world's PBX, no call of an earlier scenario in it."""
    pbx = Pbx()
    world.pbx.on_invite = pbx.on_invite
    return pbx


class Caller:
    """A caller who speaks to the agent and waits for what should happen next."""

    def __init__(self, world: World, call: Call) -> None:
        self.world = world
        self.call = call
        self._said = ""

    @classmethod
    async def rings(cls, world: World, number: str = BRIEF, phone: Phone | None = None, **options: Any) -> "Caller":
        """From the carrier, or from another ``phone``."""
        options.setdefault("from_number", CALLER)
        return cls(world, await (phone or world.carrier).invite(number, proxy=world.site.edge, **options))

    @classmethod
    async def talks_to_agent(cls, world: World, number: str = BRIEF, **options: Any) -> "Caller":
        """Answered, and the greeting heard to its end."""
        caller = await cls.rings(world, number, **options)
        await caller.call.wait_answered(PATIENCE_S)
        await caller.call.audio.wait_loud(PATIENCE_S)
        await caller.call.audio.wait_quiet(900, PATIENCE_S)
        return caller

    async def says(self, text: str) -> float:
        """Speak; returns the moment it was said (seconds on the call's clock)."""
        self._said = text
        audio = self.call.audio
        rate = audio.stream.rate
        await audio.play(speak(text, "caller", rate), rate)
        return audio.now()

    async def hears_more(self, seconds: float = 0.4) -> None:
        """Sound comes after this moment, at least so much of it, then a pause."""
        since = self.call.audio.now()
        await until(
            lambda: hearing.loud_seconds(self.call.audio.heard(), since) >= seconds,
            f"{seconds} s of sound for the caller",
        )
        await self.call.audio.wait_quiet(900, PATIENCE_S)

    async def hears(self, voice: hearing.Pcm) -> None:
        """This very voice reaches the caller."""
        await until_heard(self.call, voice)

    async def agent_says(self, words: str) -> None:
        """The agent says something with these words, to its end."""
        await self.brings_about(
            lambda: any(words in text for text in self._agents_words()), f"the agent to say {words!r}"
        )

    async def brings_about(self, condition: Callable[[], bool], what: str) -> None:
        """What the caller said leads to that. What the agent did not catch is said again, as people do."""
        repeated = 0

        async def brought_about() -> bool:
            nonlocal repeated
            if condition():
                return True
            if sum(NOT_CAUGHT in text for text in self._agents_words()) > repeated and repeated < 2:
                repeated += 1
                await self.says(self._said)
            return False

        await self.world.until(brought_about, PATIENCE_S, what)

    def _agents_words(self) -> list[str]:
        return [turn.text.lower() for turn in self.turns() if turn.who == "agent"]

    def turns(self) -> list[TurnRecord]:
        """What is on record of the conversation so far."""
        records = self.world.records()
        for row in records.calls(limit=50):
            if row.sip_call_id == self.call.call_id:
                story = records.call(row.id)
                return list(story.turns) if story else []
        return []

    async def story(self, *, answered: bool = False) -> CallStory:
        """The call's record, once it ended; with ``answered`` not that of an attempt before the one which was."""
        sip_call_id = self.call.call_id
        return await self.world.record(
            lambda row: row.sip_call_id == sip_call_id and (row.answered_at is not None or not answered)
        )


async def until(
    condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S, *, every_s: float = 0.02
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
        await asyncio.sleep(every_s)


async def until_heard(call: Call, voice: hearing.Pcm) -> None:
    """This very voice reaches whose call it is."""

    def heard() -> bool:
        return hearing.likeness(call.audio.heard(), voice) > hearing.ALIKE

    await until(heard, f"the voice in {call}", every_s=0.2)


async def worker_reserving(world: World) -> str:
    """The worker whose media_fork is getting a model for a call, once there is one."""
    found: list[str] = []

    async def reserving() -> bool:
        found[:] = [worker for worker in world.site.workers if await world.sessions(worker)]
        return bool(found)

    await world.until(reserving, PATIENCE_S, "a session to be reserved")
    return found[0]


def workers_tried(world: World, call: Call) -> list[tuple[str, int]]:
    """Workers that the edge sent this call's INVITE to, in order, each with its final status (0: none came)."""
    assert world.capture is not None
    tried: dict[str, int] = {}
    for wire in world.capture.messages:
        message = wire.message
        if message is None or message.headers.get("Call-ID") != call.call_id:
            continue
        if isinstance(message, Request):
            if message.method == "INVITE" and wire.source == "edge" and wire.target in world.site.workers:
                tried.setdefault(wire.target, 0)
        elif message.code >= 200 and wire.target == "edge" and wire.source in tried and not tried[wire.source]:
            tried[wire.source] = message.code
    return list(tried.items())


async def captured(world: World, call: Call, party: str) -> None:
    """The capture has come as far as the final response to this call's INVITE, between the edge and ``party``."""
    capture = world.capture
    assert capture is not None

    def seen() -> bool:
        return any(
            isinstance(wire.message, Response)
            and wire.message.code >= 200
            and party in (wire.source, wire.target)
            and wire.message.headers.get("Call-ID") == call.call_id
            for wire in capture.messages
        )

    await until(seen, f"the capture to show the answer to {call.call_id} at {party}")
