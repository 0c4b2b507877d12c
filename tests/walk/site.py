"""The cell that a walk goes through."""

import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from lab.switches import SwitchKind
from tests.esl.cell import running
from tests.esl.conftest import free_address, site
from tests.walk.walk import WalkCell

PROMPT = (np.sin(np.arange(3200) * 2 * np.pi * 600 / 8000) * 12000).astype(np.int16)


@asynccontextmanager
async def walk_cell(folder: Path, kind: SwitchKind) -> AsyncIterator[WalkCell]:
    for prompt in ("apology", "leave_message"):
        with wave.open(str(folder / f"{prompt}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(PROMPT.tobytes())
    address = free_address()
    settings = site(
        address,
        folder,
        esl_app={"fork_within_ms": 1500},
        freeswitch={"password": "fake", "prompts": str(folder)},
        workers={"worker-1": {"address": address, "loopback": address, "max_calls": 100}},
    )
    async with running(WalkCell(settings, folder, kind)) as cell:  # type: ignore[type-var]
        yield cell
