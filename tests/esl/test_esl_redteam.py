"""The red team: whatever a model is talked into asking for, nothing gets out, and each refusal is named.

Held at the edge of the process: what esl_app writes on its event sockets; and on the wire: what SIP leaves a switch.
"""

import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lab.switches import SwitchKind, available
from tandem.dial_policy import Refusal, refused
from tandem.seam import Transfer
from tests.esl.cell import Cell, running
from tests.esl.cell import until as until_async
from tests.esl.conftest import World, free_address, metric, site
from tests.esl.fake_switch import FakeCall, until
from tests.esl.hostile import EMERGENCIES, HOME, RED_TEAM, Hostile, site_changes


def command(number: int, hostile: Hostile) -> dict[str, Any]:
    """As media_fork sends it."""
    return Transfer.model_validate({"id": f"t{number}", "destination": ""} | hostile.arguments).model_dump()


def wanted(number: int, hostile: Hostile) -> dict[str, Any]:
    """What the agent must be told."""
    refusal = refused(hostile.refusal)
    return {"notice": "transfer", "id": f"t{number}", "outcome": refusal.outcome.value, "detail": refusal.detail}


def test_the_red_team_has_two_hundred_different_arguments_and_every_refusal_that_there_is() -> None:
    assert len({repr(hostile) for hostile in RED_TEAM}) == len(RED_TEAM) >= 200
    found = Counter(hostile.refusal for hostile in RED_TEAM)
    assert set(found) == set(Refusal) - {
        Refusal.NO_GATEWAY,
        Refusal.TOO_MANY_CALLS,
        Refusal.TOO_MANY_CALLS_PER_HOUR,
    }


def test_the_guide_says_how_many_there_are() -> None:
    guide = (Path(__file__).parents[2] / "docs/dial-policy.md").read_text()
    assert f"`tests/esl/hostile.py` has {len(RED_TEAM)} arguments" in guide
    assert f"emergency numbers in {len(EMERGENCIES)} spellings" in guide


class TestTheEventSocket:
    @pytest.fixture
    def changes(self) -> dict[str, Any]:
        return site_changes()

    def test_nothing_is_written_but_what_the_agent_is_told(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        call = settled(world)
        before = written(world, call)
        counted = {refusal: metric("tandem_dial_refused_total", refusal=refusal.value) for refusal in Refusal}
        for number, hostile in enumerate(RED_TEAM):
            call.decides(command(number, hostile))
        until(lambda: len(call.texts) > len(RED_TEAM), "every refusal to be told")
        assert call.texts[1:] == [wanted(number, hostile) for number, hostile in enumerate(RED_TEAM)]
        commands = [line for line in written(world, call) if line not in before]
        told = f"api uuid_audio_fork {call.uuid} send_text tandem "
        assert [line for line in commands if not line.startswith(told)] == []
        assert len(commands) == len(RED_TEAM)
        assert not any("\n" in line for line in commands)
        assert world.switch.legs == []
        causes = [record.args[-1] for record in caplog.records if "refused" in record.message and record.args]
        assert causes[-len(RED_TEAM) :] == [hostile.refusal.value for hostile in RED_TEAM]
        assert [row.outcome for row in world.rows.transfers()[1:]] == [
            refused(each.refusal).outcome for each in RED_TEAM
        ]
        found = Counter(hostile.refusal for hostile in RED_TEAM)
        for refusal in Refusal:
            assert metric("tandem_dial_refused_total", refusal=refusal.value) == counted[refusal] + found[refusal]
        # The call is none the worse, and the number that this agent may name is dialled.
        call.decides(command(len(RED_TEAM), Hostile({"number": "(202) 555-0160"}, Refusal.FREE_NUMBER)))
        until(lambda: world.switch.legs, "the home number to be dialled")
        assert f"sofia/tandem/sip:{HOME}@" in world.switch.legs[0].dial_string

    @pytest.mark.parametrize(
        "text", ["x\n\napi reboot", "'; bgapi originate user/1 &park()", "\\' }", "${x}", "٩" * 60]
    )
    def test_nor_by_way_of_an_id_or_a_reason(self, world: World, text: str) -> None:
        call = settled(world)
        before = written(world, call)
        call.decides({"command": "transfer", "id": text, "destination": "nobody", "reason": text})
        until(lambda: len(call.texts) > 1, "the refusal to be told")
        assert call.texts[1]["id"] == text
        (line,) = (line for line in written(world, call) if line not in before)
        assert line.startswith(f"api uuid_audio_fork {call.uuid} send_text tandem ") and "\n" not in line


def settled(world: World) -> FakeCall:
    """A call in which all has been said on the event socket that is said at its beginning: one transfer has been refused."""
    call = world.talking()
    world.transfer(call, "nobody", id="first")
    until(lambda: call.texts, "the first refusal to be told")
    return call


def written(world: World, call: FakeCall) -> list[str]:
    """Everything on the call's socket and on those that esl_app opened, in the order of each."""
    return [*(line for connection in world.switch.inbound for line in connection.commands), *call.commands]


@pytest_asyncio.fixture(params=list(SwitchKind), ids=str)
async def cell(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cell]:
    reason = available()[request.param]
    if reason:
        pytest.skip(reason)
    settings = site(free_address(), tmp_path, **site_changes())
    async with running(Cell(settings, tmp_path, request.param)) as cell:
        yield cell


async def test_no_sip_leaves_the_switch(cell: Cell) -> None:
    """The switch is real, and the edge is the test's phone, to which every SIP message of the worker goes."""
    name = f"call-{random.getrandbits(32):08x}"
    call, fork = await cell.talks(name, Trunk="carrier")
    await fork.decide(**command(-1, RED_TEAM[0]))
    already = len(fork.texts) + 1
    await until_async(lambda: len(fork.texts) >= already, "the first refusal to be told")
    seen = len(call.messages)
    for number, hostile in enumerate(RED_TEAM):
        await fork.decide(**command(number, hostile))
    await until_async(lambda: len(fork.texts) - already >= len(RED_TEAM), "every refusal to be told")
    assert fork.texts[already:] == [wanted(number, hostile) for number, hostile in enumerate(RED_TEAM)]
    assert cell.rung == []
    assert [traced.data for traced in call.messages[seen:]] == []
    assert await cell.channels() == 1
    await fork.decide(**command(len(RED_TEAM), Hostile({"number": HOME}, Refusal.FREE_NUMBER)))
    await until_async(lambda: cell.rung, "the home number to be rung")
    assert [leg.called for leg in cell.rung] == [HOME]
    await call.hangup()
    await cell.idle()
