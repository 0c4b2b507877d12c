"""The lab's switch against what FreeSWITCH was seen to do (tests/freeswitch/recorded): needs no FreeSWITCH.

The scenes are played at once, each with a switch of its own.
"""

import asyncio
import difflib
from pathlib import Path

import pytest
import pytest_asyncio

from tests.freeswitch.scenes import RECORDED, SCENES, Story, play
from tests.lab.switch_rig import LabRig

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _story(folder: Path, name: str) -> tuple[Story, LabRig]:
    async with LabRig(folder) as rig:
        return await play(rig, name), rig


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def played(tmp_path_factory: pytest.TempPathFactory) -> "dict[str, tuple[Story, LabRig] | BaseException]":
    stories = (_story(tmp_path_factory.mktemp(name), name) for name in SCENES)
    return dict(zip(SCENES, await asyncio.gather(*stories, return_exceptions=True), strict=True))


@pytest.mark.parametrize("name", SCENES)
async def test_the_lab_does_as_freeswitch_did(
    played: "dict[str, tuple[Story, LabRig] | BaseException]", name: str
) -> None:
    result = played[name]
    if isinstance(result, BaseException):
        raise result
    story, rig = result
    recorded = (RECORDED / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    differences = list(difflib.unified_diff(recorded, story.text().splitlines(), "FreeSWITCH", "lab", n=2))
    assert not differences, "\n".join(differences)
    counters = rig.switch.counters
    assert not counters["task_errors"] and not counters["session_errors"] and not counters["api_errors"]
    assert not rig.switch.sessions
