"""Gateways given by name, as DNS has them when the site is rendered (RFC 3263): a call never waits for DNS."""

from collections.abc import Iterable
from typing import Any

import dns.exception
import dns.resolver

from tandem.edge import Directory, host_of, host_port, is_address

PATIENCE_S = 5.0
"""For one question."""
_SERVICES = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}


class UnknownName(ValueError):
    """A gateway's name leads to no address; the message says which, and what DNS said."""


def look_up(uris: Iterable[str]) -> Directory:
    """The addresses of those ``uris`` that have names, asked of the system's DNS servers. Raises UnknownName.

    A URI without a port is asked for by SRV first, then by A and AAAA (RFC 3263 section 4.2), one with a port by A and AAAA
    alone. Of one SRV priority the heavier come first: the same answers make the same order.
    """
    resolver = dns.resolver.get_default_resolver()
    return {uri: _expanded(uri, resolver) for uri in dict.fromkeys(uris) if not is_address(host_of(uri))}


def _expanded(uri: str, resolver: dns.resolver.Resolver) -> tuple[str, ...]:
    base, _, transport = uri.partition(";transport=")
    name, port = host_of(uri), base.removeprefix("sip:").partition(":")[2]
    places = [(name, int(port))] if port else _services(f"{_SERVICES[transport or 'udp']}.{name}", resolver)
    if not places:
        places = [(name, 5061 if transport == "tls" else 5060)]
    suffix = f";transport={transport}" if transport else ""
    found = [
        f"sip:{host_port(address, number)}{suffix}"
        for target, number in places
        for address in _addresses(target, resolver)
    ]
    if not found:
        raise UnknownName(f"{uri}: {name} has no address in DNS")
    return tuple(dict.fromkeys(found))


def _services(name: str, resolver: dns.resolver.Resolver) -> list[tuple[str, int]]:
    records = sorted(_ask(name, "SRV", resolver), key=lambda record: (record.priority, -record.weight, record.target))
    # A lone dot says that the service is not to be had (RFC 2782).
    return [(str(record.target).rstrip("."), record.port) for record in records if str(record.target) != "."]


def _addresses(name: str, resolver: dns.resolver.Resolver) -> list[str]:
    return [record.address for kind in ("A", "AAAA") for record in sorted(_ask(name, kind, resolver))]


def _ask(name: str, kind: str, resolver: dns.resolver.Resolver) -> list[Any]:
    try:
        return list(resolver.resolve(name, kind, lifetime=PATIENCE_S, search=False))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except dns.exception.DNSException as error:
        raise UnknownName(f"{name}: no answer from DNS ({error})") from error
