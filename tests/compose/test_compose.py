"""docker-compose.yml as an operator runs it, on images of Debian 13: Kamailio 6.0, Python 3.13."""

import asyncio
import signal
from collections.abc import AsyncIterator

import docker
import pytest
import pytest_asyncio

from lab import hearing
from lab.call import Call
from lab.dialog import DialogEnded
from lab.site import CARRIER
from tandem.outcome import Outcome
from tests.call.caller import LONG, PATIENCE_S, Caller
from tests.compose.composed import SERVICES, ComposedWorld

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(
    client: docker.DockerClient, switch_image: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ComposedWorld]:
    async with ComposedWorld(client, tmp_path_factory.mktemp("composed"), switch_image) as world:
        yield world


async def test_a_call_reaches_the_agent_and_its_record_postgresql(world: ComposedWorld) -> None:
    assert world.settings.records.url.startswith("postgresql")
    caller = await hears_agent(world)
    await asks_for_opening_hours(caller)
    await caller.call.hangup()
    assert (await caller.story()).call.outcome is Outcome.CALLER_HUNG_UP


async def hears_agent(world: ComposedWorld) -> Caller:
    caller = await Caller.rings(world, LONG)
    await caller.call.wait_answered(PATIENCE_S)
    await caller.call.audio.wait_loud(PATIENCE_S)
    return caller


async def asks_for_opening_hours(caller: Caller) -> None:
    """By a key; what the agent says to it is heard, and on record while the call goes on."""
    await caller.call.dtmf("1")
    since = caller.call.audio.now()
    await caller.agent_says("nine to five")
    assert hearing.loud_seconds(caller.call.audio.heard(), since) > 1


async def test_the_edge_is_kamailio_6(world: ComposedWorld) -> None:
    assert (await world.edge_rpc("core.version"))["result"].startswith("kamailio 6.")


async def test_prompt_and_message_of_voicemail_are_found_in_either_container(world: ComposedWorld) -> None:
    await world.model_faults(refuse=503, connections=10)
    caller = await Caller.rings(world, LONG)
    await caller.call.wait_answered(PATIENCE_S)
    await caller.call.audio.wait_loud(PATIENCE_S)
    await caller.call.audio.wait_quiet(900, PATIENCE_S)
    await caller.says("Please call me back.")
    await caller.call.hangup()
    await world.clear_faults()
    story = await caller.story()
    assert story.call.outcome is Outcome.FELL_BACK
    assert hearing.loud_seconds(caller.call.audio.heard()) > 2, "the prompt was heard"
    message = f"/var/lib/tandem/voicemail/{story.call.id}.wav"
    assert world.container("esl_app").exec_run(["test", "-s", message]).exit_code == 0


async def test_a_service_that_hangs_is_found_out(world: ComposedWorld) -> None:
    assert await checks(world) == dict.fromkeys(SERVICES, 0)
    for service in SERVICES:
        world.signal(service, signal.SIGSTOP)
    try:
        frozen = await checks(world)
    finally:
        for service in SERVICES:
            world.signal(service, signal.SIGCONT)
    assert all(frozen.values()), frozen
    await world.ready()


async def checks(world: ComposedWorld) -> dict[str, int]:
    """Each service's own health check, run once: its exit status."""
    statuses = await asyncio.gather(*(world.health_check(service) for service in SERVICES))
    return dict(zip(SERVICES, statuses, strict=True))


async def test_a_stop_lets_the_call_finish_and_takes_no_other(world: ComposedWorld) -> None:
    caller = await hears_agent(world)
    stopping = asyncio.create_task(world.compose("stop"))
    await world.until(lambda: refused(world), PATIENCE_S, "new calls to be refused")
    await asks_for_opening_hours(caller)
    assert not stopping.done()
    await caller.call.hangup()
    await stopping
    assert world.container("esl_app").attrs["State"]["ExitCode"] == 0
    assert world.container("media_fork").attrs["State"]["ExitCode"] == 0
    await world.compose("up", "-d", "--no-build")
    await world.ready()
    assert (await caller.story()).call.outcome is Outcome.CALLER_HUNG_UP


async def refused(world: ComposedWorld) -> bool:
    """Whether a call made now is refused with 503."""
    caller = await Caller.rings(world, LONG)
    try:
        await caller.call.wait_answered(PATIENCE_S)
    except DialogEnded:
        return caller.call.final_status == 503
    await caller.call.hangup()
    return False


async def test_an_emergency_call_gets_out_with_the_edge_alone(world: ComposedWorld) -> None:
    async def psap(call: Call) -> None:
        await call.answer()

    await world.compose("kill", *(service for service in SERVICES if service != "kamailio"))
    world.carrier.on_invite = psap
    call = await world.pbx.invite("911", proxy=world.site.edge, from_number="2001")
    await call.wait_answered(PATIENCE_S)
    assert call.remote_media_address == world.site.address(CARRIER)
    await call.hangup()
    await world.compose("up", "-d", "--no-build")
    await world.ready()


async def test_processes_that_are_killed_come_back(world: ComposedWorld) -> None:
    for service in SERVICES:
        world.signal(service, signal.SIGKILL)
    await world.ready()
    caller = await hears_agent(world)
    await caller.call.hangup()
    assert (await caller.story()).call.outcome is Outcome.CALLER_HUNG_UP
