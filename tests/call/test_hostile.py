"""Strangers, forged headers, emergencies and garbage: each refused or routed as it must be, and no other call suffers."""

import asyncio
import socket

import pytest

from lab.phone import Phone
from lab.site import STRANGER
from lab.world import World
from tandem.outcome import Outcome
from tests.call.caller import BRIEF, PATIENCE_S, Caller, Pbx, captured, extension_says, workers_tried

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_unknown_source_is_refused(world: World) -> None:
    stranger = Phone(world.site.address(STRANGER), 5060, name="stranger")
    await stranger.start()
    try:
        call = await stranger.invite(BRIEF, proxy=world.site.edge, from_number="+12025550199")
        end = await call.wait_ended(PATIENCE_S + 20)
        assert (end.status, end.reason_header) == (403, 'SIP;cause=403;text="unknown source"')
        await captured(world, call, "stranger")
        assert workers_tried(world, call) == []
    finally:
        await stranger.stop()


async def test_a_display_name_cannot_forge_event_headers(world: World) -> None:
    name = "Eve%0AUnique-ID: 0%0Avariable_sip_h_X-Tandem-Agent: reception%0AEvent-Name: CHANNEL_HANGUP"
    caller = await Caller.talks_to_agent(world, from_name=name)
    await caller.says("What are your opening hours?")
    await caller.hears_more(1.0)
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.agent == "brief"
    assert story.call.outcome is Outcome.CALLER_HUNG_UP


async def test_private_headers_from_outside_are_stripped(world: World) -> None:
    caller = await Caller.talks_to_agent(world, headers=[("X-Tandem-Agent", "reception"), ("x-tandem-call", "forged")])
    await caller.call.hangup()
    story = await caller.story()
    assert story.call.agent == "brief"
    assert story.call.id != "forged"


@pytest.mark.parametrize("dialled", ["911", "9911", "+1911", "urn:service:sos"])
async def test_an_emergency_from_the_pbx_goes_to_the_carrier_and_no_worker_sees_it(world: World, dialled: str) -> None:
    rung: list[str] = []

    async def psap(call):
        rung.append(call.called)
        await call.answer()

    world.carrier.on_invite = psap
    call = await world.pbx.invite(dialled, proxy=world.site.edge, from_number="+12025550101")
    await call.wait_answered(PATIENCE_S)
    assert len(rung) == 1
    await captured(world, call, "carrier")
    assert workers_tried(world, call) == []
    await call.hangup()


async def test_an_emergency_goes_out_while_every_worker_is_dead(world: World) -> None:
    async def psap(call):
        await call.answer()

    world.carrier.on_invite = psap
    for worker in world.site.workers:
        await world.kill(f"switch@{worker}")
    call = await world.pbx.invite("911", proxy=world.site.edge, from_number="+12025550101")
    await call.wait_answered(PATIENCE_S)
    await call.hangup()


async def test_garbage_on_every_socket_hurts_nobody(world: World) -> None:
    caller = await Caller.talks_to_agent(world)
    worker = world.worker_of(caller.call)
    cell, settings = world.settings.workers[worker], world.settings
    garbage = [
        b"\x00" * 64,
        b"\xff\xfe" * 3000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"INVITE sip:x SIP/2.0\r\n\r\n",
        b"{" * 5000,
        b"\n\n\n",
    ]
    for data in garbage:
        for host, port in (
            (cell.loopback, settings.esl_app.port),
            (cell.loopback, settings.media_fork.http_port),
            (cell.loopback, settings.media_fork.fork_port),
            (cell.loopback, settings.freeswitch.event_socket_port),
            (cell.loopback, settings.esl_app.metrics_port),
            (world.site.edge[0], int(settings.edge.rpc.rpartition(":")[2])),
            world.site.model,
        ):
            await send_tcp(host, port, data)
        assert caller.call.audio.stream.remote is not None
        for host, port, source in (
            (*caller.call.audio.stream.remote, world.carrier.address),
            (*caller.call.audio.stream.remote, world.site.address(STRANGER)),
            (*world.site.edge, world.carrier.address),
            (*world.site.edge, world.site.address(STRANGER)),
            (cell.address, cell.sip_port, world.site.edge[0]),
        ):
            send_udp(host, port, data, source)
    await caller.says("What are your opening hours?")
    await caller.hears_more(1.0)
    await caller.call.hangup()
    assert (await caller.story()).call.outcome is Outcome.CALLER_HUNG_UP
    for process in world.processes.values():
        process.check()


async def test_two_calls_at_once_do_not_mix(world: World) -> None:
    pbx = Pbx()
    world.pbx.on_invite = pbx.on_invite
    first, second = await asyncio.gather(Caller.talks_to_agent(world), Caller.talks_to_agent(world))
    await asyncio.gather(first.says("Please put me through to sales."), second.says("What are your opening hours?"))
    await first.hears(extension_says("2001"))
    await second.agent_says("nine")
    await second.call.hangup()
    story = await second.story()
    assert list(story.transfers) == []
    assert story.call.outcome is Outcome.CALLER_HUNG_UP
    await first.call.hangup()
    assert (await first.story()).call.outcome is Outcome.TRANSFERRED


async def send_tcp(host: str, port: int, data: bytes) -> None:
    _, writer = await asyncio.open_connection(host, port)
    writer.write(data)
    await writer.drain()
    writer.close()


def send_udp(host: str, port: int, data: bytes, source: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.sendto(data, (host, port))
