"""What the edge does with the target of a REFER: the dial policy of the agents, for whoever sends it.

kamailio/refer.cfg is what really decides; tests/edge puts one table of targets through both. What passes goes on as a new
Refer-To made of the parts that were judged and no others.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tandem import callee, dial_policy, edge, numbering
from tandem.edge import Group
from tandem.route import Refusal
from tandem.settings import Settings, TrunkKind

_HOST = r"(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])"
_PARAMETERS = r"(?P<parameters>(;[a-z0-9._~+=:-]*)*)"
_SIP = re.compile(
    rf"sip:(?P<user>([a-z0-9+*#()._~!';=-]|%[0-9a-f]{{2}})+)@(?P<place>{_HOST}(:[0-9]{{1,5}})?){_PARAMETERS}(\?(?P<headers>.*))?",
    re.IGNORECASE,
)
_TEL = re.compile(rf"tel:(?P<user>[0-9+*#().-]+){_PARAMETERS}", re.IGNORECASE)
_ELSEWHERE = re.compile(r";(maddr|method)(=|;|$)", re.IGNORECASE)
_VALUE = r"([a-z0-9.!*'()+;:@/=~_-]|%[2-6][0-9a-f]|%7[0-9a-e])+"
HEADERS = ("Replaces", "User-to-User")
"""Headers that a Refer-To may always give the new call."""


@dataclass(frozen=True)
class Peer:
    """Who the REFER goes to."""

    name: str
    """Of the trunk or worker."""
    place: str
    """Host and port that it is sent to."""


def decide(settings: Settings, uri: str, to: Peer, *, tenant: str = "default", now: float) -> str | Refusal:
    """The Refer-To that goes on for one with ``uri``, or why it is refused. ``now``: Unix seconds."""
    if numbering.service_urn(uri) or _is_emergency(settings, uri):
        return Refusal.REFER_TO_EMERGENCY
    if not re.match("(sip|tel):", uri, re.IGNORECASE):
        return Refusal.REFER_TO_UNKNOWN_SCHEME
    target = _SIP.fullmatch(uri) or _TEL.fullmatch(uri)
    if target is None:
        return Refusal.REFER_MALFORMED
    parts = target.groupdict()
    parameters = re.sub(";method=INVITE(;|$)", r"\1", parts["parameters"], count=1, flags=re.IGNORECASE)
    if _ELSEWHERE.search(parameters):
        return Refusal.REFER_WITH_PARAMETER
    headers = parts.get("headers")
    if headers is not None and not _is_allowed(settings, headers):
        return Refusal.REFER_WITH_HEADER
    owner = to.name if target.re is _TEL else _owner(settings, parts["host"])
    if owner is None:
        return Refusal.REFER_TO_UNKNOWN_HOST
    digits = numbering.dialled(uri)
    over = to.name if owner == _OURSELVES else owner
    judgement = dial_policy.judge(settings, digits, trunk=over, tenant=tenant, now=now)
    if judgement.refusal is not None:
        return Refusal(judgement.refusal.value)
    goes_on = _refer_to(settings, to, owner, digits, parts | {"headers": headers, "parameters": parameters})
    if not isinstance(goes_on, Refusal) and judgement.rule is not None and judgement.rule.max_calls is not None:
        return Refusal.REFER_TO_COUNTED_NUMBER
    return goes_on


def _refer_to(settings: Settings, to: Peer, owner: str, digits: str, parts: Mapping[str, str | None]) -> str | Refusal:
    """In the form that the receiver takes."""
    headers = parts["headers"]
    suffix = "" if headers is None else f"?{headers}"
    if owner not in (_OURSELVES, to.name):
        digits = callee.as_judged(settings, digits, owner)
        return f"sip:{digits}@{parts['place']}{parts['parameters']}{suffix}"
    trunk = settings.trunks.get(to.name)
    if trunk is None or not trunk.gateways:
        return f"sip:{digits}@{to.place}{suffix}"
    number = None if trunk.kind is TrunkKind.PBX else callee.e164(settings, digits)
    if number is None and trunk.kind in (TrunkKind.TWILIO, TrunkKind.BANDWIDTH):
        return Refusal.REFER_TO_EXTENSION
    return f"sip:{number or digits}@{edge.gateways(to.name, trunk)[0].host}{suffix}"


_OURSELVES = "edge"


def hosts(settings: Settings) -> dict[str, str]:
    """Names and addresses that a Refer-To may have beside the addresses of the trunks: the edge's own, the trunks' domains."""
    ours = [settings.edge.domain, *(socket.address for socket in settings.edge.listen)]
    ours += [socket.advertise for socket in settings.edge.listen if socket.advertise]
    domains = {trunk.domain.lower(): name for name, trunk in settings.trunks.items() if trunk.domain}
    return domains | {host.lower(): _OURSELVES for host in ours}


def _owner(settings: Settings, host: str) -> str | None:
    """The trunk that ``host`` is of, or ourselves; None for a worker and for everybody else."""
    name = host.lower().strip("[]")
    if name in hosts(settings):
        return hosts(settings)[name]
    try:
        peer = edge.recognise(settings, name)
    except ValueError:
        peer = next((source for source in edge.sources(settings) if source.address.lower() == name), None)
    return peer.name if peer and peer.group is not Group.WORKER else None


def _is_emergency(settings: Settings, uri: str) -> bool:
    home = numbering.home_country(settings.policy.home_country)
    spellings = numbering.emergency_spellings(settings.emergency.numbers, home)
    if numbering.emergency_number(uri, spellings):
        return True
    return re.fullmatch(callee.emergency_digits(settings), numbering.dialled(uri)) is not None


def _is_allowed(settings: Settings, headers: str) -> bool:
    if re.search("(^|&)Replaces=.*&Replaces=", headers, re.IGNORECASE):
        return False
    name = "|".join([*HEADERS, *settings.policy.refer_headers])
    one = f"(Require=replaces|({name})={_VALUE})"
    return re.fullmatch(f"{one}(&{one})*", headers, re.IGNORECASE) is not None
