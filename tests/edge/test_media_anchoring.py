"""Calls whose media go through a real rtpengine: what each side sees, that RTP really flows, and that nothing is left over."""

import base64
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tandem import health, probes
from tests.edge import rtpengine
from tests.edge.endpoints import SDP, Calling, Dialog, Endpoint, Message, callee_dialog, caller_dialog
from tests.edge.rtpengine import Media, RtpEngine, Voice
from tests.edge.world import CONNECTED, DID, Edge, MakeEdge

SDP_TYPE = [("Content-Type", "application/sdp")]
PLAIN = ("RTP/AVP", ())
SECURE = ("RTP/SAVP", (rtpengine.SUITE,))
CARRIER_SIDE = 50
INNER_SIDE = 60
"""Last octet of an rtpengine's public and private address, plus its number."""


def anchored(srtp: bool = True, engines: int = 1) -> Callable[[dict[str, Any]], None]:
    """The carrier's media are anchored; the PBX, the workers and the second carrier are on the private side."""

    def change(site: dict[str, Any]) -> None:
        net = site["edge"]["rpc"].rpartition(":")[0].rpartition(".")[0]
        site["trunks"]["carrier"] |= {"media": "anchored", "srtp": srtp}
        site["rtpengine"] = {
            f"media-{number}": {
                "control": f"{net}.{40 + number}:2223",
                "metrics": f"{net}.{40 + number}:2225",
                "public": f"{net}.{CARRIER_SIDE + number}",
                "private": f"{net}.{INNER_SIDE + number}",
            }
            for number in range(1, engines + 1)
        }

    return change


class Place:
    """An edge with its rtpengines, and the voices of its calls."""

    def __init__(self, edge: Edge, engines: dict[str, RtpEngine]) -> None:
        self.edge, self.engines = edge, engines
        self._voices: list[Voice] = []

    @property
    def engine(self) -> RtpEngine:
        return self.engines["media-1"]

    def voice(self, party: Endpoint, srtp: bool = False) -> Voice:
        voice = Voice(party.address, srtp)
        self._voices.append(voice)
        return voice

    @property
    def outside(self) -> Voice:
        """The carrier's end of a call, in SRTP."""
        return self.voice(self.edge.carrier, srtp=True)

    def calls(self) -> dict[str, int]:
        return {name: len(engine.calls) for name, engine in self.engines.items() if engine.running}

    def forgotten(self, timeout_s: float = 10.0) -> None:
        """Every rtpengine has closed its ports."""
        self.edge.until(lambda: not any(self.calls().values()), "the media to be forgotten", timeout_s)

    def close(self) -> None:
        for voice in self._voices:
            voice.close()
        for engine in self.engines.values():
            engine.kill()


MakePlace = Callable[..., Place]


@pytest.fixture
def make_place(make_edge: MakeEdge) -> Iterator[MakePlace]:
    made: list[Place] = []

    def make(change: Callable[[dict[str, Any]], None] | None = None, *options: str) -> Place:
        edge = make_edge(change or anchored(), start=False)
        place = Place(edge, rtpengine.install(edge.folder / "site/rtpengine", edge.settings.rtpengine))
        made.append(place)
        for engine in place.engines.values():
            engine.start()
        edge.start(*options)
        return place

    yield make
    for place in made:
        place.close()


@pytest.fixture
def place(make_place: MakePlace) -> Place:
    return make_place()


def talk(one: Voice, other: Voice) -> None:
    """Both hear exactly what the other says."""
    for speaker, listener, seed in ((one, other, 3), (other, one, 101)):
        for frame in rtpengine.frames(10, seed):
            speaker.say(frame)
            assert listener.hear() == frame


def seen(media: Media) -> tuple[str, tuple[str, ...]]:
    return media.profile, media.suites


def accept(phone: Endpoint, request: Message, voice: Voice, calling: Calling, caller: Voice) -> tuple[Dialog, Dialog]:
    """Both ends of the call, once it is answered: they have each other's session description, as the edge passed it on."""
    voice.connect(request.body)
    phone.reply(request, 200, headers=SDP_TYPE, body=voice.sdp)
    answer = calling.final()
    assert answer.status == 200, answer.start
    caller.connect(answer.body)
    near = caller_dialog(calling, answer)
    near.send("ACK")
    phone.request("ACK", request.call_id)
    return near, callee_dialog(phone, calling.edge, request)


def agent_call(place: Place) -> tuple[Dialog, Dialog, Voice, Voice]:
    """A call from the carrier that a worker has answered."""
    caller = place.outside
    calling = place.edge.from_carrier(DID, body=caller.sdp)
    worker, invite = place.edge.first_worker(calling.call_id)
    callee = place.voice(worker)
    return *accept(worker, invite, callee, calling, caller), caller, callee


def latest(asking: Dialog, asked: Dialog, method: str) -> Message:
    """What ``asking`` sent last, as it arrived."""
    wanted = (asking.call_id, f"{asking.cseq} {method}")
    return asked.phone.wait(lambda m: m.is_request and (m.call_id, m["CSeq"]) == wanted, " ".join(wanted))


def exchange(asking: Dialog, asked: Dialog, method: str, offer: str, answer: str) -> tuple[Message, Message]:
    """A request with an offer within the dialog, and its reply with the answer, as each arrived."""
    sent = asking.send(method, body=offer, content_type="application/sdp")
    request = latest(asking, asked, method)
    asked.phone.reply(request, 200, headers=SDP_TYPE, body=answer)
    reply = asking.phone.wait(
        lambda m: not m.is_request and sent.branch in m["Via"] and m.status >= 200, f"a reply to {method}"
    )
    if method == "INVITE":
        asking.send("ACK")
    return request, reply


# What each side sees and hears


def test_srtp_outside_is_plain_rtp_inside_byte_for_byte(place: Place):
    edge = place.edge
    caller = place.outside
    calling = edge.from_carrier(DID, body=caller.sdp)
    worker, invite = edge.first_worker(calling.call_id)
    callee = place.voice(worker)
    accept(worker, invite, callee, calling, caller)
    assert callee.far is not None and caller.far is not None
    assert (callee.far.address, *seen(callee.far)) == (edge.address(INNER_SIDE + 1), *PLAIN)
    assert (caller.far.address, *seen(caller.far)) == (edge.address(CARRIER_SIDE + 1), *SECURE)
    for inner in (edge.address(INNER_SIDE + 1), worker.address):
        assert inner.encode() not in calling.final().body
    talk(caller, callee)
    assert edge.counter("media_total", "anchored") == 1


def test_call_out_to_a_secure_trunk_offers_one_suite_without_mki(place: Place):
    edge = place.edge
    caller, callee = place.voice(edge.pbx), place.outside
    calling = edge.from_pbx("+14155550100", body=caller.sdp)
    invite = edge.carrier.request("INVITE", calling.call_id)
    assert seen(Media.of(invite.body)) == SECURE
    assert b"fingerprint" not in invite.body
    accept(edge.carrier, invite, callee, calling, caller)
    assert caller.far is not None
    assert (caller.far.address, *seen(caller.far)) == (edge.address(INNER_SIDE + 1), *PLAIN)
    talk(caller, callee)


def test_of_many_suites_offered_the_one_is_taken(place: Place):
    caller = place.outside
    key = base64.b64encode(bytes(46)).decode()
    others = "".join(
        f"a=crypto:{tag} {suite} inline:{key[:length]}\r\n"
        for tag, suite, length in [(7, "NULL_HMAC_SHA1_80", 40), (8, "AES_256_CM_HMAC_SHA1_80", 64)]
    )
    calling = place.edge.from_carrier(DID, body=caller.sdp.replace("a=crypto:1", f"{others}a=crypto:1"))
    worker, invite = place.edge.first_worker(calling.call_id)
    callee = place.voice(worker)
    accept(worker, invite, callee, calling, caller)
    assert caller.far is not None
    assert seen(caller.far) == SECURE
    assert b"a=crypto:1 " in calling.final().body
    talk(caller, callee)


def test_call_of_a_worker_over_an_anchored_trunk(place: Place):
    edge = place.edge
    caller, callee = place.voice(edge.worker(1)), place.outside
    headers = [("X-Tandem-Trunk", "carrier"), ("X-Tandem-Call", "t-1")]
    calling = edge.worker(1).invite("+14155550100", edge.at, caller=DID, headers=headers, body=caller.sdp)
    accept(edge.carrier, edge.carrier.request("INVITE", calling.call_id), callee, calling, caller)
    talk(caller, callee)


def test_plain_rtp_is_anchored_too(make_place: MakePlace):
    place = make_place(anchored(srtp=False))
    edge = place.edge
    caller, callee = place.voice(edge.carrier), place.voice(edge.pbx)
    calling = edge.from_carrier(CONNECTED, body=caller.sdp)
    accept(edge.pbx, edge.pbx.request("INVITE", calling.call_id), callee, calling, caller)
    assert caller.far is not None and callee.far is not None
    assert (caller.far.address, *seen(caller.far)) == (edge.address(CARRIER_SIDE + 1), *PLAIN)
    assert (callee.far.address, *seen(callee.far)) == (edge.address(INNER_SIDE + 1), *PLAIN)
    talk(caller, callee)


def test_address_behind_nat_is_advertised(make_place: MakePlace):
    def change(site: dict[str, Any]) -> None:
        anchored()(site)
        site["rtpengine"]["media-1"]["advertise"] = "203.0.113.20"

    place = make_place(change)
    calling = place.edge.from_pbx("+14155550100")
    invite = place.edge.carrier.request("INVITE", calling.call_id)
    assert Media.of(invite.body).address == "203.0.113.20"


def test_calls_between_trunks_that_are_not_anchored_pass_untouched(place: Place):
    edge = place.edge
    calling = edge.second_carrier.invite(CONNECTED, edge.at)
    invite = edge.pbx.request("INVITE", calling.call_id)
    assert invite.body == SDP.encode()
    assert ";media=" not in invite["Record-Route"]
    edge.pbx.reply(invite, 200, headers=SDP_TYPE, body=SDP)
    assert calling.final().body == SDP.encode()
    assert not place.engine.calls


# Offers and answers, wherever they come


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("asking", ["caller", "callee"])
def test_offer_within_the_call_moves_its_media(place: Place, method: str, asking: str):
    near, far, caller, callee = agent_call(place)
    talk(caller, callee)
    if asking == "caller":
        moved = place.outside
        request, reply = exchange(near, far, method, moved.sdp, callee.sdp)
        callee.connect(request.body)
        moved.connect(reply.body)
        assert (seen(Media.of(request.body)), seen(Media.of(reply.body))) == (PLAIN, SECURE)
        talk(moved, callee)
    else:
        moved = place.voice(far.phone)
        request, reply = exchange(far, near, method, moved.sdp, caller.sdp)
        assert (seen(Media.of(request.body)), seen(Media.of(reply.body))) == (SECURE, PLAIN)
        moved.connect(reply.body)
        talk(caller, moved)
    assert place.engine.calls == [near.call_id]


def test_refused_offer_within_the_call_leaves_it_as_it_was(place: Place):
    near, far, caller, callee = agent_call(place)
    near.send("INVITE", body=caller.sdp, content_type="application/sdp")
    far.phone.reply(latest(near, far, "INVITE"), 488)
    near.phone.wait(lambda m: m.status == 488, "488")
    talk(caller, callee)


def test_offer_that_comes_with_the_answer(place: Place):
    edge = place.edge
    caller = place.outside
    calling = edge.carrier.invite(DID, edge.at, body="")
    worker, invite = edge.first_worker(calling.call_id)
    assert not invite.body
    callee = place.voice(worker)
    worker.reply(invite, 200, headers=SDP_TYPE, body=callee.sdp)
    answer = calling.final()
    assert seen(caller.connect(answer.body)) == SECURE
    near = caller_dialog(calling, answer)
    near.send("ACK", body=caller.sdp, content_type="application/sdp")
    ack = worker.request("ACK", calling.call_id)
    assert seen(callee.connect(ack.body)) == PLAIN
    talk(caller, callee)
    near.send("BYE")
    place.forgotten()


def test_offer_in_a_reliable_provisional_is_answered_in_prack(place: Place):
    edge = place.edge
    caller = place.outside
    calling = edge.carrier.invite(DID, edge.at, body="", headers=[("Supported", "100rel")])
    worker, invite = edge.first_worker(calling.call_id)
    callee = place.voice(worker)
    worker.reply(invite, 183, headers=[*SDP_TYPE, ("Require", "100rel"), ("RSeq", "1")], body=callee.sdp)
    progress = calling.status(183)
    caller.connect(progress.body)
    near = caller_dialog(calling, progress)
    near.send("PRACK", headers=[("RAck", f"1 {calling.cseq} INVITE")], body=caller.sdp, content_type="application/sdp")
    prack = worker.request("PRACK", calling.call_id)
    assert seen(callee.connect(prack.body)) == PLAIN
    worker.reply(prack, 200)
    talk(caller, callee)
    worker.reply(invite, 200)
    calling.final()


def test_offer_in_prack_is_answered_in_its_reply(place: Place):
    edge = place.edge
    caller = place.outside
    calling = edge.from_carrier(DID, body=caller.sdp, headers=[("Supported", "100rel")])
    worker, invite = edge.first_worker(calling.call_id)
    callee = place.voice(worker)
    callee.connect(invite.body)
    worker.reply(invite, 183, headers=[*SDP_TYPE, ("Require", "100rel"), ("RSeq", "1")], body=callee.sdp)
    progress = calling.status(183)
    near = caller_dialog(calling, progress)
    moved = place.outside
    near.send("PRACK", headers=[("RAck", f"1 {calling.cseq} INVITE")], body=moved.sdp, content_type="application/sdp")
    prack = worker.request("PRACK", calling.call_id)
    assert seen(callee.connect(prack.body)) == PLAIN
    worker.reply(prack, 200, headers=SDP_TYPE, body=callee.sdp)
    reply = edge.carrier.wait(lambda m: not m.is_request and m.method == "PRACK", "a reply to PRACK")
    assert seen(moved.connect(reply.body)) == SECURE
    talk(moved, callee)


def test_early_media_of_a_worker_that_fails_is_followed_by_the_next_ones(place: Place):
    edge = place.edge
    caller = place.outside
    calling = edge.from_carrier(DID, body=caller.sdp)
    first, invite = edge.first_worker(calling.call_id)
    early = place.voice(first)
    early.connect(invite.body)
    first.reply(invite, 183, headers=SDP_TYPE, body=early.sdp)
    caller.connect(calling.status(183).body)
    talk(caller, early)
    first.reply(invite, 503)
    second = next(worker for worker in edge.workers if worker is not first)
    callee = place.voice(second)
    again = second.request("INVITE", calling.call_id)
    assert again.body.count(b"v=0") == 1
    near, _ = accept(second, again, callee, calling, caller)
    talk(caller, callee)
    assert place.engine.calls == [calling.call_id]
    near.send("BYE")
    place.forgotten()


def test_worker_that_was_given_up_does_not_take_the_media(place: Place):
    edge = place.edge
    caller = place.outside
    calling = edge.from_carrier(DID, body=caller.sdp)
    first, invite = edge.first_worker(calling.call_id)
    second = next(worker for worker in edge.workers if worker is not first)
    callee, late = place.voice(second), place.voice(first)
    again = second.request("INVITE", calling.call_id)
    first.reply(invite, 183, headers=SDP_TYPE, body=late.sdp)
    assert first.options_of(edge.at) == 200  # by now the edge has dealt with what came before
    accept(second, again, callee, calling, caller)
    talk(caller, callee)
    assert place.engine.log.read_text(encoding="utf-8").count("Received command 'answer'") == 1


# Forgotten however the call ends


@pytest.mark.parametrize("side", ["caller", "callee"])
def test_bye_of_either_side_closes_the_ports(place: Place, side: str):
    near, far, _, _ = agent_call(place)
    assert place.engine.calls
    (near if side == "caller" else far).send("BYE")
    place.forgotten()


def test_cancelled_call_closes_the_ports(place: Place):
    calling = place.edge.from_carrier(DID, body=place.outside.sdp)
    worker, invite = place.edge.first_worker(calling.call_id)
    worker.reply(invite, 180)
    calling.status(180)
    assert place.engine.calls
    calling.cancel()
    worker.reply(worker.request("CANCEL", calling.call_id), 200)
    worker.reply(invite, 487)
    assert calling.final().status == 487
    place.forgotten()


@pytest.mark.parametrize("status", [302, 404, 486, 603])
def test_refused_call_closes_the_ports(place: Place, status: int):
    calling = place.edge.from_carrier(DID, body=place.outside.sdp)
    worker, invite = place.edge.first_worker(calling.call_id)
    worker.reply(invite, status)
    assert calling.final().status == status
    place.forgotten()


def test_call_that_nobody_answers_closes_the_ports(place: Place):
    calling = place.edge.from_carrier(DID, body=place.outside.sdp)
    assert calling.final().reason == "no worker"
    place.forgotten()
    assert sum(place.edge.worker_loads().values()) == 0


def test_gateway_that_refuses_the_connection_closes_the_ports(make_place: MakePlace):
    def change(site: dict[str, Any]) -> None:
        anchored()(site)
        net = site["edge"]["rpc"].rpartition(":")[0].rpartition(".")[0]
        site["edge"]["listen"].append({"transport": "tcp", "address": f"{net}.1", "port": 5060})
        site["trunks"]["pbx"]["gateways"] = [f"sip:{net}.33:5060;transport=tcp"]

    place = make_place(change)
    place.edge.expected_errors.append("connect|tcp_send|connection|msg_send|t_send_branch|t_forward_nonack|add_uac")
    calling = place.edge.from_carrier(CONNECTED, body=place.outside.sdp)
    assert calling.final().status == 503
    place.forgotten()


def test_bye_that_was_lost_is_made_good_by_silence(make_place: MakePlace):
    place = make_place()
    place.engine.kill()
    config = place.engine.config
    config.write_text(config.read_text(encoding="utf-8").replace("\ntimeout = 60", "\ntimeout = 2"), encoding="utf-8")
    place.engine.start()
    near, _, caller, callee = agent_call(place)
    talk(caller, callee)
    assert place.engine.calls == [near.call_id]
    place.forgotten(15)


# Emergency calls

PIDF = (
    b'Content-Type: application/pidf+xml;charset="utf-8"\r\nContent-ID:  <there.@example.com> \r\nX-Odd:\tfolded\r\n  on\r\n\r\n'
    b"<?xml version='1.0'?>\r\n<presence entity=\"pres:a@b\">\x00\x01\xff\xfe\xc3\x28 m=audio 1 RTP/AVP 0\nv=0\r\r\n"
    b"c=IN IP4 192.0.2.1\r\n-- b1 --b1x\r\n\t<ca:HNO>12\xe2\x80\x99</ca:HNO></presence>\r\n  \r\n"
)


def multipart(sdp: str, order: str, glue: bytes) -> bytes:
    """SDP and location as a body of two parts, in that order; ``glue`` is between the SDP and the next boundary."""
    described = b"Content-Type: application/sdp\r\nContent-Disposition: session\r\n\r\n" + sdp.encode() + glue
    parts = {"s": described, "l": PIDF}
    return b"preamble\r\n" + b"".join(b"--b1\r\n" + parts[part] for part in order) + b"--b1--\r\nepilogue \x00\xff\r\n"


@pytest.mark.parametrize("order", ["sl", "ls"])
@pytest.mark.parametrize("glue", [b"\r\n", b""], ids=["blank line", "no blank line"])
def test_location_of_an_emergency_call_is_not_touched(place: Place, order: str, glue: bytes):
    edge = place.edge
    caller, callee = place.voice(edge.pbx), place.outside
    body = multipart(caller.sdp, order, glue)
    geolocation = [("Geolocation", "<cid:there.@example.com>"), ("Geolocation-Routing", "yes")]
    calling = edge.from_pbx("911", body=body, content_type="multipart/mixed;boundary=b1", headers=geolocation)
    invite = edge.carrier.request("INVITE", calling.call_id)
    before, _, rest = invite.body.partition(b"v=0\r\no=")
    offered = before.count(b"--b1\r\n") and (b"v=0\r\no=" + rest).partition(b"--b1")[0]
    assert offered
    assert Media.of(offered).address == edge.address(CARRIER_SIDE + 1)
    assert invite.body.replace(offered, caller.sdp.encode() + glue) == body
    assert invite.all("Geolocation") == [geolocation[0][1]]
    assert int(invite["Content-Length"]) == len(invite.body)
    callee.connect(offered)
    edge.carrier.reply(invite, 200, headers=SDP_TYPE, body=callee.sdp)
    answer = calling.final()
    caller.connect(answer.body)
    talk(caller, callee)
    caller_dialog(calling, answer).send("BYE")
    place.forgotten()


def test_emergency_call_goes_to_each_carrier_as_that_carrier_wants_it(place: Place):
    edge = place.edge
    caller, callee = place.voice(edge.pbx), place.voice(edge.second_carrier)
    calling = edge.from_pbx("911", body=caller.sdp)
    first = edge.carrier.request("INVITE", calling.call_id)
    assert seen(Media.of(first.body)) == SECURE
    edge.carrier.reply(first, 503)
    second = edge.second_carrier.request("INVITE", calling.call_id)
    assert second.body == caller.sdp.encode()
    accept(edge.second_carrier, second, callee, calling, caller)
    talk(caller, callee)
    assert not place.engine.calls


@pytest.mark.parametrize("how", ["kill", "hang"])
def test_emergency_call_goes_out_as_it_came_when_every_rtpengine_is_away(make_place: MakePlace, how: str):
    place = make_place(anchored(engines=2), "-A", "MEDIA_PATIENCE_MS=100")
    edge = place.edge
    edge.expected_errors.append("rtpengine")
    for engine in place.engines.values():
        getattr(engine, how)()
    body = multipart(SDP, "sl", b"\r\n")
    calling = edge.from_pbx("911", body=body, content_type="multipart/mixed;boundary=b1")
    invite = edge.carrier.request("INVITE", calling.call_id)
    print(f"911 with two rtpengines away ({how}): {1000 * (invite.at - calling.sent_at):.0f} ms")
    assert invite.body == body
    assert ";media=" not in invite["Record-Route"]
    edge.carrier.reply(invite, 200, headers=SDP_TYPE, body=SDP)
    assert calling.final().body == SDP.encode()
    assert edge.counter("media_total", "emergency_unanchored") == 1
    assert "media not anchored" in edge.log


# Away, and back


def test_call_is_refused_with_the_cause_when_every_rtpengine_is_away(place: Place):
    edge = place.edge
    edge.expected_errors.append("rtpengine")
    place.engine.kill()
    calling = edge.from_carrier(DID)
    final = calling.final()
    assert (final.status, final.reason) == (503, "media unavailable")
    out = edge.from_pbx("+14155550100")
    assert out.final().reason == "media unavailable"
    assert not any(worker.got("INVITE") for worker in edge.workers)
    assert sum(edge.worker_loads().values()) == 0
    untouched = edge.second_carrier.invite(CONNECTED, edge.at)
    edge.pbx.request("INVITE", untouched.call_id)


def test_hung_rtpengine_costs_one_call_a_moment_and_the_next_ones_nothing(make_place: MakePlace):
    place = make_place(anchored(engines=2), "-A", "MEDIA_RETRY_SECONDS=60", "-A", "MEDIA_PATIENCE_MS=300")
    edge = place.edge
    edge.expected_errors.append("rtpengine")
    place.engines["media-1"].hang()
    taken = []
    for _ in range(8):
        calling = edge.from_carrier(DID, body=place.outside.sdp)
        worker, invite = edge.first_worker(calling.call_id)
        taken.append(1000 * (invite.at - calling.sent_at))
        assert Media.of(invite.body).address == edge.address(INNER_SIDE + 2)
        worker.reply(invite, 486)
        calling.final()
    place.engines["media-1"].wake()
    print(f"set-up with a hung rtpengine: {max(taken):.0f} ms once, then {sorted(taken)[-2]:.1f} ms at most")
    assert edge.log.count('timeout waiting reply for command "offer"') <= 1


def test_killed_rtpengine_costs_nothing_and_comes_back(make_place: MakePlace):
    place = make_place(anchored(engines=2), "-A", "MEDIA_RETRY_SECONDS=1")
    edge = place.edge
    edge.expected_errors.append("rtpengine")
    place.engines["media-1"].kill()
    for _ in range(4):
        agent_call(place)
    assert place.calls() == {"media-2": 4}
    place.engines["media-1"].start()

    def spread() -> bool:
        agent_call(place)
        return place.calls()["media-1"] > 0

    edge.until(spread, "calls on the rtpengine that came back", 20)


def test_rtpengine_that_was_taken_out_keeps_its_calls_and_gets_no_new_ones(make_place: MakePlace):
    place = make_place(anchored(engines=2), "-A", "MEDIA_RETRY_SECONDS=1")
    edge = place.edge
    calls = [agent_call(place) for _ in range(6)]
    before = place.calls()
    control = edge.settings.rtpengine["media-1"].control
    edge.rpc("rtpengine.enable", f"udp:{control}", 0)
    time.sleep(2.5)  # longer than MEDIA_RETRY_SECONDS: what was taken out must stay so
    calls += [agent_call(place) for _ in range(4)]
    assert place.calls() == {"media-1": before["media-1"], "media-2": before["media-2"] + 4}
    for near, far, caller, callee in calls:
        request, reply = exchange(near, far, "INVITE", caller.sdp, callee.sdp)
        callee.connect(request.body)
        caller.connect(reply.body)
        talk(caller, callee)
        near.send("BYE")
    place.forgotten()


def test_offer_within_a_call_whose_rtpengine_is_away_is_refused(place: Place):
    near, far, caller, _ = agent_call(place)
    place.edge.expected_errors.append("rtpengine")
    place.engine.kill()
    final = near.ask("INVITE", body=caller.sdp, content_type="application/sdp")
    assert (final.status, final.reason) == (503, "media unavailable")
    far.send("BYE")
    near.phone.reply(near.phone.request("BYE"), 200)


def test_restarted_rtpengine_has_the_call_again_with_the_next_offer(make_place: MakePlace):
    place = make_place(anchored(), "-A", "MEDIA_RETRY_SECONDS=1")
    near, far, caller, callee = agent_call(place)
    place.engine.kill()
    place.engine.start()
    request, reply = exchange(near, far, "INVITE", caller.sdp, callee.sdp)
    callee.connect(request.body)
    caller.connect(reply.body)
    talk(caller, callee)


# Seen from beside


def test_rtpengine_is_checked_and_counted(place: Place):
    engine = place.edge.settings.rtpengine["media-1"]
    assert probes.rtpengine(engine) == f"{engine.control} answers"
    site = place.edge.folder / "site"
    assert health.ping(health.place(site, "rtpengine", "media-1")) == "pong"
    agent_call(place)
    with urllib.request.urlopen(f"http://{engine.metrics}/metrics", timeout=5) as reply:
        counted = reply.read().decode()
    assert 'rtpengine_sessions{type="own"} 1' in counted
    place.engine.kill()
    place.edge.expected_errors.append("rtpengine")
    with pytest.raises(probes.Failed, match="no answer"):
        probes.rtpengine(engine)
    with pytest.raises(health.UnwellError, match="refused"):
        health.ping(engine.metrics)
