"""A short walk with a fixed seed: nothing is left behind, although esl_app is killed on the way."""

from pathlib import Path

import pytest

from lab.switches import SwitchKind, available
from tests.walk.site import walk_cell
from tests.walk.walk import Walk


@pytest.mark.parametrize("kind", list(SwitchKind), ids=str)
async def test_calls_that_do_random_things_leave_nothing_behind(kind: SwitchKind, tmp_path: Path) -> None:
    if reason := available()[kind]:
        pytest.skip(reason)
    async with walk_cell(tmp_path, kind) as cell:
        walk = Walk(cell, seed=4, callers=4, kill_every_s=3.0)
        left = await walk.run(5.0)
    assert not left, f"{left} after {dict(walk.done)}"
    assert walk.done["calls"] > 4 and walk.done["esl_app killed"]
