"""``python -m bench.edge``: the edge's cost beside a bare relay, its fail-over times, emergencies under a flood. See docs/bench.md."""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.edge.party import Arrived, Party, Rule, answers
from bench.edge.relays import BARE, NUMBER, TANDEM, Change, Relay, many_calls, start_bare, start_tandem
from bench.edge.report import misses, show
from bench.edge.sipp import Load, Workers, place
from bench.machine import Cores, choose_cores

OUT = Path(__file__).parent.parent / "out"
TRUNK_LIMIT = 100
"""Calls a second that the flooding carrier may send."""
FLOOD = 5
"""Times that limit, and times the calls a second that the configuration was seen to carry."""

console = Console()


@dataclass(frozen=True)
class Plan:
    rounds: int = 3
    rate: float = 150
    seconds: float = 8
    held: int = 1000
    failovers: int = 20
    emergencies: int = 200


QUICK = Plan(rounds=1, seconds=4, held=300, failovers=5, emergencies=60)


@dataclass(frozen=True)
class Cost:
    us_per_call: float
    capacity: float
    """Most calls a second on one core at which none failed and hardly one was sent twice."""
    bytes_per_dialog: float


@asynccontextmanager
async def relay(name: str, cores: Cores, change: Change = many_calls) -> AsyncIterator[tuple[Relay, Path]]:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-edge-") as directory:
        folder = Path(directory)
        if name == TANDEM:
            started, _ = await start_tandem(folder, cores.subject, change)
        else:
            started = await start_bare(folder, cores.subject)
        try:
            yield started, folder
        finally:
            await started.stop()


def host(relay: Relay, last: int) -> str:
    return f"{relay.address.rpartition('.')[0]}.{last}"


@asynccontextmanager
async def loaded(name: str, cores: Cores) -> AsyncIterator[Relay]:
    async with relay(name, cores) as (started, folder):
        workers = [Workers(f"{host(started, 11 + number)}:5080", cores.load, folder) for number in range(2)]
        for worker in workers:
            await worker.start()
        try:
            await asyncio.sleep(1.0)
            yield started
        finally:
            for worker in workers:
                await worker.stop()


async def us_per_call(name: str, plan: Plan, cores: Cores) -> float:
    async with loaded(name, cores) as started:
        calls = round(plan.rate * plan.seconds)
        await place(started, host(started, 21), cores.load, plan.rate, round(plan.rate), hold_ms=200)
        before = started.cpu_s()
        load = await place(started, host(started, 21), cores.load, plan.rate, calls, hold_ms=200)
        return (started.cpu_s() - before) / max(1, load.succeeded) * 1e6


async def capacity(name: str, plan: Plan, cores: Cores) -> float:
    best = 0.0
    async with loaded(name, cores) as started:
        for rate in (250, 500, 750, 1000, 1250, 1500, 2000, 2500, 3000):
            load: Load = await place(
                started, host(started, 21), cores.load, rate, round(rate * plan.seconds / 2), hold_ms=200
            )
            if load.failed > load.succeeded * 0.005 or load.retransmissions > load.succeeded * 0.02:
                break
            best = rate
    return best


async def bytes_per_dialog(name: str, plan: Plan, cores: Cores) -> float:
    async with loaded(name, cores) as started:
        before = started.shared_memory()
        source = host(started, 21)
        placing = asyncio.ensure_future(place(started, source, cores.load, 200, plan.held, hold_ms=30000))
        # Transactions are kept for seconds after their end; what is left then are the dialogs.
        await asyncio.sleep(plan.held / 200 + 14)
        used = started.shared_memory() - before
        await placing
    return used / plan.held


def bad_at_first(first: dict[str, str], worker: str, *statuses: int) -> Rule:
    """The worker that gets a call first answers like this, the next one takes it. ``first`` is shared by them."""

    def rule(arrived: Arrived) -> list[int]:
        if arrived.method != "INVITE":
            return [200] * (arrived.method != "ACK")
        return list(statuses) if first.setdefault(arrived["Call-ID"], worker) == worker else [180, 200]

    return rule


def _by_tcp(data: dict[str, Any]) -> None:
    """The worker that is always asked first is one by TCP."""
    many_calls(data)
    data["edge"]["probe_seconds"] = 60
    data["edge"]["listen"].append({**data["edge"]["listen"][0], "transport": "tcp"})
    first = next(iter(data["workers"].values()))
    first |= {"transport": "tcp", "weight": 100}


async def refused_connection(count: int, cores: Cores) -> list[float]:
    """Milliseconds from the caller's INVITE to that at the second worker, where nobody listens at the first, by TCP."""
    times: list[float] = []
    async with relay(TANDEM, cores, _by_tcp) as (started, _), AsyncExitStack() as stack:
        worker = Party(host(started, 12), 5080, answers(180, 200))
        carrier = Party(host(started, 21), 5060)
        for party in (worker, carrier):
            await party.start()
            stack.callback(party.stop)
        await asyncio.sleep(0.5)
        for _ in range(count):
            call_id, sent = carrier.invite(started.at, NUMBER)
            final = await carrier.wait(lambda m, c=call_id: m["Call-ID"] == c and m.status >= 200, 12)  # type: ignore[misc]
            if final is not None and final.status == 200:
                carrier.acknowledge(started.at, final)
                arrived = next(m for m in worker.seen if m.method == "INVITE" and m["Call-ID"] == call_id)
                times.append((arrived.at - sent) * 1000)
            await asyncio.sleep(0.05)
    return times


async def fail_over(statuses: tuple[int, ...], count: int, cores: Cores) -> list[float]:
    """Milliseconds from the INVITE at the first worker to that at the second."""
    times: list[float] = []
    async with relay(TANDEM, cores) as (started, _), AsyncExitStack() as stack:
        first: dict[str, str] = {}
        addresses = [host(started, 11 + number) for number in range(2)]
        workers = [Party(address, 5080, bad_at_first(first, address, *statuses)) for address in addresses]
        carrier = Party(host(started, 21), 5060)
        for party in (*workers, carrier):
            await party.start()
            stack.callback(party.stop)
        await asyncio.sleep(2.5)
        for _ in range(count):
            call_id, _sent = carrier.invite(started.at, NUMBER)
            final = await carrier.wait(lambda m, c=call_id: m["Call-ID"] == c and m.status >= 200, 12)  # type: ignore[misc]
            if final is None:
                raise RuntimeError(f"no final reply; the end of the log:\n{started.process.tail(30)}")
            carrier.acknowledge(started.at, final)
            firsts = sorted(
                next(m.at for m in worker.seen if m.method == "INVITE" and m["Call-ID"] == call_id)
                for worker in workers
                if any(m.method == "INVITE" and m["Call-ID"] == call_id for m in worker.seen)
            )
            if final.status == 200 and len(firsts) == 2:
                times.append((firsts[1] - firsts[0]) * 1000)
            # The silence counted toward the probes: both are to be up again.
            await asyncio.sleep(0.05 if statuses and statuses[-1] >= 300 else 3.0)
    return times


@dataclass(frozen=True)
class Emergencies:
    placed: int
    answered: int
    p50_ms: float
    p95_ms: float
    offered: float
    """Calls a second of the flood."""


def _limited(data: dict[str, Any]) -> None:
    """As shipped, memory and processes too, and a limit for the carrier that floods."""
    data["trunks"]["carrier"]["calls_per_second_in"] = TRUNK_LIMIT
    # The PBX has a socket of its own, so that no flood of a carrier fills its queue.
    inside = data["edge"]["listen"][0]["address"].rpartition(".")[0] + ".2"
    data["edge"]["listen"].append({"transport": "udp", "address": inside, "port": 5060})
    second = data["edge"]["listen"][0]["address"].rpartition(".")[0] + ".22"
    data["trunks"]["emergency"] = {
        "kind": "generic", "sources": [f"{second}/32"], "gateways": [f"sip:{second}:5060"],
    }  # fmt: skip
    data["emergency"]["carriers"] = ["emergency"]


async def emergencies(plan: Plan, cores: Cores, flood: float) -> Emergencies:
    """Calls to 911 while a carrier floods the edge with calls, or (0) while it does not."""
    async with relay(TANDEM, cores, _limited) as (started, folder), AsyncExitStack() as stack:
        inside = (host(started, 2), 5060)
        carrier = Party(host(started, 22), 5060, answers(180, 200))
        pbx = Party(host(started, 31), 5060)
        for party in (carrier, pbx):
            await party.start()
            stack.callback(party.stop)
        workers = [Workers(f"{host(started, 11 + number)}:5080", cores.load, folder) for number in range(2)]
        for worker in workers:
            await worker.start()
            stack.push_async_callback(worker.stop)
        await asyncio.sleep(1.0)
        interval = 0.05
        flooding = None
        if flood:
            calls = round(flood * (plan.emergencies * interval + 3))
            flooding = asyncio.ensure_future(place(started, host(started, 21), cores.load, flood, calls, hold_ms=200))
            await asyncio.sleep(2.0)
        sent: dict[str, float] = {}
        for _ in range(plan.emergencies):
            call_id, at = pbx.invite(inside, "911", "+12025550101")
            sent[call_id] = at
            await asyncio.sleep(interval)
        await asyncio.sleep(2.0)
        times = []
        for call_id, at in sent.items():
            final = next((m for m in pbx.seen if m["Call-ID"] == call_id and m.status >= 200), None)
            if final is not None and final.status == 200:
                ringing = next(m for m in pbx.seen if m["Call-ID"] == call_id and m.status >= 180)
                times.append((ringing.at - at) * 1000)
                pbx.acknowledge(inside, final)
        if flooding:
            await flooding
    times.sort()
    return Emergencies(
        len(sent),
        len(times),
        statistics.median(times) if times else float("nan"),
        times[int(len(times) * 0.95)] if times else float("nan"),
        flood,
    )


async def measure(plan: Plan) -> dict[str, Any]:
    cores = choose_cores()
    each: dict[str, list[float]] = {BARE: [], TANDEM: []}
    with console.status("cost of a call") as status:
        for _ in range(plan.rounds):
            # In turns: what the machine does meanwhile falls on both alike.
            for name, figures in each.items():
                figures.append(await us_per_call(name, plan, cores))
        costs = {}
        for name, figures in each.items():
            status.update(f"capacity and memory of the {name}")
            costs[name] = Cost(
                statistics.median(figures),
                await capacity(name, plan, cores),
                await bytes_per_dialog(name, plan, cores),
            )
        status.update("fail-over")
        failovers = {
            "503": await fail_over((100, 503), plan.failovers, cores),
            "silent": await fail_over((), max(3, plan.failovers // 4), cores),
            "100, then nothing": await fail_over((100,), max(3, plan.failovers // 4), cores),
            "TCP refused": await refused_connection(plan.failovers, cores),
        }
        status.update("emergencies")
        quiet = await emergencies(plan, cores, 0)
        limit = await emergencies(plan, cores, FLOOD * TRUNK_LIMIT)
        most = await emergencies(plan, cores, FLOOD * costs[TANDEM].capacity)
    return {
        "costs": {name: asdict(cost) for name, cost in costs.items()},
        "failovers_ms": failovers,
        "emergencies": [asdict(quiet), asdict(limit), asdict(most)],
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="One round, about a minute and a half.")] = False,
    strict: Annotated[bool, typer.Option("--assert", help="Exit with 1 unless every limit is kept.")] = False,
) -> None:
    """Measure the edge's configuration beside a bare relay. Takes about five minutes."""
    result = asyncio.run(measure(QUICK if quick else Plan()))
    show(console, result)
    OUT.mkdir(exist_ok=True)
    written = OUT / f"edge-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    written.write_text(json.dumps(result, indent=1), encoding="utf-8")
    console.print(f"all figures: {written}")
    if strict and misses(result):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
