"""``tandem reload``: the running Kamailio takes over what the settings say, all of it or nothing, and loses no call.

Addresses, gateways, workers, numbers and certificates can be changed so. What stands in ``*.cfg`` (sockets, timers, home
country) is read once, when Kamailio starts.
"""

import configparser
import ipaddress
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tandem import render, workers
from tandem.edge import PRIVATE_MEMORY, WORKERS_SET, Group, host_of, worker_uri
from tandem.render import DRAINED, TARGETS, drained_table
from tandem.rpc import Rpc, RpcError
from tandem.settings import Settings
from tandem.sitefile import PUBLIC, write

ADDRESSES = "address.list"
DESTINATIONS = "dispatcher.list"
CERTIFICATES = "tls.cfg"
MAX_LINE = 1023
"""Bytes of a line of the two lists; Kamailio takes no longer one."""
PATIENCE_S = 10.0
"""For Kamailio to be ready for another reload: it takes one a second."""
LEAVING = "# No longer configured; known until the calls that it carries end, and the next reload.\n"


class ReloadError(Exception):
    """Nothing was changed; ``problems`` say why, one a line."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class File:
    """One file of Kamailio's, as it is and as it is to be; None where there is none."""

    name: str
    before: str | None
    after: str | None
    mode: int

    @property
    def is_changed(self) -> bool:
        return self.before != self.after

    @property
    def is_secret(self) -> bool:
        return self.mode != PUBLIC

    def difference(self) -> list[str]:
        """Lines that go (``-``) and come (``+``); of a secret file none is told."""
        before, after = (text.splitlines() if text else [] for text in (self.before, self.after))
        if self.is_secret:
            return ["changed"]
        gone = [f"- {line}" for line in before if line not in set(after)]
        return gone + [f"+ {line}" for line in after if line not in set(before)] or ["in another order"]


@dataclass(frozen=True)
class Plan:
    """What a reload would change."""

    folder: Path
    files: list[File]
    undrained: list[str]
    """Drained workers that are no longer configured."""

    @property
    def changed(self) -> list[File]:
        return [file for file in self.files if file.is_changed]


def plan(settings: Settings, rpc: Rpc) -> Plan:
    """Render, compare and check, without changing anything. Raises ReloadError, RpcError, RenderError, OSError."""
    folder = workers.site_folder(rpc)
    if not (folder / ADDRESSES).exists():
        raise ReloadError([f"Kamailio has its files in {folder}, which is not on this machine; run this on the edge's"])
    with tempfile.TemporaryDirectory() as temporary:
        rendered = Path(temporary)
        render.kamailio(settings, rendered, folder)
        after = {path.relative_to(rendered).as_posix(): path for path in sorted(rendered.rglob("*")) if path.is_file()}
        del after[DRAINED.as_posix()]
        files = [
            File(name, _text(folder / name), path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777)
            for name, path in after.items()
        ]
        problems = [*_need_restart(folder, files, rpc), *_kamailio_says(rendered)]
    files, leaving_problems = _with_leaving(settings, files, rpc)
    problems += [*leaving_problems, *_renamed(settings, rpc), *_list_problems(files), *_certificate_problems(files)]
    if problems:
        raise ReloadError(problems)
    undrained = sorted(set(workers.entries(rpc, "drained")) - set(settings.workers))
    return Plan(folder, files, undrained)


def carry_out(planned: Plan, settings: Settings, rpc: Rpc) -> None:
    """Write the files and have Kamailio load them. Where it refuses one, everything is as before, and ReloadError says why."""
    files = [file for file in planned.files if not file.name.endswith(".cfg") or file.name == CERTIFICATES]
    try:
        _write(planned.folder, {file.name: (file.after, file.mode) for file in files})
        _load(rpc, files)
        _verify(settings, rpc)
    except (RpcError, OSError) as error:
        _write(planned.folder, {file.name: (file.before, file.mode) for file in files})
        _load(rpc, files)
        raise ReloadError([f"{error}; everything is as it was before"]) from error
    for name in planned.undrained:
        rpc("htable.delete", "drained", name)
    write(planned.folder / DRAINED, drained_table(workers.entries(rpc, "drained")), PUBLIC)
    if (planned.folder.parent / TARGETS).exists():
        write(planned.folder.parent / TARGETS, render.targets(settings), PUBLIC)


# What must be right


def _need_restart(folder: Path, files: Iterable[File], rpc: Rpc) -> list[str]:
    problems = []
    started = time.time() - int(rpc("core.uptime")["uptime"]) + 1
    for file in files:
        if not file.name.endswith(".cfg") or file.name == CERTIFICATES:
            continue
        if file.is_changed:
            shown = "".join(f"\n    {line}" for line in file.difference())
            problems.append(f"{file.name} needs a restart of Kamailio after `tandem render`:{shown}")
        elif (folder / file.name).stat().st_mtime > started:
            problems.append(f"{file.name} was rendered after Kamailio started, and needs a restart of it")
    return problems


def _kamailio_says(rendered: Path) -> list[str]:
    """Kamailio's own check, where it is installed (the command line may run in a container without it)."""
    kamailio = shutil.which("kamailio") or shutil.which("kamailio", path="/usr/sbin")
    if kamailio is None:
        return []
    command = [kamailio, *PRIVATE_MEMORY, "-c", "-f", str(rendered / "kamailio.cfg")]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    lines = [line for line in result.stderr.splitlines() if "CRITICAL" in line or "ERROR" in line]
    return lines or ["kamailio -c refuses it without a word"] if result.returncode else []


def _with_leaving(settings: Settings, files: list[File], rpc: Rpc) -> tuple[list[File], list[str]]:
    """The files with those workers still known that carry calls but are no longer configured, and what stands against it."""
    configured = {worker_uri(worker) for worker in settings.workers.values()}
    named = {worker.uri: worker.name for worker in workers.workers(rpc)}
    loads = {uri: calls for uri, calls in workers.entries(rpc, "load").items() if calls > 0 and uri not in configured}
    lines, problems = "", []
    for file in files:
        if file.name != ADDRESSES or file.after is None:
            continue
        known = [line.split() for line in file.after.splitlines() if line and not line.startswith("#")]
        for uri, calls in loads.items():
            address = ipaddress.ip_address(host_of(uri))
            owner = next((entry for entry in known if _covers(entry, address)), None)
            if owner is None:
                lines += f"{Group.WORKER.value} {address} {address.max_prefixlen} 0 {named[uri]}\n"
            elif owner[4] != named[uri]:
                problems.append(
                    f"{address} becomes {owner[4]}, but carries {calls} calls as {named[uri]}: drain that first"
                )
    if not lines:
        return files, problems
    kept = [
        File(file.name, file.before, f"{file.after}{LEAVING}{lines}", file.mode) if file.name == ADDRESSES else file
        for file in files
    ]
    return kept, problems


def _covers(entry: list[str], address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(f"{entry[1]}/{entry[2]}")
    except ValueError:
        return False  # a gateway by name


def _renamed(settings: Settings, rpc: Rpc) -> list[str]:
    """The mark in a call's Record-Route has the worker's name."""
    names = {worker_uri(worker): name for name, worker in settings.workers.items()}
    return [
        f"{worker.name} becomes {names[worker.uri]}, but carries {worker.calls} calls: drain it first"
        for worker in workers.workers(rpc)
        if worker.calls > 0 and names.get(worker.uri, worker.name) != worker.name
    ]


def _list_problems(files: Iterable[File]) -> list[str]:
    """What Kamailio would load without a word, and route calls by."""
    problems = []
    for file in files:
        if file.name not in (ADDRESSES, DESTINATIONS):
            continue
        lines = [line for line in (file.after or "").splitlines() if line and not line.startswith("#")]
        problems += [f"{file.name}: a line of {len(line)} bytes" for line in lines if len(line.encode()) > MAX_LINE]
        keys: list[str] = []
        if file.name == ADDRESSES:
            keys = [" ".join(line.split()[1:3]) for line in lines]
        elif file.name == DESTINATIONS:
            keys = [" ".join(line.split()[:2]) for line in lines]
            if not any(key.startswith(f"{WORKERS_SET} ") for key in keys):
                problems.append(f"{file.name} has no worker")
        problems += [f"{file.name} has {key} twice" for key in sorted({key for key in keys if keys.count(key) > 1})]
        if file.name == ADDRESSES and not keys:
            problems.append(f"{file.name} is empty")
    return problems


def _certificate_problems(files: Iterable[File]) -> list[str]:
    """What stands in tls.cfg can be read, and belongs together."""
    problems = []
    for file in files:
        if file.name != CERTIFICATES or file.after is None:
            continue
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(file.after)
        for section in parser.sections():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            try:
                context.load_cert_chain(parser[section]["certificate"], parser[section]["private_key"])
                context.load_verify_locations(parser[section]["ca_list"])
            except (OSError, ssl.SSLError) as error:
                problems.append(f"{file.name}, {section}: {error}")
    return problems


# Doing it


def _write(folder: Path, files: Mapping[str, tuple[str | None, int]]) -> None:
    for name, (text, mode) in files.items():
        if text is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write(folder / name, text, mode)


def _load(rpc: Rpc, files: Iterable[File]) -> None:
    """Whom the edge knows first, what it does with them last: what is new works at once, what is gone is used no more."""
    names = {file.name for file in files}
    _when_ready(lambda: _expect(rpc("permissions.addressReload"), "Reload OK", ADDRESSES))
    states = {(number, target["URI"]): target["FLAGS"] for number, target in workers.targets(rpc)}
    _when_ready(lambda: rpc("dispatcher.reload"))
    for number, target in workers.targets(rpc):
        flags = states.get((number, target["URI"]), "A")
        if flags[0] not in "AT":
            # A reload takes everybody for alive who was not asked yet, and forgets who was taken out by command.
            rpc("dispatcher.set_state", flags[0].lower() + ("p" if flags[1:] == "P" else ""), number, target["URI"])
    for table in rpc("htable.listTables"):
        if f"tables/{table['dbtable']}" in names:
            rpc("htable.reload", table["name"])
    if "tls" in rpc("core.modules"):
        rpc("tls.reload")


def _when_ready(ask: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            ask()
            return
        except RpcError as error:
            if "ongoing reload" not in str(error).lower() or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _expect(result: object, wanted: str, what: str) -> None:
    if result != wanted:
        raise RpcError(f"Kamailio refuses {what}: {result}")


def _verify(settings: Settings, rpc: Rpc) -> None:
    """Some of what Kamailio cannot read it leaves out without a word."""
    wanted = {worker_uri(worker) for worker in settings.workers.values()}
    for what, found in (
        (DESTINATIONS, {target["URI"] for number, target in workers.targets(rpc) if number == WORKERS_SET}),
        ("tables/workers", set(workers.entries(rpc, "workers"))),
    ):
        if found != wanted:
            raise RpcError(f"Kamailio has loaded {len(found)} workers from {what}, expected {len(wanted)}")


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None
