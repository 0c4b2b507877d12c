"""After a crash: calls that went on are taken over, legs that nobody answers for are hung up, late ones too."""

from collections.abc import Iterator

import pytest

from esl_app.server import Server
from tandem.archive import notes
from tandem.outcome import Consent, Outcome, RecordingState, TransferOutcome
from tandem.records import Recorder, Records
from tandem.rows import CallRecord, RecordingRecord, TransferRecord
from tests.esl.conftest import World, metric
from tests.esl.fake_switch import FakeCall, FakeLeg, until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esl_app.survivors.WATCH_S", 0.05)
    monkeypatch.setattr("esl_app.resumption.EVERY_S", 0.05)
    monkeypatch.setattr("esl_app.resumption.WITHIN_S", 0.1)


@pytest.fixture
def left(world: World) -> FakeCall:
    """A call of an esl_app that is gone."""
    call = world.talking()
    world.switch.leave_adrift(call)
    until(lambda: world.server.health()["calls"] == 0, "the first esl_app to lose sight of it")
    # It is no more: what it still would have done about the call is not done.
    world.server.stop()
    world.switch.channels[call.uuid] = call
    call.hangup_cause = None
    world.rows.clear()
    return call


@pytest.fixture
def next_one(world: World, left: FakeCall) -> Iterator[Server]:
    server = Server(world.settings, "worker-1", world.rows)
    try:
        yield server
    finally:
        server.stop()


def taken_over(world: World, left: FakeCall) -> FakeCall:
    found: FakeCall = until(
        lambda: next((call for call in world.switch.calls if call.uuid == left.uuid and call.texts), None),
        "the call to be taken over",
    )
    return found


def test_a_call_adrift_is_taken_over_and_its_record_gone_on_with(
    world: World, left: FakeCall, next_one: Server
) -> None:
    before = metric("tandem_orphans_total", done="taken_over")
    next_one.start()
    call = taken_over(world, left)
    assert call.texts == [{"notice": "resumed"}]
    assert f"uuid_audio_fork {call.uuid} resume tandem" in world.switch.apis, "or one who was on hold stays unheard"
    call.happens("DTMF", {"DTMF-Digit": "1", "DTMF-Duration": "800"})
    until(lambda: len(call.texts) == 2, "the digit to be passed on")
    call.hang_up()
    record = world.rows.call(call)
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert (record.agent, record.number, record.answered_at is not None) == ("reception", "+12025550100", True)
    assert metric("tandem_orphans_total", done="taken_over") == before + 1
    assert call.executed == [], "neither rung nor answered once more"


def test_what_was_decided_meanwhile_is_repeated_and_done_once(world: World, left: FakeCall, next_one: Server) -> None:
    world.switch.on_dial = lambda leg: (leg.ring(), leg.fail("USER_BUSY", 486))
    wanted = {"command": "transfer", "id": "t1", "destination": "sales"}
    world.switch.repeated = [wanted]
    next_one.start()
    call = taken_over(world, left)
    until(lambda: any(text.get("outcome") == "busy" for text in call.texts), "the agent to be told")
    assert len(world.switch.legs) == 1
    assert [row.outcome for row in world.rows.transfers()] == [TransferOutcome.BUSY]


def test_a_caller_taken_over_can_be_put_through(world: World, left: FakeCall, next_one: Server) -> None:
    world.switch.on_dial = lambda leg: (leg.ring(), leg.answer())
    world.switch.repeated = [{"command": "transfer", "id": "t1", "destination": "sales"}]
    next_one.start()
    call = taken_over(world, left)
    until(lambda: any(api.startswith("uuid_bridge") for api in world.switch.apis), "the bridge")
    call.hang_up()
    assert world.rows.call(call).outcome is Outcome.TRANSFERRED


def test_what_the_predecessor_recorded_goes_on_and_can_be_paused(
    world: World, left: FakeCall, next_one: Server
) -> None:
    folder = notes.incoming(world.settings.recordings.folder, "worker-1")
    row = RecordingRecord(
        call=left.headers["variable_sip_h_X-Tandem-Call"], id="1", worker="worker-1", tenant="default",
        agent="reception", state=RecordingState.RECORDING, consent=Consent.GIVEN, started_at=1, format="wav", keep_until=2,
    )  # fmt: skip
    note = notes.write(folder, row)
    next_one.start()
    call = taken_over(world, left)
    call.decides({"command": "private", "id": "p1", "on": True})
    wanted = f"uuid_record {left.uuid} mask '{note.with_suffix('.wav')}'"
    until(lambda: wanted in world.switch.apis, "the recording to be masked")
    call.hang_up()
    world.rows.call(call)
    until(lambda: notes.read(note).state is RecordingState.WAITING, "the recording to be handed over")


def test_a_hang_up_decided_meanwhile_is_done(world: World, left: FakeCall, next_one: Server) -> None:
    world.switch.repeated = [{"command": "hang_up", "id": "h1"}]
    next_one.start()
    call = taken_over(world, left)
    assert world.rows.call(call).outcome is Outcome.AGENT_HUNG_UP
    assert call.hangup_cause == "NORMAL_CLEARING"


@pytest.mark.parametrize("gone", ["fork", "media_fork"])
def test_with_nobody_at_the_fork_the_caller_gets_the_fallback(
    world: World, left: FakeCall, next_one: Server, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esl_app.call.RESUME_S", 0.1)
    if gone == "fork":
        left.fork = None
    world.switch.present = False
    next_one.start()
    call: FakeCall = until(
        lambda: next((call for call in world.switch.calls if call.uuid == left.uuid and call.executed), None),
        "the apology",
    )
    assert "apology.wav" in call.executed[0][1]
    call.hang_up()
    assert world.rows.call(call).cause == "fork_lost"


def test_the_record_goes_on_as_the_predecessor_left_it(world: World, left: FakeCall, next_one: Server) -> None:
    recorder = Recorder(world.settings.records, "worker-1", "esl_app")
    row = CallRecord(
        id=left.headers["variable_sip_h_X-Tandem-Call"], worker="worker-1", trunk="carrier", tenant="t", caller="c",
        number="n", agent="reception", verified="TN-Validation-Passed", codec="PCMU",
        sip_call_id=left.headers["variable_sip_call_id"], started_at=1.0, answered_at=2.0,
    )  # fmt: skip
    recorder.put(row)
    recorder.put(TransferRecord(call=row.id, id="t0", destination="sales", method="bridge", started_at=3.0))
    assert recorder.flush(10)
    next_one.start()
    call = taken_over(world, left)
    call.hang_up()
    record = world.rows.call(call)
    assert (record.started_at, record.answered_at, record.verified) == (1.0, 2.0, "TN-Validation-Passed")
    assert [(row.id, row.outcome) for row in world.rows.transfers()] == [("t0", TransferOutcome.FAILED)]
    recorder.close(5)
    with Records(world.settings.records.url) as records:
        assert records.call(row.id) is not None


def foreign_leg(world: World, channel: str) -> FakeLeg:
    leg = FakeLeg(world.switch, channel, "{tandem_controller=another,sip_h_X-Tandem-Call=old}sofia/tandem/sip:1@h")
    world.switch.channels[channel] = leg
    return leg


def test_legs_that_nobody_answers_for_are_hung_up_whenever_they_appear(world: World) -> None:
    until(lambda: any("show" in api for api in world.switch.apis), "the first look")
    connected = foreign_leg(world, "connected")
    connected.state = "CS_EXCHANGE_MEDIA"
    late = foreign_leg(world, "late")
    world.switch.on_dial = lambda leg: leg.ring()
    call = world.talking()
    world.transfer(call, "sales")
    until(lambda: late.hangup_cause, "the late leg to be hung up")
    seen = len(world.switch.apis)
    until(lambda: sum("show" in api for api in world.switch.apis[seen:]) >= 2, "two more looks")
    assert world.switch.legs[0].hangup_cause is None, "its own"
    assert connected.hangup_cause is None
    call.hang_up()


def test_an_event_socket_that_is_lost_alone_ends_its_call(world: World) -> None:
    call = world.talking()
    call.close()
    until(lambda: call.hangup_cause, "the channel to be killed")
    assert world.rows.call(call).outcome is Outcome.FAILED
