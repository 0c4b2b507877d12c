"""The event socket under hostile input: nothing that a caller or a broken peer sends forges a header, blocks a call or stays."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import gevent
import pytest
from gevent import socket
from greenswitch.esl import NotConnectedError, OutboundSessionHasGoneAway
from hypothesis import given
from hypothesis import strategies as st

from esl_app import protocol
from esl_app.protocol import CommandRefused, CommandTimeout, Event, Headers, parse_event
from esl_app.session import Session

CAPTURES = Path(__file__).parents[1] / "esl/captures"
HANGUP = b"Event-Name: CHANNEL_HANGUP\nUnique-ID: u1\n\n"


class Peer:
    """FreeSWITCH's end of one session."""

    def __init__(self) -> None:
        self.sock, ours = socket.socketpair()
        self.dropped: list[str] = []
        self.events: list[Event] = []
        self.session = Session(("test", 0), ours, self.dropped.append)
        self.session.register_handle("*", self.events.append)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def event(self, content: bytes) -> None:
        self.send(b"Content-Length: %d\nContent-Type: text/event-plain\n\n" % len(content) + content)

    def reply(self, text: str) -> None:
        self.send(f"Content-Type: command/reply\nReply-Text: {text}\n\n".encode())

    def until(self, condition: Callable[[], object], what: str) -> None:
        with gevent.Timeout(5, AssertionError(f"waited for {what}")):
            while not condition():
                gevent.sleep(0.001)


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.session.give_up()
    made.sock.close()


def serialised(headers: dict[str, str]) -> bytes:
    return (
        "".join(f"{name}: {quote(value, safe='') or '_undef_'}\n" for name, value in headers.items()).encode() + b"\n"
    )


@given(
    st.dictionaries(st.sampled_from(["variable_sip_from_display", "Caller-Caller-ID-Name", "X"]), st.text(), max_size=3)
)
def test_a_value_arrives_as_it_is_and_writes_no_header_of_its_own(values: dict[str, str]) -> None:
    headers = {"Event-Name": "CHANNEL_DATA", **values, "Unique-ID": "true-one"}
    parsed = parse_event(serialised(headers)).headers
    assert parsed == {name: "" if value == "_undef_" else value for name, value in headers.items()}


@pytest.mark.parametrize(
    "name",
    [
        "Eve%0AUnique-ID: forged",
        "Eve\nUnique-ID: forged",
        "Eve%250AUnique-ID: forged",
        "Eve\r\nUnique-ID: forged\r\n\r\n",
        "Eve\u2028Unique-ID: forged",
        "Eve\x0bUnique-ID: forged\x85Unique-ID: forged",
    ],
)
def test_a_display_name_cannot_forge_a_header(name: str) -> None:
    headers = {"Event-Name": "CHANNEL_DATA", "variable_sip_from_display": name, "Unique-ID": "true-one"}
    parsed = parse_event(serialised(headers)).headers
    assert parsed["Unique-ID"] == "true-one"
    assert parsed["variable_sip_from_display"] == name
    assert len(parsed) == 3


def test_of_a_header_given_twice_the_first_counts() -> None:
    assert Headers(b"Unique-ID: first\nUnique-ID: second", encoded=True) == {"Unique-ID": "first"}


def test_an_events_body_is_apart_from_its_headers() -> None:
    event = parse_event(b"Event-Name: CUSTOM\nContent-Length: 27\n\nUnique-ID: forged%0A\n\nX: y\n")
    assert event.headers == {"Event-Name": "CUSTOM", "Content-Length": "27"}
    assert event.data == "Unique-ID: forged%0A\n\nX: y\n"


def test_plain_replies_are_not_decoded(peer: Peer) -> None:
    asking = gevent.spawn(peer.session.send, "nonsense")
    gevent.sleep(0)
    peer.reply("-ERR %0A is no command")
    assert asking.get().data == "-ERR %0A is no command"


@pytest.mark.parametrize("name", ["ev_CHANNEL_ANSWER", "ev_CHANNEL_HANGUP_COMPLETE", "ev_mod_audio_fork_connect"])
def test_captured_events_are_understood(peer: Peer, name: str) -> None:
    lines = (CAPTURES / f"{name}.txt").read_text().split("\n\n", 1)[0].splitlines()
    pairs = [line.split(": ", 1) for line in lines if ": " in line]
    headers = {pair[0]: pair[1] for pair in pairs}
    peer.event(serialised(headers))
    peer.until(lambda: peer.events, "the event")
    assert peer.events[0].headers["Event-Name"] == headers["Event-Name"]
    assert peer.events[0].headers["Unique-ID"] == headers["Unique-ID"]


@given(st.binary(max_size=300))
def test_no_block_of_bytes_breaks_the_parser(block: bytes) -> None:
    for encoded in (True, False):
        headers = Headers(block, encoded)
        assert all(isinstance(value, str) for value in headers.values())
    parse_event(block)


def test_invalid_utf8_is_replaced_and_the_session_goes_on(peer: Peer) -> None:
    peer.event(b"Event-Name: CHANNEL_ANSWER\nCaller: %ff%fe\nRaw: \xff\xfe\nUnique-ID: u1\n\n")
    peer.event(HANGUP)
    peer.until(lambda: len(peer.events) == 1, "the answer")
    assert peer.events[0].headers["Caller"] == "\ufffd\ufffd"
    assert peer.session.connected


def test_an_event_in_many_small_pieces_arrives_whole(peer: Peer) -> None:
    content = serialised({"Event-Name": "DTMF", "Unique-ID": "u1"}) + b"body"
    whole = b"Content-Length: %d\nContent-Type: text/event-plain\n\n" % len(content) + content
    for index in range(len(whole)):
        peer.send(whole[index : index + 1])
        gevent.sleep(0)
    peer.until(lambda: peer.events, "the event")
    assert peer.events[0].data == "body"


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"Content-Type: text/event-plain\nContent-Length: 99999999999\n\n", "oversize"),
        (b"Content-Type: text/event-plain\nContent-Length: -5\n\n", "malformed"),
        (b"Content-Type: text/event-plain\nContent-Length: 1e3\n\n", "malformed"),
        ("Content-Type: text/event-plain\nContent-Length: ٣\n\n".encode(), "malformed"),
        (b"Content-Type: something/else\n\n", "malformed"),
        (b"\x00\xff\n\n", "malformed"),
        (b"Content-Type: command/reply\nReply-Text: +OK\n\n", "malformed"),
        (b"Content-Type: auth/request\n\n", "malformed"),
        (b"Content-Type: text/rude-rejection\nContent-Length: 3\n\nno\n", "rejected"),
        (b"x" * (protocol.MAX_BLOCK + 2), "oversize"),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_dropped_with_its_cause(peer: Peer, data: bytes, cause: str) -> None:
    peer.send(data)
    peer.until(lambda: peer.dropped, "the session to be dropped")
    assert peer.dropped == [cause]
    assert not peer.session.connected
    with pytest.raises(NotConnectedError):
        peer.session.send("api status")


@pytest.mark.parametrize(
    "data", [b"", b"Content-Type: text/event-pl", b"Content-Length: 50\nContent-Type: text/event-plain\n\nEv"]
)
def test_a_stream_that_ends_fails_what_waits_for_it(peer: Peer, data: bytes) -> None:
    asking = [gevent.spawn(peer.session.send, f"command {number}") for number in range(3)]
    gevent.sleep(0)
    peer.send(data)
    peer.sock.shutdown(socket.SHUT_WR)
    for one in asking:
        with pytest.raises(OutboundSessionHasGoneAway):
            one.get(timeout=5)
    peer.until(lambda: peer.dropped, "the end to be told")
    assert peer.dropped == ["truncated" if data else "closed"]


def test_replies_belong_to_commands_in_their_order(peer: Peer) -> None:
    asking = [gevent.spawn(peer.session.send, f"command {number}") for number in range(20)]
    gevent.sleep(0)
    for number in range(20):
        if number % 2:
            peer.reply(f"reply {number}")
        else:
            peer.send(
                f"Content-Type: api/response\nContent-Length: {len(f'reply {number}')}\n\nreply {number}".encode()
            )
    assert [one.get(timeout=5).data for one in asking] == [f"reply {number}" for number in range(20)]


def test_a_reply_that_comes_too_late_is_not_taken_for_the_next_commands(peer: Peer) -> None:
    with pytest.raises(CommandTimeout):
        peer.session.command("slow", timeout_s=0.02)
    following = gevent.spawn(peer.session.command, "quick")
    gevent.sleep(0)
    peer.reply("of the slow one")
    peer.reply("of the quick one")
    assert following.get(timeout=5).data == "of the quick one"


def test_commands_that_nobody_answers_do_not_pile_up(peer: Peer) -> None:
    for number in range(protocol.MAX_PENDING):
        with pytest.raises(CommandTimeout):
            peer.session.command(f"command {number}", timeout_s=0)
    with pytest.raises(CommandTimeout, match="wait for FreeSWITCH's replies"):
        peer.session.command("one too many", timeout_s=1)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\n\napi shutdown", "\0"])
def test_a_line_end_in_a_command_is_refused_and_nothing_is_sent(peer: Peer, end: str) -> None:
    refused: list[Callable[[], object]] = [
        lambda: peer.session.send(f"api status{end}"),
        lambda: peer.session.api("uuid_kill", f"x{end}"),
        lambda: peer.session.execute("playback", f"file{end}execute-app-name: system"),
        lambda: peer.session.execute(f"playback{end}"),
        lambda: peer.session.execute("playback", "file", f"id{end}"),
        lambda: peer.session.watch(f"u{end}"),
        lambda: peer.session.call_command("bridge", f"x{end}", block=True),
    ]
    peer.session.session_data = {"Unique-ID": "u1"}
    refused.append(lambda: peer.session.set(name=f"value{end}"))
    for attempt in refused:
        with pytest.raises(CommandRefused):
            attempt()
    peer.sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        peer.sock.recv(1)


def test_a_handler_that_fails_does_not_stop_the_next(peer: Peer) -> None:
    def fails(event: Event) -> None:
        raise ZeroDivisionError

    peer.session.register_handle("DTMF", fails)
    peer.session.register_handle("DTMF", peer.events.append)
    peer.event(b"Event-Name: DTMF\n\n")
    peer.until(lambda: peer.events, "the second handler")


def test_events_are_handled_without_polling_and_before_the_end_is_told(peer: Peer) -> None:
    for _ in range(50):
        peer.event(b"Event-Name: DTMF\n\n")
    peer.sock.close()
    peer.until(lambda: peer.dropped, "the end")
    assert len(peer.events) == 50


def test_events_that_nobody_handles_are_bounded(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_EVENTS", 10)
    stuck = gevent.event.Event()
    peer.session.register_handle("DTMF", lambda event: stuck.wait())
    for _ in range(20):
        peer.event(b"Event-Name: DTMF\n\n")
    peer.until(lambda: not peer.session.connected, "the session to be dropped")
    assert peer.session.drop_cause == "overflow"
    stuck.set()


def test_after_the_hangup_only_commands_to_the_switch_itself_are_sent(peer: Peer) -> None:
    peer.send(b"Content-Type: text/disconnect-notice\nContent-Disposition: linger\nContent-Length: 0\n\n")
    peer.until(lambda: peer.session._lingering, "the notice")
    with pytest.raises(OutboundSessionHasGoneAway):
        peer.session.execute("playback", "x")
    asking = gevent.spawn(peer.session.api, "status")
    gevent.sleep(0)
    peer.send(b"Content-Type: api/response\nContent-Length: 3\n\n+OK")
    assert asking.get(timeout=5) == "+OK"


def test_greenswitchs_blocking_calls_end_with_the_application_or_the_call(peer: Peer) -> None:
    peer.session.session_data = {"Unique-ID": "u1"}
    waiting = gevent.spawn(peer.session.call_command, "playback", "x", True, 5)
    sent = peer.sock.recv(4096).decode()
    identity = sent.split("Event-UUID: ")[1].strip()
    peer.reply("+OK")
    peer.event(f"Event-Name: CHANNEL_EXECUTE_COMPLETE\nApplication-UUID: {identity}\n\n".encode())
    assert waiting.get(timeout=5).headers["Application-UUID"] == identity
    cut_short = gevent.spawn(peer.session.call_command, "playback", "x", True, 5)
    peer.sock.recv(4096)
    peer.reply("+OK")
    gevent.sleep(0.01)
    peer.send(b"Content-Type: text/disconnect-notice\nContent-Disposition: linger\nContent-Length: 0\n\n")
    with pytest.raises(OutboundSessionHasGoneAway):
        cut_short.get(timeout=5)
