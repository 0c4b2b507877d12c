"""The process: draining, what a predecessor left behind, its own event socket, and what it tells of itself."""

from typing import Any

import gevent
import orjson
import pytest
from gevent import socket

from esl_app.server import Server
from tandem.outcome import Outcome, RefusalCause
from tandem.records import Recorder, Records
from tandem.rows import CallRecord, LostCalls
from tests.esl.conftest import World, metric
from tests.esl.fake_switch import until


def get(world: World, path: str) -> tuple[int, bytes]:
    """Plain HTTP by hand: the server lives in this very thread."""
    cell = world.settings.workers["worker-1"]
    with socket.create_connection((cell.loopback, world.settings.esl_app.metrics_port), 2) as sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


class TestDrain:
    @pytest.fixture
    def changes(self) -> dict[str, Any]:
        return {"esl_app": {"drain_seconds": 30}}

    def drain(self, world: World) -> "gevent.Greenlet[..., None]":
        ending = gevent.spawn(world.server._finish)
        world.server.drain()
        until(lambda: "fsctl pause inbound" in world.switch.apis, "the switch to be paused")
        return ending

    def test_calls_under_way_go_on_and_new_ones_are_refused(self, world: World) -> None:
        call = world.talking()
        ending = self.drain(world)
        refused = world.switch.call()
        record = world.rows.call(refused)
        assert (record.outcome, record.cause, record.sip_status) == (Outcome.REFUSED, RefusalCause.DRAINING, 503)
        assert get(world, "/healthz") == (
            503,
            orjson.dumps({"status": "draining", "calls": 1, "max_calls": 3, "switch": True, "unfit": ""}),
        )
        call.happens("DTMF", {"DTMF-Digit": "1", "DTMF-Duration": "800"})
        until(lambda: call.texts, "the call to go on")
        assert not ending.ready()
        call.hang_up()
        ending.get(timeout=10)
        assert world.rows.call(call).outcome is Outcome.CALLER_HUNG_UP

    def test_a_second_signal_ends_the_calls_and_puts_them_on_record(self, world: World) -> None:
        call = world.talking()
        ending = self.drain(world)
        world.server.drain()
        ending.get(timeout=10)
        record = world.rows.call(call)
        assert (record.outcome, record.cause) == (Outcome.FAILED, RefusalCause.DRAINING)
        assert call.hangup_cause == "NORMAL_CLEARING"

    def test_a_call_put_through_is_left_to_the_next_process(self, world: World) -> None:
        world.switch.on_dial = lambda leg: (leg.ring(), leg.answer())
        call = world.talking()
        world.transfer(call, "sales")
        until(lambda: any(getattr(row, "transferred_to", None) for row in world.rows), "the bridge")
        ending = self.drain(world)
        world.server.drain()
        ending.get(timeout=10)
        assert call.hangup_cause is None and world.switch.legs[0].hangup_cause is None
        newest = [row for row in world.rows if isinstance(row, CallRecord)][-1]
        assert (newest.outcome, newest.transferred_to) == (None, "sales")

    def test_legs_that_ring_are_ended_with_their_calls(self, world: World) -> None:
        world.switch.on_dial = lambda leg: leg.ring()
        call = world.talking()
        world.transfer(call, "sales")
        until(lambda: world.switch.legs and call.texts, "the target to ring")
        ending = self.drain(world)
        world.server.drain()
        ending.get(timeout=10)
        assert world.switch.channels == {}


def test_a_switch_that_a_predecessor_paused_is_resumed_at_the_start(world: World) -> None:
    world.server.stop()
    world.switch.paused = True
    server = Server(world.settings, "worker-1", world.rows)
    server.start()
    try:
        until(lambda: not world.switch.paused, "the switch to be resumed")
    finally:
        server.stop()


def test_a_predecessors_calls_are_closed_but_for_those_that_live(world: World) -> None:
    lost = until(lambda: [row for row in world.rows if isinstance(row, LostCalls)], "the rows to be closed")
    assert (lost[0].worker, lost[0].except_ids) == ("worker-1", ())


def test_a_switch_that_cannot_say_which_calls_live_is_asked_again(world: World) -> None:
    world.server.stop()
    world.switch.refuse_api.add("show")
    world.rows.clear()
    server = Server(world.settings, "worker-1", world.rows)
    errors = metric("tandem_esl_errors_total", where="inbound")
    server.start()
    try:
        until(lambda: metric("tandem_esl_errors_total", where="inbound") == errors + 1, "the failure")
        assert not [row for row in world.rows if isinstance(row, LostCalls)], "no living call is closed on a guess"
        world.switch.refuse_api.clear()
        world.switch.drop_inbound()
        until(lambda: [row for row in world.rows if isinstance(row, LostCalls)], "the rows to be closed")
    finally:
        server.stop()


def test_a_surviving_call_is_watched_and_ends_as_transferred(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_app.survivors.WATCH_S", 0.05)
    world.server.stop()
    row = CallRecord(
        id="old", worker="worker-1", trunk="t", tenant="d", caller="c", number="n", agent="a", verified="",
        codec="PCMU", sip_call_id="s", started_at=1.0, answered_at=2.0, transferred_to="sales",
    )  # fmt: skip
    recorder = Recorder(world.settings.records, "worker-1", "esl_app")
    recorder.put(row)
    recorder.put(row.model_copy(update={"id": "dead"}))
    assert recorder.flush(10)
    world.switch.survivors = [("channel-of-old", "old")]
    server = Server(world.settings, "worker-1", recorder)
    server.start()
    try:
        look = "uuid_getvar channel-of-old tandem_adrift"
        until(lambda: world.switch.apis.count(look) > 1, "the survivor to be watched")
        recorder.flush(5)
        with Records(world.settings.records.url) as records:
            assert [call.id for call in records.calls() if call.outcome is None] == ["old"]
            world.switch.survivors = []

            def ended() -> CallRecord | None:
                recorder.flush(5)
                story = records.call("old")
                return story.call if story and story.call.outcome else None

            record = until(ended, "the survivor's end on record")
            dead = records.call("dead")
        assert (record.outcome, record.transferred_to) == (Outcome.TRANSFERRED, "sales")
        assert dead is not None and dead.call.outcome is Outcome.CONTROLLER_LOST
    finally:
        server.stop()
        recorder.close(5)


def test_the_event_socket_to_the_switch_comes_back_by_itself(world: World) -> None:
    [before] = world.switch.inbound
    dropped = metric("tandem_esl_dropped_total", cause="closed")
    world.switch.drop_inbound()
    until(lambda: world.switch.inbound not in ([], [before]), "the connection to come back")
    until(lambda: world.server.health()["switch"] and metric("tandem_switch_up") == 1, "it to be used")
    assert metric("tandem_esl_dropped_total", cause="closed") == dropped + 1


def test_while_the_switch_is_away_it_is_tried_again_and_again(world: World) -> None:
    world.switch.stop()
    until(lambda: not world.server.health()["switch"], "the loss to be noticed")
    assert metric("tandem_switch_up") == 0
    world.switch.start()
    until(lambda: world.server.health()["switch"], "the connection to come back")


def test_a_wrong_password_is_told_and_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.server.stop()
    wrong = world.settings.freeswitch.model_copy(update={"password": type(world.settings.model.key)("wrong")})
    server = Server(world.settings.model_copy(update={"freeswitch": wrong}), "worker-1", world.rows)
    server.start()
    try:
        until(lambda: "auth: -ERR invalid" in caplog.text, "the refusal to be told")
        assert "wrong" not in caplog.text
    finally:
        server.stop()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0" * 64,
        b"\xff\xfe" * 3000,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"{" * 5000,
        b"\n\n\n",
        b"Content-Type: x\n\n",
    ],
)
def test_garbage_on_the_port_for_calls_hurts_no_call(world: World, garbage: bytes) -> None:
    call = world.talking()
    dropped = sum(metric("tandem_esl_dropped_total", cause=cause) for cause in ("malformed", "closed", "truncated"))
    with socket.create_connection((world.switch.host, world.switch.app_port)) as sock:
        sock.sendall(garbage)
        gevent.sleep(0.02)
    until(
        lambda: (
            sum(metric("tandem_esl_dropped_total", cause=c) for c in ("malformed", "closed", "truncated")) > dropped
        ),
        "it to be counted",
    )
    call.hang_up()
    assert world.rows.call(call).outcome is Outcome.CALLER_HUNG_UP


def test_a_connection_that_says_nothing_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_app.protocol.Hardened.command.__defaults__", ((), 0.1), raising=False)
    with socket.create_connection((world.switch.host, world.switch.app_port)) as sock:
        sock.settimeout(10)
        assert sock.recv(100) == b"connect\n\n"
        assert sock.recv(100) == b""


def test_health_and_metrics_are_served(world: World) -> None:
    world.talking()
    assert get(world, "/healthz") == (
        200,
        orjson.dumps({"status": "ok", "calls": 1, "max_calls": 3, "switch": True, "unfit": ""}),
    )
    status, body = get(world, "/metrics")
    assert status == 200
    for name in (b"tandem_calls_active 1.0", b"tandem_call_setup_seconds_bucket", b"tandem_fork_connect_seconds_count"):
        assert name in body
    assert get(world, "/else")[0] == 404


def test_a_busy_switch_is_no_call_lost(world: World) -> None:
    """A hundred calls that come and go at once: each has its one record, and nothing is left."""
    calls = []
    for _ in range(100):
        calls.append(world.switch.call())
        gevent.sleep(0)
    for call in calls:
        gevent.spawn(lambda call=call: (call.answered.wait(2), call.hang_up()))
    outcomes = [world.rows.call(call).outcome for call in calls]
    assert set(outcomes) <= {Outcome.CALLER_HUNG_UP, Outcome.REFUSED}
    assert outcomes.count(Outcome.CALLER_HUNG_UP) >= 3
    until(lambda: world.server.health()["calls"] == 0, "every call to end")
    assert metric("tandem_calls_active") == 0
