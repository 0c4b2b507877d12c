"""Keys on the caller's leg: heard as tones where the caller's side has no telephone-events (RFC 4733), and sent."""

import gevent

from esl_app.fork import Fork
from esl_app.leg import Leg
from esl_app.protocol import COMMAND_FAILURES
from tandem.outcome import ActionOutcome
from tandem.seam import Acted, SendDtmf

KEY_MS = 160
GAP_S = 0.1
"""FreeSWITCH's, between two keys."""
PAUSES_S = {"w": 0.5, "W": 1.0}


def listen(leg: Leg, telephone_event: bool) -> None:
    """Have keys told that come as tones. Where there are telephone-events the tones would be the same keys again."""
    if telephone_event:
        return
    try:
        leg.session.execute("start_dtmf")
    except COMMAND_FAILURES as error:
        leg.log.warning("keys that come as tones are not heard: %s", error)


def send(leg: Leg, fork: Fork, telephone_event: bool, wanted: SendDtmf) -> None:
    """Press keys; the agent is told once they are sent."""
    if not telephone_event:
        detail = "the other side takes no keys: it has no telephone-events"
        fork.tell(Acted(id=wanted.id, outcome=ActionOutcome.REFUSED, detail=detail))
        return
    try:
        leg.session.api("uuid_send_dtmf", leg.uuid, f"{wanted.digits}@{KEY_MS}")
    except COMMAND_FAILURES as error:
        leg.log.warning("keys were not sent: %s", error)
        fork.tell(Acted(id=wanted.id, outcome=ActionOutcome.FAILED, detail="the keys could not be sent"))
        return
    takes_s = sum(PAUSES_S.get(key, KEY_MS / 1000 + GAP_S) for key in wanted.digits)
    gevent.spawn_later(
        takes_s, fork.tell, Acted(id=wanted.id, outcome=ActionOutcome.DONE, detail="the keys were pressed")
    )
