"""Who is called in the scenarios: people, voicemails and faxes at the carrier's end; and the API that has them called."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import numpy as np

from bench.answers.recordings import tone
from lab import hearing
from lab.phone import Call
from lab.voice import speak
from lab.world import World
from tests.call.caller import API_TOKEN, PATIENCE_S

PERSON = "+12025550141"
BOB = "+12025550142"
APPROVED = "+12025550100"

Answers = Callable[[Call], Awaitable[None]]


async def ask(world: World, method: str, path: str, body: Any = None, of: str = "worker-1") -> tuple[int, Any]:
    """One request to a worker's API, or the ``dialler``'s: the status, and the reply's JSON."""
    settings = world.settings
    place = settings.dialler.listen
    if of != "dialler":
        place = f"{settings.workers[of].loopback}:{settings.esl_app.api_port}"
    url = f"http://{place}{path}"
    headers = {"Authorization": f"Bearer {API_TOKEN}"}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10), headers=headers) as http:
        async with http.request(method, url, json=body) as response:
            return response.status, await response.json() if response.content_length else None


class Placed:
    """A call that the API was asked for, and the phone that it rings."""

    def __init__(self, world: World, id: str, rung: list[Call]) -> None:
        self.world = world
        self.id = id
        self._rung = rung

    @classmethod
    async def to(cls, world: World, answers: Answers, number: str = PERSON, **asked: Any) -> "Placed":
        rung: list[Call] = []

        async def on_invite(call: Call) -> None:
            rung.append(call)
            await answers(call)

        world.carrier.on_invite = on_invite
        status, reply = await ask(world, "POST", "/v1/calls", {"to": number, "agent": "brief"} | asked)
        assert status == 202, reply
        return cls(world, reply["call"], rung)

    async def phone(self) -> Call:
        async def is_rung() -> bool:
            return bool(self._rung)

        await self.world.until(is_rung, PATIENCE_S, "the phone to ring")
        return self._rung[0]

    async def state(self) -> dict[str, Any]:
        status, reply = await ask(self.world, "GET", f"/v1/calls/{self.id}")
        assert status == 200, reply
        return dict(reply)

    async def until(self, **wanted: Any) -> dict[str, Any]:
        """Its state, once it has these values."""
        state: dict[str, Any] = {}

        async def reached() -> bool:
            state.update(await self.state())
            return all(state[name] == value for name, value in wanted.items())

        try:
            await self.world.until(reached, PATIENCE_S, f"the call to be {wanted}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it is {state}") from None
        return state

    async def over(self) -> dict[str, Any]:
        return await self.until(state="ended")


def says(*parts: str | hearing.Pcm, after_s: float = 0.3) -> Answers:
    """Somebody, or something, that rings, answers, and says or plays these parts."""

    async def answers(call: Call) -> None:
        await call.ringing()
        await call.answer()
        await asyncio.sleep(after_s)
        for part in parts:
            if not await call.audio.play(speak(part, "sales") if isinstance(part, str) else part):
                return

    return answers


def still(seconds: float) -> hearing.Pcm:
    return np.zeros(round(seconds * hearing.RATE), dtype=np.int16)


def beep(hz: float = 1000.0, ms: int = 400) -> hearing.Pcm:
    return (tone(hz, ms) * 32767).astype(np.int16)


VOICEMAIL = (
    "Hello, you have reached the Wilsons. We cannot answer, so please leave us a message.",
    still(0.4),
    beep(),
    still(0.2),
)
