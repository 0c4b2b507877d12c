"""``tandem route-test`` and the real Kamailio decide alike: one table of calls through both."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tandem.edge import Group, emergency_gateways, gateways, trunk_group
from tandem.numbering import dialled, emergency_spellings, home_country
from tandem.route import REFUSAL_STATUS, Action, Decision, Refusal, decide, presented
from tandem.settings import Settings
from tests.edge.certificates import Certificates
from tests.edge.endpoints import SDP, Calling, Endpoint, Message
from tests.edge.world import CONNECTED, DID, FALLBACK_DID, Edge, MakeEdge

PATROL, DESK = "+12025550103", "+12025550104"
"""Are connected through to a destination on the branch's PBX, and on the site's."""

EMERGENCY = [
    "sip:911@{edge}",
    "sip:911@{edge};user=phone",
    "SIP:911@{edge}",
    "sips:911@{edge}",
    "sip:911@elsewhere.example",
    "sip:+1911@{edge}",
    "sip:1911@{edge}",
    "sip:9911@{edge}",
    "sip:91911@{edge}",
    "sip:0911@{edge}",
    "sip:9-1-1@{edge}",
    "sip:9.1.1@{edge}",
    "sip:(911)@{edge}",
    "sip:%39%31%31@{edge}",
    "sip:911%20@{edge}",
    "sip:911;phone-context=us@{edge}",
    "sip:911;phone-context=+1@{edge};user=phone",
    "sip:911:secret@{edge}",
    "sip:911",
    "tel:911",
    "TEL:911",
    "tel:9-1-1",
    "tel:+1911;phone-context=+1",
    "tel:911;phone-context=example.com",
    "sip:933@{edge}",
    "sip:933@{edge};user=phone",
    "sip:+1933@{edge}",
    "urn:service:sos",
    "urn:service:sos.police",
    "URN:SERVICE:SOS.fire",
    "urn:service:test.sos",
]
NOT_EMERGENCY = [
    "sip:9115551234@{edge}",
    "sip:19115551234@{edge}",
    "sip:+19115551234@{edge}",
    "sip:91100@{edge}",
    "sip:*911@{edge}",
    "sip:911#@{edge}",
    "sip:a911@{edge}",
    "sip:99911@{edge}",
    "sip:2911@{edge}",
    "sip:+44911@{edge}",
    "sip:0119111@{edge}",
    "sip:911.example@{edge}",
    "tel:9112",
]


@dataclass(frozen=True)
class Row:
    """A call: who sends it and for what; of a worker over which trunk; who calls, and over which transport."""

    party: str
    to: str
    over: str | None = None
    caller: str = "+12025550147"
    transport: str = "udp"

    def __str__(self) -> str:
        parts = [self.party, self.to, *([f"over-{self.over}"] if self.over else [])]
        parts += [] if self.caller == "+12025550147" else [f"from-{self.caller}"]
        return "-".join(parts + ([] if self.transport == "udp" else [self.transport]))


TABLE = [
    *(Row("pbx", uri) for uri in EMERGENCY),
    *(Row("pbx", uri) for uri in NOT_EMERGENCY),
    *(Row(party, uri) for party in ("carrier", "worker", "stranger") for uri in ("sip:911@{edge}", "urn:service:sos")),
    *(
        Row(party, to)
        for party in ("carrier", "second", "pbx", "stranger")
        for to in (DID, FALLBACK_DID, CONNECTED, "+14155550100", "2001")
    ),
    *(
        Row("carrier", to)
        for to in ("12025550100", "2025550100", "01112025550100", "tel:+1-202-555-0100", "+1 202", "0")
    ),
    *(
        Row("pbx", uri)
        for uri in ("sip:{edge}", "sip:127.218.57.100", "sip:%30@{edge}", "sip:4155550100", "sip:%zz911@x")
    ),
    *(Row("pbx", to) for to in ("011442079460000", "+442079460000", "*72", "mailto:x@y.example", "urn:uuid:1", "0114")),
    *(Row("worker", "2001", over) for over in ("pbx", "carrier", "nowhere", None)),
    *(
        Row("worker", to, "carrier")
        for to in (DID, "sip:{edge}", "+19005550199", "+442079460000", "*72", "alice", "112")
    ),
    *(Row("worker", to, "carrier") for to in ("+999123456", "912025550199", "919005550199", "+1-976-555-0199")),
    Row("worker", "+1 (415) 555-0100", "carrier"),
    # A number that is a destination; one behind a gateway of several.
    *(Row(party, to) for party in ("carrier", "pbx") for to in (PATROL, DESK)),
    Row("worker", "+14155550100", "second"),
    # The longest prefix of routes decides which trunks, and in which order.
    *(Row("pbx", to) for to in ("+14155550101", "+14165550100", "+493012345678", "0114930123456", "+4420794")),
    # Who calls, as each trunk may show it.
    *(
        Row("pbx", "+442079460000", caller=caller)
        for caller in ("+12025550108", "12025550108", "2025550108", "2001", "anonymous")
    ),
    *(Row("pbx", "+493012345678", caller=caller) for caller in ("2025550147", "2001", "anonymous")),
    *(Row("carrier", to, caller=caller) for to in (DID, CONNECTED) for caller in ("2025550147", "anonymous")),
    # By certificate: from the address of its own gateway, from elsewhere, of nobody here, and from another's source address.
    *(
        Row("branch", to, transport="tls")
        for to in ("sip:911@{edge}", "urn:service:sos", "933", DID, CONNECTED, PATROL, "+14155550100", "2001")
    ),
    *(Row("visitor", to, transport="tls") for to in ("sip:911@{edge}", DID, "+442079460000")),
    *(Row("agency", to, transport="tls") for to in ("sip:911@{edge}", DID, CONNECTED, "+14155550100")),
    *(Row("impostor", to, transport="tls") for to in ("sip:911@{edge}", DID)),
    *(Row("borrower", to, transport="tls") for to in ("sip:911@{edge}", DID)),
    # From the address of a gateway that is no source, and without the certificate of its trunk.
    *(Row(party, to) for party in ("branch", "gateway") for to in ("sip:911@{edge}", DID)),
]


@dataclass
class Site:
    """A site with everything that decides where a call goes, and its parties."""

    edge: Edge
    parties: dict[str, Endpoint]

    @property
    def called(self) -> dict[str, Endpoint]:
        """Who may get a call, by the worker's name or the gateway's URI."""
        workers = dict(zip(self.edge.settings.workers, self.edge.workers, strict=True))
        gateways = {
            f"sip:{self.parties[name].host}": self.parties[name] for name in ("carrier", "second", "gateway", "pbx")
        }
        branch = self.parties["branch"]
        return workers | gateways | {f"sip:{branch.address}:5061;transport=tls": branch}


CERTIFICATES = {"branch": 51, "visitor": 61, "agency": 71, "impostor": 81, "borrower": 21}
"""Parties that show a certificate, and their hosts."""
SHOWN = {"visitor": "branch", "borrower": "branch"}
"""Whose certificate it is, where not their own."""


@pytest.fixture(scope="module")
def site(shared_maker: MakeEdge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    certificates = Certificates(tmp_path_factory.mktemp("tls"))

    def change(site: dict[str, Any]) -> None:
        certificates.serve(site)
        net = site["edge"]["rpc"].rpartition(".")[0]
        site["trunks"]["second"] |= {
            "gateways": [f"sip:{net}.22:5060", f"sip:{net}.23:5060"],
            "caller_ids": ["+12025550109", "+12025550108"],
            "calls_per_second_out": 1000,
        }
        own = [f"sip:{net}.51:5061;transport=tls"]
        site["trunks"]["branch"] = {"kind": "pbx", "certificate": "branch", "gateways": own}
        site["trunks"]["agency"] = {"kind": "generic", "certificate": "agency"}
        site["destinations"]["patrol"] = {"description": "a guard", "dial": "2002", "trunk": "branch"}
        site["numbers"] |= {PATROL: {"destination": "patrol"}, DESK: {"destination": "operator"}}
        site["routes"] = {"+": ["carrier", "second"], "+44": ["second"], "+1415": ["second", "carrier"]}

    edge = shared_maker(change)
    edge.expected_errors += ["failed to parse the R-URI|invalid hex digit|lval_"]  # mailto: and %zz
    parties = {"carrier": edge.carrier, "second": edge.second_carrier, "pbx": edge.pbx, "worker": edge.worker(1)}
    parties |= {"stranger": edge.stranger, "gateway": edge.party(23)}
    secure = {
        name: Endpoint(edge.address(host), 5070, *certificates.contexts(SHOWN.get(name, name), edge.address(host)))
        for name, host in CERTIFICATES.items()
    }
    yield Site(edge, parties | secure)
    for party in secure.values():
        party.close()


def uri(edge: Edge, row: Row) -> str:
    if row.to.startswith(("sip", "SIP", "tel", "TEL", "urn", "URN", "mailto")):
        return row.to.replace("{edge}", edge.at[0])
    return f"sip:{row.to.replace(' ', '%20')}@{edge.at[0]}"


def tries(site: Site, calling: Calling) -> tuple[list[tuple[str, Message]], Message]:
    """Who got the INVITE, in order, each of whom refuses it with 503; and what the caller is told in the end."""
    found: dict[str, tuple[str, Message]] = {}
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        for name, party in site.called.items():
            for invite in party.got("INVITE", calling.call_id):
                if invite.branch not in found:
                    found[invite.branch] = name, invite
                    party.reply(invite, 503)
        if refusals := calling.replies(300):
            return list(found.values()), refusals[0]
        time.sleep(0.001)
    raise TimeoutError(f"{calling.uri} came to no end")


def user_of(value: str) -> str:
    return value.partition("sip:")[2].partition("@")[0]


def shown(settings: Settings, gateway: str, invite: Message) -> str:
    """Who calls, as a trunk is told: privacy apart, P-Asserted-Identity before From. A PBX is told it as the caller wrote it."""
    caller = user_of(invite["P-Asserted-Identity"] or invite["From"])
    (trunk,) = (trunk for trunk in settings.trunks.values() if gateway in trunk.gateways)
    home = home_country(settings.policy.home_country)
    return home.e164(caller) if trunk_group(trunk) is Group.PBX else caller


def over_trunk(settings: Settings, decision: Decision, trunks: Sequence[str], dial: str) -> list[tuple[str, str, str]]:
    """Gateway, Request-URI and caller of each try."""
    return [
        (gateway.uri, f"sip:{dial}@{gateway.host}", presented(settings.trunks[trunk], decision.caller))
        for trunk in trunks
        for gateway in gateways(trunk, settings.trunks[trunk])
    ]


def check_agent(settings: Settings, decision: Decision, tried: list[tuple[str, Message]]) -> None:
    workers, others = tried[: len(decision.targets)], tried[len(decision.targets) :]
    assert {name for name, _ in workers} == set(decision.targets)
    for _, invite in workers:
        told = invite["X-Tandem-Agent"], invite["X-Tandem-Number"], invite["X-Tandem-Caller"]
        assert told == (decision.agent, decision.number, decision.caller)
    last = workers[-1][1]["X-Tandem-Fallback"]
    assert (last == "ladder") == bool(decision.ladder)
    places = [place for name in decision.fallback if (place := settings.place(name))]
    expected = [attempt for place in places for attempt in over_trunk(settings, decision, [place.trunk], place.dial)]
    assert [(name, invite.uri, shown(settings, name, invite)) for name, invite in others] == expected


def check_trunk(settings: Settings, decision: Decision, tried: list[tuple[str, Message]]) -> None:
    """To each gateway, as what, and who is said to call."""
    owners = {uri: name for name, trunk in settings.trunks.items() for uri in trunk.gateways}
    trunks = list(dict.fromkeys(owners[target] for target in decision.targets))
    assert trunks[0] == decision.trunk
    expected = over_trunk(settings, decision, trunks, decision.dial)
    assert tuple(target for target, _, _ in expected) == decision.targets
    assert [(name, invite.uri, shown(settings, name, invite)) for name, invite in tried] == expected


def check_emergency(settings: Settings, decision: Decision, tried: list[tuple[str, Message]]) -> None:
    """Every gateway in order, and then in that order once more."""
    assert tuple(name for name, _ in tried) == decision.targets * 2
    hosts = {gateway.uri: gateway.host for gateway in emergency_gateways(settings)}
    for name, invite in tried[: len(decision.targets)]:
        is_urn = decision.dial.lower().startswith("urn:")
        assert invite.uri == (decision.dial if is_urn else f"sip:{decision.dial}@{hosts[name]}")


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_kamailio_does_what_route_test_says(site: Site, row: Row):
    edge, settings = site.edge, site.edge.settings
    sender = site.parties[row.party]
    edge.rpc("htable.flush", "strangers")
    certificate = SHOWN.get(row.party, row.party) if row.transport == "tls" else None
    text = uri(edge, row)
    decision = decide(
        settings, row.caller, text, sender.address, over=row.over, certificate=certificate, now=time.time()
    )
    at = (edge.at[0], 5061) if row.transport == "tls" else edge.at
    calling = Calling(sender, at, text, row.caller, row.transport)
    headers = [("X-Tandem-Trunk", row.over)] if row.over else []
    calling.send("INVITE", headers=headers, body=SDP, content_type="application/sdp")
    tried, final = tries(site, calling)
    if decision.action is Action.REFUSED:
        assert (final.status, final.reason.replace(" ", "_")) == (decision.status, decision.cause), decision.path
        assert not tried
    elif decision.action is Action.AGENT:
        check_agent(settings, decision, tried)
    elif decision.action is Action.TRUNK:
        check_trunk(settings, decision, tried)
    else:
        check_emergency(settings, decision, tried)


def test_the_table_has_a_hundred_calls_that_end_in_every_way():
    assert len(set(TABLE)) == len(TABLE) >= 100


@pytest.mark.parametrize(("region", "dialled_number", "number"), [
    ("GB", "02079460000", "+442079460000"),
    ("GB", "0014155550100", "+14155550100"),
    ("GB", "442079460000", "+442079460000"),
    ("GB", "14155550100", "14155550100"),
    ("ES", "910123456", "+34910123456"),
    ("DE", "03012345678", "+493012345678"),
    ("US", "4155550100", "+14155550100"),
    ("CA", "14165550100", "+14165550100"),
    ("AU", "001114155550100", "+14155550100"),
])  # fmt: skip
def test_home_country_decides_how_numbers_are_dialled(
    make_edge: MakeEdge, region: str, dialled_number: str, number: str
):
    edge = make_edge(lambda site: site.update(policy={"home_country": region}))
    assert home_country(region).e164(dialled_number) == number
    calling = edge.from_pbx(dialled_number)
    if number.startswith("+"):
        assert edge.carrier.request("INVITE", calling.call_id).uri == f"sip:{number}@{edge.carrier.host}"
    else:
        assert calling.final().reason == "unknown number"


def test_unknown_country_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="nothing is known about dialling in 'XX'"):
        home_country("XX")


def test_path_tells_how_it_came_to_that(shared_edge: Edge):
    settings = shared_edge.settings
    path = decide(settings, "+12025550147", "2025550102", shared_edge.address(21), now=0).path
    assert path == (
        f"from {shared_edge.address(21)}: carrier 'carrier'",
        "dialled 2025550102, which is +12025550102",
        "+12025550102 reaches agent 'reception'",
        "to the worker with the fewest calls for its weight of worker-1, worker-2; the next after 408, 5xx or silence",
        "without a worker: 2001 over trunk 'pbx' (operator)",
    )


def test_source_that_is_no_address_is_an_error(shared_edge: Edge):
    with pytest.raises(ValueError, match=r"'pbx\.example' does not appear to be an IPv4 or IPv6 address"):
        decide(shared_edge.settings, "1", DID, "pbx.example", now=0)


def test_every_refusal_has_a_status():
    assert set(REFUSAL_STATUS) == set(Refusal)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("911", "911"),
        ("+1 (202) 555-0100", "+12025550100"),
        ("sip:a%2Bb@x", "a+b"),
        ("sip:%zz911@x", "zz911"),
        ("", ""),
        ("sip:@", ""),
        ("sip:911", ""),
        ("sip:127.218.57.100:5060", ""),
        ("sips:911;x=y@host:5061;transport=tls", "911"),
    ],
)
def test_dialled_digits(text: str, digits: str):
    assert dialled(text) == digits


def test_code_that_is_also_a_spelling_of_another_means_itself():
    assert emergency_spellings(["911", "9911"], home_country("US"))["9911"] == "9911"
