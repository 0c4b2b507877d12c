"""What must fit together across the configuration: names that exist elsewhere, places used twice, numbers in two roles.

Works on what the files say, so that it finds its problems even where other parts are invalid.
"""

import contextlib
import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tandem import numbering, presets
from tandem.yamlfile import Document, Location, Problem

DEFAULT_COUNTRY = "US"
"""Where numbers are dialled unless policy.home_country says otherwise."""
CONTROL = "127.0.0.1:2223"
MEDIA_METRICS = "127.0.0.1:2225"
"""control and metrics of an rtpengine unless it says otherwise."""
WORKER_PORTS = (20000, 29998)
MEDIA_PORTS = (30000, 39998)
"""UDP ports of RTP, first and last, unless a worker or an rtpengine says otherwise."""
SHARED_MEMORY_MB = 512
"""Of Kamailio, unless edge.shared_memory_mb says otherwise."""
CALLS_PER_SECOND_A_MB = 2
"""New calls that all trunks together may send in a second, for each MB of Kamailio's shared memory. Where workers and gateways
are silent a call holds some 17 KB for a dozen seconds: then they fill half of the memory, and emergency calls have the rest.
"""
VOICEMAIL = "voicemail"
"""A fallback that is not a destination: a beep and a recording on the worker."""
REGRET = "regret"
"""Another one: the caller is told that nobody can take the call."""
RUNGS = (VOICEMAIL, REGRET)
BUILT_IN_TOOLS = (
    "transfer",
    "hang_up",
    "recording",
    "collect_digits",
    "collect_secret",
    "send_dtmf",
    "hold",
    "acknowledge",
    "answering_machine",
)
"""No HTTP tool may take their names."""


def cross_checks(
    document: Document, agents: Mapping[str, Document], ports: Mapping[Location, int]
) -> Iterator[Problem]:
    """All problems. ``ports`` are the default ports that one worker's processes listen on, by place."""
    yield from _Names(document, agents).problems()
    yield from _emergency(document)
    yield from _sources(document)
    yield from _cluster(document)
    yield from _transports(document)
    yield from _identities(document)
    yield from _flood(document)
    yield from _workers(document, ports)
    yield from _media(document)
    yield from _recordings(document, agents)
    yield from _context(document)
    for agent in agents.values():
        yield from _tools(agent)
        yield from _collections(agent)


class _Names:
    """Names of trunks, destinations and agents: those used exist, and those that exist are used."""

    def __init__(self, document: Document, agents: Mapping[str, Document]) -> None:
        self._document = document
        self._agents = agents
        self._trunks = _mapping(document.data, "trunks")
        self._destinations = _mapping(document.data, "destinations")
        self._groups = _mapping(document.data, "ring_groups")
        self._used: set[str] = set()

    def problems(self) -> Iterator[Problem]:
        for agent in self._agents.values():
            for index, destination in enumerate(_sequence(agent.data, "destinations")):
                yield from self._destination(agent, ("destinations", index), destination, self._reachable)
        for number, route in _mapping(self._document.data, "numbers").items():
            place: Location = ("numbers", number)
            if isinstance(route, dict):
                yield from _known(self._document, (*place, "agent"), "agent", route.get("agent"), self._agents)
                yield from self._trunk((*place, "trunk"), route.get("trunk"))
                yield from self._destination(
                    self._document, (*place, "destination"), route.get("destination"), self._destinations
                )
                yield from self._ladder((*place, "fallback"), route.get("fallback"))
        yield from self._emergency_names()
        yield from self._on_call_names()
        for name, recipient in _mapping(self._document.data, "voicemail", "recipients").items():
            for index, number in enumerate(_sequence(recipient, "numbers")):
                wanted: Location = ("voicemail", "recipients", name, "numbers", index)
                yield from _known(self._document, wanted, "number", number, _mapping(self._document.data, "numbers"))
        yield from self._rules()
        yield from self._ring_groups()
        for name, entry in self._destinations.items():
            yield from self._trunk(("destinations", name, "trunk"), _get(entry, "trunk"))
            yield from self._place("destinations", name)
        for prefix, trunks in _mapping(self._document.data, "routes").items():
            for index, trunk in enumerate(trunks if isinstance(trunks, list) else []):
                yield from self._trunk(("routes", prefix, index), trunk)
        tenants = {_get(trunk, "tenant", "default") for trunk in self._trunks.values()}
        for name in _mapping(self._document.data, "tenants"):
            yield from _known(self._document, ("tenants", name), "trunk of a tenant", name, tenants)
        for index, carrier in enumerate(_sequence(self._document.data, "emergency", "carriers")):
            where: Location = ("emergency", "carriers", index)
            yield from self._trunk(where, carrier)
            if isinstance(carrier, str) and _get(self._trunks.get(carrier), "kind") == "pbx":
                message = f"trunk {carrier!r} is a pbx, whose emergency calls would come back to it; expected a carrier"
                yield self._document.problem(where, message)

    @property
    def _reachable(self) -> list[str]:
        """Names that an agent may be given."""
        return [*self._destinations, *self._groups]

    def _ring_groups(self) -> Iterator[Problem]:
        for name, group in self._groups.items():
            place: Location = ("ring_groups", name)
            members = _sequence(group, "members")
            for index, member in enumerate(members):
                where: Location = (*place, "members", index)
                yield from self._destination(self._document, where, member, self._destinations)
                if member in members[:index]:
                    yield self._document.problem(where, f"{member} is a member twice; expected each once")
            if _get(group, "transfer") == "refer":
                message = "is refer, but a peer cannot ring a group; expected bridge, replaces or warm"
                yield self._document.problem((*place, "transfer"), message)
            if name in self._destinations:
                yield self._document.problem(place, "is the name of a destination as well; expected another name")
            yield from self._place("ring_groups", name)

    def _place(self, section: str, name: str) -> Iterator[Problem]:
        """What an agent may be given has a name of its own, and some agent that may use it."""
        if name in RUNGS:
            message = f"{name!r} is a built-in fallback; expected another name"
            yield self._document.problem((section, name), message)
        elif name not in self._used and self._all_readable():
            kind = section.removesuffix("s").replace("_", " ")
            message = f"no agent may use this {kind}; expected it in an agent's destinations, or as a fallback"
            yield self._document.problem((section, name), message)

    def _on_call_names(self) -> Iterator[Problem]:
        for name, on_call in _mapping(self._document.data, "on_call").items():
            where: Location = ("on_call", name)
            yield from _known(self._document, (*where, "agent"), "agent", _get(on_call, "agent"), self._agents)
            yield from self._trunk((*where, "trunk"), _get(on_call, "trunk"))

    def _emergency_names(self) -> Iterator[Problem]:
        emergency = _mapping(self._document.data, "emergency")
        if "desk" in emergency:
            yield from self._destination(
                self._document, ("emergency", "desk"), emergency["desk"], list(self._destinations)
            )
        phones = [name for name, trunk in self._trunks.items() if _get(trunk, "kind") == "pbx"]
        for name in _mapping(emergency, "callback_numbers"):
            yield from _known(self._document, ("emergency", "callback_numbers", name), "pbx", name, phones)
        for name, recipient in _mapping(emergency, "notify", "recipients").items():
            for index, trunk in enumerate(_sequence(recipient, "trunks")):
                where: Location = ("emergency", "notify", "recipients", name, "trunks", index)
                yield from _known(self._document, where, "pbx", trunk, phones)

    def _rules(self) -> Iterator[Problem]:
        rules = _sequence(self._document.data, "policy", "rules")
        names = [str(_get(rule, "name")) for rule in rules]
        tenants = {_get(trunk, "tenant", "default") for trunk in self._trunks.values()}
        for index, rule in enumerate(rules):
            where: Location = ("policy", "rules", index)
            if names[index] in names[:index]:
                yield self._document.problem(
                    (*where, "name"), f"{names[index]!r} is given twice; expected another name"
                )
            for place, trunk in enumerate(_sequence(rule, "trunks")):
                yield from self._trunk((*where, "trunks", place), trunk)
            for place, tenant in enumerate(_sequence(rule, "tenants")):
                yield from _known(self._document, (*where, "tenants", place), "trunk of a tenant", tenant, tenants)
        allowing = [name for name, rule in zip(names, rules, strict=True) if _get(rule, "action") != "refuse"]
        for agent in self._agents.values():
            for place, name in enumerate(_sequence(agent.data, "free_numbers")):
                yield from _known(agent, ("free_numbers", place), "rule that allows", name, allowing)

    def _ladder(self, where: Location, fallback: Any) -> Iterator[Problem]:
        """Each rung once, nothing after the last words."""
        choice = [*self._reachable, *RUNGS]
        if not isinstance(fallback, list):
            yield from self._destination(self._document, where, fallback, choice)
            return
        for index, rung in enumerate(fallback):
            yield from self._destination(self._document, (*where, index), rung, choice)
            if rung in fallback[:index]:
                yield self._document.problem((*where, index), f"{rung!r} stands there twice; expected each rung once")
            if REGRET in fallback[:index]:
                message = f"is never reached: the call ends with {REGRET!r}; expected that last"
                yield self._document.problem((*where, index), message)

    def _all_readable(self) -> bool:
        return all(agent.readable for agent in self._agents.values())

    def _destination(self, source: Document, where: Location, name: Any, choice: Collection[str]) -> Iterator[Problem]:
        self._used.add(str(name))
        yield from _known(source, where, "destination", name, choice)

    def _trunk(self, where: Location, name: Any) -> Iterator[Problem]:
        yield from _known(self._document, where, "trunk", name, self._trunks)
        trunk = self._trunks.get(name) if isinstance(name, str) else None
        if isinstance(trunk, dict) and not trunk.get("gateways"):
            yield self._document.problem(
                where, f"trunk {name!r} has no gateways to send to; expected at least one there"
            )


def _known(source: Document, where: Location, kind: str, name: Any, names: Collection[str]) -> Iterator[Problem]:
    if isinstance(name, str) and name not in names and where not in source.unset:
        listed = ", ".join(sorted(names)) or "none is configured"
        yield source.problem(where, f"no {kind} named {name!r}; expected one of: {listed}")


def _emergency(document: Document) -> Iterator[Problem]:
    """An emergency call must have somewhere to go, and no agent may place one."""
    numbers = {str(number) for number in _sequence(document.data, "emergency", "numbers")} or {"911", "933"}
    phones = [name for name, trunk in _mapping(document.data, "trunks").items() if _get(trunk, "kind") == "pbx"]
    if phones and not _sequence(document.data, "emergency", "carriers"):
        message = (
            f"is empty, so emergency calls from {', '.join(phones)} could not go out; expected a trunk with gateways"
        )
        yield document.problem(("emergency", "carriers"), message)
    region = _mapping(document.data, "policy").get("home_country", DEFAULT_COUNTRY)
    spellings = set(numbers)
    with contextlib.suppress(ValueError):  # told where the field is read
        spellings |= numbering.emergency_spellings(numbers, numbering.home_country(str(region))).keys()
    for name, entry in _mapping(document.data, "destinations").items():
        if str(_get(entry, "dial")) in spellings:
            message = f"{_get(entry, 'dial')} is an emergency number; no agent may dial it"
            yield document.problem(("destinations", name, "dial"), message)


def _sources(document: Document) -> Iterator[Problem]:
    """A caller's address must mean one trunk, and neither a worker nor the edge."""
    ours = [(worker.get("address"), f"worker {name!r}") for name, worker in _sections(document.data, "workers")]
    ours += [(_get(socket, "address"), "the edge itself") for socket in _sequence(document.data, "edge", "listen")]
    ours += [
        (str(peer).rpartition(":")[0], "another edge") for peer in _sequence(document.data, "edge", "cluster", "peers")
    ]
    own = [(address, whose) for text, whose in ours if (address := _address(text)) is not None]
    seen: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]] = []
    for name, trunk in _mapping(document.data, "trunks").items():
        for index, text in enumerate(_trunk_sources(trunk)):
            network = _network(text)
            if network is None:
                continue
            for other, owner in seen:
                if owner != name and network.version == other.version and network.overlaps(other):
                    message = f"{network} overlaps {other} of trunk {owner!r}; expected each address in one trunk only"
                    yield document.problem(("trunks", name, "sources", index), message)
            seen.append((network, name))
            for address, whose in own:
                if address in network:
                    message = f"{network} holds {address}, which is {whose}; expected the peer's own addresses"
                    yield document.problem(("trunks", name, "sources", index), message)


def _cluster(document: Document) -> Iterator[Problem]:
    """An edge tells the others of calls from an address of its own, not one that moves from edge to edge."""
    cluster = _mapping(document.data, "edge", "cluster")
    own = str(cluster.get("address"))
    listening = {str(_get(socket, "address")) for socket in _sequence(document.data, "edge", "listen")}
    if own.rpartition(":")[0] in listening:
        message = f"{own} is on an address of edge.listen, which the edges share; expected this edge's own"
        yield document.problem(("edge", "cluster", "address"), message)
    for index, peer in enumerate(_sequence(document.data, "edge", "cluster", "peers")):
        if peer == own:
            yield document.problem(("edge", "cluster", "peers", index), f"{own} is this edge; expected the others")


def _trunk_sources(trunk: Any) -> Sequence[Any]:
    if _get(trunk, "kind") != "twilio" or "sources" in trunk:
        return _sequence(trunk, "sources")
    with contextlib.suppress(ValueError):  # told where the field is read
        return presets.twilio_sources(map(str, _sequence(trunk, "regions")))
    return []


def _transports(document: Document) -> Iterator[Problem]:
    """What is sent over a transport leaves from a socket of it, and TLS needs a certificate."""
    sockets = _sequence(document.data, "edge", "listen")
    listening = {str(_get(socket, "transport", "udp")) for socket in sockets}
    secure: list[Location] = [
        ("edge", "listen", index) for index, socket in enumerate(sockets) if _get(socket, "transport") == "tls"
    ]
    for name, trunk in _mapping(document.data, "trunks").items():
        for index, uri in enumerate(_sequence(trunk, "gateways")):
            transport = str(uri).partition(";transport=")[2] or "udp"
            if transport not in listening:
                message = f"nothing listens on {transport}, so nothing can be sent over it; expected it in edge.listen"
                yield document.problem(("trunks", name, "gateways", index), message)
        if _get(trunk, "certificate") is not None:
            secure.append(("trunks", name, "certificate"))
            if "tls" not in listening:
                message = "nothing listens on tls; expected it in edge.listen"
                yield document.problem(("trunks", name, "certificate"), message)
    if secure and not _mapping(document.data, "edge", "tls"):
        yield document.problem(secure[0], "there is no certificate of our own; expected edge.tls")


def _identities(document: Document) -> Iterator[Problem]:
    """A certificate, and a user name that alone tells a trunk, must mean one trunk."""
    seen: dict[tuple[str, str], str] = {}
    for name, trunk in _mapping(document.data, "trunks").items():
        told = [("certificate", _get(trunk, "certificate"))]
        if not _trunk_sources(trunk) and _get(trunk, "certificate") is None:
            told.append(("challenge", _get(_get(trunk, "challenge"), "username")))
        for key, value in told:
            if value is None:
                continue
            other = seen.setdefault((key, str(value).lower()), name)
            if other != name:
                yield document.problem(("trunks", name, key), f"{value} is trunk {other!r}'s; expected one of its own")


def _flood(document: Document) -> Iterator[Problem]:
    """Whatever the trunks may send, memory is left for emergency calls."""
    memory_mb = _mapping(document.data, "edge").get("shared_memory_mb", SHARED_MEMORY_MB)
    trunks = _sections(document.data, "trunks")
    limits = [trunk.get("calls_per_second_in") for _, trunk in trunks]
    wanted = sum(limit if isinstance(limit, int) else 1 for limit in limits)
    if isinstance(memory_mb, int) and wanted > memory_mb * CALLS_PER_SECOND_A_MB:
        least = -(-wanted // CALLS_PER_SECOND_A_MB)
        message = (
            f"{memory_mb} would not do for emergency calls in a flood of {wanted} calls a second, which calls_per_second_in "
            f"allows the trunks together; expected at least {least}, or less there"
        )
        yield document.problem(("edge", "shared_memory_mb"), message)


def _workers(document: Document, ports: Mapping[Location, int]) -> Iterator[Problem]:
    """Two workers cannot listen in the same place, nor two processes of one worker."""
    used: dict[str, Location] = {}
    for place, default in ports.items():
        port = str(_get(_mapping(document.data, str(place[0])), str(place[1]), default))
        if port in used:
            other = ".".join(str(part) for part in used[port])
            yield document.problem(place, f"port {port} is {other}'s already; expected a port of its own")
        used.setdefault(port, place)
    sip: dict[tuple[Any, ...], str] = {}
    inner: dict[tuple[Any, ...], str] = {}
    for name, worker in _sections(document.data, "workers"):
        address, loopback = worker.get("address"), worker.get("loopback", "127.0.0.1")
        other_sip = sip.setdefault((address, str(worker.get("sip_port", 5080))), name)
        other_inner = inner.setdefault((address, loopback), name)
        if other_sip != name:
            yield document.problem(("workers", name), f"has the address and sip_port of {other_sip}")
        elif other_inner != name:
            message = f"shares a machine with {other_inner}; expected a loopback of its own, e.g. 127.0.0.2"
            yield document.problem(("workers", name, "loopback"), message)
        transports = {_get(socket, "transport", "udp") for socket in _sequence(document.data, "edge", "listen")}
        if worker.get("transport") == "tcp" and "tcp" not in transports:
            message = "the edge has no TCP socket to reach it from; expected one in edge.listen"
            yield document.problem(("workers", name, "transport"), message)


def _media(document: Document) -> Iterator[Problem]:
    """Anchored trunks need an rtpengine, and each of those places of its own."""
    pool = _sections(document.data, "rtpengine")
    for name, trunk in _mapping(document.data, "trunks").items():
        if _get(trunk, "media") == "anchored" and not pool:
            message = "there is no rtpengine to anchor it; expected at least one under rtpengine"
            yield document.problem(("trunks", name, "media"), message)
    places: dict[tuple[str, ...], str] = {}
    for name, engine in pool:
        control, metrics = str(engine.get("control", CONTROL)), str(engine.get("metrics", MEDIA_METRICS))
        machine = control.rpartition(":")[0]
        for key, place in (("control", (control,)), ("metrics", (metrics, machine))):
            other = places.setdefault(place, name)
            if other != name:
                yield document.problem(("rtpengine", name, key), f"{place[0]} is {other}'s already; expected its own")
    yield from _rtp_ports(document, pool)


def _context(document: Document) -> Iterator[Problem]:
    """A key that nobody can use is none."""
    if _get(_mapping(document.data, "esl_app"), "api_token") is not None:
        return
    for name, trunk in _mapping(document.data, "trunks").items():
        if _get(trunk, "context") in ("key", "full"):
            message = "its key is fetched over the API, which is off; expected esl_app.api_token"
            yield document.problem(("trunks", name, "context"), message)


def _rtp_ports(document: Document, pool: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[Problem]:
    """Who sends RTP from one address must do so from different ports."""
    used: list[tuple[Any, range, str]] = []
    for name, worker in _sections(document.data, "workers"):
        used.append((worker.get("address"), _range(_get(worker, "rtp"), WORKER_PORTS), f"worker {name!r}"))
    for name, engine in pool:
        ports = _range(engine.get("ports"), MEDIA_PORTS)
        for address in dict.fromkeys((engine.get("public"), engine.get("private"))):
            for other_address, other, whose in used:
                if address == other_address and ports.start < other.stop and other.start < ports.stop:
                    message = (
                        f"ports {ports.start} to {ports.stop - 1} of {address} are also {whose}'s; expected others"
                    )
                    yield document.problem(("rtpengine", name, "ports"), message)
            used.append((address, ports, f"rtpengine {name!r}"))


def _range(ports: Any, default: tuple[int, int]) -> range:
    first, last = _get(ports, "first", default[0]), _get(ports, "last", default[1])
    return range(int(first), int(last) + 1) if _is_number(first) and _is_number(last) else range(0)


def _collections(agent: Document) -> Iterator[Problem]:
    """The model names them."""
    seen: set[str] = set()
    for index, collection in enumerate(_sequence(agent.data, "collect")):
        name = str(_get(collection, "name"))
        if name in seen:
            yield agent.problem(("collect", index, "name"), f"{name!r} is given twice; expected another name")
        seen.add(name)


def _recordings(document: Document, agents: Mapping[str, Document]) -> Iterator[Problem]:
    """What is recorded is encrypted, so there must be a key."""
    kept = _mapping(document.data, "recordings")
    if kept.get("recipients") or kept.get("identity") is not None:
        return
    for agent in agents.values():
        mode = _mapping(agent.data, "recording").get("mode", "off")
        if mode != "off" and document.readable:
            message = "there is no key to encrypt with; expected recordings.recipients in tandem.yaml (`tandem recording key`)"
            yield agent.problem(("recording", "mode"), message)


def _tools(agent: Document) -> Iterator[Problem]:
    """The model tells tools apart by name alone."""
    seen = set(BUILT_IN_TOOLS)
    for index, tool in enumerate(_sequence(agent.data, "tools")):
        name = _get(tool, "name")
        if isinstance(name, str) and name in seen:
            kind = "built in" if name in BUILT_IN_TOOLS else "given twice"
            yield agent.problem(("tools", index, "name"), f"tool {name!r} is {kind}; expected another name")
        seen.add(str(name))


def _network(text: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(str(text))
    except ValueError:
        return None


def _address(text: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(str(text))
    except ValueError:
        return None


def _is_number(value: Any) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,9}", str(value)))


def _get(data: Any, key: str, default: Any = None) -> Any:
    return data.get(key, default) if isinstance(data, dict) else default


def _mapping(data: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        data = _get(data, key)
    return data if isinstance(data, dict) else {}


def _sections(data: Any, key: str) -> list[tuple[str, dict[str, Any]]]:
    return [(name, section) for name, section in _mapping(data, key).items() if isinstance(section, dict)]


def _sequence(data: Any, *keys: str) -> Sequence[Any]:
    for key in keys:
        data = _get(data, key)
    return data if isinstance(data, list) else []
