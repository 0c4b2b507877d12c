"""``deflect``: a SIP REFER on an answered call, and what FreeSWITCH makes of its NOTIFYs (RFC 3515)."""

import asyncio
import re

from lab import message as sip_message
from lab.switch.cause import Cause
from lab.switch.event import Event
from lab.switch.session import Session
from lab.switch.text import is_true
from lab.transaction import ServerTransaction

ACKNOWLEDGED_WITHIN_S = 10.0
"""How long ``deflect`` waits for the call's ACK, and sends nothing meanwhile."""
WAIT_S = 10
"""How long the outcome is waited for, in whole seconds of the wall clock: the wait is up to a second shorter."""
CONTINUE = "sip_refer_continue_after_reply"
_STATUS = re.compile(r"^\S+ (\d+)")


async def deflect(session: Session, target: str) -> str | None:
    """Send the REFER and see it through. Returns the final sipfrag, "no reply", or None where nobody waits for one.

    The call always ends (BLIND_TRANSFER), whatever became of the transfer, unless ``sip_refer_continue_after_reply`` is set.
    """
    channel, leg = session.channel, session.leg
    dialog = leg.dialog
    if dialog is None or dialog.end is not None or not channel.answered:
        return "no reply"
    replied = asyncio.Event()
    stays = is_true(channel.get(CONTINUE))

    def on_notify(transaction: ServerTransaction) -> None:
        if not _is_refer(transaction):
            return
        _fire(session, transaction)
        text = transaction.request.body.decode("utf-8", "replace")
        match = _STATUS.match(text)
        status = int(match.group(1)) if match else 0
        if 0 < status < 200:
            channel.set("sip_refer_target_provisional_status_code", status)
        else:
            channel.set("sip_refer_target_status_code", status)
            channel.set("sip_refer_reply", text)
            if status == 200 and not is_true(channel.get(CONTINUE)):
                channel.hangup(Cause.BLIND_TRANSFER)
            replied.set()
        state = (transaction.request.headers.get("Subscription-State") or "").partition(";")[0]
        if state.strip().lower() == "terminated":
            # Sofia destroys the dialog's handle with the subscription: a BYE without Reason, behind the channel's back.
            dialog.bye()

    leg.on_notify.append(on_notify)
    referred_by = f"<sip:{session.switch.address}:{session.switch.sip_port};transport=udp>"
    refer_to = target if "<" in target else f"<{target}>"
    headers = [("Refer-To", refer_to), ("Referred-By", referred_by), *channel.extra_headers()]
    request = asyncio.get_running_loop().create_task(dialog.request("REFER", headers=headers))

    def on_response(task: "asyncio.Task[object]") -> None:
        if not task.cancelled() and task.exception() is None:
            channel.set("sip_refer_status_code", request.result().code)

    request.add_done_callback(on_response)
    if stays:
        return None
    began = int(channel.clock())
    while not replied.is_set() and not channel.down and int(channel.clock()) - began < WAIT_S:
        try:
            await asyncio.wait_for(replied.wait(), 1 - channel.clock() % 1 + 0.001)
        except TimeoutError:
            continue
    channel.hangup(Cause.BLIND_TRANSFER)
    return channel.get("sip_refer_reply") or "no reply"


def _is_refer(transaction: ServerTransaction) -> bool:
    event = transaction.request.headers.get("Event") or ""
    return event.partition(";")[0].strip().lower() == "refer"


def _fire(session: Session, transaction: ServerTransaction) -> None:
    request = transaction.request
    headers = request.headers
    event = Event("CUSTOM", "sofia::notify_refer", body=request.body.decode("utf-8", "replace"))
    event.add("content-type", (headers.get("Content-Type") or "").partition(";")[0])
    package = headers.get("Event") or ""
    event.add("event-package", package.partition(";")[0].strip())
    event.add("event-id", sip_message.parameters(package).get("id"))
    for name, value in (("contact", headers.get("Contact")), ("from", headers.get("From")), ("to", headers.get("To"))):
        if not value:
            continue
        address = sip_message.name_addr(value)
        uri = sip_message.sip_uri(address.uri)
        if uri is not None:
            event.add(name, f"{uri.user}@{uri.host}")
        if name != "contact":
            event.add(f"{name}-tag", address.tag)
    event.add("call-id", sip_message.call_id(request))
    state, _, rest = (headers.get("Subscription-State") or "").partition(";")
    event.add("subscription-substate", state.strip())
    for name, value in sip_message.parameters(f";{rest}").items():
        event.add(f"subscription-{name}", value)
    event.add("UniqueID", session.channel.uuid)
    session.channel.bus.fire(event)
