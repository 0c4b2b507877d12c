"""A PBX that nobody here wrote, at the edge: it places calls and takes them, dials 911, and is transferred to."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from lab import asterisk, hearing
from lab.asterisk import Asterisk
from lab.capture import Capture
from lab.phone import Call
from lab.site import Site
from lab.switches import SwitchKind, available
from lab.transferee import answers, reports
from lab.voice import speak
from lab.world import World
from tandem.outcome import Outcome, TransferOutcome
from tests.call.caller import CALLER, LONG, PATIENCE_S, Caller, Pbx, captured, extension_says, until
from tests.edge.certificates import Certificates
from tests.edge.needs import missing

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOST = 32
"""Asterisk's last octet. The world's PBX phone is its desk phones."""
STATION = "+12025550101"
OUTSIDE = "+12025550160"
REFERS, REFERS_TO_PREMIUM, REFERS_TO_911 = "+12025550105", "+12025550106", "+12025550107"
PREMIUM = "+19005550199"


class AsteriskWorld:
    """The world, the PBX in it, and who of the outside was called."""

    def __init__(self, world: World, pbx: Asterisk) -> None:
        self.world = world
        self.pbx = pbx
        self.outside: dict[str, Call] = {}

    async def outside_rings(self, call: Call) -> None:
        """The carrier's network: whoever is called answers and speaks."""
        self.outside[call.called] = call
        await call.ringing()
        await call.answer()
        await call.audio.play(extension_says(call.called))

    async def dials(self, number: str) -> Call:
        """A desk phone dials."""
        return await self.world.pbx.invite(number, proxy=(self.pbx.address, 5060), from_number=STATION)

    async def idle(self) -> None:
        async def empty() -> bool:
            return self.pbx.channels() == 0

        await self.world.until(empty, PATIENCE_S, "the PBX to have no channel left")
        await self.world.idle(PATIENCE_S)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["udp", "tls"])
async def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsteriskWorld]:
    if reason := asterisk.missing():
        missing(reason)
    tls = request.param == "tls"
    switch = SwitchKind.LAB if available()[SwitchKind.FREESWITCH] else SwitchKind.FREESWITCH
    folder = tmp_path_factory.mktemp(f"asterisk-{request.param}")
    certificates = Certificates(folder / "certificates")

    def change(data: dict[str, Any]) -> None:
        address = site.address(HOST)
        gateway = f"sip:{address}:5061;transport=tls" if tls else f"sip:{address}:5060"
        del data["trunks"]["pbx"]["sources"]
        known = {"certificate": "pbx"} if tls else {"sources": [f"{address}/32"]}
        data["trunks"]["pbx"] |= {**known, "gateways": [gateway]}
        # Else an emergency call would present the agent's number, and calls to that would ring the station for an hour.
        data["trunks"]["carrier"]["caller_ids"].append(STATION)
        for number in (REFERS, REFERS_TO_PREMIUM, REFERS_TO_911):
            data["numbers"][number] = {"trunk": "pbx"}
        if tls:
            certificate, key = certificates.issue("edge", site.edge[0])
            data["edge"]["listen"].append({"transport": "tls", "address": site.edge[0]})
            data["edge"]["tls"] = {
                "certificate": str(certificate),
                "key": str(key),
                "ca": str(certificates.folder / "ca.pem"),
            }

    site = Site(folder, change=change)
    edge_host, edge_port = site.edge
    async with World(site, switch=switch) as world:
        pbx = Asterisk(
            site.address(HOST),
            (edge_host, 5061 if tls else edge_port),
            (world.pbx.address, world.pbx.port),
            folder / "asterisk.log",
            transfers={
                REFERS: f"sip:{OUTSIDE}@{edge_host}",
                REFERS_TO_PREMIUM: f"sip:{PREMIUM}@{edge_host}",
                REFERS_TO_911: f"sip:911@{edge_host}",
            },
            tls=_tls(certificates, site.address(HOST)) if tls else None,
        )
        await pbx.start()
        try:

            async def serves() -> bool:
                return pbx.serves()

            await world.until(serves, PATIENCE_S, "Asterisk to serve", pbx.process)
            async with Capture(folder / "sip.pcapng", network=site.network, names=site.names) as capture:
                world.capture = capture
                yield AsteriskWorld(world, pbx)
        finally:
            await pbx.stop()


def _tls(certificates: Certificates, address: str) -> asterisk.Tls:
    certificate, key = certificates.issue("pbx", address)
    authority = certificates.folder / "ca.pem"
    return asterisk.Tls(certificate.read_bytes(), key.read_bytes(), authority.read_bytes())


@pytest_asyncio.fixture(loop_scope="session")
async def pbx(shared: AsteriskWorld) -> AsyncIterator[AsteriskWorld]:
    shared.outside.clear()
    shared.world.pbx.on_invite = Pbx().on_invite
    shared.world.carrier.on_invite = shared.outside_rings
    yield shared
    for phone in (shared.world.carrier, shared.world.pbx):
        for call in phone.calls:
            await call.hangup()
    await shared.idle()


async def talk(first: Call, second: Call) -> None:
    """What either says, the other hears: said up to three times, as on a line that a busy machine does not keep whole."""
    for speaker, listener, words in (
        (first, second, "Can you hear me now?"),
        (second, first, "Yes, very well indeed."),
    ):
        voice = speak(words, "caller")
        for _ in range(3):
            await speaker.audio.play(voice)
            with contextlib.suppress(AssertionError):
                await until(partial(_is_heard, listener, voice), f"{words!r} to be heard", 5.0, every_s=0.2)
                break
        else:
            pytest.fail(f"{words!r} was not heard")


def _is_heard(listener: Call, voice: hearing.Pcm) -> bool:
    return hearing.likeness(listener.audio.heard(), voice) > hearing.ALIKE


async def test_is_asterisk_22(pbx: AsteriskWorld) -> None:
    assert pbx.pbx.ask("core show version").startswith("Asterisk 22.")


async def test_places_a_call_to_the_outside_world(pbx: AsteriskWorld) -> None:
    call = await pbx.dials(OUTSIDE)
    await call.wait_answered(PATIENCE_S)
    far = pbx.outside[OUTSIDE]
    await talk(call, far)
    assert pbx.world.capture is not None
    await captured(pbx.world, far, "carrier")
    in_the_clear = [
        wire for wire in pbx.world.capture.messages if {wire.source, wire.target} == {"edge", pbx.pbx.address}
    ]
    assert bool(in_the_clear) == (pbx.pbx.tls is None)
    await far.hangup()
    assert (await call.wait_ended(PATIENCE_S)).by == "peer"


async def test_receives_a_call_to_a_station(pbx: AsteriskWorld) -> None:
    stations: dict[str, Call] = {}

    async def rings(call: Call) -> None:
        stations[call.called] = call
        await call.ringing()
        await call.answer()

    pbx.world.pbx.on_invite = rings
    call = await pbx.world.carrier.invite(STATION, proxy=pbx.world.site.edge, from_number=CALLER)
    await call.wait_answered(PATIENCE_S)
    await talk(call, stations[STATION])
    await call.hangup()
    assert (await stations[STATION].wait_ended(PATIENCE_S)).by == "peer"


@pytest.mark.parametrize(("dialled", "meant"), [("911", "911"), ("9911", "911"), ("933", "933")])
async def test_dials_an_emergency_number(pbx: AsteriskWorld, dialled: str, meant: str) -> None:
    call = await pbx.dials(dialled)
    await call.wait_answered(PATIENCE_S)
    await talk(call, pbx.outside[meant])
    await captured(pbx.world, pbx.outside[meant], "carrier")
    workers = set(pbx.world.site.workers)
    assert pbx.world.capture is not None
    assert not [
        wire
        for wire in pbx.world.capture.messages
        if wire.target in workers and wire.message is not None and meant in str(wire.message.headers.get("To"))
    ]
    await pbx.outside[meant].hangup()
    assert (await call.wait_ended(PATIENCE_S)).by == "peer"


async def test_a_station_talks_to_the_agent(pbx: AsteriskWorld) -> None:
    caller = Caller(pbx.world, await pbx.dials(LONG))
    await caller.call.wait_answered(PATIENCE_S)
    agent = pbx.world.settings.agents["reception"]
    await caller.hears(speak(agent.greeting, agent.voice)[:16000])
    await caller.call.hangup()


async def test_is_transferred_to_by_the_agent(pbx: AsteriskWorld) -> None:
    caller = await Caller.talks_to_agent(pbx.world, LONG)
    await caller.says("Please put me through to sales.")
    await caller.hears(extension_says("2001"))
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.outcome is Outcome.TRANSFERRED
    assert [transfer.outcome for transfer in story.transfers] == [TransferOutcome.ANSWERED]


async def test_refers_its_caller_to_the_outside_world(pbx: AsteriskWorld) -> None:
    call = await pbx.world.carrier.invite(REFERS, proxy=pbx.world.site.edge, from_number=CALLER)
    call.handlers["REFER"] = reports(100, 200)
    await call.wait_answered(PATIENCE_S)
    refer = await call.wait_request("REFER", PATIENCE_S)
    assert OUTSIDE in str(refer.headers["Refer-To"])
    assert (await call.wait_ended(PATIENCE_S)).by == "peer"


@pytest.mark.parametrize("number", [REFERS_TO_PREMIUM, REFERS_TO_911])
async def test_refer_that_the_policy_forbids_reaches_nobody(pbx: AsteriskWorld, number: str) -> None:
    call = await pbx.world.carrier.invite(number, proxy=pbx.world.site.edge, from_number=CALLER)
    call.handlers["REFER"] = answers(202)
    await call.wait_answered(PATIENCE_S)
    await call.audio.wait_loud(PATIENCE_S)  # the PBX says that it could not
    assert "REFER" not in [request.method for request in call.requests]
    await call.hangup()
