"""What the edge does with a call, decided from the settings alone: ``tandem route-test``.

kamailio/kamailio.cfg is what really decides; tests/edge puts one table of calls through both.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tandem import callee, dial_policy, edge
from tandem.crosscheck import RUNGS
from tandem.dial_rules import Rule
from tandem.edge import Group, Source
from tandem.numbering import HomeCountry, dialled, emergency_number, emergency_spellings, home_country, service_urn
from tandem.settings import Settings, Trunk

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")


class Action(StrEnum):
    """What becomes of an INVITE."""

    EMERGENCY = "emergency"
    AGENT = "agent"
    TRUNK = "trunk"
    REFUSED = "refused"


class Refusal(StrEnum):
    """Why the edge refuses a request: the ``cause`` of its log line and counter; in Reason with spaces."""

    UNKNOWN_SOURCE = "unknown_source"
    EMERGENCY_FROM_CARRIER = "emergency_from_carrier"
    EMERGENCY_FROM_WORKER = "emergency_from_worker"
    EMERGENCY_UNDELIVERABLE = "emergency_undeliverable"
    UNKNOWN_NUMBER = "unknown_number"
    UNKNOWN_TRUNK = "unknown_trunk"
    """A worker named a trunk that does not exist or has no gateways."""
    NO_WORKER = "no_worker"
    WORKER_GONE = "worker_gone"
    """A request within a dialog that a worker does not answer."""
    NO_GATEWAY = "no_gateway"
    INCOMING_RATE = "incoming_rate"
    """More new calls a second than the trunk may send."""
    OUTGOING_RATE = "outgoing_rate"
    """More new calls a second than the trunks take."""
    TENANT_FULL = "tenant_full"
    BAD_CREDENTIALS = "bad_credentials"
    CHALLENGED_BY_CARRIER = "challenged_by_carrier"
    """The carrier wants credentials, and there are none or it does not take them."""
    SRTP_IN_THE_CLEAR = "srtp_in_the_clear"
    """An offer of SDES keys from or to a leg without TLS, whose media are not anchored."""
    MEDIA_UNAVAILABLE = "media_unavailable"
    UNSUPPORTED_URI_SCHEME = "unsupported_uri_scheme"
    MALFORMED = "malformed"
    MESSAGE_TOO_LARGE = "message_too_large"
    TOO_MANY_HOPS = "too_many_hops"
    LOOP = "loop"
    """It has been here three times already."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NO_TRANSACTION = "no_transaction"
    NO_DIALOG = "no_dialog"
    UNKNOWN_NEXT_HOP = "unknown_next_hop"
    NOT_A_PARTY = "not_a_party"
    """A request within a call of which its sender, or the one it goes to, is not an end."""
    NEXT_HOP_UNREACHABLE = "next_hop_unreachable"
    REFER_OF_EMERGENCY_CALL = "refer_of_emergency_call"
    REFER_WITHOUT_ONE_TARGET = "refer_without_one_target"
    REFER_TO_EMERGENCY = "refer_to_emergency"
    REFER_TO_UNKNOWN_SCHEME = "refer_to_unknown_scheme"
    REFER_MALFORMED = "refer_malformed"
    REFER_WITH_PARAMETER = "refer_with_parameter"
    REFER_WITH_HEADER = "refer_with_header"
    REFER_TO_UNKNOWN_HOST = "refer_to_unknown_host"
    REFER_TO_EXTENSION = "refer_to_extension"
    """Toward a carrier that dials none."""
    REFER_TO_COUNTED_NUMBER = "refer_to_counted_number"
    """Its rule has a max_calls, and a call that left us cannot be counted."""
    NOT_A_NUMBER = "not_a_number"
    OWN_NUMBER = "own_number"
    FEATURE_CODE = "feature_code"
    PREMIUM_NUMBER = "premium_number"
    INTERNATIONAL_NUMBER = "international_number"
    REFUSED_BY_RULE = "refused_by_rule"
    TOO_MANY_CALLS = "too_many_calls"
    TOO_MANY_CALLS_PER_HOUR = "too_many_calls_per_hour"


REFUSAL_STATUS: dict[Refusal, int] = {
    Refusal.UNKNOWN_SOURCE: 403,
    Refusal.EMERGENCY_FROM_CARRIER: 403,
    Refusal.EMERGENCY_FROM_WORKER: 403,
    Refusal.EMERGENCY_UNDELIVERABLE: 503,
    Refusal.UNKNOWN_NUMBER: 404,
    Refusal.UNKNOWN_TRUNK: 404,
    Refusal.NO_WORKER: 503,
    Refusal.WORKER_GONE: 481,
    Refusal.NO_GATEWAY: 503,
    Refusal.INCOMING_RATE: 503,
    Refusal.OUTGOING_RATE: 503,
    Refusal.TENANT_FULL: 503,
    Refusal.BAD_CREDENTIALS: 407,
    Refusal.CHALLENGED_BY_CARRIER: 503,
    Refusal.SRTP_IN_THE_CLEAR: 488,
    Refusal.MEDIA_UNAVAILABLE: 503,
    Refusal.UNSUPPORTED_URI_SCHEME: 416,
    Refusal.MALFORMED: 400,
    Refusal.MESSAGE_TOO_LARGE: 513,
    Refusal.TOO_MANY_HOPS: 483,
    Refusal.LOOP: 482,
    Refusal.METHOD_NOT_ALLOWED: 405,
    Refusal.NO_TRANSACTION: 481,
    Refusal.NO_DIALOG: 481,
    Refusal.UNKNOWN_NEXT_HOP: 403,
    Refusal.NOT_A_PARTY: 403,
    Refusal.NEXT_HOP_UNREACHABLE: 503,
    Refusal.REFER_OF_EMERGENCY_CALL: 403,
    Refusal.REFER_WITHOUT_ONE_TARGET: 400,
    Refusal.REFER_TO_EMERGENCY: 403,
    Refusal.REFER_TO_UNKNOWN_SCHEME: 403,
    Refusal.REFER_MALFORMED: 400,
    Refusal.REFER_WITH_PARAMETER: 403,
    Refusal.REFER_WITH_HEADER: 403,
    Refusal.REFER_TO_UNKNOWN_HOST: 403,
    Refusal.REFER_TO_EXTENSION: 403,
    Refusal.REFER_TO_COUNTED_NUMBER: 403,
    Refusal.NOT_A_NUMBER: 403,
    Refusal.OWN_NUMBER: 403,
    Refusal.FEATURE_CODE: 403,
    Refusal.PREMIUM_NUMBER: 403,
    Refusal.INTERNATIONAL_NUMBER: 403,
    Refusal.REFUSED_BY_RULE: 403,
    Refusal.TOO_MANY_CALLS: 503,
    Refusal.TOO_MANY_CALLS_PER_HOUR: 503,
}
"""SIP status of each refusal."""


@dataclass(frozen=True)
class Decision:
    """What the edge does with the call, and how it came to that."""

    action: Action
    path: tuple[str, ...]
    """The steps in words, one a line."""
    source: Source | None = None
    """The peer that sent the call; None: unknown."""
    caller: str = ""
    """In E.164 where it is a number."""
    number: str = ""
    """What was dialled, in E.164 where it is such a number."""
    emergency: str | None = None
    """The emergency number meant, or the service (``sos``, ``test.sos``)."""
    agent: str | None = None
    trunk: str | None = None
    """The trunk that the call goes out on."""
    dial: str = ""
    """User part of the Request-URI on the way out; of a service URN the whole."""
    targets: tuple[str, ...] = ()
    """Names of workers, or URIs of gateways, in the order in which they are tried on an idle system."""
    fallback: tuple[str, ...] = ()
    """Destinations that the edge rings itself when no worker has a model for the call, in order."""
    ladder: tuple[str, ...] = ()
    """Rungs that the last worker goes down instead, where it can: all of the number's, if one of them is no destination."""
    cause: Refusal | None = None

    @property
    def status(self) -> int | None:
        """SIP status of a refusal."""
        return REFUSAL_STATUS[self.cause] if self.cause else None

    def step(self, text: str) -> "Decision":
        return replace(self, path=(*self.path, text))

    def refused(self, cause: Refusal, text: str) -> "Decision":
        decision = replace(self, action=Action.REFUSED, cause=cause)
        words = cause.value.replace("_", " ")
        return decision.step(f"{text}: refused with {REFUSAL_STATUS[cause]}, Reason {words!r}")


def decide(
    settings: Settings,
    from_: str,
    to: str,
    source: str,
    *,
    over: str | None = None,
    tenant: str = "default",
    certificate: str | None = None,
    now: float,
) -> Decision:
    """What happens to an INVITE for ``to`` that ``from_`` sends from the IP address ``source``.

    ``to`` is a number as dialled, or a whole sip:, tel: or urn: URI. ``over`` and ``tenant`` are the trunk and
    the tenant that a worker names (X-Tandem-Trunk, X-Tandem-Tenant), ``certificate`` the name in the client certificate of a
    call by TLS, ``now`` Unix seconds. Digest, rates, caps and what a tenant has up at the moment are left out. Raises ValueError where ``source`` is no IP address.
    """
    home = home_country(settings.policy.home_country)
    decision = Decision(Action.REFUSED, (), caller=home.e164(dialled(from_)))
    peer = edge.recognise(settings, source, certificate)
    if peer is None or peer.group is Group.GATEWAY:
        return decision.refused(Refusal.UNKNOWN_SOURCE, f"{ipaddress.ip_address(source)} is no source of any trunk")
    kind = {Group.CARRIER: "carrier", Group.PBX: "PBX", Group.WORKER: "worker"}[peer.group]
    decision = replace(decision, source=peer).step(f"from {source}: {kind} {peer.name!r}")

    digits = dialled(to)
    meant = service_urn(to) or emergency_number(to, emergency_spellings(settings.emergency.numbers, home))
    if meant is not None:
        return _emergency(settings, replace(decision, emergency=meant), to)
    if re.match(r"(?!sip:|tel:)[a-z]+:", to, re.IGNORECASE):
        return decision.refused(Refusal.UNSUPPORTED_URI_SCHEME, f"{to} is neither sip: nor tel:")
    if peer.group is Group.WORKER:
        return _from_worker(settings, replace(decision, number=home.e164(digits)), digits, over, tenant, now)
    return _number(settings, decision, digits, home)


def _emergency(settings: Settings, decision: Decision, to: str) -> Decision:
    decision = decision.step(f"{to} is an emergency call ({decision.emergency})")
    assert decision.source is not None
    if decision.source.group is Group.WORKER:
        return decision.refused(Refusal.EMERGENCY_FROM_WORKER, "an agent never calls an emergency number")
    if decision.source.group is Group.CARRIER:
        return decision.refused(Refusal.EMERGENCY_FROM_CARRIER, "emergency calls are taken from the PBX alone")
    gateways = edge.emergency_gateways(settings)
    if not gateways:
        return decision.refused(Refusal.EMERGENCY_UNDELIVERABLE, "emergency.carriers is empty")
    is_number = str(decision.emergency).isdigit()
    decision = replace(
        decision,
        action=Action.EMERGENCY,
        trunk=gateways[0].trunk,
        dial=str(decision.emergency) if is_number else to,
        targets=tuple(gateway.uri for gateway in gateways),
    )
    return decision.step(f"straight to the carriers, in order: {', '.join(decision.targets)}; no worker is involved")


def _from_worker(
    settings: Settings, decision: Decision, digits: str, over: str | None, tenant: str, now: float
) -> Decision:
    if over not in edge.trunk_sets(settings):
        named = f"names the trunk {over!r}, which has no gateways here" if over else "names no trunk"
        return decision.refused(Refusal.UNKNOWN_TRUNK, f"the worker {named}")
    if not digits:
        return decision.refused(Refusal.UNKNOWN_NUMBER, "the worker dials nothing")
    decision = decision.step(f"the worker names trunk {over!r} and tenant {tenant!r}")
    judgement = dial_policy.judge(settings, digits, trunk=str(over), tenant=tenant, now=now)
    if judgement.refusal is dial_policy.Refusal.EMERGENCY:
        return decision.refused(Refusal.EMERGENCY_FROM_WORKER, "an agent never calls an emergency number")
    if judgement.refusal is not None:
        by = f"rule {judgement.rule.name!r}" if judgement.rule else "the dial policy"
        return decision.refused(Refusal(judgement.refusal.value), f"{by} refuses {digits}")
    if judgement.rule is not None:
        decision = decision.step(f"rule {judgement.rule.name!r} allows {digits}{_caps(judgement.rule)}")
    return _to_trunk(settings, decision, [str(over)], callee.as_judged(settings, digits, str(over)))


def _caps(rule: Rule) -> str:
    """What the edge counts, and this does not."""
    caps = []
    if rule.max_calls is not None:
        caps.append(f"{rule.max_calls} at one time")
    if rule.max_calls_per_hour is not None:
        caps.append(f"{rule.max_calls_per_hour} in an hour")
    return f", {' and '.join(caps)}" if caps else ""


def _number(settings: Settings, decision: Decision, digits: str, home: HomeCountry) -> Decision:
    number = home.e164(digits)
    decision = replace(decision, number=number)
    decision = decision.step(f"dialled {digits}" + (f", which is {number}" if number != digits else ""))
    route = settings.numbers.get(number)
    if route is None:
        outside = edge.outside_trunks(settings, number)
        assert decision.source is not None
        if decision.source.group is Group.PBX and outside and _E164.fullmatch(number):
            listed = ", ".join(map(repr, outside))
            decision = decision.step(f"no number of this site: from the PBX to the outside world over {listed}")
            return _to_trunk(settings, decision, outside, number)
        return decision.refused(Refusal.UNKNOWN_NUMBER, f"{number or 'nothing'} leads nowhere")
    if route.trunk:
        decision = decision.step(f"{number} is connected through to trunk {route.trunk!r}")
        return _to_trunk(settings, decision, [route.trunk], number)
    if route.destination:
        place = settings.destinations[route.destination]
        decision = decision.step(f"{number} is connected through to {route.destination!r}")
        return _to_trunk(settings, decision, [place.trunk], place.dial)
    decision = replace(
        decision, action=Action.AGENT, agent=route.agent, dial=number, targets=tuple(settings.workers)
    ).step(f"{number} reaches agent {route.agent!r}")
    decision = decision.step(
        f"to the worker with the fewest calls for its weight of {', '.join(settings.workers)}; "
        "the next after 408, 5xx or silence"
    )
    if any(rung in RUNGS for rung in route.fallback):
        decision = replace(decision, ladder=tuple(route.fallback))
        decision = decision.step(f"without a model, on the last worker: {', '.join(route.fallback)}")
    places = [name for name in route.fallback if name not in RUNGS]
    decision = replace(decision, fallback=tuple(places))
    for name in places:
        rung = settings.place(name)
        assert rung is not None
        decision = decision.step(f"without a worker: {rung.dial} over trunk {rung.trunk!r} ({name})")
    return decision if places else decision.step("without a worker: 503 with Retry-After")


def _to_trunk(settings: Settings, decision: Decision, trunks: Sequence[str], dial: str) -> Decision:
    targets = tuple(gateway.uri for trunk in trunks for gateway in edge.gateways(trunk, settings.trunks[trunk]))
    decision = replace(decision, action=Action.TRUNK, trunk=trunks[0], dial=dial, targets=targets)
    if not targets:
        return decision.refused(Refusal.NO_GATEWAY, f"trunk {trunks[0]!r} has no gateways")
    caller = presented(settings.trunks[trunks[0]], decision.caller)
    if caller != decision.caller:
        decision = decision.step(f"the caller is shown as {caller}: {trunks[0]!r} may not present {decision.caller}")
    listed = ", ".join(map(repr, trunks))
    return decision.step(f"{dial} to the gateways of {listed}, in order: {', '.join(targets)}")


def presented(trunk: Trunk, caller: str) -> str:
    """The number that a call over ``trunk`` shows as its caller; ``caller`` is in E.164 where it is a number."""
    if edge.trunk_group(trunk) is Group.PBX or not trunk.caller_ids or caller in trunk.caller_ids:
        return caller
    return trunk.caller_ids[0]
