"""The two that are measured: Kamailio with Tandem's configuration, and Kamailio with the least that relays."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import cpu_seconds, pinned
from lab import kamailio
from lab.process import Process
from lab.site import Site
from tandem import settings as tandem_settings
from tandem.render import render
from tandem.rpc import Rpc, RpcError

HERE = Path(__file__).parent
NUMBER = "+12025550100"
"""Leads to an agent."""
READY_S = 20.0
Change = Callable[[dict[str, Any]], None]
TANDEM, BARE = "tandem", "bare relay"


@dataclass
class Relay:
    """One running Kamailio."""

    name: str
    address: str
    worker: str
    """Where the first worker listens."""
    process: Process
    rpc: Rpc

    @property
    def at(self) -> tuple[str, int]:
        return self.address, 5060

    def cpu_s(self) -> float:
        """CPU time of all its processes so far, s."""
        return cpu_seconds(self.process.pid)

    def shared_memory(self) -> int:
        """Bytes of shared memory in use, fragments included."""
        return int(self.rpc("core.shmmem")["real_used"])

    async def serves(self) -> None:
        for _ in range(round(READY_S / 0.05)):
            self.process.check()
            with contextlib.suppress(RpcError):
                await asyncio.to_thread(self.rpc, "core.uptime")
                return
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{self.name} does not serve; the end of its log:\n{self.process.tail()}")

    async def stop(self) -> None:
        await self.process.stop()


def many_calls(data: dict[str, Any]) -> None:
    data["edge"] |= {"shared_memory_mb": 4096, "children": 2}
    data["trunks"]["carrier"]["calls_per_second_in"] = 8000
    for worker in data["workers"].values():
        worker["max_calls"] = 5000


def site(folder: Path, change: Change = many_calls) -> tuple[Site, tandem_settings.Settings]:
    """A site of the lab, loaded and rendered."""
    made = Site(folder, change=change)
    made.write()
    settings = tandem_settings.load(made.config, made.environment)
    render(settings, made.rendered)
    return made, settings


async def start_tandem(folder: Path, core: int, change: Change = many_calls, *defines: str) -> tuple[Relay, Site]:
    made, settings = site(folder, change)
    program = kamailio.command(made.rendered / "kamailio/kamailio.cfg", settings.edge.run_directory, *defines)
    first = next(iter(settings.workers.values()))
    process = Process("kamailio", pinned(core, program), folder / "kamailio.log")
    relay = Relay(TANDEM, made.edge[0], f"{first.address}:{first.sip_port}", process, Rpc(settings.edge.rpc))
    await process.start()
    await relay.serves()
    return relay, made


async def start_bare(folder: Path, core: int) -> Relay:
    made, settings = site(folder)
    rpc = settings.edge.rpc
    first = next(iter(settings.workers.values()))
    worker = f"{first.address}:{first.sip_port}"
    run = folder / "bare"
    run.mkdir(parents=True)
    (run / "addresses.cfg").write_text(
        f'#!substdef "!RUN_FOLDER!{run}!g"\n#!substdef "!WORKER!{worker}!g"\n'
        f"listen=udp:{made.edge[0]}:5060\nlisten=tcp:{rpc}\n",
        encoding="utf-8",
    )
    (run / "bare.cfg").write_text((HERE / "bare.cfg").read_text(encoding="utf-8"), encoding="utf-8")
    program = kamailio.command(run / "bare.cfg", run, "-m", "1024")
    relay = Relay(
        BARE, made.edge[0], worker, Process("kamailio", pinned(core, program), folder / "kamailio.log"), Rpc(rpc)
    )
    await relay.process.start()
    await relay.serves()
    return relay
