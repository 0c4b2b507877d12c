"""``python -m lab.switch`` as a process: its command line, and what its end leaves behind."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.process import Process
from lab.site import ROOT
from tests.lab.esl_client import PATIENCE_S, until
from tests.lab.switch_rig import WORKER, Rig


class ProcessRig(Rig):
    """The lab's switch in a process of its own, as the lab's world starts it."""

    process: Process
    options = ("--double-frame-every", "20")

    def argv(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "lab.switch",
            "--config",
            str(self.site.config),
            "--worker",
            WORKER,
            *self.options,
        ]

    async def start_switch(self) -> None:
        log = self.site.folder / "switch.log"
        self.process = Process("switch", self.argv(), log, env=self.site.environment, cwd=ROOT)
        await self.process.start()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self.process.check()
                try:
                    await self.event_socket()
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    break

    async def stop_switch(self) -> None:
        await self.process.stop()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ProcessRig]:
    async with ProcessRig(tmp_path) as rig:
        yield rig


async def test_a_call_with_its_fork(rig):
    call, esl = await rig.answered()
    fork = await rig.fork(esl, rate=16000, stream_rate=24000)
    await fork.heard(1.0, 16000)
    assert {len(frame) for frame in fork.frames} == {640, 1280}
    await call.hangup()
    await asyncio.wait_for(fork.closed.wait(), PATIENCE_S)


async def test_sigterm_hangs_up_and_ends_with_0(rig):
    call, esl = await rig.answered()
    fork = await rig.fork(esl)
    rig.process.signal(signal.SIGTERM)
    assert (await call.wait_ended(PATIENCE_S)).reason_header == 'SIP;cause=701;text="SYSTEM_SHUTDOWN"'
    await asyncio.wait_for(fork.closed.wait(), PATIENCE_S)
    assert fork.connection.close_code == 1000
    await asyncio.wait_for(esl.closed.wait(), PATIENCE_S)
    assert await asyncio.wait_for(rig.process.wait(), PATIENCE_S) == 0


async def test_a_killed_switch_takes_everything_along_and_its_successor_starts_clean(rig):
    call, esl = await rig.answered()
    fork = await rig.fork(esl)
    await rig.process.kill()
    await asyncio.wait_for(fork.closed.wait(), PATIENCE_S)
    await asyncio.wait_for(esl.closed.wait(), PATIENCE_S)
    assert fork.connection.close_code == 1006 and call.end is None
    await rig.start_switch()
    assert await (await rig.event_socket()).api("show channels count") == "\n0 total.\n"
    await call.hangup()
    other, _ = await rig.answered()
    await other.hangup()


async def run(*argv: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lab.switch", *argv),
        cwd=ROOT,
        env=environment or dict(os.environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(child.communicate(), PATIENCE_S)
    assert child.returncode is not None
    return child.returncode, output.decode()


async def test_a_taken_address_is_named(rig):
    status, output = await run(*rig.argv()[3:], environment=rig.site.environment)
    assert status == 1 and f"{rig.address}:{rig.sip_port}" in output and "Traceback" not in output


async def test_a_worker_that_is_not_configured_is_named(rig):
    status, output = await run("--config", str(rig.site.config), "--worker", "nobody", environment=rig.site.environment)
    assert status == 2 and "no worker named 'nobody'" in output and WORKER in output


async def test_a_configuration_that_is_not_there_is_named(tmp_path):
    status, output = await run("--config", str(tmp_path / "none.yaml"), "--worker", WORKER)
    assert status == 2 and "none.yaml" in output and "Traceback" not in output


async def test_help_says_how_to_start_it():
    status, output = await run("--help")
    assert status == 0 and "--worker" in output


async def test_nothing_is_left_bound(rig):
    rig.process.signal(signal.SIGTERM)
    await rig.process.wait()
    await rig.start_switch()
    await until(lambda: rig.process.running, lambda: "the second start")
