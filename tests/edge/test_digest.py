"""Digest from a trunk to us: who proves to be the trunk may call, and nobody learns which user names there are."""

import hashlib
import re
from typing import Any

import pytest

from tests.edge.endpoints import Calling, Endpoint, Message, establish
from tests.edge.world import DID, Edge, MakeEdge

REALM = "edge.example"
USER, PASSWORD = "branch", "correct horse".replace(" ", "-")


def known_by_address(site: dict[str, Any]) -> None:
    site["edge"]["domain"] = REALM
    site["trunks"]["pbx"]["challenge"] = {"username": USER, "password": PASSWORD}


def known_by_digest_alone(site: dict[str, Any]) -> None:
    site["edge"]["domain"] = REALM
    branch = {"kind": "pbx", "challenge": {"username": USER, "password": PASSWORD}, "tenant": "branch"}
    site["trunks"]["branch"] = branch


def with_a_gateway_of_its_own(site: dict[str, Any]) -> None:
    known_by_digest_alone(site)
    net = site["edge"]["rpc"].rpartition(".")[0]
    site["trunks"]["branch"]["gateways"] = [f"sip:{net}.51:5060"]


@pytest.fixture
def edge(make_edge: MakeEdge) -> Edge:
    return make_edge(known_by_address)


@pytest.fixture
def open_edge(make_edge: MakeEdge) -> Edge:
    return make_edge(known_by_digest_alone)


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def credentials(challenge: Message, uri: str, user: str = USER, password: str = PASSWORD) -> tuple[str, str]:
    """The header that answers a 407 for an INVITE of ``uri`` (RFC 2617 section 3.2.2, qop auth)."""
    nonce = re.findall(r'nonce="([^"]*)"', challenge["Proxy-Authenticate"])[0]
    hashed = md5(f"{user}:{REALM}:{password}")
    response = md5(f"{hashed}:{nonce}:00000001:cc:auth:{md5(f'INVITE:{uri}')}")
    value = (
        f'Digest username="{user}", realm="{REALM}", nonce="{nonce}", uri="{uri}", response="{response}", '
        f'algorithm=MD5, qop=auth, nc=00000001, cnonce="cc"'
    )
    return "Proxy-Authorization", value


def again(phone: Endpoint, edge: Edge, to: str, challenge: Message, **who: str) -> Calling:
    """The call that ``challenge`` was the answer to, placed with credentials."""
    uri = f"sip:{to}@{edge.at[0]}"
    return phone.invite(to, edge.at, headers=[credentials(challenge, uri, **who)])


def test_trunk_that_must_prove_itself_is_challenged_and_then_served(edge: Edge):
    first = edge.pbx.invite(DID, edge.at).final()
    assert (first.status, first["Reason"]) == (407, "")
    assert f'realm="{REALM}"' in first["Proxy-Authenticate"]
    assert not any(worker.got("INVITE") for worker in edge.workers)
    calling = again(edge.pbx, edge, DID, first)
    worker, invite = edge.first_worker(calling.call_id)
    assert "proxy-authorization" not in invite.names
    near, far = establish(calling, worker, invite)
    # What follows within the call is not asked for it again.
    near.send("INFO")
    worker.reply(worker.request("INFO", calling.call_id), 200)
    far.send("BYE")
    edge.pbx.reply(edge.pbx.request("BYE", calling.call_id), 200)


def test_credentials_that_were_used_open_nothing_a_second_time(edge: Edge):
    first = edge.pbx.invite(DID, edge.at).final()
    edge.arrival(again(edge.pbx, edge, DID, first))
    assert again(edge.pbx, edge, DID, first).final().status == 407


def test_unknown_user_is_told_what_a_wrong_password_is(edge: Edge):
    def refusal(**who: str) -> tuple[str, list[str]]:
        final = again(edge.pbx, edge, DID, edge.pbx.invite(DID, edge.at).final(), **who).final()
        changing = re.compile(r'nonce="[^"]*"|tag=[^;]*|branch=[^;]*')
        kept = [
            f"{name}: {changing.sub('', value)}" for name, value in final.headers if name not in ("Call-ID", "From")
        ]
        return final.start, kept

    wrong = refusal(password="wrong")
    assert wrong == refusal(user="nobody")
    assert wrong[0].startswith("SIP/2.0 407 ")
    assert not [line for line in wrong[1] if line.startswith("Reason")]
    assert edge.counter("refused_total", "bad_credentials") == 2
    assert "cause=bad_credentials user=nobody trunk=pbx" in edge.log
    assert PASSWORD not in edge.log


@pytest.mark.parametrize("uri", ["sip:911@{edge}", "urn:service:sos"])
def test_emergency_call_is_never_challenged(edge: Edge, uri: str):
    calling = edge.pbx.invite("", edge.at, uri=uri.format(edge=edge.at[0]))
    establish(calling, edge.carrier, edge.carrier.request("INVITE", calling.call_id))


def test_other_trunks_are_not_challenged(edge: Edge):
    edge.arrival(edge.from_carrier())


def test_credentials_for_somebody_else_pass(edge: Edge):
    calling = edge.from_carrier(
        headers=[("Proxy-Authorization", 'Digest username="a", realm="b", nonce="c", response="d"')]
    )
    assert "proxy-authorization" in edge.arrival(calling).names


def test_trunk_known_by_digest_alone_may_call_from_anywhere(open_edge: Edge):
    edge, branch = open_edge, open_edge.party(51)
    first = branch.invite(DID, edge.at).final()
    assert first.status == 407
    calling = again(branch, edge, DID, first)
    worker, invite = edge.first_worker(calling.call_id)
    assert (invite["X-Tandem-Trunk"], invite["X-Tandem-Tenant"]) == ("branch", "branch")
    near, far = establish(calling, worker, invite)
    near.send("INFO")
    worker.reply(worker.request("INFO", calling.call_id), 200)
    far.send("BYE")
    branch.reply(branch.request("BYE", calling.call_id), 200)


def test_trunk_known_by_digest_alone_is_challenged_for_each_call_but_an_emergency_call(open_edge: Edge):
    edge, branch = open_edge, open_edge.party(51)
    edge.arrival(again(branch, edge, DID, branch.invite(DID, edge.at).final()))
    second = branch.invite(DID, edge.at).final()
    assert second.status == 407
    edge.arrival(again(branch, edge, DID, second))
    emergency = branch.invite("911", edge.at)
    establish(emergency, edge.carrier, edge.carrier.request("INVITE", emergency.call_id))


def test_trunk_known_by_digest_alone_may_call_from_the_address_of_its_gateway(make_edge: MakeEdge):
    edge = make_edge(with_a_gateway_of_its_own)
    branch = edge.party(51)
    emergency = again(branch, edge, "911", branch.invite("911", edge.at).final())
    near, far = establish(emergency, edge.carrier, edge.carrier.request("INVITE", emergency.call_id))
    far.send("INFO")
    branch.reply(branch.request("INFO", emergency.call_id), 200)
    near.send("BYE")
    edge.carrier.reply(edge.carrier.request("BYE", emergency.call_id), 200)
    edge.arrival(again(branch, edge, DID, branch.invite(DID, edge.at).final()))
    stale = f"<sip:911@{edge.at[0]}>;tag=stale"
    second = branch.invite("911", edge.at, headers=[("To", stale)])
    edge.carrier.reply(edge.carrier.request("INVITE", second.call_id), 486)


def test_stranger_is_not_served_for_a_user_name_alone(open_edge: Edge):
    edge, stranger = open_edge, open_edge.stranger
    first = stranger.invite("911", edge.at).final()
    assert first.status == 407
    again(stranger, edge, "911", first, password="wrong")
    edge.until(lambda: edge.counter("dropped_total", "unknown_source") == 1, "the second call to be dropped")
    assert not edge.carrier.got("INVITE")


def test_stranger_that_asks_for_anything_else_is_refused(open_edge: Edge):
    assert open_edge.stranger.options_of(open_edge.at) == 403
