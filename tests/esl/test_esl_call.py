"""A call from arrival to record: answered only when a session is ready, refused with its cause, ended on record whatever ends it."""

from typing import Any

import gevent
import pytest

from tandem.outcome import Outcome, RefusalCause
from tests.esl.conftest import World, metric
from tests.esl.fake_switch import FakeCall, until


def test_a_call_is_answered_only_once_its_session_is_reserved(world: World) -> None:
    world.media_fork.delay_s = 0.2
    call = world.switch.call()
    until(lambda: world.media_fork.reserved, "the reservation")
    assert not call.answered.is_set()
    until(call.answered.is_set, "the answer")
    assert world.media_fork.reserved == [
        {
            "call": call.headers["variable_sip_h_X-Tandem-Call"],
            "agent": "reception",
            "caller": "+12025550147",
            "number": "+12025550100",
            "codec": "PCMU",
            "trunk": "carrier",
            "tenant": "default",
            "verified": "",
            "placed": None,
            "briefing": None,
        }
    ]
    call.hang_up()
    record = world.rows.call(call)
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert record.answered_at is not None and record.ended_at is not None
    world.idle()


def test_what_has_no_effect_after_answer_is_set_before_it(world: World) -> None:
    call = world.talking()
    assert call.variables["send_silence_when_idle"] == "-1"
    assert call.variables["hangup_after_bridge"] == "true"
    set_at = next(i for i, command in enumerate(call.commands) if "send_silence_when_idle" in command)
    answered_at = next(i for i, command in enumerate(call.commands) if "execute-app-name: answer" in command)
    assert set_at < answered_at


def test_the_fork_is_started_with_all_of_its_ten_words(world: World) -> None:
    call = world.talking()
    assert call.fork is not None
    assert call.fork[0] == "start"
    assert call.fork[2:5] == ["mono", "8000", "tandem"]
    assert call.fork[6:] == ["true", "true", "8000"]
    assert len(call.fork) == 9


@pytest.mark.parametrize("codec", [("PCMA", "PCMA"), ("G722", "L16"), ("opus", "L16"), ("", "PCMU")])
def test_the_session_is_asked_for_with_the_calls_codec(world: World, codec: tuple[str, str]) -> None:
    world.talking(variable_rtp_use_codec_name=codec[0])
    assert world.media_fork.reserved[0]["codec"] == codec[1]


@pytest.mark.parametrize(("codec", "held"), [("PCMU", "PCMU,PCMA"), ("PCMA", "PCMU,PCMA"), ("G722", "G722"), ("", "")])
def test_while_the_fork_lives_no_re_invite_may_change_the_sampling_rate(world: World, codec: str, held: str) -> None:
    call = world.talking(variable_rtp_use_codec_name=codec)
    until(lambda: "absolute_codec_string" in call.variables, "the codec to be held")
    assert call.variables["absolute_codec_string"] == held
    call.decides({"command": "model_lost", "cause": "gone"})
    until(lambda: call.fork is None, "the fork to be stopped")
    until(lambda: not call.variables["absolute_codec_string"], "the codec to be free again")


def test_the_record_has_the_codec_that_was_negotiated(world: World) -> None:
    call = world.switch.call(variable_rtp_use_codec_name="", variable_switch_r_sdp=OFFER.format("9 0", ""))
    call.variables["rtp_use_codec_name"] = "PCMU"
    until(lambda: "absolute_codec_string" in call.variables, "the codec to be held")
    call.hang_up()
    assert world.media_fork.reserved[0]["codec"] == "L16", "as offered, before FreeSWITCH had chosen"
    assert world.rows.call(call).codec == "PCMU"


@pytest.mark.parametrize(
    ("cause", "status", "hangup"),
    [
        ("model_unavailable", 503, "NORMAL_TEMPORARY_FAILURE"),
        ("at_capacity", 503, "NORMAL_TEMPORARY_FAILURE"),
        ("unknown_agent", 404, "UNALLOCATED_NUMBER"),
        ("bad_call", 603, "CALL_REJECTED"),
    ],
)
def test_a_refused_reservation_refuses_the_call_unanswered_with_its_cause(
    world: World, cause: str, status: int, hangup: str
) -> None:
    world.media_fork.refuse(cause)
    call = world.switch.call()
    record = world.rows.call(call)
    assert (record.outcome, record.cause, record.sip_status) == (Outcome.REFUSED, cause, status)
    assert call.hangup_cause == hangup
    assert call.variables["sip_reason"] == f'SIP;cause={status};text="{cause}"'
    assert not call.answered.is_set()
    assert call.executed == [("ring_ready", "")]
    assert record.answered_at is None
    assert metric("tandem_calls_total", outcome="refused", cause=cause) >= 1


def test_the_call_rings_before_it_is_known_whether_a_model_is_to_be_had(world: World) -> None:
    world.media_fork.delay_s = 2.0
    call = world.switch.call()
    until(lambda: call.executed == [("ring_ready", "")], "the ringing")
    until(call.answered.is_set, "the answer")


def test_a_call_that_is_not_to_be_taken_does_not_ring(world: World) -> None:
    call = world.switch.call(X_Tandem_Agent="nobody")
    assert world.rows.call(call).cause == RefusalCause.UNKNOWN_AGENT
    assert call.executed == []


@pytest.mark.parametrize("answer", [("500 Oops", b"not JSON"), ("201 Created", b"{}"), ("503 Busy", b'{"cause":"x"}')])
def test_an_answer_that_makes_no_sense_is_media_unavailable(world: World, answer: tuple[str, bytes]) -> None:
    world.media_fork.answer = answer
    record = world.rows.call(world.switch.call())
    assert (record.outcome, record.cause) == (Outcome.REFUSED, RefusalCause.MEDIA_UNAVAILABLE)


def test_no_media_fork_at_all_is_media_unavailable(world: World) -> None:
    world.media_fork.stop()
    record = world.rows.call(world.switch.call())
    assert (record.outcome, record.cause) == (Outcome.REFUSED, RefusalCause.MEDIA_UNAVAILABLE)


class TestSlowMediaFork:
    @pytest.fixture
    def changes(self) -> dict[str, Any]:
        return {"esl_app": {"answer_within_ms": 500}}

    def test_a_reservation_that_takes_too_long_refuses_the_call_and_is_given_back_in_vain_at_worst(
        self, world: World
    ) -> None:
        world.media_fork.delay_s = 5
        record = world.rows.call(world.switch.call())
        assert (record.outcome, record.cause) == (Outcome.REFUSED, RefusalCause.MEDIA_UNAVAILABLE)
        assert record.ended_at is not None and record.ended_at - record.started_at < world.media_fork.delay_s


def test_a_caller_who_cancels_gets_no_answer_and_the_session_is_given_back(world: World) -> None:
    world.media_fork.delay_s = 0.3
    call = world.switch.call()
    until(lambda: world.media_fork.reserved, "the reservation")
    call.hang_up("ORIGINATOR_CANCEL")
    record = world.rows.call(call)
    assert record.outcome is Outcome.ABANDONED
    assert record.answered_at is None
    until(lambda: world.media_fork.released, "the session to be given back")
    assert world.media_fork.released == [f"s-{record.id}"]
    assert not call.answered.is_set()


@pytest.mark.parametrize("missing", ["X_Tandem_Call", "X_Tandem_Agent", "X_Tandem_Number"])
def test_a_call_that_did_not_come_by_the_edge_is_refused(world: World, missing: str) -> None:
    call = world.switch.call(**{missing: ""})
    record = world.rows.call(call)
    assert (record.outcome, record.cause, record.sip_status) == (Outcome.REFUSED, RefusalCause.BAD_CALL, 603)
    assert world.media_fork.reserved == []


def test_a_call_id_that_is_none_is_refused_and_never_used(world: World) -> None:
    call = world.switch.call(X_Tandem_Call="../../etc/passwd")
    record = world.rows.call(call)
    assert record.cause == RefusalCause.BAD_CALL
    assert record.id == call.uuid


def test_an_unknown_agent_is_refused(world: World) -> None:
    record = world.rows.call(world.switch.call(X_Tandem_Agent="nobody"))
    assert (record.outcome, record.cause, record.sip_status) == (Outcome.REFUSED, RefusalCause.UNKNOWN_AGENT, 404)


def test_beyond_capacity_a_call_is_refused_and_the_others_go_on(world: World) -> None:
    calls = [world.talking() for _ in range(3)]
    one_more = world.switch.call()
    record = world.rows.call(one_more)
    assert (record.outcome, record.cause, record.sip_status) == (Outcome.REFUSED, RefusalCause.AT_CAPACITY, 503)
    assert len(world.media_fork.reserved) == 3
    calls[0].hang_up()
    until(lambda: world.server.health()["calls"] == 2, "a call to end")
    world.talking()
    for call in calls[1:]:
        assert call.hangup_cause is None


def test_digits_reach_the_agent(world: World) -> None:
    call = world.talking()
    call.happens("DTMF", {"DTMF-Digit": "5", "DTMF-Duration": "1600"})
    call.happens("DTMF", {"DTMF-Digit": "%", "DTMF-Duration": "x"})
    call.happens("DTMF", {"DTMF-Digit": "#", "DTMF-Duration": "nonsense"})
    until(lambda: len(call.texts) == 2, "two notices")
    assert call.texts == [
        {"notice": "dtmf", "digit": "5", "duration_ms": 200},
        {"notice": "dtmf", "digit": "#", "duration_ms": 0},
    ]


def test_the_agent_hangs_up(world: World) -> None:
    call = world.talking()
    call.decides({"command": "hang_up", "id": "h1", "reason": "done"})
    record = world.rows.call(call)
    assert record.outcome is Outcome.AGENT_HUNG_UP
    assert call.hangup_cause == "NORMAL_CLEARING"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "[]",
        '{"type":"json"}',
        '{"type":"json","data":{"command":"dial","number":"911"}}',
        '{"type":"json","data":{"command":"transfer","id":"t","destination":"sales","dial":"911"}}',
        '{"type":"other","data":{"command":"hang_up","id":"x"}}',
        '{"type":"json","data":{"command":"hang_up","id":""}}',
        "{" * 10000,
        "\x00\ud7ff",
    ],
)
def test_json_that_is_no_command_is_counted_and_ignored(world: World, body: str) -> None:
    call = world.talking()
    before = metric("tandem_commands_invalid_total")
    call.custom("mod_audio_fork::json", body)
    until(lambda: metric("tandem_commands_invalid_total") == before + 1, "it to be counted")
    call.happens("DTMF", {"DTMF-Digit": "1", "DTMF-Duration": "800"})
    until(lambda: call.texts, "the call to go on")
    assert call.hangup_cause is None


def test_a_switch_that_goes_away_in_mid_call_is_on_record(world: World) -> None:
    call = world.talking()
    call.close()
    record = world.rows.call(call)
    assert (record.outcome, record.cause) == (Outcome.FAILED, "switch_lost")


def test_a_switch_that_goes_away_before_answer_is_no_abandoned_call(world: World) -> None:
    world.media_fork.delay_s = 0.2
    call = world.switch.call()
    until(lambda: world.media_fork.reserved, "the reservation")
    call.close()
    record = world.rows.call(call)
    assert (record.outcome, record.cause) == (Outcome.REFUSED, RefusalCause.CONTROLLER_ERROR)
    until(lambda: world.media_fork.released, "the session to be given back")


def test_a_switch_that_does_not_answer_the_call_is_refused_and_the_session_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esl_app.call.ANSWER_S", 0.2)
    call = world.switch.call(start=False)
    call.answers = False
    gevent.spawn(call.serve)
    record = world.rows.call(call)
    assert (record.outcome, record.cause) == (Outcome.REFUSED, RefusalCause.CONTROLLER_ERROR)
    until(lambda: world.media_fork.released, "the session to be given back")


def test_a_command_that_fails_as_the_caller_leaves_is_the_callers_hangup(world: World) -> None:
    world.switch.refuse_api.add("uuid_audio_fork")
    call = world.switch.call()
    until(call.answered.is_set, "the answer")
    call.hang_up()
    record = world.rows.call(call)
    assert record.outcome in (Outcome.CALLER_HUNG_UP, Outcome.FAILED)
    world.idle()


def test_an_exception_in_one_call_is_that_calls_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    other = world.talking()
    broken = world.talking()

    def explode(*_: object) -> None:
        raise ZeroDivisionError("as a test")

    monkeypatch.setattr("esl_app.transfer.hunting.decide", explode)
    errors = metric("tandem_esl_errors_total", where="call")
    world.transfer(broken, "sales")
    record = world.rows.call(broken)
    assert (record.outcome, record.cause) == (Outcome.FAILED, RefusalCause.CONTROLLER_ERROR)
    assert broken.hangup_cause == "NORMAL_CLEARING"
    assert metric("tandem_esl_errors_total", where="call") == errors + 1
    other.happens("DTMF", {"DTMF-Digit": "1", "DTMF-Duration": "800"})
    until(lambda: other.texts, "the other call to go on")


def test_the_last_worker_takes_a_message_where_it_has_no_model(world: World) -> None:
    world.media_fork.refuse("model_unavailable")
    call = world.switch.call(X_Tandem_Fallback="ladder")
    record = world.rows.call(call)
    assert (record.outcome, record.cause) == (Outcome.FELL_BACK, RefusalCause.MODEL_UNAVAILABLE)
    assert [application for application, _ in call.executed] == [
        "ring_ready", "answer", "playback", "playback", "record",
    ]  # fmt: skip


def test_the_last_worker_with_a_model_takes_the_call(world: World) -> None:
    call = world.talking(X_Tandem_Fallback="ladder")
    call.hang_up()
    assert world.rows.call(call).outcome is Outcome.CALLER_HUNG_UP


def test_the_last_worker_refuses_what_no_message_would_help(world: World) -> None:
    world.media_fork.refuse("unknown_agent", "404 Not Found")
    record = world.rows.call(world.switch.call(X_Tandem_Fallback="ladder"))
    assert (record.outcome, record.sip_status) == (Outcome.REFUSED, 404)


def recorded(call: FakeCall) -> str:
    return next(arguments for application, arguments in call.executed if application == "record")


def played(call: FakeCall) -> list[str]:
    return [arguments.rsplit("/", 1)[-1] for application, arguments in call.executed if application == "playback"]


class TestLostConversation:
    @pytest.fixture
    def changes(self) -> dict[str, Any]:
        return {"esl_app": {"fork_within_ms": 500, "voicemail_seconds": 7}}

    @pytest.mark.parametrize("fork", ["fail", "silence"])
    def test_a_fork_that_does_not_connect_means_an_apology_and_the_fallback(self, world: World, fork: str) -> None:
        world.switch.fork = fork
        call = world.switch.call()
        record = world.rows.call(call)
        assert (record.outcome, record.cause) == (Outcome.FELL_BACK, "fork_not_connected")
        assert played(call)[:2] == ["apology.wav", "leave_message.wav"]
        assert recorded(call).split(" ")[1] == "7"
        assert recorded(call).split(" ")[0].endswith(f"/voicemail/{record.id}.wav")
        assert call.fork is None, "the media bug is stopped, or no other fork could start"
        until(lambda: world.media_fork.released, "the session to be given back")

    @pytest.mark.parametrize(
        ("event", "cause"),
        [("disconnect", "fork_lost"), ("model_lost", "model_lost")],
    )
    def test_a_loss_in_mid_call_takes_the_caller_to_the_fallback(self, world: World, event: str, cause: str) -> None:
        world.switch.on_dial = lambda leg: (leg.ring(), leg.answer())
        call = world.talking(X_Tandem_Number="+12025550102")
        if event == "disconnect":
            call.custom("mod_audio_fork::disconnect")
        else:
            call.decides({"command": "model_lost", "cause": "gone"})
        until(lambda: world.switch.legs and world.switch.legs[0].answered, "the fallback to be rung")
        until(lambda: any(row.transferred_to for row in world.rows if hasattr(row, "transferred_to")), "the bridge")
        assert "sip:2001@" in world.switch.legs[0].dial_string
        call.hang_up()
        record = world.rows.call(call)
        assert (record.outcome, record.cause, record.transferred_to) == (Outcome.FELL_BACK, cause, "sales")
        world.switch.legs[0].kill("NORMAL_CLEARING")
        world.idle()

    def test_a_fallback_that_is_busy_is_a_failed_call_and_the_caller_is_not_left_in_silence(self, world: World) -> None:
        world.switch.on_dial = lambda leg: leg.fail("USER_BUSY", 486)
        call = world.talking(X_Tandem_Number="+12025550102")
        call.decides({"command": "model_lost", "cause": "gone"})
        record = world.rows.call(call)
        assert (record.outcome, record.cause) == (Outcome.FAILED, "model_lost")
        assert call.hangup_cause == "NORMAL_CLEARING"

    def test_without_a_fallback_the_call_ends_with_words_of_regret(self, world: World) -> None:
        call = world.talking(X_Tandem_Number="+12025550103")
        call.decides({"command": "model_lost", "cause": "gone"})
        assert world.rows.call(call).outcome is Outcome.FAILED
        assert played(call) == ["apology.wav", "regret.wav"]

    def test_a_caller_who_hangs_up_during_the_apology_did_not_reach_the_fallback(self, world: World) -> None:
        world.switch.plays.clear()
        call = world.talking()
        call.decides({"command": "model_lost", "cause": "gone"})
        until(lambda: played(call) == ["apology.wav"], "the apology")
        call.hang_up()
        assert world.rows.call(call).outcome is Outcome.FAILED

    def test_a_message_that_cannot_be_written_is_no_message(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.switch.records = False
        call = world.talking()
        call.decides({"command": "model_lost", "cause": "gone"})
        record = world.rows.call(call)
        assert (record.outcome, record.cause) == (Outcome.FAILED, "model_lost")
        assert f"cannot record into {recorded(call).split(' ')[0]}" in caplog.text

    def test_a_caller_who_hangs_up_before_the_tone_reached_the_fallback_all_the_same(self, world: World) -> None:
        call = world.talking()
        call.decides({"command": "model_lost", "cause": "gone"})
        until(lambda: bool(played(call)), "the apology")
        world.switch.plays.clear()
        until(lambda: "leave_message" in call.executed[-1][1], "the prompt")
        call.hang_up()
        assert world.rows.call(call).outcome is Outcome.FELL_BACK

    def test_a_caller_who_hangs_up_during_the_message_has_left_one(self, world: World) -> None:
        call = world.talking()
        world.switch.plays.set()
        call.decides({"command": "model_lost", "cause": "gone"})

        def speaks() -> None:
            until(lambda: call.executed[-1][0] == "record", "the recording")
            call.hang_up()

        gevent.spawn(speaks)
        record = world.rows.call(call)
        assert (record.outcome, record.cause) == (Outcome.FELL_BACK, "model_lost")


OFFER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP {}\r\n{}a=ptime:20\r\n"


@pytest.mark.parametrize(
    ("payload_types", "attributes", "codec"),
    [
        ("0 8 101", "a=rtpmap:101 telephone-event/8000\r\n", "PCMU"),
        ("8 0", "", "PCMA"),
        ("8", "a=rtpmap:8 PCMA/8000\r\n", "PCMA"),
        ("9 0", "", "L16"),
        ("96 8", "a=rtpmap:96 opus/48000/2\r\n", "PCMA"),
        ("9 0", "a=rtpmap:9 G722/8000\r\n", "L16"),
        ("9 0", "a=rtpmap:9 g722/8000/1\r\n", "L16"),
        ("9 0", "a=rtpmap:9 G722/16000\r\n", "PCMU"),
        ("96 0", "a=rtpmap:96 G722/8000\r\n", "PCMU"),
        ("18", "", "PCMU"),
    ],
)
def test_before_the_negotiation_the_codec_is_taken_from_the_offer(
    world: World, payload_types: str, attributes: str, codec: str
) -> None:
    offer = OFFER.format(payload_types, attributes)
    world.talking(variable_rtp_use_codec_name="", variable_switch_r_sdp=offer)
    assert world.media_fork.reserved[0]["codec"] == codec
