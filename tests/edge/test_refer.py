"""REFER: the edge and tandem/refer.py judge the same targets, toward each kind of peer, and the same Refer-To goes on."""

import itertools
import time
from dataclasses import dataclass
from typing import Any

import phonenumbers
import pytest

from tandem.refer import Peer, decide
from tandem.route import Refusal
from tests.edge.endpoints import Dialog, Endpoint, establish
from tests.edge.world import DID, Edge, MakeEdge

USERS = [
    *(
        "+12025550199",
        "12025550199",
        "2025550199",
        "912025550199",
        "82025550199",
        "2001",
        "411",
        "8911000",
        "+1-202-555-0199",
    ),
    *(
        "(202)555-0199",
        "%2B12025550199",
        "+1%202025550199",
        "2001;phone-context=x",
        "+12025550199;phone-context=%2b1900",
    ),
    *(
        "911",
        "9911",
        "+1911",
        "91911",
        "%39%31%31",
        "9-1-1",
        "911;phone-context=+1",
        "9%2e11",
        "933",
        "112",
        "988",
        "8911",
    ),
    *("911%00", "911%20", "91%31", "0911", "+911", "+9911", "91%3b1", "9115551234"),
    *("+19005550199", "9005550199", "919005550199", "+1%3900555%30199", "+12029765555", "+449098790000", "+3361234"),
    *(
        "+442079460000",
        "011442079460000",
        "9011442079460000",
        "+18765550199",
        "+16715550199",
        "+14165550199",
        "+1684733",
    ),
    *("+88213300000", "+80012345678", "+5312345678", "+999123456", "+12345", "+0123456789", "+", "0", "00442079460000"),
    *(
        DID,
        "12025550100",
        "912025550102",
        "+12025550101",
        "*72",
        "%2a72",
        "#31#2001",
        "alice",
        "1alice",
        "٩١١",
        "2001:pw",
    ),
    *("", "%", "%4", "%zz911", "911,911", "2001&x", "2001?x", "anonymous", "+1202555019", "+120255501999"),
]
HOSTS = ["{edge}", "{edge}:5060", "{carrier}", "{pbx}:5060", "{second}", "{worker}", "{stranger}", "pbx.example.com"]
HOSTS += ["PBX.Example.com:5070", "tandem.invalid", "victim.example", "[::1]", "{carrier}.", "localhost", "x"]
PARAMETERS = [
    "",
    ";user=phone",
    ";method=INVITE",
    ";METHOD=invite;user=phone",
    ";method=BYE",
    ";method=INVITE;method=BYE",
]
PARAMETERS += [";transport=tcp;line=ab12", ";maddr={stranger}", ";m%61ddr=x", ";maddr", ";x=911", ";lr;a=b=c", ";;"]
HEADERS = [
    "",
    "?Replaces=a%40b%3Bto-tag%3Dc%3Bfrom-tag%3Dd",
    "?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc&Require=replaces",
]
HEADERS += [
    "?User-to-User=0123abc%3Bencoding%3Dhex",
    "?user-TO-user=1&X-Account=42",
    "?X-Other=1",
    "?X-Tandem-Trunk=pbx",
]
HEADERS += [
    "?Route=%3Csip:911%40x%3E",
    "?From=x",
    "?Replaces=1&Replaces=2",
    "?replaces=1&User-to-User=2&REPLACES=3",
    "?",
]
HEADERS += [
    "?Replaces=a%0d%0aRoute:x",
    "?Replaces=a%7f",
    "?Replaces=",
    "?Replaces",
    "?Require=timer",
    "?%52oute=x",
    "?&",
]
HEADERS += [
    "?Replaces=a&",
    "?Replaces=a?Replaces=b",
    "?body=x",
    "?Replaces=1&To=%3Csip:911%40x%3E",
    "?X-Account=%E2%82%AC",
]
ODD = [
    "urn:service:sos",
    "URN:SERVICE:SOS.police",
    "urn:service:test.sos",
    "urn:uuid:1",
    "sips:2001@{pbx}",
    "mailto:a@b",
]
ODD += [
    "https://example.com",
    "sip:911",
    "sip:{edge}",
    "sip:",
    "tel:",
    "tel:911",
    "tel:+1-911",
    "tel:+12025550199",
    "TEL:2001",
]
ODD += [
    "tel:2025550199;phone-context=+1",
    "tel:2001;phone-context=pbx.example.com",
    "tel:+19005550199",
    "tel:2001;maddr=x",
]
ODD += [
    "tel:2001?Replaces=1",
    "tel:+1(202)555.0199",
    "tel:9%311",
    "tel:2001;method=BYE",
    "sip:2001@{pbx}@{carrier}",
    "im:2001",
]
ODD += ["sip:+12025550199@{carrier};user=phone?Replaces=1", "SIP:+12025550199@{edge}", "sip:911@victim.example?Route=x"]
REGIONS = ["US", "CA", "JM", "GB", "DE", "FR", "IT", "AU", "JP", "RU"]
KINDS = [
    phonenumbers.PhoneNumberType.FIXED_LINE,
    phonenumbers.PhoneNumberType.PREMIUM_RATE,
    phonenumbers.PhoneNumberType.TOLL_FREE,
    phonenumbers.PhoneNumberType.SHARED_COST,
]


RULES = [
    {"name": "counted", "prefixes": ["+1415"], "max_calls": 5},
    {"name": "uk", "prefixes": ["+44"], "trunks": ["carrier", "pbx"], "opens": ["international"]},
    {"name": "mobiles", "kinds": ["mobile"], "tenants": ["acme"], "opens": ["international"]},
    {"name": "codes", "kinds": ["feature_code"], "trunks": ["pbx"], "opens": ["feature_code"]},
    {"name": "no-toll-free", "kinds": ["toll_free", "shared_cost"], "action": "refuse"},
    {"name": "never", "times": ["daily 00:00-24:00"], "prefixes": ["+4", "+8"], "action": "refuse"},
    {"name": "games", "kinds": ["premium"], "tenants": ["acme"], "opens": ["premium", "own_number"]},
    {"name": "ours", "kinds": ["own_number"], "tenants": ["default"], "opens": ["own_number"]},
]


def examples() -> list[str]:
    """phonenumbers' own examples of each kind, in E.164."""
    found = [phonenumbers.example_number_for_type(region, kind) for region, kind in itertools.product(REGIONS, KINDS)]
    return [phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) for number in found if number]


def targets() -> list[str]:
    """Every user at us, some at every host, with all parameters and headers."""
    return [
        *(f"sip:{user}@{{edge}}" for user in (*USERS, *examples())),
        *(f"sip:{user}@{host}" for user, host in itertools.product(("2001", "912025550199"), HOSTS)),
        *(f"sip:2001@{{pbx}}{parameters}" for parameters in PARAMETERS),
        *(f"sip:+12025550199@{{edge}}{headers}" for headers in HEADERS),
        *(f"sip:2001@pbx.example.com;line=7{headers}" for headers in HEADERS),
        *ODD,
    ]


@dataclass(frozen=True)
class Way:
    """A call through which REFERs go: who sends them, and who gets them."""

    sender: Dialog
    receiver: Endpoint
    to: Peer
    tenant: str


def made(make_edge: MakeEdge, policy: dict[str, Any]) -> Edge:
    def change(site: dict[str, Any]) -> None:
        site["policy"] = {"refer_headers": ["X-Account"]} | policy
        site["trunks"]["pbx"]["domain"] = "pbx.example.com"
        site["trunks"]["second"]["domain"] = "example.pstn.twilio.com"

    edge = make_edge(change)
    edge.expected_errors.append(".")  # what Kamailio thinks of the odd ones
    return edge


def ways(edge: Edge) -> dict[str, Way]:
    """From a worker to each carrier; from the PBX to a carrier and back; from a carrier to a worker."""
    found = {}
    for name, carrier in (("carrier", edge.carrier), ("second", edge.second_carrier)):
        calling = carrier.invite(DID, edge.at)
        worker, invite = edge.first_worker(calling.call_id)
        near, far = establish(calling, worker, invite)
        found[name] = Way(far, carrier, Peer(name, carrier.host), edge.settings.trunks[name].tenant)
    found["worker"] = Way(near, worker, Peer("worker-1", worker.host), edge.settings.trunks["second"].tenant)
    calling = edge.from_pbx("+14155550100")
    near, far = establish(calling, edge.carrier, edge.carrier.request("INVITE", calling.call_id))
    return found | {"pbx": Way(far, edge.pbx, Peer("pbx", edge.pbx.host), edge.settings.trunks["carrier"].tenant)}


def observed(way: Way, uri: str) -> str | Refusal:
    """What becomes of a REFER to ``uri``: the target in the Refer-To that arrives, or the cause of the refusal."""
    sent = way.sender.send("REFER", headers=[("Refer-To", f'"B" <{uri}>;x=y')])
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for message in reversed(way.receiver.seen):
            if message["CSeq"] == sent["CSeq"] and message.call_id == way.sender.call_id and message.is_request:
                way.receiver.reply(message, 202)
                (target,) = message.all("Refer-To")
                return target.removeprefix("<").removesuffix(">")
        for message in reversed(way.sender.phone.seen):
            if not message.is_request and message.branch == sent.branch and message.status >= 300:
                return Refusal(message.reason.replace(" ", "_"))
        time.sleep(0.0005)
    raise TimeoutError(f"nothing became of a REFER to {uri!r}")


@pytest.mark.parametrize(
    "policy",
    [{}, {"premium": True}, {"international": True}, {"home_country": "GB"}, {"rules": RULES}],
    ids=["nothing-allowed", "premium", "international", "british", "rules"],
)
def test_the_edge_decides_as_the_dial_policy_of_the_agents_does(make_edge: MakeEdge, policy: dict[str, Any]):
    edge = made(make_edge, policy)
    places = {"edge": edge.at[0], "carrier": edge.address(21), "pbx": edge.address(31), "second": edge.address(22)}
    places |= {"worker": edge.address(11), "stranger": edge.address(99)}
    different = []
    passed = set()
    everyone = not policy or "rules" in policy
    for name, way in ways(edge).items() if everyone else [("carrier", ways(edge)["carrier"])]:
        for uri in dict.fromkeys(target.format(**places) for target in targets()):
            expected = decide(edge.settings, uri, way.to, tenant=way.tenant, now=time.time())
            got = observed(way, uri)
            if got != expected:
                different.append(f"toward {name}: {uri}: Kamailio {got}, Python {expected}")
            passed.add(expected if isinstance(expected, Refusal) else "passed")
    assert not different, "\n".join(different)
    assert "passed" in passed
    assert Refusal.REFER_TO_EMERGENCY in passed
