"""The dial policy at the edge: ``tandem route-test`` and Kamailio decide alike under any rules, and caps hold for all workers."""

import os
import random
import time
from typing import Any

import pytest

from tandem.dial_rules import Kind, Opening
from tandem.render import render
from tandem.route import Action, Decision, Refusal, decide
from tests.edge.clocks import times as times_now
from tests.edge.endpoints import Calling
from tests.edge.test_refer import examples
from tests.edge.world import CONNECTED, DID, Edge, MakeEdge, load_site

DIALLED = [
    *("2001", "411", "*72", "*21*2001", "alice", "+", "911", "112", DID, "2025550102", CONNECTED, "+12025550160"),
    *("912025550160", "011442079460000", "+18765550199", "+14165550199", "+19005550199", "+12029765555"),
    *("+999123456", "+12345", "+88213300000", "+80012345678", "82025550199", "+7 9", "0"),
    *examples(),
]
PREFIXES = ["+", "+1", "+1202", "+1900", "+44", "+4420", "+4", "+7", "+33", "+61", "+81"]
SEED = 20261130


def rules(chance: random.Random, now: float) -> list[dict[str, Any]]:
    """Some rules of all kinds, whose times do not begin or end while the test runs."""
    times = {name: text for name, text in times_now(now).items() if name.startswith(("around", "not"))}
    found = []
    for number in range(chance.randint(1, 8)):
        rule: dict[str, Any] = {"name": f"rule-{number}"}
        if chance.random() < 0.5:
            rule["prefixes"] = chance.sample(PREFIXES, chance.randint(1, 3))
        if chance.random() < 0.5:
            rule["kinds"] = [kind.value for kind in chance.sample(list(Kind), chance.randint(1, 4))]
            if {"extension", "feature_code"} >= set(rule["kinds"]):
                rule.pop("prefixes", None)
        if chance.random() < 0.3:
            rule["trunks"] = chance.sample(["carrier", "pbx", "second"], chance.randint(1, 2))
        if chance.random() < 0.3:
            rule["tenants"] = chance.sample(["acme", "default"], 1)
        if chance.random() < 0.3:
            rule["times"] = chance.sample(sorted(times.values()), chance.randint(1, 2))
            rule["time_zone"] = chance.choice(["UTC", "Pacific/Kiritimati", "America/New_York"])
        if chance.random() < 0.35:
            rule["action"] = "refuse"
        else:
            rule["opens"] = [kind.value for kind in chance.sample(list(Opening), chance.randint(0, 4))]
            if chance.random() < 0.2:
                rule["max_calls"] = 100
        found.append(rule)
    return found


def load_rules(edge: Edge, policy: dict[str, Any], round_: int) -> None:
    """The running edge takes over other rules; rounds count up."""
    edge.settings = load_site(edge.net, edge.folder, lambda site: site.update(policy=policy))
    render(edge.settings, edge.folder / "site")
    later = time.time() + 100 * round_ + 2  # Kamailio compares whole seconds
    for name in ("rules", "zones", "countries"):
        os.utime(edge.folder / "site/kamailio/tables" / name, (later, later))
        edge.rpc("htable.reload", name)


def observed(edge: Edge, calling: Calling) -> tuple[Action, str]:
    """Whose gateway got the INVITE, or the cause of the refusal."""
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        for name, party in (("carrier", edge.carrier), ("pbx", edge.pbx)):
            for invite in party.got("INVITE", calling.call_id):
                party.reply(invite, 603)
                return Action.TRUNK, name
        if refusals := calling.replies(300):
            return Action.REFUSED, refusals[0].reason.replace(" ", "_")
        time.sleep(0.001)
    raise TimeoutError(f"{calling.uri} went nowhere")


def expected(decision: Decision) -> tuple[Action, str]:
    return decision.action, decision.cause.value if decision.cause else str(decision.trunk)


def test_route_test_agrees_with_kamailio_under_any_rules(make_edge: MakeEdge):
    edge = make_edge()
    edge.expected_errors.append("lval_|invalid")
    chance = random.Random(SEED)
    now = time.time()
    causes = set()
    for round_ in range(12):
        policy = {"rules": rules(chance, now), "international": round_ % 4 == 1, "premium": round_ % 4 == 2}
        load_rules(edge, policy, round_)
        for dialled in chance.sample(DIALLED, 20):
            trunk, tenant = chance.choice(["carrier", "pbx"]), chance.choice(["acme", "default"])
            wanted = decide(
                edge.settings, "+12025550147", dialled, edge.address(11), over=trunk, tenant=tenant, now=time.time()
            )
            headers = [("X-Tandem-Trunk", trunk), ("X-Tandem-Tenant", tenant)]
            uri = f"sip:{dialled.replace(' ', '%20')}@{edge.at[0]}"
            calling = edge.worker(1).invite("", edge.at, uri=uri, headers=headers)
            assert observed(edge, calling) == expected(wanted), (dialled, trunk, tenant, policy, wanted.path)
            causes.add(wanted.cause)
    assert {None, Refusal.REFUSED_BY_RULE, Refusal.INTERNATIONAL_NUMBER, Refusal.PREMIUM_NUMBER} <= causes


def minute(edge: Edge) -> int:
    """That the edge counts under, which is this machine's."""
    del edge
    return int(time.time()) // 60


@pytest.mark.parametrize(("ago", "status"), [(0, 503), (1, 503), (60, 503), (62, 486)])
def test_a_call_counts_for_sixty_minutes(make_edge: MakeEdge, ago: int, status: int):
    rule = {"name": "home", "prefixes": ["+1"], "max_calls_per_hour": 3}
    edge = make_edge(lambda site: site.update(policy={"rules": [rule]}))
    if ago == 60 and time.time() % 60 > 55:
        time.sleep(6)  # or the minute would be over before the call
    edge.rpc("htable.seti", "rule_tries", f"home/{minute(edge) - ago}", 3)
    calling = edge.worker(1).invite("+12025550160", edge.at, headers=[("X-Tandem-Trunk", "carrier")])
    if status == 486:
        edge.carrier.reply(edge.carrier.request("INVITE", calling.call_id), 486)
    assert calling.final().status == status


def test_of_calls_at_the_same_moment_no_more_than_the_cap_are_let_in(make_edge: MakeEdge):
    rule = {"name": "home", "prefixes": ["+1"], "max_calls": 3}

    def change(site: dict[str, Any]) -> None:
        site["policy"] = {"rules": [rule]}
        site["edge"]["children"] = 4

    edge = make_edge(change)
    over = [("X-Tandem-Trunk", "carrier")]
    placed = [edge.worker(1 + n % 2).invite("+12025550160", edge.at, headers=over) for n in range(20)]
    edge.until(lambda: sum(bool(calling.replies(300)) for calling in placed) >= 17, "the others to be refused")
    let_in = [calling for calling in placed if not calling.replies(300)]
    assert len(let_in) == 3
    assert edge.counter("rule_calls", "home") == 3
    for calling in let_in:
        edge.carrier.reply(edge.carrier.request("INVITE", calling.call_id), 486)
        calling.final()
    edge.until(lambda: edge.counter("rule_calls", "home") == 0, "all of them to be given back")
