"""RFC 3261 sections 9, 12 to 15 and RFC 3515: what two user agents agree on, and what happens when messages cross."""

import asyncio

import pytest

from lab.dialog import DialogEnded, DialogState, End
from lab.refer import SIPFRAG, notify_headers, sipfrag
from lab.sip import Endpoint
from lab.uas import Uas
from tests.lab.sip_peer import PATIENCE_S


class Callee:
    """An endpoint's calls, answered as the test says."""

    def __init__(self, endpoint) -> None:
        self.endpoint = endpoint
        self.calls: list[Uas] = []
        self.handled: list[str] = []
        self.answers: dict[str, int] = {}
        self.status = 200
        endpoint.on_invite = self.on_invite

    @property
    def target(self):
        return (self.endpoint.address, self.endpoint.port)

    @property
    def uri(self) -> str:
        return f"sip:2001@127.0.0.1:{self.endpoint.port}"

    async def on_invite(self, call: Uas) -> None:
        self.calls.append(call)
        call.on_request = self.on_request
        if self.status:
            call.respond(180)
            call.respond(self.status)

    async def on_request(self, transaction) -> None:
        self.handled.append(transaction.method)
        if transaction.method in self.answers:
            transaction.respond(self.answers[transaction.method])


@pytest.fixture
async def callee(endpoint) -> Callee:
    return Callee(await endpoint())


async def ring(endpoint, callee, **options):
    return (await endpoint()).invite(callee.uri, from_uri="sip:1000@127.0.0.1", **options)


async def confirmed(endpoint, callee, **options):
    call = await ring(endpoint, callee, **options)
    await call.wait_confirmed(PATIENCE_S)
    await callee.calls[0].wait_confirmed(PATIENCE_S)
    return call


async def test_a_call_is_set_up_and_ended_by_the_caller(endpoint, callee):
    call = await confirmed(endpoint, callee, headers=[("X-Test", "1"), ("X-Test", "2")], from_name='A "B"')
    assert [response.code for response in call.provisionals] == [100, 180]
    assert callee.calls[0].invite.headers.getlist("X-Test") == ["1", "2"]
    assert callee.calls[0].remote_uri == '"A \\"B\\"" <sip:1000@127.0.0.1>'
    answer = await call.bye(headers=[("Reason", 'Q.850;cause=16;text="NORMAL_CLEARING"')])
    assert answer.code == 200
    assert call.end == End("us", "bye", 200, 'Q.850;cause=16;text="NORMAL_CLEARING"')
    assert callee.calls[0].end == End("peer", "bye", 200, 'Q.850;cause=16;text="NORMAL_CLEARING"')
    assert [m.data.split(b" ")[0] for m in call.messages if m.direction == "out"] == [b"INVITE", b"ACK", b"BYE"]


async def test_the_callee_ends_it(endpoint, callee):
    call = await confirmed(endpoint, callee)
    callee.calls[0].bye()
    assert (await call.wait_ended(PATIENCE_S)).by == "peer"


async def test_requests_after_the_end_are_refused_here_and_there(endpoint, callee, raw):
    call = await confirmed(endpoint, callee)
    await call.bye()
    with pytest.raises(DialogEnded):
        await call.request("INFO")
    raw.follow(call.final, "INFO", 1_000_000, callee.target)
    await raw.response(481)


async def test_an_in_dialog_request_without_dialog_gets_481(endpoint, callee, raw):
    call = await confirmed(endpoint, callee)
    raw.follow(call.final, "INFO", 1_000_000, callee.target, From="<sip:x@y>;tag=stranger")
    await raw.response(481)
    assert callee.handled == []


async def test_an_older_cseq_gets_500(endpoint, callee, raw):
    call = await confirmed(endpoint, callee)
    raw.follow(call.final, "INFO", 0, callee.target)
    await raw.response(500)


async def test_cancel_ends_a_ringing_call_with_487(endpoint, callee):
    callee.status = 0
    call = await ring(endpoint, callee)
    call.cancel(headers=[("Reason", "SIP;cause=200")])
    assert await call.wait_ended(PATIENCE_S) == End("us", "cancel", 487, "SIP;cause=200")
    assert callee.calls[0].end == End("peer", "cancel", 487, "SIP;cause=200")


async def test_cancel_waits_for_a_provisional(endpoint, raw):
    call = (await endpoint()).invite(raw.uri, from_uri="sip:1000@127.0.0.1")
    call.cancel()
    invite = await raw.request("INVITE", 3)
    assert raw.requests("CANCEL") == []
    raw.respond(invite, 100)
    cancel = await raw.request("CANCEL")
    assert cancel.headers["Via"] == invite.headers["Via"]
    raw.respond(cancel, 200)
    raw.respond(invite, 487)
    await raw.request("ACK")
    assert (await call.wait_ended(PATIENCE_S)).status == 487


async def test_a_success_that_crosses_the_cancel_is_acked_and_ended(endpoint, raw):
    call = (await endpoint()).invite(raw.uri, from_uri="sip:1000@127.0.0.1")
    invite = await raw.request("INVITE")
    raw.respond(invite, 180)
    await call.wait_provisional(PATIENCE_S)
    call.cancel()
    raw.respond(await raw.request("CANCEL"), 200)
    raw.respond(invite, 200)
    await raw.request("ACK")
    raw.respond(await raw.request("BYE"), 200)
    assert (await call.wait_ended(PATIENCE_S)).cause == "bye"


async def test_a_cancelled_invite_that_gets_no_final_response_is_given_up(endpoint, raw):
    call = (await endpoint()).invite(raw.uri, from_uri="sip:1000@127.0.0.1")
    raw.respond(await raw.request("INVITE"), 180)
    await call.wait_provisional(PATIENCE_S)
    call.cancel()
    assert await call.wait_ended(PATIENCE_S) == End("us", "cancel", None)


async def test_a_cancel_of_nothing_gets_481(endpoint, callee, raw):
    invite = raw.invite(callee.target)
    await raw.response(200)
    invite.method = "CANCEL"
    invite.headers.set("CSeq", "1 CANCEL")
    invite.headers.set("Via", invite.headers["Via"] + "other")
    raw.send(invite, callee.target)
    await raw.response(481)


async def test_a_second_answer_of_a_forked_invite_is_acked_and_ended(endpoint, raw):
    call = (await endpoint()).invite(raw.uri, from_uri="sip:1000@127.0.0.1")
    invite = await raw.request("INVITE")
    raw.respond(invite, 200)
    await call.wait_confirmed(PATIENCE_S)
    raw.respond(invite, 200, To=f"{invite.headers['To']};tag=fork")
    ack = await raw.request("ACK", 2)
    bye = await raw.request("BYE")
    assert ack.headers["To"].endswith(";tag=fork") and bye.headers["To"].endswith(";tag=fork")
    raw.respond(bye, 200)
    assert call.state is DialogState.CONFIRMED and call.remote_tag == "peer"


async def test_the_caller_follows_the_route_set_backwards(endpoint, raw):
    call = (await endpoint()).invite("sip:2001@far.invalid", from_uri="sip:1000@127.0.0.1", next_hop=raw.address)
    near = f"<{raw.uri};lr;ftag=a%20b>"
    raw.respond(
        await raw.request("INVITE"), 200, Record_Route=f"<sip:far.invalid;lr>, {near}", Contact="<sip:x@192.0.2.1>"
    )
    ack = await raw.request("ACK")
    await call.wait_confirmed(PATIENCE_S)
    call.bye()
    bye = await raw.request("BYE")
    for request in (ack, bye):
        assert str(request.uri) == "sip:x@192.0.2.1"
        assert request.headers.getlist("Route") == [near, "<sip:far.invalid;lr>"]
    raw.respond(bye, 200)


async def test_the_callee_follows_the_route_set_and_returns_it(endpoint, callee, raw):
    near = f"<{raw.uri};lr>"
    raw.invite(callee.target, Record_Route=f"{near}, <sip:far.invalid;lr>", Contact="<sip:x@192.0.2.1>")
    success = await raw.response(200)
    assert success.headers["Record-Route"] == f"{near}, <sip:far.invalid;lr>"
    raw.follow(success, "ACK", 1, callee.target)
    await callee.calls[0].wait_confirmed(PATIENCE_S)
    callee.calls[0].bye()
    bye = await raw.request("BYE")
    assert bye.headers.getlist("Route") == [near, "<sip:far.invalid;lr>"]
    assert str(bye.uri) == "sip:x@192.0.2.1"
    raw.respond(bye, 200)


async def test_a_bye_before_the_ack_waits_for_it(endpoint, callee, raw):
    raw.invite(callee.target)
    success = await raw.response(200)
    callee.calls[0].bye()
    await raw.until(lambda m: sum(getattr(r, "code", 0) == 200 for r in raw.received) == 3, "third 200")
    assert raw.requests("BYE") == []
    raw.follow(success, "ACK", 1, callee.target)
    raw.respond(await raw.request("BYE"), 200)


async def test_a_bye_of_an_unanswered_call_answers_the_invite_with_487(endpoint, callee, raw):
    callee.status = 183
    raw.invite(callee.target)
    raw.follow(await raw.response(183), "BYE", 2, callee.target)
    await raw.response(487)
    await raw.response(200, "BYE")
    assert callee.calls[0].end == End("peer", "bye", 487)


async def test_reinvites_both_ways_are_acked(endpoint, callee):
    call = await confirmed(endpoint, callee)
    callee.answers["INVITE"] = 200
    assert (await call.request("INVITE", body=b"one")).code == 200

    async def accept(transaction) -> None:
        transaction.respond(200, body=b"two")

    call.on_request = accept
    response = await callee.calls[0].request("INVITE")
    assert response.body == b"two"
    assert callee.calls[0].ack is not None and callee.calls[0].ack.method == "ACK"


async def test_a_reinvite_without_handler_gets_488_and_the_call_goes_on(endpoint, callee):
    call = await confirmed(endpoint, callee)
    assert (await callee.calls[0].request("INVITE", body=b"x")).code == 488
    assert call.end is None


async def test_reinvites_that_cross_get_491(endpoint, callee):
    call = await confirmed(endpoint, callee)
    responses = await asyncio.gather(call.request("INVITE"), callee.calls[0].request("INVITE"))
    assert 491 in [response.code for response in responses]


async def test_a_reinvite_answered_481_ends_the_call(endpoint, callee):
    call = await confirmed(endpoint, callee)
    callee.answers["INVITE"] = 481
    assert (await call.request("INVITE")).code == 481
    assert call.end is not None and call.end.by == "us"
    await callee.calls[0].wait_ended(PATIENCE_S)


@pytest.mark.parametrize(("method", "status"), [("INFO", 200), ("UPDATE", 488), ("REFER", 501), ("NOTIFY", 481)])
async def test_what_nobody_answers_gets_the_default(endpoint, callee, method: str, status: int):
    call = await confirmed(endpoint, callee)
    assert (await call.request(method)).code == status
    assert callee.handled == [method]


async def test_a_handler_that_raises_answers_500_and_is_counted(endpoint, callee, caplog):
    call = await confirmed(endpoint, callee)

    async def fails(transaction) -> None:
        raise RuntimeError("out of order")

    callee.calls[0].on_request = fails
    assert (await call.request("INFO")).code == 500
    assert callee.endpoint.counters["handler_error"] == 1 and "out of order" in caplog.text
    assert call.end is None


@pytest.mark.parametrize("status", [200, 503])
async def test_options_answers_as_programmed(endpoint, callee, status: int):
    callee.endpoint.options_status = status
    response = await (await endpoint()).request("OPTIONS", callee.uri, from_uri="sip:edge@127.0.0.1")
    assert response.code == status and "REFER" in response.headers["Allow"]


async def test_options_may_be_met_with_silence(endpoint, callee):
    callee.endpoint.options_status = None
    response = await (await endpoint()).request("OPTIONS", callee.uri, from_uri="sip:edge@127.0.0.1")
    assert response.code == 408
    assert callee.endpoint.counters["repeated_in"] >= 3


async def test_an_unknown_required_extension_gets_420(endpoint, callee):
    call = await ring(endpoint, callee, headers=[("Require", "replaces, 100rel")])
    assert (await call.wait_final(PATIENCE_S)).headers["Unsupported"] == "100rel"
    assert call.end == End("peer", "refused", 420)


async def test_garbage_is_counted_and_the_call_goes_on(endpoint, callee, raw):
    call = await confirmed(endpoint, callee)
    for garbage in (
        b"\xff" * 2000,
        b"INVITE sip:x SIP/2.0\r\n\r\n",
        b"SIP/2.0 999 X\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        raw.send(garbage, callee.target)
    raw.send(b"\r\n\r\n", callee.target)
    assert (await call.request("INFO")).code == 200
    assert callee.endpoint.counters["malformed"] == 4 and callee.endpoint.counters["keepalive"] == 1


async def test_a_refer_is_followed_to_its_result(endpoint, callee):
    call = await confirmed(endpoint, callee)

    async def transfer(transaction) -> None:
        leg = callee.calls[0]
        # The first NOTIFY may overtake the 202 (RFC 3515 section 2.4.4).
        for status in (100, 180):
            await leg.request(
                "NOTIFY", headers=notify_headers(transaction.request, terminated=False), body=sipfrag(status),
                content_type=SIPFRAG,
            )  # fmt: skip
        transaction.respond(202)
        await leg.request(
            "NOTIFY",
            headers=notify_headers(transaction.request, terminated=True),
            body=sipfrag(486),
            content_type=SIPFRAG,
        )

    callee.calls[0].on_request = transfer
    referral = call.refer("sip:sales@127.0.0.1", headers=[("Referred-By", "<sip:us@127.0.0.1>")])
    assert await referral.wait_done(PATIENCE_S) == 486
    assert referral.response_status == 202
    assert [(step.status, step.terminated) for step in referral.progress] == [(100, False), (180, False), (486, True)]
    assert call.end is None


async def test_a_refused_refer_is_done_with_its_own_status(endpoint, callee):
    call = await confirmed(endpoint, callee)
    callee.answers["REFER"] = 603
    assert await call.refer("sip:sales@127.0.0.1").wait_done(PATIENCE_S) == 603


async def test_a_notify_after_the_bye_still_counts(endpoint, callee):
    call = await confirmed(endpoint, callee)
    refers = []

    async def accept(transaction) -> None:
        refers.append(transaction.request)
        transaction.respond(202)

    callee.calls[0].on_request = accept
    referral = call.refer("sip:sales@127.0.0.1")
    await referral.response()
    await call.bye()
    response = await callee.calls[0].request(
        "NOTIFY", headers=notify_headers(refers[0], terminated=True), body=sipfrag(200), content_type=SIPFRAG
    )
    assert response.code == 200
    assert await referral.wait_done(PATIENCE_S) == 200


async def test_stopping_ends_every_call_as_its_state_asks(endpoint, callee, raw):
    agent = await endpoint()
    established = agent.invite(callee.uri, from_uri="sip:1000@127.0.0.1")
    await established.wait_confirmed(PATIENCE_S)
    ringing = agent.invite(raw.uri, from_uri="sip:1000@127.0.0.1")
    invite = await raw.request("INVITE")
    raw.respond(invite, 180)
    await ringing.wait_provisional(PATIENCE_S)
    stopping = asyncio.ensure_future(agent.stop())
    raw.respond(await raw.request("CANCEL"), 200)
    raw.respond(invite, 487)
    await stopping
    assert (await callee.calls[0].wait_ended(PATIENCE_S)).cause == "bye"


async def test_a_busy_address_is_named(endpoint, callee):
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{callee.endpoint.port}/udp"):
        await Endpoint("127.0.0.1", callee.endpoint.port).start()
