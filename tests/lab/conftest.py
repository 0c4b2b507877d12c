"""SIP parties on loopback, closed after each test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio

from lab.phone import Phone
from lab.sip import Endpoint
from lab.transaction import Timers
from tests.lab.sip_peer import RawPeer

QUICK = Timers(t1=0.02, t2=0.08, t4=0.1)
"""Gives up after 1.28 s."""


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[Callable[..., Awaitable[Endpoint]]]:
    made: list[Endpoint] = []

    async def start(**options: Any) -> Endpoint:
        made.append(Endpoint("127.0.0.1", 0, **({"timers": QUICK} | options)))
        await made[-1].start()
        return made[-1]

    yield start
    for one in made:
        await one.stop()


@pytest_asyncio.fixture
async def phone() -> AsyncIterator[Callable[..., Awaitable[Phone]]]:
    made: list[Phone] = []

    async def start(name: str = "phone", **options: Any) -> Phone:
        made.append(Phone("127.0.0.1", 0, name, **options))
        await made[-1].start()
        return made[-1]

    yield start
    for one in made:
        await one.stop()
    assert [one.endpoint.counters["handler_error"] for one in made] == [0] * len(made)


@pytest_asyncio.fixture
async def raw() -> AsyncIterator[RawPeer]:
    peer = await RawPeer.open()
    yield peer
    peer.close()
