"""The site files of Kamailio and FreeSWITCH, made from the settings with Jinja2. ``tandem render`` calls :func:`render`.

The same settings always make the same files; each is replaced as a whole, never seen half-written.
"""

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from tandem import callee, dial_tables, edge, names, presets, refer
from tandem.numbering import emergency_spellings, home_country
from tandem.settings import Credentials, Settings, Socket, Transport, Worker
from tandem.shipped import shipped
from tandem.sitefile import PUBLIC, SECRET, write

_SECRET_FILES = ("secret.cfg", "tables/challenges", "tables/credentials")
_MIN_SUBNETS = 512
"""Kamailio's own default for the networks that the address table holds."""
TARGETS = "prometheus.json"
DRAINED = Path("tables/drained")
"""Of the folder kamailio: which workers are drained is no part of the settings, and outlives a rendering."""
_TABLE_HEAD = "key_name(string) key_type(int) value_type(int) key_value(string)"
ANSWER_MARGIN_MS = 1000
"""For what a worker decides within esl_app.answer_within_ms to reach the edge before the edge gives that worker up."""


class RenderError(ValueError):
    """The settings cannot be rendered; the message says which part and why."""


@dataclass(frozen=True)
class SiteWorker:
    """A worker as dispatcher.list has it."""

    name: str
    uri: str
    max_calls: int
    weight: int
    socket: str
    """That it is reached from; empty: the one that the kernel would take. By TCP the kernel would take an address of the
    machine, which the worker may not know for the edge's.
    """


def render(settings: Settings, out: Path, freeswitch_prefix: Path | None = None) -> None:
    """Write ``out``/kamailio/*, ``out``/freeswitch/WORKER/*, ``out``/rtpengine/NAME.conf and ``out``/prometheus.json.

    With ``freeswitch_prefix`` the workers load their modules from that installation, else from where FreeSWITCH itself
    looks. Files with the event socket's password are readable by their owner only. Raises RenderError or OSError.
    """
    out = out.resolve()
    kamailio(settings, out / "kamailio", out / "kamailio")
    modules = module_folder(freeswitch_prefix) if freeswitch_prefix else None
    for name, worker in settings.workers.items():
        _freeswitch(settings, name, worker, modules, out / "freeswitch" / name)
    for name, engine in settings.rtpengine.items():
        text = _fill(shipped("rtpengine"), "rtpengine.conf.j2", {"engine": engine})
        write(out / "rtpengine" / f"{name}.conf", text, PUBLIC)
    write(out / TARGETS, targets(settings), PUBLIC)


def module_folder(freeswitch_prefix: Path) -> Path:
    """Where an installation of FreeSWITCH keeps its modules. Raises RenderError where it has none."""
    candidates = [
        freeswitch_prefix / "mod",
        freeswitch_prefix / "lib/freeswitch/mod",
        *sorted(freeswitch_prefix.glob("lib/*/freeswitch/mod")),
    ]
    for candidate in candidates:
        if (candidate / "mod_sofia.so").exists():
            return candidate
    raise RenderError(
        f"no FreeSWITCH modules under {freeswitch_prefix}; expected mod_sofia.so in mod or lib/freeswitch/mod"
    )


def kamailio(settings: Settings, out: Path, folder: Path) -> None:
    """Write to ``out`` what Kamailio is to find in ``folder``. Raises RenderError or OSError."""
    templates = shipped("kamailio")
    home = home_country(settings.policy.home_country)
    sets = edge.trunk_sets(settings)
    trunks = settings.trunks
    try:
        directory = names.look_up(uri for trunk in trunks.values() for uri in trunk.gateways)
    except names.UnknownName as error:
        raise RenderError(str(error)) from error
    addresses = edge.sources(settings, directory) + edge.cluster_peers(settings)
    emergency = settings.emergency.numbers
    rpc_address, _, rpc_port = settings.edge.rpc.rpartition(":")
    values = {
        "edge": settings.edge,
        "sockets": [_listen(index, socket) for index, socket in enumerate(settings.edge.listen)],
        "folder": _plain(folder),
        "run_directory": _plain(settings.edge.run_directory),
        "domain": settings.edge.domain,
        "rpc": edge.host_port(rpc_address, int(rpc_port)),
        "rpc_address": rpc_address,
        "rpc_port": rpc_port,
        "children": settings.edge.children,
        "multihomed": _multihomed(settings),
        "route_key": edge.route_key(settings),
        "max_subnets": max(_MIN_SUBNETS, len(addresses)),
        "cluster": settings.edge.cluster,
        "cluster_address": edge.address_of(settings.edge.cluster.address) if settings.edge.cluster else "",
        "cluster_port": settings.edge.cluster.address.rpartition(":")[2] if settings.edge.cluster else "",
        "answer_ms": settings.esl_app.answer_within_ms + ANSWER_MARGIN_MS,
        "emergency_code": "911" if "911" in emergency else emergency[0],
        "home": home,
        "trunks": trunks,
        "groups": {name: edge.trunk_group(trunk).value for name, trunk in trunks.items()},
        "calls_per_second_out": {name: edge.calls_per_second_out(trunk) for name, trunk in trunks.items()},
        "calls_per_second_in": edge.calls_per_second_in(settings),
        "presets": presets.PRESETS,
        "tenants": settings.tenants,
        "certificates": {trunk.certificate: name for name, trunk in trunks.items() if trunk.certificate},
        "challenges": {name: trunk.challenge for name, trunk in trunks.items() if trunk.challenge},
        "hashes": {name: _hash(trunk.challenge, settings.edge.domain) for name, trunk in trunks.items()},
        "credentials": {name: trunk.credentials for name, trunk in trunks.items() if trunk.credentials},
        "digest_trunks": {
            trunk.challenge.username: name
            for name, trunk in trunks.items()
            if trunk.challenge and not trunk.sources and not trunk.certificate
        },
        "keepalives": edge.keepalives(settings, directory),
        "sets": sets,
        "routes": edge.outside_routes(settings),
        "numbers": settings.numbers,
        "destinations": {name: settings.place(name) for name in (*settings.destinations, *settings.ring_groups)},
        "rungs_of": lambda route: edge.fallbacks(settings, route),
        "emergency_digits": callee.emergency_digits(settings),
        "refer_headers": "|".join([*refer.HEADERS, *settings.policy.refer_headers]),
        "hosts": refer.hosts(settings),
        "countries": dial_tables.countries_table(settings),
        "rules": dial_tables.rules_table(settings),
        "zones": dial_tables.zones_table(settings),
        "emergency_spellings": emergency_spellings(emergency, home),
        "emergency_tests": settings.emergency.tests,
        "emergency_carriers": settings.emergency.carriers,
        "emergency_gateways": edge.emergency_gateways(settings, directory),
        "callback_numbers": edge.callback_numbers(settings),
        "callback_seconds": settings.emergency.callback_seconds,
        "desk": settings.destinations[settings.emergency.desk] if settings.emergency.desk else None,
        "notifier": bool(settings.emergency.notify.recipients),
        "workers_set": edge.WORKERS_SET,
        "emergency_set": edge.EMERGENCY_SET,
        "workers": [_site_worker(settings, name, worker) for name, worker in settings.workers.items()],
        "gateways": {name: edge.gateways(name, trunks[name], directory) for name in sets},
        "addresses": [_address(source) for source in addresses],
        "rtpengine": settings.rtpengine if edge.is_anchored(settings) else {},
        "media_sides": {name: edge.media_side(trunk) for name, trunk in settings.trunks.items()},
    }
    for part in sorted(templates.glob("*.cfg")):
        write(out / part.name, part.read_text(encoding="utf-8"), PUBLIC)
    for template in sorted(templates.rglob("*.j2")):
        name = template.relative_to(templates).as_posix()
        target = name.removesuffix(".j2")
        write(out / target, _fill(templates, name, values), SECRET if target in _SECRET_FILES else PUBLIC)
    if not (out / DRAINED).exists():
        write(out / DRAINED, drained_table([]), PUBLIC)


def drained_table(names: Iterable[str]) -> str:
    """The table of workers that get no new calls."""
    return "\n".join((_TABLE_HEAD, *(f"{name}:0:0:1" for name in sorted(names)))) + "\n"


def _hash(challenge: Credentials | None, realm: str) -> str:
    """H(A1) of RFC 2617 section 3.2.2.2, so that a table need not have the password."""
    if challenge is None:
        return ""
    text = f"{challenge.username}:{realm}:{challenge.password.get_secret_value()}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _listen(index: int, socket: Socket) -> str:
    text = f"{socket.transport.value}:{edge.host_port(socket.address, socket.port)}"
    if socket.advertise:
        text += f" advertise {edge.host_port(socket.advertise, socket.port)}"
    return f'{text} name "sip{index}"'


def _multihomed(settings: Settings) -> bool:
    """Whether the kernel must be asked which of several addresses a datagram leaves from. Not on loopback, where it
    names 127.0.0.1 whatever the edge listens on.
    """
    addresses = {socket.address for socket in settings.edge.listen}
    return len(addresses) > 1 and not all(ipaddress.ip_address(address).is_loopback for address in addresses)


def _site_worker(settings: Settings, name: str, worker: Worker) -> SiteWorker:
    return SiteWorker(name, edge.worker_uri(worker), worker.max_calls, worker.weight, _socket(settings, worker))


def _socket(settings: Settings, worker: Worker) -> str:
    if worker.transport is Transport.UDP:
        return ""
    socket = next(socket for socket in settings.edge.listen if socket.transport is worker.transport)
    return f"{socket.transport.value}:{edge.host_port(socket.address, socket.port)}"


def _address(source: edge.Source) -> dict[str, Any]:
    return {"group": source.group.value, "address": source.address, "mask": source.mask, "name": source.name}


def _plain(path: Path) -> str:
    """A path that can stand in Kamailio's substdef, whose delimiter is ``!``. Raises RenderError."""
    text = str(path)
    if not all(character.isprintable() and character not in '!"\\' for character in text):
        raise RenderError(f'Kamailio cannot be told the path {text!r}; expected one without ! " or backslash')
    return text


def _freeswitch(settings: Settings, name: str, worker: Worker, modules: Path | None, out: Path) -> None:
    templates = shipped("freeswitch")
    values = {
        "name": name,
        "worker": worker,
        "edge_addresses": list(dict.fromkeys(socket.address for socket in settings.edge.listen)),
        "freeswitch": settings.freeswitch,
        "password": settings.freeswitch.password.get_secret_value(),
        "esl_app": settings.esl_app,
        "modules": str(modules) if modules else None,
    }
    for template in sorted(templates.glob("*.xml.j2")):
        target = template.name.removesuffix(".j2")
        write(out / target, _fill(templates, template.name, values), SECRET if target == "event_socket.xml" else PUBLIC)


def targets(settings: Settings) -> str:
    """Every process that serves /metrics and /healthz, in the form of Prometheus' file_sd_configs."""
    targets: list[dict[str, Any]] = [
        {"targets": [settings.edge.rpc], "labels": {"component": "kamailio"}},
        {"targets": [settings.emergency.notify.listen], "labels": {"component": "notify"}},
    ]
    ports = {"esl_app": settings.esl_app.metrics_port, "media_fork": settings.media_fork.http_port}
    for worker, cell in settings.workers.items():
        for component, port in ports.items():
            labels = {"component": component, "worker": worker}
            targets.append({"targets": [edge.host_port(cell.loopback, port)], "labels": labels})
    for name, engine in settings.rtpengine.items():
        targets.append({"targets": [engine.metrics], "labels": {"component": "rtpengine", "rtpengine": name}})
    return json.dumps(targets, indent=2) + "\n"


def _fill(templates: Path, name: str, values: Mapping[str, Any]) -> str:
    return _environment(templates).get_template(name).render(values)


@cache
def _environment(templates: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        autoescape=lambda name: name is not None and name.endswith(".xml.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["field"] = _field
    return environment


def _field(text: str) -> str:
    """As db_text's columns have it, which colons part."""
    return text.replace("\\", "\\\\").replace(":", "\\:")
