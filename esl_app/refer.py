"""Blind transfer by REFER: the carrier is asked to call the destination itself, and only its NOTIFY tells how that went.

So FreeSWITCH's mod_sofia does it: with sip_refer_continue_after_reply the channel outlives a refused REFER and a
subscription that stays active; but once a NOTIFY terminates the subscription FreeSWITCH sends BYE whatever it said, and
keeps a ghost of the channel that the application has to kill.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from esl_app.dialling import in_words, outcome_of_status
from esl_app.happenings import Happening, ReferNotice
from esl_app.inbound import Inbound, SwitchAway
from esl_app.leg import HungUp, Leg
from esl_app.protocol import COMMAND_FAILURES
from tandem.outcome import TransferOutcome

ANSWER_S = 10.0
"""A peer's final response to the REFER itself; without one it counts as refused."""
WATCHDOG_S = 30.0
"""From 202 to the final NOTIFY."""
POLL_S = 0.1
"""The response to a REFER raises no event; it is seen in a channel variable."""

_TARGET = re.compile(r"sip:(\+?[0-9]{1,15}|[*][0-9*]{1,14})@[A-Za-z0-9.\-\[\]:]{1,253}(\?[A-Za-z0-9.%=&_-]{1,500})?")


@dataclass(frozen=True)
class Referral:
    """How it went. ``refused``: the peer would not take the REFER, and the call is as it was. ``ended``: the caller's leg
    is over with it; otherwise the caller is still here.
    """

    outcome: TransferOutcome
    detail: str
    sip_status: int | None = None
    refused: bool = False
    ended: bool = False


def refer_to(number: str, host: str, headers: str = "") -> str:
    """A bare URI, ``headers`` those of the new call: FreeSWITCH rewrites all that does not begin with ``sip:``. Raises ValueError."""
    uri = f"sip:{number}@{host}{'?' if headers else ''}{headers}"
    if not _TARGET.fullmatch(uri):
        raise ValueError(f"{uri!r} cannot be a Refer-To")
    return uri


def refer(leg: Leg, inbound: Inbound, target: str, meanwhile: Callable[[Happening], None]) -> Referral:
    """Send the REFER and follow it to its end. ``meanwhile`` is given what else happens; what it raises ends the wait.

    A caller who leaves before the peer accepted raises HungUp; after that it is how many peers say that it went well, but
    not certain: NOT_CONFIRMED, ended. A command that fails under way raises what Session's commands raise.
    """
    inbound.hear_notices(leg.uuid, leg.put)
    try:
        return _sent(leg, inbound, target) or _await_acceptance(leg, meanwhile) or _await_result(leg, meanwhile)
    finally:
        inbound.forget_notices(leg.uuid)


def send(leg: Leg, inbound: Inbound, target: str) -> None:
    """Have FreeSWITCH send the REFER; what comes of it is seen in :func:`final_response` and as ReferNotice.

    Raises SwitchAway and what Session's commands raise.
    """
    inbound.require()
    leg.session.set(sip_refer_continue_after_reply="true", sip_refer_status_code="", sip_refer_target_status_code="")
    leg.session.command(f"bgapi uuid_deflect {leg.uuid} {target}")


def final_response(leg: Leg) -> int | None:
    """The peer's final response to the REFER, once there is one. Raises what Session's commands raise."""
    status = leg.session.variable("sip_refer_status_code")
    return int(status) if status.isdigit() and int(status) >= 200 else None


def _sent(leg: Leg, inbound: Inbound, target: str) -> Referral | None:
    """None once it is on its way."""
    try:
        send(leg, inbound, target)
    except (SwitchAway, *COMMAND_FAILURES) as error:
        leg.log.error("REFER to %s failed: %s", target, error)
        return Referral(TransferOutcome.FAILED, in_words(TransferOutcome.FAILED), refused=True)
    return None


def _await_acceptance(leg: Leg, meanwhile: Callable[[Happening], None]) -> Referral | None:
    """None once the peer accepted, or a NOTIFY shows that it did."""
    deadline = leg.clock() + ANSWER_S
    while leg.clock() < deadline:
        happening = leg.next(min(deadline, leg.clock() + POLL_S))
        if isinstance(happening, ReferNotice):
            leg.put(happening)
            return None
        if happening is not None:
            meanwhile(happening)
            continue
        status = final_response(leg)
        if status is not None:
            return None if status < 300 else _refused(status)
    return _refused(None)


def _refused(status: int | None) -> Referral:
    return Referral(TransferOutcome.REJECTED, in_words(TransferOutcome.REJECTED, status), status, refused=True)


def _await_result(leg: Leg, meanwhile: Callable[[Happening], None]) -> Referral:
    deadline = leg.clock() + WATCHDOG_S
    try:
        while (happening := leg.next(deadline)) is not None:
            if not isinstance(happening, ReferNotice):
                meanwhile(happening)
            elif happening.status >= 200 or happening.terminated:
                return _result(happening)
    except HungUp as gone:
        if gone.lost:
            raise
        return _unconfirmed(ended=True)
    missed = leg.session.variable("sip_refer_target_status_code")
    if missed.isdigit() and int(missed) >= 200:
        # The NOTIFY came while the inbound event socket was away: what is here now is FreeSWITCH's ghost.
        return _result(ReferNotice(leg.uuid, int(missed), terminated=True))
    return _unconfirmed(ended=False)


def _result(notice: ReferNotice) -> Referral:
    if notice.status < 200:
        return _unconfirmed(ended=notice.terminated)
    outcome = outcome_of_status(notice.status)
    ended = notice.terminated or outcome is TransferOutcome.ANSWERED
    return Referral(outcome, in_words(outcome, notice.status), notice.status, ended=ended)


def _unconfirmed(ended: bool) -> Referral:
    return Referral(TransferOutcome.NOT_CONFIRMED, in_words(TransferOutcome.NOT_CONFIRMED), ended=ended)
