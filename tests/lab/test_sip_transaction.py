"""RFC 3261 section 17: what is retransmitted, until when, and what a retransmission finds."""

from lab.dialog import End
from lab.uas import Uas
from tests.lab.sip_peer import PATIENCE_S, RawPeer


def place(endpoint, raw: RawPeer, **options):
    return endpoint.invite(raw.uri, from_uri="sip:1000@127.0.0.1", **options)


async def answered_by(endpoint, status: int, calls: list[Uas]):
    async def on_invite(call: Uas) -> None:
        calls.append(call)
        call.respond(status)

    endpoint.on_invite = on_invite
    return ("127.0.0.1", endpoint.port)


async def test_an_invite_is_repeated_until_a_provisional_and_not_after(endpoint, raw):
    place(await endpoint(), raw)
    invite = await raw.request("INVITE", 3)
    raw.respond(invite, 100)
    await raw.falls_silent()


async def test_an_invite_nobody_answers_ends_with_408(endpoint, raw):
    call = place(await endpoint(), raw)
    assert await call.wait_ended(PATIENCE_S) == End("us", "timeout", 408)
    assert (await call.wait_final(1)).code == 408
    assert len(raw.requests("INVITE")) >= 5


async def test_a_request_nobody_answers_is_repeated_and_ends_with_408(endpoint, raw):
    response = await (await endpoint()).request("OPTIONS", raw.uri, from_uri="sip:1000@127.0.0.1")
    assert response.code == 408
    assert len(raw.requests("OPTIONS")) >= 5


async def test_the_ack_of_a_refusal_is_of_the_invites_transaction_and_repeated(endpoint, raw):
    call = place(await endpoint(), raw, route="<sip:proxy.invalid;lr>", next_hop=raw.address)
    invite = await raw.request("INVITE")
    raw.respond(invite, 486)
    ack = await raw.request("ACK")
    assert ack.headers["Via"] == invite.headers["Via"]
    assert ack.headers["Route"] == invite.headers["Route"] == "<sip:proxy.invalid;lr>"
    assert ack.headers["To"].endswith(";tag=peer")
    assert str(ack.uri) == str(invite.uri)
    raw.respond(invite, 486)
    await raw.request("ACK", 2)
    assert call.end == End("peer", "refused", 486)


async def test_a_repeated_request_is_answered_again_and_handled_once(endpoint, raw):
    calls: list[Uas] = []
    agent = await endpoint()
    target = await answered_by(agent, 180, calls)
    invite = raw.invite(target)
    await raw.response(180)
    raw.send(invite, target)
    await raw.until(lambda m: sum(getattr(r, "code", 0) == 180 for r in raw.received) == 2, "second 180")
    assert len(calls) == 1 and agent.counters["repeated_in"] == 1


async def test_a_refusal_is_repeated_until_its_ack(endpoint, raw):
    agent = await endpoint()
    target = await answered_by(agent, 603, [])
    raw.invite(target)
    refusal = await raw.response(603)
    await raw.until(lambda m: sum(getattr(r, "code", 0) == 603 for r in raw.received) == 3, "third 603")
    raw.follow(refusal, "ACK", 1, target, Via=refusal.headers["Via"])
    await raw.falls_silent()


async def test_a_success_is_repeated_until_its_ack(endpoint, raw):
    calls: list[Uas] = []
    target = await answered_by(await endpoint(), 200, calls)
    raw.invite(target)
    success = await raw.response(200)
    await raw.until(lambda m: sum(getattr(r, "code", 0) == 200 for r in raw.received) == 3, "third 200")
    assert not calls[0].acknowledged
    raw.follow(success, "ACK", 1, target)
    await calls[0].wait_confirmed(PATIENCE_S)
    await raw.falls_silent()


async def test_a_success_without_ack_ends_the_call_with_bye(endpoint, raw):
    calls: list[Uas] = []
    target = await answered_by(await endpoint(), 200, calls)
    raw.invite(target)
    bye = await raw.request("BYE")
    assert calls[0].end == End("us", "no_ack", 200)
    raw.respond(bye, 200)


async def test_each_repeated_success_gets_the_same_ack(endpoint, raw):
    call = place(await endpoint(), raw)
    invite = await raw.request("INVITE")
    raw.respond(invite, 200)
    first = await raw.request("ACK")
    raw.respond(invite, 200)
    second = await raw.request("ACK", 2)
    assert bytes(second) == bytes(first)
    assert call.acknowledged


async def test_responses_go_where_the_request_came_from_only_if_rport_asks(endpoint, raw):
    agent = await endpoint()
    other = await RawPeer.open()
    host, port = other.address
    agent.options_status = 200
    common = b"From: <sip:a@b>;tag=1\r\nTo: <sip:c>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
    for branch, rport in ((b"z9hG4bKa", b""), (b"z9hG4bKb", b";rport")):
        via = f"Via: SIP/2.0/UDP {host}:{port};branch=".encode() + branch + rport + b"\r\n"
        raw.send(b"OPTIONS sip:x SIP/2.0\r\n" + via + common, ("127.0.0.1", agent.port))
    await other.response(200)
    response = await raw.response(200)
    assert f"rport={raw.address[1]}" in response.headers["Via"]
    assert "z9hG4bKb" in response.headers["Via"]
    other.close()
