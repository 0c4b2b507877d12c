"""SIPp as the two ends of many calls."""

import csv
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.edge.relays import NUMBER, Relay
from bench.machine import pinned
from lab.process import Process

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Load:
    """What came of a run of calls."""

    offered: float
    """Calls a second."""
    succeeded: int
    failed: int
    retransmissions: int

    @property
    def held(self) -> bool:
        """Nothing failed, and hardly anything had to be sent twice."""
        return self.failed == 0 and self.retransmissions <= self.succeeded * 0.01


def _sipp(*options: str) -> list[str]:
    return ["sipp", *options, "-nostdin", "-trace_err", "-default_behaviors", "all,-bye"]


class Workers:
    """SIPp answering at one address."""

    def __init__(self, at: str, core: int, folder: Path) -> None:
        address, _, port = at.rpartition(":")
        argv = _sipp("-sf", str(HERE / "worker.xml"), "-i", address, "-p", port, "-mi", address)
        self.process = Process("sipp worker", pinned(core, argv), folder / "worker.log", cwd=folder)

    async def start(self) -> None:
        await self.process.start()

    async def stop(self) -> None:
        await self.process.stop(1.0)


async def place(
    relay: Relay, source: str, core: int, rate: float, calls: int, *, hold_ms: int = 0, number: str = NUMBER
) -> Load:
    """Place so many calls at that rate from ``source``, each held for ``hold_ms``, and wait for their end."""
    with tempfile.TemporaryDirectory(prefix="tandem-sipp-") as directory:
        folder = Path(directory)
        argv = _sipp(
            f"{relay.address}:5060",
            *("-sf", str(HERE / "caller.xml"), "-s", number, "-i", source, "-p", "5060", "-mi", source),
            *("-r", f"{rate:g}", "-m", str(calls), "-l", "100000", "-d", str(hold_ms), "-recv_timeout", "5000"),
            *("-trace_stat", "-stf", str(folder / "statistics.csv"), "-fd", "1"),
            *("-timeout", f"{round(calls / rate + hold_ms / 1000 + 25)}"),
        )
        process = Process("sipp caller", pinned(core, argv), folder / "caller.log", cwd=folder)
        await process.start()
        await process.wait()
        try:
            with (folder / "statistics.csv").open(encoding="utf-8") as file:
                last = list(csv.DictReader(file, delimiter=";"))[-1]
        except (OSError, IndexError):
            raise RuntimeError(f"SIPp gave no statistics; its log:\n{process.tail()}") from None
    return Load(rate, int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"]), int(last["Retransmissions(C)"]))
