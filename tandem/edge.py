"""What the edge knows of a site: who its peers are, where calls may go, in which order. Rendered for Kamailio, asked by
``tandem route-test``.
"""

import hashlib
import ipaddress
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from tandem.crosscheck import CALLS_PER_SECOND_A_MB
from tandem.destinations import Destination
from tandem.settings import Media, Route, Settings, Transport, Trunk, TrunkKind, Worker

WORKERS_SET = 1
EMERGENCY_SET = 2
FIRST_TRUNK_SET = 10
"""Sets of Kamailio's dispatcher.list; those of the trunks with gateways follow."""
PRIVATE_MEMORY = ("-M", "16")
"""Options of Kamailio: MB of each process, of which the configuration alone takes 7 on 6.0; it has 8 by itself."""


Directory = Mapping[str, tuple[str, ...]]
"""What a gateway's URI with a name stands for: the same with addresses, in order."""
AS_NAMED: Directory = {}
"""Names stay names."""


class Group(IntEnum):
    """What a source address is to the edge: the groups of Kamailio's address.list."""

    CARRIER = 1
    PBX = 2
    WORKER = 3
    GATEWAY = 4
    """Takes calls, sends none: replies and requests within dialogs only."""
    CLUSTER = 5
    """Another edge of this site: no calls either way."""


@dataclass(frozen=True)
class Source:
    """One line of address.list. ``address`` is an IP address, or a host name (group GATEWAY alone)."""

    group: Group
    address: str
    mask: int
    """Prefix length."""
    name: str
    """Of the trunk or worker."""


@dataclass(frozen=True)
class Gateway:
    """Where calls to a trunk are sent. ``host`` is what the Request-URI names: the trunk's domain, or the gateway itself."""

    trunk: str
    uri: str
    host: str


@dataclass(frozen=True)
class Keepalive:
    """A gateway that is asked for OPTIONS."""

    uri: str
    host: str
    """Of the Request-URI."""
    seconds: int


def fallbacks(settings: Settings, route: Route) -> list[Destination]:
    """Those of a number's fallbacks that the edge can ring, in order."""
    return [place for name in route.fallback if (place := settings.place(name)) is not None]


def sources(settings: Settings, directory: Directory = AS_NAMED) -> list[Source]:
    """Everyone the edge talks to, workers first. Gateways that are no source of any trunk come last, as GATEWAY."""
    known = [
        Source(Group.WORKER, str(address), address.max_prefixlen, name)
        for name, worker in settings.workers.items()
        for address in [ipaddress.ip_address(worker.address)]
    ]
    for name, trunk in settings.trunks.items():
        group = trunk_group(trunk)
        for network in map(ipaddress.ip_network, trunk.sources):
            known.append(Source(group, str(network.network_address), network.prefixlen, name))
    return known + list(_gateways_elsewhere(settings, known, directory))


def cluster_peers(settings: Settings) -> list[Source]:
    """The other edges of this site."""
    peers = settings.edge.cluster.peers if settings.edge.cluster else []
    addresses = [ipaddress.ip_address(address_of(peer)) for peer in peers]
    return [Source(Group.CLUSTER, str(address), address.max_prefixlen, "edge") for address in addresses]


def trunk_group(trunk: Trunk) -> Group:
    """What callers from a trunk are to the edge."""
    return Group.PBX if trunk.kind is TrunkKind.PBX else Group.CARRIER


def _gateways_elsewhere(settings: Settings, known: list[Source], directory: Directory) -> Iterator[Source]:
    networks = [ipaddress.ip_network(f"{source.address}/{source.mask}") for source in known]
    seen: set[str] = set()
    for name, trunk in settings.trunks.items():
        for gateway in gateways(name, trunk, directory):
            host = host_of(gateway.uri)
            if host in seen:
                continue
            seen.add(host)
            try:
                address = ipaddress.ip_address(host)
            except ValueError:
                yield Source(Group.GATEWAY, host, 32, name)
                continue
            if not any(address in network for network in networks):
                yield Source(Group.GATEWAY, host, address.max_prefixlen, name)


def recognise(settings: Settings, address: str, certificate: str | None = None) -> Source | None:
    """The peer that sends from ``address``, or by TLS with that ``certificate``, which may come from a gateway's address too."""
    wanted = ipaddress.ip_address(address)
    known = (
        source
        for source in sources(settings)
        if is_address(source.address) and wanted in ipaddress.ip_network(f"{source.address}/{source.mask}")
    )
    by_address = next(known, None)
    if by_address is not None and by_address.group is not Group.GATEWAY:
        return by_address
    for name, trunk in settings.trunks.items():
        if certificate is not None and trunk.certificate == certificate.lower():
            return Source(trunk_group(trunk), str(wanted), wanted.max_prefixlen, name)
    return by_address


def gateways(name: str, trunk: Trunk, directory: Directory = AS_NAMED) -> list[Gateway]:
    """A trunk's gateways in order of preference: names as they stand, or with a ``directory`` their addresses."""
    found = [
        Gateway(name, address, trunk.domain or _host_port(uri))
        for uri in trunk.gateways
        for address in directory.get(uri, (uri,))
    ]
    return list({gateway.uri: gateway for gateway in found}.values())


def emergency_gateways(settings: Settings, directory: Directory = AS_NAMED) -> list[Gateway]:
    """Where emergency calls go: all gateways of the first carrier, then of the next."""
    found = [
        gateway for name in settings.emergency.carriers for gateway in gateways(name, settings.trunks[name], directory)
    ]
    return list({gateway.uri: gateway for gateway in found}.values())


def callback_numbers(settings: Settings) -> dict[str, str]:
    """Numbers that stand for phones without one of their own, by PBX/PREFIX of the extension."""
    emergency = settings.emergency
    table: dict[str, str] = {}
    for name, trunk in settings.trunks.items():
        if trunk.kind is TrunkKind.PBX:
            shared = {"": emergency.callback_number} if emergency.callback_number else {}
            for prefix, number in (shared | emergency.callback_numbers.get(name, {})).items():
                table[f"{name}/{prefix}"] = number
    return table


def keepalives(settings: Settings, directory: Directory) -> list[Keepalive]:
    """Whom to ask for OPTIONS, and how often."""
    found: dict[str, Keepalive] = {}
    for name, trunk in settings.trunks.items():
        seconds = trunk.preset.keepalive_seconds if trunk.keepalive_seconds is None else trunk.keepalive_seconds
        for gateway in gateways(name, trunk, directory) if seconds else []:
            found.setdefault(gateway.uri, Keepalive(gateway.uri, gateway.host, seconds))
    return list(found.values())


def calls_per_second_out(trunk: Trunk) -> int | None:
    return trunk.calls_per_second_out or trunk.preset.calls_per_second_out


def calls_per_second_in(settings: Settings) -> dict[str, int]:
    """New calls that each trunk may send in a second. Those without a limit of their own share evenly what the others leave of
    what Kamailio's memory bears.
    """
    given = {name: trunk.calls_per_second_in for name, trunk in settings.trunks.items()}
    left = settings.edge.shared_memory_mb * CALLS_PER_SECOND_A_MB - sum(limit or 0 for limit in given.values())
    unlimited = sum(limit is None for limit in given.values())
    return {name: limit or max(1, left // unlimited) for name, limit in given.items()}


def outside_routes(settings: Settings) -> dict[str, list[str]]:
    """Trunks for calls of the PBX to the outside world, in order, by E.164 prefix."""
    if settings.routes:
        return settings.routes
    carriers = [name for name, trunk in settings.trunks.items() if trunk.kind is not TrunkKind.PBX and trunk.gateways]
    return {"+": carriers} if carriers else {}


def outside_trunks(settings: Settings, number: str) -> list[str]:
    """The trunks for a call to ``number`` in the outside world: those of the longest prefix."""
    routes = outside_routes(settings)
    return next((routes[number[:end]] for end in range(len(number), 0, -1) if number[:end] in routes), [])


def trunk_sets(settings: Settings) -> dict[str, int]:
    """The dispatcher set of each trunk that has gateways. It hangs on the trunk's name: however others come and go at a reload,
    no call is led over the gateways of another trunk.
    """
    sets: dict[str, int] = {}
    for name in sorted(name for name, trunk in settings.trunks.items() if trunk.gateways):
        number = FIRST_TRUNK_SET + zlib.crc32(name.encode()) % 1_000_000
        while number in sets.values():
            number += 1
        sets[name] = number
    return sets


def is_anchored(settings: Settings) -> bool:
    """Whether any trunk's media passes through rtpengine."""
    return any(trunk.media is Media.ANCHORED for trunk in settings.trunks.values())


def media_side(trunk: Trunk) -> str:
    """The side of rtpengine that a trunk sees, and whether it speaks SRTP there: as Kamailio's media.cfg has it."""
    side = "public" if trunk.media is Media.ANCHORED else "private"
    return f"{side}-srtp" if trunk.srtp else side


@cache
def _route_key(password: str) -> str:
    return hashlib.scrypt(password.encode(), salt=b"Record-Route", n=2**13, r=8, p=1, dklen=32).hex()


def route_key(settings: Settings) -> str:
    """Key of the marks in Record-Route, the same in all edges of a site and after every restart: it hangs on the password of
    the event socket, the secret that every site has.
    """
    return _route_key(settings.freeswitch.password.get_secret_value())


def worker_uri(worker: Worker) -> str:
    """A worker as the dispatcher has it."""
    transport = "" if worker.transport is Transport.UDP else f";transport={worker.transport.value}"
    return f"sip:{host_port(worker.address, worker.sip_port)}{transport}"


def host_port(address: str, port: int) -> str:
    """``address:port`` as URIs spell it: IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _host_port(uri: str) -> str:
    return uri.removeprefix("sip:").split(";")[0]


def address_of(place: str) -> str:
    """The address of ADDRESS:PORT, without brackets."""
    return place.rpartition(":")[0].strip("[]")


def host_of(uri: str) -> str:
    """The host of a gateway's URI, without brackets."""
    text = _host_port(uri)
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def is_address(text: str) -> bool:
    """Whether ``text`` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
