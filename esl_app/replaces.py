"""Attended transfer by REFER with Replaces (RFC 3891, RFC 5589 section 7): the caller's peer calls the target in our place.

Caller and target are connected here first and talk already. Then the peer is asked to take the target's dialog over; the
target ends its call with us for it, and the media leave this worker. Whatever goes wrong costs nothing: the two stay
connected here.
"""

import re
from enum import Enum, auto
from urllib.parse import quote

from esl_app import refer
from esl_app.happenings import LegEnded, ReferNotice
from esl_app.inbound import Dialling, Inbound, SwitchAway
from esl_app.leg import HungUp, Leg
from esl_app.protocol import COMMAND_FAILURES

RESULT_S = 20.0
"""From the REFER to its final NOTIFY; later than that the two simply stay connected here."""
NOTICE_S = 2.0
"""From the target's BYE to the NOTIFY that says why."""
MAX_URI = 1000
"""FreeSWITCH cuts a longer Refer-To off."""

_CALL_ID = re.compile(r"[!-~]{1,256}")
_TAG = re.compile(r"[A-Za-z0-9.!%*_+`'~-]{1,128}")


class Moved(Enum):
    AWAY = auto()
    """The two are connected without us."""
    NOT = auto()
    """They are connected here as before."""
    OVER = auto()
    """Somebody hung up meanwhile."""


def move(leg: Leg, inbound: Inbound, target: Dialling, uri: str) -> Moved:
    """Ask the caller's peer to call ``uri`` in place of the bridged ``target``. Raises HungUp where the switch was lost."""
    inbound.hear_notices(leg.uuid, leg.put)
    try:
        _outlive_bridge(leg, True)
        mark = "&" if "?" in uri else "?"
        refer.send(leg, inbound, f"{uri}{mark}Replaces={_replaces(leg, target)}&Require=replaces")
        moved = _watch(leg, target)
        if moved is Moved.NOT:
            _outlive_bridge(leg, False)
        return moved
    except HungUp as gone:
        if gone.lost:
            raise
        return Moved.OVER
    except (SwitchAway, ValueError, *COMMAND_FAILURES) as error:
        leg.log.warning("REFER with Replaces: %s", error)
        return Moved.NOT
    finally:
        inbound.forget_notices(leg.uuid)


def _replaces(leg: Leg, target: Dialling) -> str:
    """The target's dialog from its own point of view (RFC 3891 section 6.1), escaped. Raises ValueError."""
    names = ("sip_call_id", "sip_to_tag", "sip_from_tag")
    call_id, its_tag, our_tag = (leg.session.variable(name, target.channel) for name in names)
    if not (_CALL_ID.fullmatch(call_id) and _TAG.fullmatch(its_tag) and _TAG.fullmatch(our_tag)):
        raise ValueError(f"the target's dialog {call_id!r} cannot be named")
    text = quote(f"{call_id};to-tag={its_tag};from-tag={our_tag}", safe="")
    if len(text) > MAX_URI - 300:
        raise ValueError(f"a Call-ID of {len(call_id)} characters is too long for a Refer-To")
    return text


def _outlive_bridge(leg: Leg, outlives: bool) -> None:
    """Whether the caller's leg stays for the NOTIFY once the target has ended its own; a few seconds, if we are no more."""
    leg.session.set(
        hangup_after_bridge="false" if outlives else "true",
        park_after_bridge="true" if outlives else "",
        park_timeout="5:NORMAL_CLEARING" if outlives else "",
    )


def _watch(leg: Leg, target: Dialling) -> Moved:
    deadline = leg.clock() + RESULT_S
    accepted = target_gone = False
    while (now := leg.clock()) < deadline:
        happening = leg.next(deadline if accepted else min(deadline, now + refer.POLL_S))
        match happening:
            case ReferNotice(status=status) if 200 <= status < 300:
                return Moved.AWAY
            case ReferNotice(status=status, terminated=terminated) if status >= 300 or terminated:
                leg.log.warning("the caller's peer could not take the call over: SIP %d", status)
                return Moved.OVER if target_gone else Moved.NOT
            case LegEnded(target.channel):
                target_gone = accepted = True
                deadline = min(deadline, leg.clock() + NOTICE_S)
            case None if not accepted and (response := refer.final_response(leg)) is not None:
                if response >= 300:
                    leg.log.info("the caller's peer refused REFER with Replaces: SIP %d", response)
                    return Moved.NOT
                accepted = True
    return Moved.OVER if target_gone else Moved.NOT
