"""RFC 4475's and RFC 5118's torture messages from a known trunk: each is served, refused with a status or met with silence,
as the table says, and none stops the next call.
"""

import re
from pathlib import Path

import pytest

from tests.edge.endpoints import Message
from tests.edge.world import DID, Edge

FOLDER = Path(__file__).parent / "torture"
SILENCE = 0
AGENT = 1
"""It reaches a worker."""

AS_THEY_STAND = {
    # Valid. None of them is for a number of this site.
    "rfc4475/wsinv": SILENCE,  # Kamailio does not read a Via with spaces around its slashes
    "rfc4475/intmeth": SILENCE,  # nor NUL inside a quoted string
    "rfc4475/esc01": 404,
    "rfc4475/escnull": 405,
    "rfc4475/esc02": SILENCE,  # its Via is TCP, its method unknown to all
    "rfc4475/lwsdisp": 200,
    "rfc4475/longreq": 404,
    "rfc4475/dblreq": 400,  # over UDP what follows the message is too much
    "rfc4475/semiuri": 200,
    "rfc4475/transports": 200,
    "rfc4475/mpart01": 405,
    "rfc4475/unreason": SILENCE,
    "rfc4475/noreason": SILENCE,
    # Invalid
    "rfc4475/badinv01": SILENCE,
    "rfc4475/clerr": 400,
    "rfc4475/ncl": SILENCE,
    "rfc4475/scalar02": 400,
    "rfc4475/scalarlg": SILENCE,
    "rfc4475/quotbal": SILENCE,
    "rfc4475/ltgtruri": 416,
    "rfc4475/lwsruri": SILENCE,
    "rfc4475/lwsstart": SILENCE,
    "rfc4475/trws": 200,
    "rfc4475/escruri": 404,
    "rfc4475/baddate": 404,
    "rfc4475/regbadct": 405,
    "rfc4475/badaspec": 200,
    "rfc4475/baddn": 200,
    "rfc4475/badvers": SILENCE,
    "rfc4475/mismatch01": 400,
    "rfc4475/mismatch02": 400,
    "rfc4475/bigcode": SILENCE,
    # Transaction layer
    "rfc4475/badbranch": 200,
    # Application layer
    "rfc4475/insuf": SILENCE,
    "rfc4475/unkscm": 416,
    "rfc4475/novelsc": 416,
    "rfc4475/unksm2": 400,
    "rfc4475/bext01": 200,  # Require is not for a proxy, and what Proxy-Require asks for is left to whom it goes to
    "rfc4475/invut": 404,
    "rfc4475/regaut01": 405,
    "rfc4475/multi01": SILENCE,
    "rfc4475/mcl01": SILENCE,
    "rfc4475/bcast": SILENCE,  # and not sent on to 255.255.255.255
    "rfc4475/zeromf": 483,
    "rfc4475/cparam01": 405,
    "rfc4475/cparam02": 405,
    "rfc4475/regescrt": 405,
    "rfc4475/sdp01": 404,
    # Backward compatibility
    "rfc4475/inv2543": 404,
    "rfc5118/ipv6-good": 405,
    "rfc5118/ipv6-bad": 416,
    "rfc5118/port-ambiguous": 405,
    "rfc5118/port-unambiguous": 405,
    "rfc5118/via-received-param-with-delim": 481,
    "rfc5118/via-received-param-no-delim": 481,
    "rfc5118/ipv6-in-sdp": 404,
    "rfc5118/mult-ip-in-sdp": 404,
    "rfc5118/mult-ip-in-header": 481,
    "rfc5118/ipv4-mapped-ipv6": 404,
    "rfc5118/ipv4-mapped-ipv6-in-sdp": 404,
    "rfc5118/ipv6-bug-abnf-3-colons": 200,
}

FOR_AN_AGENT = {
    "rfc4475/wsinv": SILENCE,
    "rfc4475/esc01": AGENT,
    "rfc4475/longreq": AGENT,
    "rfc4475/badinv01": SILENCE,
    "rfc4475/clerr": 400,
    "rfc4475/ncl": SILENCE,
    "rfc4475/quotbal": SILENCE,
    "rfc4475/escruri": AGENT,  # the Request-URI is made anew
    "rfc4475/baddate": AGENT,
    "rfc4475/insuf": SILENCE,
    "rfc4475/invut": AGENT,
    "rfc4475/multi01": SILENCE,
    "rfc4475/sdp01": AGENT,
    "rfc4475/inv2543": AGENT,
    "rfc5118/ipv6-in-sdp": AGENT,
    "rfc5118/mult-ip-in-sdp": AGENT,
    "rfc5118/ipv4-mapped-ipv6": AGENT,
    "rfc5118/ipv4-mapped-ipv6-in-sdp": AGENT,
}
"""Those INVITEs whose Request-URI is not what is wrong with them, when they are for a number with an agent."""


@pytest.fixture
def edge(shared_edge: Edge) -> Edge:
    """Kamailio says much about malformed messages; it must only survive them."""
    shared_edge.expected_errors.append(".")
    return shared_edge


def own(raw: bytes, name: str) -> bytes:
    """The message with its Call-ID told apart, and Via ports at which the carrier listens."""
    unique = re.sub(rb"(?im)^((?:call-id|i)\s*:\s*)", rb"\g<1>" + name.replace("/", "-").encode() + b"-", raw)
    return re.sub(rb"(?m)^(Via: SIP/2.0/UDP [^\r;]*):(5050|5070|6050|19823)", rb"\1", unique)


def became(edge: Edge, raw: bytes) -> int:
    """Send it as the carrier: the status that it got, AGENT, or SILENCE."""
    before = len(edge.carrier.seen)
    edge.carrier.send(raw, edge.at)
    assert edge.carrier.options_of(edge.at) == 200  # answered after what was sent before it
    came = [m for m in edge.carrier.seen[before:] if not m.is_request and ours(raw, m)]
    finals = [m.status for m in came if m.status >= 200]
    if came and not finals:
        edge.until(lambda: arrived(edge, raw), "the INVITE at a worker")
        return AGENT
    return finals[0] if finals else SILENCE


def arrived(edge: Edge, raw: bytes) -> bool:
    """Whether it is at a worker, which then refuses it."""
    for worker in edge.workers:
        for invite in [m for m in list(worker.seen) if m.is_request and m.method == "INVITE" and ours(raw, m)]:
            worker.reply(invite, 486)
            return True
    return False


def ours(raw: bytes, message: Message) -> bool:
    call_id = message.call_id or message["i"]
    return call_id.encode() in raw


def test_every_message_has_its_row():
    files = {f"{file.parent.name}/{file.stem}" for file in FOLDER.rglob("*.dat")}
    assert files == set(AS_THEY_STAND)
    assert len([name for name in files if name.startswith("rfc4475/")]) == 49
    calls = {name for name in files if b"INVITE " in (FOLDER / f"{name}.dat").read_bytes()[:7]}
    assert calls - set(FOR_AN_AGENT) == {"rfc4475/ltgtruri", "rfc4475/lwsruri", "rfc4475/lwsstart"}


@pytest.mark.parametrize("name", AS_THEY_STAND)
def test_as_it_stands(edge: Edge, name: str):
    assert became(edge, own((FOLDER / f"{name}.dat").read_bytes(), name)) == AS_THEY_STAND[name]


@pytest.mark.parametrize("name", FOR_AN_AGENT)
def test_for_an_agent(edge: Edge, name: str):
    raw = own((FOLDER / f"{name}.dat").read_bytes(), f"agent-{name}")
    query = b"?Route=%3Csip:example.com%3E" if name == "rfc4475/escruri" else b""
    _, _, rest = raw.partition(b"\r\n")
    line = f"INVITE sip:{DID}@{edge.at[0]}".encode() + query + b" SIP/2.0\r\n"
    assert became(edge, line + rest) == FOR_AN_AGENT[name]


@pytest.mark.parametrize("name", ["rfc4475/longreq", "rfc4475/inv2543", "rfc5118/ipv6-in-sdp"])
def test_what_a_proxy_does_not_know_passes_untouched(edge: Edge, name: str):
    raw = own((FOLDER / f"{name}.dat").read_bytes(), f"whole-{name}")
    _, _, rest = raw.partition(b"\r\n")
    assert became(edge, f"INVITE sip:{DID}@{edge.at[0]} SIP/2.0\r\n".encode() + rest) == AGENT
    invite = next(m for worker in edge.workers for m in worker.seen if m.method == "INVITE" and ours(raw, m))
    head, _, body = rest.partition(b"\r\n\r\n")
    assert invite.body == body
    known = re.compile(rb"(?i)(via|v|max-forwards|p-asserted-identity) *:")
    for line in head.split(b"\r\n"):
        assert known.match(line) or line in invite.raw, line


def test_a_reply_is_not_passed_on_to_whom_a_peer_names(edge: Edge):
    raw = (FOLDER / "rfc4475/bcast.dat").read_bytes().replace(b"255.255.255.255", edge.stranger.address.encode())
    before = edge.counter("dropped_total", "stray_reply")
    edge.carrier.send(raw, edge.at)
    edge.until(lambda: edge.counter("dropped_total", "stray_reply") == before + 1, "the reply to be dropped")
    assert not edge.stranger.seen


def test_the_next_call_and_911_work(edge: Edge):
    edge.arrival(edge.from_carrier())
    emergency = edge.from_pbx("911")
    edge.carrier.reply(edge.carrier.request("INVITE", emergency.call_id), 200)
    assert emergency.final().status == 200
