"""The lab's switch against FreeSWITCH itself: the same scenes, and what happened must read the same.

Skipped where there is no FreeSWITCH with the streaming mod_audio_fork (FREESWITCH_PREFIX, by default /usr/local/freeswitch).
RECORD=1 keeps what FreeSWITCH did for tests/lab/test_switch_recorded.py.
"""

import asyncio
import difflib
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lab.switches import NoFreeSwitch, find_freeswitch
from tests.freeswitch.scenes import RECORDED, SCENES, play
from tests.lab.switch_rig import FreeSwitchRig, LabRig

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def freeswitch(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FreeSwitchRig]:
    try:
        find_freeswitch()
    except NoFreeSwitch as reason:
        pytest.skip(str(reason))
    async with FreeSwitchRig(tmp_path_factory.mktemp("freeswitch")) as rig:
        yield rig


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(freeswitch: FreeSwitchRig, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LabRig]:
    async with LabRig(tmp_path_factory.mktemp("lab")) as rig:
        yield rig


@pytest.mark.parametrize("name", SCENES)
async def test_the_same_happens(lab: LabRig, freeswitch: FreeSwitchRig, name: str) -> None:
    freeswitch.process.check()
    ours, theirs = await asyncio.gather(play(lab, name), play(freeswitch, name))
    if os.environ.get("RECORD"):
        (RECORDED / f"{name}.txt").write_text(theirs.text(), encoding="utf-8")
    assert theirs.lanes.keys() == ours.lanes.keys()
    differences = [
        line
        for lane, lines in theirs.lanes.items()
        for line in difflib.unified_diff(lines, ours.lanes[lane], f"FreeSWITCH, {lane}", f"lab, {lane}", n=1)
    ]
    assert not differences, "\n".join(differences)
    assert lab.switch.counters["task_errors"] == lab.switch.counters["session_errors"] == 0
