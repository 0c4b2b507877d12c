"""Causes and SIP statuses, both ways, and the Reason header (RFC 3326)."""

import pytest

from lab.switch.cause import Cause, of_sip, parse, reason_header, sip_status


# Seen with FreeSWITCH 1.10.12: an unanswered call hung up for a cause.
@pytest.mark.parametrize(
    ("cause", "status", "header"),
    [
        ("USER_BUSY", 486, 'Q.850;cause=17;text="USER_BUSY"'),
        ("CALL_REJECTED", 603, 'Q.850;cause=21;text="CALL_REJECTED"'),
        ("NO_ANSWER", 480, 'Q.850;cause=19;text="NO_ANSWER"'),
        ("UNALLOCATED_NUMBER", 404, 'Q.850;cause=1;text="UNALLOCATED_NUMBER"'),
        ("NORMAL_TEMPORARY_FAILURE", 503, 'Q.850;cause=41;text="NORMAL_TEMPORARY_FAILURE"'),
        ("NORMAL_CLEARING", 480, 'Q.850;cause=16;text="NORMAL_CLEARING"'),
        ("MEDIA_TIMEOUT", 480, 'SIP;cause=804;text="MEDIA_TIMEOUT"'),
        ("ORIGINATOR_CANCEL", 487, 'SIP;cause=487;text="ORIGINATOR_CANCEL"'),
    ],
)
def test_a_cause_becomes_a_status_and_a_reason(cause, status, header):
    assert sip_status(parse(cause)) == status
    assert reason_header(parse(cause)) == header


@pytest.mark.parametrize(
    ("status", "reason", "cause"),
    [
        (486, None, Cause.USER_BUSY),
        (404, None, Cause.UNALLOCATED_NUMBER),
        (480, None, Cause.NO_USER_RESPONSE),
        (503, None, Cause.NORMAL_TEMPORARY_FAILURE),
        (603, None, Cause.CALL_REJECTED),
        (408, None, Cause.RECOVERY_ON_TIMER_EXPIRE),
        (200, None, Cause.NORMAL_CLEARING),
        (486, 'Q.850;cause=21;text="CALL_REJECTED"', Cause.CALL_REJECTED),
        (200, "Q.850 ;text=x;cause=17", Cause.USER_BUSY),
        (486, 'SIP;cause=200;text="elsewhere"', Cause.USER_BUSY),
        (486, "Q.850;cause=9999", Cause.USER_BUSY),
        (499, None, Cause.NORMAL_UNSPECIFIED),
    ],
)
def test_a_status_and_its_reason_become_a_cause(status, reason, cause):
    assert of_sip(status, reason) is cause


@pytest.mark.parametrize("text", ["", None, "NONSENSE", "9999", "usr_busy"])
def test_what_is_no_cause_is_normal_clearing(text):
    assert parse(text) is Cause.NORMAL_CLEARING


def test_causes_go_by_number_and_in_any_case():
    assert parse("17") is parse("user_busy") is Cause.USER_BUSY


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_final_status_and_a_reason(cause):
    assert 300 <= sip_status(cause) < 700
    # Of a lost race FreeSWITCH says what RFC 3326 has for it.
    said = 200 if cause is Cause.LOSE_RACE else cause.value
    assert f"cause={said};" in reason_header(cause)
