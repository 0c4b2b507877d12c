"""Transfers end in what really happened, the agent is told which, and whatever ends one early leaves no leg behind."""

import re
from typing import Any

import gevent
import pytest

from tandem.outcome import Outcome, TransferOutcome
from tests.esl.conftest import World, metric
from tests.esl.fake_switch import FakeCall, FakeLeg, until


def told(call: FakeCall) -> list[str | None]:
    """The outcomes in the agent's transfer notices, None for ringing."""
    return [text["outcome"] for text in call.texts if text.get("notice") == "transfer"]


def rings_and_answers(leg: FakeLeg) -> None:
    leg.ring()
    leg.answer()


def put_through(world: World) -> tuple[FakeCall, FakeLeg]:
    world.switch.on_dial = rings_and_answers
    call = world.talking()
    world.transfer(call, "sales")
    until(lambda: any(api.startswith("uuid_bridge") for api in world.switch.apis), "the bridge")
    until(lambda: world.rows.transfers()[-1].outcome, "the transfer to be on record")
    return call, world.switch.legs[0]


def test_an_answered_target_is_bridged_and_the_agent_leaves_first(world: World) -> None:
    call, leg = put_through(world)
    assert told(call) == [None]
    assert call.texts[-1] == {"notice": "ended", "why": "transferred"}
    stop = next(i for i, api in enumerate(world.switch.apis) if " stop tandem " in api and "uuid_audio_fork" in api)
    bridge = world.switch.apis.index(f"uuid_bridge {call.uuid} {leg.uuid}")
    assert stop < bridge
    call.hang_up()
    record = world.rows.call(call)
    assert (record.outcome, record.transferred_to) == (Outcome.TRANSFERRED, "sales")
    [transfer] = world.rows.transfers()
    assert (transfer.outcome, transfer.method, transfer.id) == (TransferOutcome.ANSWERED, "bridge", "t1")
    assert transfer.ended_at is not None
    until(lambda: leg.hangup_cause, "the target's leg to be ended as well")
    world.idle()


def test_a_target_that_hangs_up_first_ends_the_callers_leg(world: World) -> None:
    call, leg = put_through(world)
    leg.fail("NORMAL_CLEARING")
    assert world.rows.call(call).outcome is Outcome.TRANSFERRED
    assert call.hangup_cause == "NORMAL_CLEARING"
    world.idle()


def test_a_call_put_through_is_on_record_as_such_while_it_lasts(world: World) -> None:
    put_through(world)
    live = [row for row in world.rows if getattr(row, "transferred_to", None) == "sales"]
    assert live and live[-1].outcome is None


def test_the_dial_string_is_made_of_checked_parts(world: World) -> None:
    call, leg = put_through(world)
    match = re.fullmatch(r"\{(.*)\}sofia/tandem/sip:2001@([0-9.]+):5060;transport=udp &park\(\)", leg.dial_string)
    assert match is not None, leg.dial_string
    variables = dict(pair.split("=", 1) for pair in match[1].split(","))
    assert variables["origination_uuid"] == leg.uuid
    assert variables["sip_h_X-Tandem-Trunk"] == "pbx"
    assert variables["sip_h_X-Tandem-Call"] == call.headers["variable_sip_h_X-Tandem-Call"]
    assert variables["origination_caller_id_number"] == "+12025550147", "a trunk without caller_ids passes the caller's"
    assert variables["ignore_early_media"] == "true"


@pytest.mark.parametrize("caller", ["anonymous", "+1202555014x", "1,origination_uuid=x", "}sofia/evil", ""])
def test_a_caller_who_is_no_number_is_presented_as_anonymous(world: World, caller: str) -> None:
    world.switch.on_dial = rings_and_answers
    call = world.talking(X_Tandem_Caller=caller)
    world.transfer(call, "sales")
    until(lambda: world.switch.legs, "the target to be dialled")
    assert "origination_caller_id_number=anonymous," in world.switch.legs[0].dial_string


@pytest.mark.parametrize(
    ("cause", "status", "rings", "outcome", "words"),
    [
        ("USER_BUSY", 486, False, TransferOutcome.BUSY, "the line is busy (SIP 486)"),
        ("USER_BUSY", 600, False, TransferOutcome.BUSY, "the line is busy (SIP 600)"),
        ("CALL_REJECTED", 603, True, TransferOutcome.REJECTED, "the call was declined (SIP 603)"),
        ("CALL_REJECTED", 403, False, TransferOutcome.REJECTED, "the call was declined (SIP 403)"),
        ("NO_USER_RESPONSE", 480, True, TransferOutcome.NO_ANSWER, "there is no answer (SIP 480)"),
        ("NO_USER_RESPONSE", 480, False, TransferOutcome.UNREACHABLE, "they cannot be reached (SIP 480)"),
        ("UNALLOCATED_NUMBER", 404, False, TransferOutcome.UNREACHABLE, "they cannot be reached (SIP 404)"),
        ("NORMAL_TEMPORARY_FAILURE", 503, False, TransferOutcome.UNREACHABLE, "they cannot be reached (SIP 503)"),
        ("RECOVERY_ON_TIMER_EXPIRE", None, False, TransferOutcome.UNREACHABLE, "they cannot be reached"),
    ],
)
def test_a_failed_leg_leaves_the_caller_with_the_agent_who_is_told_which(
    world: World, cause: str, status: int | None, rings: bool, outcome: TransferOutcome, words: str
) -> None:
    def fails(leg: FakeLeg) -> None:
        if rings:
            leg.ring()
        leg.fail(cause, status)

    world.switch.on_dial = fails
    call = world.talking()
    counted = metric("tandem_transfers_total", method="bridge", outcome=outcome)
    world.transfer(call, "sales")
    until(lambda: outcome in told(call), "the agent to be told")
    assert call.texts[-1] == {"notice": "transfer", "id": "t1", "outcome": outcome.value, "detail": words}
    assert told(call) == ([None, outcome] if rings else [outcome])
    [transfer] = world.rows.transfers()
    assert (transfer.outcome, transfer.sip_status) == (outcome, status)
    assert metric("tandem_transfers_total", method="bridge", outcome=outcome) == counted + 1
    assert call.hangup_cause is None and call.fork is not None
    # Still with the agent: a second transfer works.
    world.switch.on_dial = rings_and_answers
    world.transfer(call, "sales", id="t2")
    until(lambda: any(api.startswith("uuid_bridge") for api in world.switch.apis), "the bridge")


@pytest.mark.parametrize(
    ("refused", "status", "outcome", "words"),
    [
        ("too_many_calls", 503, TransferOutcome.REFUSED_BY_POLICY, "are up; it may be possible later"),
        ("too_many_calls_per_hour", 503, TransferOutcome.REFUSED_BY_POLICY, "were made in the last hour"),
        ("premium_number", 403, TransferOutcome.REFUSED_BY_POLICY, "premium numbers are not allowed"),
        ("emergency_from_worker", 403, TransferOutcome.REFUSED_BY_POLICY, "emergency numbers are not allowed"),
        ("outgoing_rate", 503, TransferOutcome.UNREACHABLE, "they cannot be reached (SIP 503)"),
        ("unknown_destination", 403, TransferOutcome.REJECTED, "the call was declined (SIP 403)"),
    ],
)
def test_what_the_edge_refused_by_the_dial_policy_is_told_as_that(
    world: World, refused: str, status: int, outcome: TransferOutcome, words: str
) -> None:
    world.switch.on_dial = lambda leg: leg.fail("CALL_REJECTED", status, refused)
    call = world.talking()
    counted = metric("tandem_dial_refused_total", refusal="too_many_calls")
    world.transfer(call, "sales")
    until(lambda: outcome in told(call), "the agent to be told")
    assert call.texts[-1]["detail"].endswith(words)
    [transfer] = world.rows.transfers()
    assert (transfer.outcome, transfer.sip_status) == (outcome, status)
    more = metric("tandem_dial_refused_total", refusal="too_many_calls") - counted
    assert more == (refused == "too_many_calls")


def test_the_edge_is_told_whose_call_it_is(world: World) -> None:
    call = world.talking(**{"variable_sip_h_X-Tandem-Tenant": "acme"})
    world.transfer(call, "sales")
    until(lambda: world.switch.legs, "the target to be dialled")
    assert "sip_h_X-Tandem-Tenant=acme," in world.switch.legs[0].dial_string


def test_a_dialling_that_makes_no_leg_at_all_fails_the_transfer(world: World) -> None:
    world.switch.make_legs = False
    call = world.talking()
    world.transfer(call, "sales")
    until(lambda: world.switch.jobs, "the dialling")
    world.switch.job_done(next(iter(world.switch.jobs)), "-ERR INVALID_PROFILE")
    until(lambda: told(call) == [TransferOutcome.UNREACHABLE], "the agent to be told")


class TestRinging:
    @pytest.fixture
    def changes(self) -> dict[str, Any]:
        return {"destinations": {"sales": {"description": "s", "dial": "2001", "trunk": "pbx", "ring_seconds": 5}}}

    @pytest.mark.parametrize(("rings", "outcome"), [(True, "no_answer"), (False, "unreachable")])
    def test_ringing_is_bounded_and_the_leg_cancelled(
        self, world: World, rings: bool, outcome: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("esl_app.hunt.SILENCE_S", 0.1)
        world.switch.on_dial = lambda leg: leg.ring() if rings else None
        call = world.talking()
        shortened = world.settings.destinations["sales"].model_copy(update={"ring_seconds": 1})
        monkeypatch.setitem(world.settings.destinations, "sales", shortened)
        world.transfer(call, "sales")
        until(lambda: outcome in told(call), "the agent to be told")
        [leg] = world.switch.legs
        until(lambda: leg.hangup_cause, "the leg to be ended")
        assert leg.hangup_cause == ("NO_ANSWER" if rings else "NORMAL_CLEARING")
        tone = [api for api in world.switch.apis if api.startswith("uuid_displace")]
        assert [api.split(" ")[2] for api in tone] == ["start", "stop"]
        assert call.hangup_cause is None

    def test_the_agent_keeps_hearing_digits_and_may_not_transfer_twice(self, world: World) -> None:
        world.switch.on_dial = lambda leg: leg.ring()
        call = world.talking()
        world.transfer(call, "sales")
        until(lambda: told(call) == [None], "ringing")
        call.happens("DTMF", {"DTMF-Digit": "9", "DTMF-Duration": "800"})
        world.transfer(call, "sales", id="t2")
        until(lambda: len(call.texts) == 3, "both to be told")
        assert call.texts[1]["digit"] == "9"
        assert (call.texts[2]["id"], call.texts[2]["outcome"]) == ("t2", "failed")
        assert len(world.switch.legs) == 1

    def test_a_caller_who_hangs_up_leaves_no_leg(self, world: World) -> None:
        world.switch.on_dial = lambda leg: leg.ring()
        call = world.talking()
        world.transfer(call, "sales")
        until(lambda: told(call) == [None], "ringing")
        call.hang_up()
        assert world.rows.call(call).outcome is Outcome.CALLER_HUNG_UP
        assert [transfer.outcome for transfer in world.rows.transfers()] == [TransferOutcome.CALLER_HUNG_UP]
        world.idle()

    def test_the_agents_hang_up_ends_both_legs(self, world: World) -> None:
        world.switch.on_dial = lambda leg: leg.ring()
        call = world.talking()
        world.transfer(call, "sales")
        until(lambda: told(call) == [None], "ringing")
        call.decides({"command": "hang_up", "id": "h1"})
        assert world.rows.call(call).outcome is Outcome.AGENT_HUNG_UP
        world.idle()

    def test_a_switch_connection_lost_while_it_rings_ends_the_leg_as_soon_as_it_is_back(self, world: World) -> None:
        world.switch.on_dial = lambda leg: leg.ring()
        call = world.talking()
        world.transfer(call, "sales")
        until(lambda: told(call) == [None], "ringing")
        world.switch.drop_inbound()
        call.hang_up()
        assert world.rows.call(call).outcome is Outcome.CALLER_HUNG_UP
        world.idle()

    def test_the_calls_own_socket_lost_while_it_rings_ends_the_leg(self, world: World) -> None:
        world.switch.on_dial = lambda leg: leg.ring()
        call = world.talking()
        world.transfer(call, "sales")
        until(lambda: told(call) == [None], "ringing")
        call.close()
        assert world.rows.call(call).outcome is Outcome.FAILED
        assert [transfer.outcome for transfer in world.rows.transfers()] == [TransferOutcome.FAILED]
        world.idle()

    def test_a_model_lost_while_it_rings_does_not_stop_the_ringing(self, world: World) -> None:
        world.switch.on_dial = lambda leg: leg.ring()
        call = world.talking()
        world.transfer(call, "sales")
        until(lambda: told(call) == [None], "ringing")
        call.decides({"command": "model_lost", "cause": "gone"})
        world.switch.legs[0].answer()
        until(lambda: any(api.startswith("uuid_bridge") for api in world.switch.apis), "the bridge")
        call.hang_up()
        assert world.rows.call(call).outcome is Outcome.TRANSFERRED

    def test_a_model_lost_while_it_rings_and_then_no_answer_means_the_fallback(self, world: World) -> None:
        world.switch.on_dial = lambda leg: leg.ring()
        call = world.talking()
        world.transfer(call, "sales")
        until(lambda: told(call) == [None], "ringing")
        call.custom("mod_audio_fork::disconnect")
        world.switch.legs[0].fail("USER_BUSY", 486)
        record = world.rows.call(call)
        assert (record.outcome, record.cause) == (Outcome.FELL_BACK, "fork_lost")


@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.005, 0.02])
def test_answer_and_hang_up_at_once_leave_no_leg(world: World, delay_s: float) -> None:
    def answers_as_the_caller_leaves(leg: FakeLeg) -> None:
        leg.ring()
        leg.answer()
        gevent.sleep(delay_s)
        call.hang_up()

    world.switch.on_dial = answers_as_the_caller_leaves
    call = world.talking()
    world.transfer(call, "sales")
    assert world.rows.call(call).outcome in (Outcome.CALLER_HUNG_UP, Outcome.TRANSFERRED)
    world.idle()


def test_a_caller_who_hangs_up_before_the_leg_is_even_made_leaves_none(world: World) -> None:
    world.switch.make_legs = False
    call = world.talking()
    world.transfer(call, "sales")
    until(lambda: world.switch.jobs, "the dialling")
    call.hang_up()
    assert world.rows.call(call).outcome is Outcome.CALLER_HUNG_UP
    job = next(iter(world.switch.jobs))
    until(lambda: any(api.startswith(f"uuid_kill {job}") for api in world.switch.apis), "a first try to end it")
    leg = world.switch.make_leg(job)
    leg.ring()
    until(lambda: leg.hangup_cause, "the late leg to be ended")
    world.idle()


def test_a_bridge_that_does_not_happen_takes_the_caller_to_the_fallback(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esl_app.consultation.BRIDGE_S", 0.2)
    world.switch.bridges = False
    world.switch.on_dial = rings_and_answers
    call = world.talking()
    world.transfer(call, "sales")
    record = world.rows.call(call)
    assert (record.outcome, record.cause) == (Outcome.FELL_BACK, "fork_lost")
    assert [transfer.outcome for transfer in world.rows.transfers()] == [
        TransferOutcome.FAILED,
        TransferOutcome.ANSWERED,
    ]
    world.idle()


def test_what_the_agent_decided_before_the_answer_does_not_cut_the_caller_off(world: World) -> None:
    def answers_as_the_agent_hangs_up(leg: FakeLeg) -> None:
        leg.ring()
        leg.answer()
        call.decides({"command": "hang_up", "id": "h1"})

    world.switch.on_dial = answers_as_the_agent_hangs_up
    call = world.talking()
    world.transfer(call, "sales")
    until(lambda: any(getattr(row, "transferred_to", None) for row in world.rows), "the bridge")
    assert call.hangup_cause is None


def test_a_target_that_hangs_up_as_it_is_bridged_takes_the_caller_to_the_fallback(world: World) -> None:
    def answers_and_leaves(leg: FakeLeg) -> None:
        leg.ring()
        leg.answer()
        leg.fail("NORMAL_CLEARING")

    world.switch.on_dial = answers_and_leaves
    call = world.talking()
    world.transfer(call, "sales")
    record = world.rows.call(call)
    assert record.outcome in (Outcome.FELL_BACK, Outcome.TRANSFERRED)
    world.idle()


@pytest.mark.parametrize(
    ("destination", "outcome"),
    [
        ("premium", TransferOutcome.REFUSED_BY_POLICY),
        ("president", TransferOutcome.UNKNOWN_DESTINATION),
        ("Sales", TransferOutcome.UNKNOWN_DESTINATION),
        ("sales ", TransferOutcome.UNKNOWN_DESTINATION),
        ("+12025550160", TransferOutcome.UNKNOWN_DESTINATION),
        ("911", TransferOutcome.UNKNOWN_DESTINATION),
        ("", TransferOutcome.UNKNOWN_DESTINATION),
        ("'}sofia/tandem/sip:911@127.0.0.1", TransferOutcome.UNKNOWN_DESTINATION),
    ],
)
def test_what_the_policy_refuses_is_not_dialled_and_the_agent_is_told(
    world: World, destination: str, outcome: TransferOutcome
) -> None:
    call = world.talking()
    world.transfer(call, destination)
    until(lambda: told(call) == [outcome], "the agent to be told")
    assert world.switch.legs == [] and world.switch.jobs == {}
    assert [transfer.outcome for transfer in world.rows.transfers()] == [outcome]
    assert call.hangup_cause is None


class TestRefer:
    def referred(self, world: World, status: str | None = "202") -> FakeCall:
        call = world.talking()
        world.transfer(call, "partner")
        until(lambda: any("bgapi uuid_deflect" in command for command in call.commands), "the REFER")
        if status is not None:
            call.variables["sip_refer_status_code"] = status
        return call

    def test_the_refer_to_is_bare_and_private_headers_stay_inside(self, world: World) -> None:
        call = self.referred(world)
        [deflect] = [command for command in call.commands if "uuid_deflect" in command]
        assert deflect == f"bgapi uuid_deflect {call.uuid} sip:+12025550160@127.0.0.21:5060"
        assert call.variables["sip_refer_continue_after_reply"] == "true"
        assert call.variables["exclude_outgoing_extra_header"] == "^sip_h_X-Tandem-"

    def test_it_is_done_when_the_notify_says_200(self, world: World) -> None:
        call = self.referred(world)
        world.switch.notify(call.uuid, 100, "active")
        world.switch.notify(call.uuid, 180, "active")
        world.switch.notify(call.uuid, 200, "terminated")
        record = world.rows.call(call)
        assert (record.outcome, record.transferred_to) == (Outcome.TRANSFERRED, "partner")
        [transfer] = world.rows.transfers()
        assert (transfer.method, transfer.outcome) == ("refer", TransferOutcome.ANSWERED)
        assert call.hangup_cause == "NORMAL_CLEARING", "the ghost is killed"

    def test_notices_of_another_call_do_not_count(self, world: World) -> None:
        call = self.referred(world)
        world.switch.notify("somebody-else", 200, "terminated")
        world.switch.notify(call.uuid, 100, "active")
        gevent.sleep(0.1)
        assert call.hangup_cause is None

    def test_a_failure_that_ends_the_subscription_ends_the_call_as_failed(self, world: World) -> None:
        call = self.referred(world)
        world.switch.notify(call.uuid, 486, "terminated")
        record = world.rows.call(call)
        assert (record.outcome, record.cause, record.sip_status) == (Outcome.FAILED, "refer_failed", 486)
        assert [transfer.outcome for transfer in world.rows.transfers()] == [TransferOutcome.BUSY]
        assert call.hangup_cause == "NORMAL_CLEARING", "the ghost is killed"

    def test_a_failure_that_leaves_the_subscription_leaves_the_caller_with_the_agent(self, world: World) -> None:
        call = self.referred(world)
        world.switch.notify(call.uuid, 486, "active")
        until(lambda: told(call) == [TransferOutcome.BUSY], "the agent to be told")
        assert call.hangup_cause is None

    def test_a_refused_refer_is_bridged_instead(self, world: World) -> None:
        world.switch.on_dial = rings_and_answers
        call = self.referred(world, "603")
        until(lambda: world.switch.legs, "the target to be dialled")
        assert "sip:+12025550160@" in world.switch.legs[0].dial_string
        assert "sip_h_X-Tandem-Trunk=carrier" in world.switch.legs[0].dial_string
        assert "origination_caller_id_number=+12025550100" in world.switch.legs[0].dial_string, "only its own numbers"
        until(lambda: any(api.startswith("uuid_bridge") for api in world.switch.apis), "the bridge")
        call.hang_up()
        assert world.rows.call(call).outcome is Outcome.TRANSFERRED
        [transfer] = world.rows.transfers()
        assert (transfer.method, transfer.outcome) == ("bridge", TransferOutcome.ANSWERED)

    def test_a_refer_that_nobody_answers_is_bridged_instead(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("esl_app.refer.ANSWER_S", 0.3)
        self.referred(world, None)
        until(lambda: world.switch.legs, "the target to be dialled")

    def test_a_peer_that_accepts_and_hangs_up_is_not_confirmed(self, world: World) -> None:
        call = self.referred(world)
        world.switch.notify(call.uuid, 100, "active")
        gevent.sleep(0.05)
        call.hang_up()
        record = world.rows.call(call)
        assert record.outcome is Outcome.TRANSFERRED
        assert [transfer.outcome for transfer in world.rows.transfers()] == [TransferOutcome.NOT_CONFIRMED]

    def test_a_caller_who_leaves_before_the_peer_accepts_hung_up(self, world: World) -> None:
        call = self.referred(world, None)
        call.hang_up()
        assert world.rows.call(call).outcome is Outcome.CALLER_HUNG_UP
        assert [transfer.outcome for transfer in world.rows.transfers()] == [TransferOutcome.CALLER_HUNG_UP]

    def test_a_command_that_fails_under_way_ends_the_transfer_as_failed(self, world: World) -> None:
        call = self.referred(world, None)
        before = metric("tandem_transfers_total", method="refer", outcome="failed")
        world.switch.refuse_api.add("uuid_getvar")
        assert world.rows.call(call).outcome is Outcome.FAILED
        [transfer] = world.rows.transfers()
        assert (transfer.method, transfer.outcome) == ("refer", TransferOutcome.FAILED)
        assert transfer.ended_at is not None
        assert metric("tandem_transfers_total", method="refer", outcome="failed") == before + 1

    def test_without_a_final_notify_the_caller_stays_and_the_agent_knows(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("esl_app.refer.WATCHDOG_S", 0.3)
        call = self.referred(world)
        until(lambda: told(call) == [TransferOutcome.NOT_CONFIRMED], "the agent to be told")
        assert call.hangup_cause is None

    def test_a_final_notify_missed_while_the_switch_was_away_is_found_at_the_end(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("esl_app.refer.WATCHDOG_S", 0.3)
        call = self.referred(world)
        call.variables["sip_refer_target_status_code"] = "200"
        assert world.rows.call(call).outcome is Outcome.TRANSFERRED
        assert call.hangup_cause == "NORMAL_CLEARING"
