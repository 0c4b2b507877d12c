"""Child processes of the lab: started with their log in a file, watched, stopped by pid, and never left behind."""

import asyncio
import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class ProcessFailed(RuntimeError):
    """A process ended although it should have stayed up; the message has the end of its log."""


class Process:
    """One child with its log file. ``death_signal`` reaches it when this process dies, however that happens."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self._env = dict(env) if env is not None else None
        self._cwd = cwd
        self._death_signal = death_signal
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        return None if self._child is None else self._child.returncode

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        death_signal = int(self._death_signal)

        def die_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)

        with self.log.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def check(self) -> None:
        """Raise ProcessFailed if it has ended."""
        if not self.running:
            raise ProcessFailed(
                f"{self.name} ended with status {self.returncode}; the end of {self.log}:\n{self.tail()}"
            )

    def tail(self, lines: int = 12) -> str:
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and those it started (its session), if it still runs."""
        if self.running:
            os.killpg(self.pid, number)

    async def kill(self) -> None:
        """``kill -9`` of the process and those it started; returns when it is gone."""
        self.signal(signal.SIGKILL)
        await self.wait()

    async def wait(self) -> int | None:
        return None if self._child is None else await self._child.wait()

    async def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM, and after ``grace_s`` SIGKILL."""
        if not self.running:
            return
        os.kill(self.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(self.wait(), grace_s)
        except TimeoutError:
            await self.kill()
