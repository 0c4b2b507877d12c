"""The workers as the running edge has them: which take calls, how many they carry, and the draining of one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from tandem.edge import WORKERS_SET, host_of
from tandem.render import DRAINED, drained_table
from tandem.rpc import Rpc, RpcError
from tandem.sitefile import PUBLIC, write


class State(StrEnum):
    """What a worker gets from the edge."""

    ACTIVE = "active"
    """New calls."""
    DOWN = "down"
    """No calls: it does not answer OPTIONS, or not with 200."""
    DRAINED = "drained"
    """No new calls, by command."""
    LEAVING = "leaving"
    """No new calls: it is no longer configured, but carries some."""


@dataclass(frozen=True)
class Worker:
    """One worker. ``max_calls`` and ``weight`` are None for one that is no longer configured."""

    name: str
    uri: str
    state: State
    alive: bool
    """Answers OPTIONS with 200. One that is leaving is not asked."""
    calls: int
    max_calls: int | None
    weight: int | None


class DrainError(Exception):
    """A worker that cannot be drained, or not for longer than until the edge ends; the message says why."""


def workers(rpc: Rpc) -> list[Worker]:
    """All of them, by name; those that are leaving come last. Raises RpcError."""
    # A: active; T: one OPTIONS was not answered, which does not count yet.
    alive = {target["URI"]: target["FLAGS"][0] in "AT" for number, target in targets(rpc) if number == WORKERS_SET}
    drained, loads = set(entries(rpc, "drained")), entries(rpc, "load")
    found = []
    for uri, facts in entries(rpc, "workers").items():
        known = dict(fact.split("=", 1) for fact in facts.split(";"))
        is_alive = alive.get(uri, False)
        state = State.DRAINED if known["name"] in drained else State.ACTIVE if is_alive else State.DOWN
        worker = Worker(known["name"], uri, state, is_alive, loads.get(uri, 0), int(known["max"]), int(known["weight"]))
        found.append(worker)
    names = {entry["item"].get("ip"): entry["item"]["tag"] for entry in rpc("permissions.addressDump")}
    leaving = [
        Worker(names.get(host_of(uri), ""), uri, State.LEAVING, False, calls, None, None)
        for uri, calls in loads.items()
        if calls > 0 and uri not in {worker.uri for worker in found}
    ]
    return sorted(found, key=lambda worker: worker.name) + sorted(leaving, key=lambda worker: worker.name)


def targets(rpc: Rpc) -> Iterator[tuple[int, dict[str, Any]]]:
    """Set and facts of each entry of the dispatcher. Raises RpcError."""
    for record in rpc("dispatcher.list")["RECORDS"]:
        for target in record["SET"]["TARGETS"]:
            yield record["SET"]["ID"], target["DEST"]


def entries(rpc: Rpc, table: str) -> dict[str, Any]:
    """Keys and values of one of Kamailio's tables. Raises RpcError."""
    return {entry["name"]: entry["value"] for slot in rpc("htable.dump", table) for entry in slot["slot"]}


def drain(rpc: Rpc, name: str) -> Worker:
    """No new calls for this worker from now on, whatever is loaded again; its calls go on. Raises DrainError, RpcError."""
    named(rpc, name)
    rpc("htable.seti", "drained", name, 1)
    _write_down(rpc)
    return named(rpc, name)


def undrain(rpc: Rpc, name: str) -> Worker:
    """New calls for this worker again. Raises DrainError, RpcError."""
    if named(rpc, name).state is State.DRAINED:
        rpc("htable.delete", "drained", name)
    _write_down(rpc)
    return named(rpc, name)


def site_folder(rpc: Rpc) -> Path:
    """Where the running Kamailio has its configuration. Raises RpcError where that cannot be known."""
    arguments = rpc("core.arg")
    file = Path(arguments[arguments.index("-f") + 1]) if "-f" in arguments[:-1] else Path("/etc/kamailio/kamailio.cfg")
    if not file.is_absolute():
        raise RpcError(f"Kamailio was started with -f {file}; start it with the whole path")
    return file.parent


def named(rpc: Rpc, name: str) -> Worker:
    """Raises DrainError where the edge has no such worker, RpcError."""
    known = {worker.name: worker for worker in workers(rpc) if worker.name}
    if name not in known:
        raise DrainError(f"the edge has no worker {name!r}; it has {', '.join(known)}")
    return known[name]


def _write_down(rpc: Rpc) -> None:
    """For the next start of Kamailio."""
    file = site_folder(rpc) / DRAINED
    try:
        write(file, drained_table(entries(rpc, "drained")), PUBLIC)
    except OSError as error:
        raise DrainError(f"done, but only until Kamailio ends: {file}: {error.strerror}") from error


def is_left_without(rpc: Rpc) -> bool:
    """Whether no worker takes new calls. Raises RpcError."""
    return not any(worker.state is State.ACTIVE for worker in workers(rpc))


def workers_table(found: Iterable[Worker]) -> Table:
    colours = {State.ACTIVE: "green", State.DOWN: "red", State.DRAINED: "yellow", State.LEAVING: "yellow"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("worker", "state", "alive", "calls", "of", "weight", "address"):
        table.add_column(column, justify="right" if column in ("calls", "of", "weight") else "left")
    for worker in found:
        alive = "yes" if worker.alive else "" if worker.state is State.LEAVING else "no"
        numbers = ("" if number is None else str(number) for number in (worker.max_calls, worker.weight))
        state = Text(worker.state.value, colours[worker.state])
        table.add_row(worker.name, state, alive, str(worker.calls), *numbers, worker.uri.removeprefix("sip:"))
    return table
