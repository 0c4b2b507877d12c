"""``tandem route-test`` and the real Kamailio decide alike: one table of calls through both."""

import time
from dataclasses import dataclass

import pytest

from tandem.numbering import dialled, emergency_spellings, home_country
from tandem.route import REFUSAL_STATUS, Action, Decision, Refusal, decide
from tests.edge.endpoints import Calling, Endpoint
from tests.edge.world import CONNECTED, DID, FALLBACK_DID, Edge, MakeEdge

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
    """A call: who sends it, for what, and (of a worker) over which trunk."""

    party: str
    to: str
    over: str | None = None

    def __str__(self) -> str:
        return f"{self.party}-{self.to}" + (f"-over-{self.over}" if self.over else "")


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
    Row("worker", DID, "carrier"),
    Row("worker", "sip:{edge}", "carrier"),
    Row("worker", "+1 (415) 555-0100", "carrier"),
]


def phone(edge: Edge, party: str) -> Endpoint:
    return {
        "carrier": edge.carrier,
        "second": edge.second_carrier,
        "pbx": edge.pbx,
        "worker": edge.worker(1),
        "stranger": edge.stranger,
    }[party]


def uri(edge: Edge, row: Row) -> str:
    if row.to.startswith(("sip", "SIP", "tel", "TEL", "urn", "URN", "mailto")):
        return row.to.replace("{edge}", edge.at[0])
    return f"sip:{row.to.replace(' ', '%20')}@{edge.at[0]}"


def observed(edge: Edge, calling: Calling) -> tuple[object, ...]:
    """Where the INVITE went: the action, and the name, Request-URI or cause that tells which."""
    others = {"carrier": edge.carrier, "second": edge.second_carrier, "pbx": edge.pbx}
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        for worker in edge.workers:
            for invite in worker.got("INVITE", calling.call_id):
                worker.reply(invite, 486)
                assert calling.final().status == 486
                return Action.AGENT, invite["X-Tandem-Agent"], invite["X-Tandem-Number"], invite["X-Tandem-Caller"]
        for name, other in others.items():
            for invite in other.got("INVITE", calling.call_id):
                other.reply(invite, 603)
                return Action.TRUNK, name, invite.uri
        if refusals := calling.replies(300):
            calling.final()
            return Action.REFUSED, refusals[0].status, refusals[0].reason.replace(" ", "_")
        time.sleep(0.002)
    raise TimeoutError(f"{calling.uri} went nowhere")


def expected(edge: Edge, decision: Decision) -> tuple[object, ...]:
    if decision.action is Action.REFUSED:
        return Action.REFUSED, decision.status, decision.cause
    if decision.action is Action.AGENT:
        return Action.AGENT, decision.agent, decision.number, decision.caller
    host = decision.targets[0].removeprefix("sip:")
    is_uri = decision.dial.lower().startswith("urn:")
    return Action.TRUNK, decision.trunk, decision.dial if is_uri else f"sip:{decision.dial}@{host}"


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_kamailio_does_what_route_test_says(shared_edge: Edge, row: Row):
    edge = shared_edge
    edge.expected_errors.append("failed to parse the R-URI|invalid hex digit|lval_")  # mailto: and %zz
    sender = phone(edge, row.party)
    if row.party == "stranger":
        edge.rpc("htable.flush", "strangers")
    decision = decide(edge.settings, "+12025550147", uri(edge, row), sender.address, over=row.over)
    headers = [("X-Tandem-Trunk", row.over)] if row.over else []
    calling = sender.invite("", edge.at, uri=uri(edge, row), headers=headers)
    assert observed(edge, calling) == expected(edge, decision), decision.path


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
    path = decide(settings, "+12025550147", "2025550102", shared_edge.address(21)).path
    assert path == (
        f"from {shared_edge.address(21)}: carrier 'carrier'",
        "dialled 2025550102, which is +12025550102",
        "+12025550102 reaches agent 'reception'",
        "to the worker with the fewest calls for its weight of worker-1, worker-2; the next after 408, 5xx or silence",
        "without a worker: 2001 over trunk 'pbx' (operator)",
    )


def test_source_that_is_no_address_is_an_error(shared_edge: Edge):
    with pytest.raises(ValueError, match=r"'pbx\.example' does not appear to be an IPv4 or IPv6 address"):
        decide(shared_edge.settings, "1", DID, "pbx.example")


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
