"""Two channels joined: ``uuid_bridge`` and what follows a bridge's end. One leg's session runs it, the other's exchanges media."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.switch import cause as causes
from lab.switch.cause import Cause
from lab.switch.channel import ChannelState
from lab.switch.session import Session
from lab.switch.text import is_true

if TYPE_CHECKING:
    from lab.switch.core import Switch

_POLL_S = 0.02
_OTHER_LEG_S = 20.0
"""How long the other leg may take to come along."""


class Bridges:
    """Joins sessions of one switch."""

    def __init__(self, switch: "Switch") -> None:
        self._switch = switch

    def uuid_bridge(self, first: Session, second: Session) -> bool:
        """Take two channels out of whatever they do and join them. False where neither has media."""
        originator, originatee = first, second
        if not _media_up(originator):
            originator, originatee = second, first
        if not _media_up(originator) or first is second:
            return False
        a, b = originator.channel, originatee.channel
        a.set("uuid_bridge", b.uuid)
        for session, other in ((originator, originatee), (originatee, originator)):
            channel, profile = session.channel, session.channel.profile
            if channel.profile.direction == "outbound":
                channel.set("channel_cid_flipped", "yes")
            channel.set("bridge_channel", other.channel.name)
            channel.set("bridge_uuid", other.channel.uuid)
            channel.set("signal_bond", other.channel.uuid)
            channel.set("original_destination_number", profile.destination_number)
            channel.set("original_caller_id_name", profile.caller_id_name)
            channel.set("original_caller_id_number", profile.caller_id_number)
            channel.step_profile()
            source = f"{int(channel.clock())}:{channel.uuid}:uuid_br:{other.channel.uuid}"
            channel.profile.transfer_source = source
            channel.set("transfer_history", source)
            channel.set("transfer_source", source)
        a.other_profile = ("originatee", replace(b.profile))
        b.other_profile = ("originator", replace(a.profile))
        a.profile.callee_id_name, a.profile.callee_id_number = b.profile.callee_id_name, b.profile.callee_id_number
        b.profile.caller_id_name, b.profile.caller_id_number = a.profile.caller_id_name, a.profile.caller_id_number
        for session in (originator, originatee):
            channel = session.channel
            channel.stop_broadcast()
            channel.transfer = channel.redirect = True
            channel.uuid_bridge_originator = session is originator
        for channel in (a, b):
            hibernating = channel.state is ChannelState.HIBERNATE
            channel.state = ChannelState.CONSUME_MEDIA if hibernating else ChannelState.HIBERNATE
            channel.wake.set()
        return True

    async def soft_execute(self, session: Session) -> None:
        """The originator's part of ``uuid_bridge``: wait for the other leg, bridge, go on with the extension."""
        channel = session.channel
        other = self._switch.locate(channel.get("uuid_bridge"))
        channel.set("uuid_bridge", None)
        if other is None:
            if is_true(channel.get("park_after_bridge")):
                channel.state = ChannelState.PARK
            else:
                channel.hangup(Cause.DESTINATION_OUT_OF_ORDER)
            return
        await self._until_state(session, other, ChannelState.RESET)
        if not other.channel.down and not channel.down:
            other.channel.state = ChannelState.SOFT_EXECUTE
            other.channel.wake.set()
            await self._until_state(session, other, ChannelState.SOFT_EXECUTE)
        if other.channel.down or channel.down:
            (channel if other.channel.down else other.channel).hangup(Cause.DESTINATION_OUT_OF_ORDER)
            return
        for leg, data in ((channel, other.channel.uuid), (other.channel, channel.uuid)):
            leg.fire("CHANNEL_EXECUTE", ("Application", "uuid_bridge"), ("Application-Data", data))
        await self.bridge(session, other)
        leaving = channel.transfer or channel.redirect or channel.down
        if not leaving and channel.state not in (ChannelState.ROUTING, ChannelState.PARK):
            channel.state = ChannelState.EXECUTE
        channel.uuid_bridge_originator = False

    async def _until_state(self, session: Session, other: Session, state: ChannelState) -> None:
        deadline = asyncio.get_running_loop().time() + _OTHER_LEG_S
        while not session.channel.down and not other.channel.down and other.channel.running_state is not state:
            if asyncio.get_running_loop().time() > deadline:
                session.channel.hangup(Cause.DESTINATION_OUT_OF_ORDER)
                other.channel.hangup(Cause.DESTINATION_OUT_OF_ORDER)
                return
            await asyncio.sleep(_POLL_S)

    async def bridge(self, session: Session, peer: Session) -> None:
        """Join ``session``, which runs this, with ``peer`` until one leaves; then do what the variables say."""
        a, b = session.channel, peer.channel
        b.set("call_uuid", a.uuid)
        a.profile.times.bridged = b.profile.times.bridged = a.now()
        who = (("Bridge-A-Unique-ID", a.uuid), ("Bridge-B-Unique-ID", b.uuid))
        a.fire("CHANNEL_BRIDGE", *who)
        for channel, other in ((a, b), (b, a)):
            channel.set("bridge_to", other.uuid)
            channel.set("last_bridge_to", other.uuid)
        if b.answered and not a.answered:
            await session.leg.answer()
        for channel, other in ((a, b), (b, a)):
            channel.set("bridge_channel", other.name)
            channel.set("bridge_uuid", other.uuid)
            channel.set("signal_bond", other.uuid)
        session.bridge_peer, peer.bridge_peer = peer, session
        a.bridged = b.bridged = True
        self._join(session, peer, joined=True)
        b.state = ChannelState.EXCHANGE_MEDIA
        b.wake.set()

        def over() -> bool:
            return b.down or b.state is not ChannelState.EXCHANGE_MEDIA

        b.on_hangup.append(a.wake.set)
        peer.hold(session)
        await session.interact(over, on_dtmf=self._forward(peer), stays_over_break=True)
        b.on_hangup.remove(a.wake.set)
        self._join(session, peer, joined=False)
        a.bridged = b.bridged = False
        session.bridge_peer = None
        b.stop_broadcast()
        b.wake.set()
        while b.state is ChannelState.EXCHANGE_MEDIA:
            await asyncio.sleep(0)
        for channel, other in ((b, a), (a, b)):
            if other.hangup_cause is not None:
                channel.set("bridge_hangup_cause", other.hangup_cause.name)
        peer.release(session)
        b.set("call_uuid", b.uuid)
        a.fire("CHANNEL_UNBRIDGE", *who)
        self._after(session, peer)

    def _join(self, session: Session, peer: Session, *, joined: bool) -> None:
        for one, other in ((session, peer), (peer, session)):
            if one.media is not None:
                one.media.join(other.media if joined else None)

    def _forward(self, peer: Session) -> Callable[[str], bool]:
        def send(digit: str) -> bool:
            self._switch.send_digits(peer, digit)
            return False

        return send

    def _after(self, session: Session, peer: Session) -> None:
        a, b = session.channel, peer.channel
        if a.transfer or a.redirect or a.down:
            return
        cause = b.hangup_cause or Cause.NORMAL_CLEARING
        if not b.answered:
            handle_cause(session, cause)
        hangup_after = a.get("hangup_after_bridge")
        if b.answered and is_true(a.get("park_after_bridge")):
            a.state = ChannelState.PARK
        elif b.answered and is_true(hangup_after):
            a.hangup(cause)

    async def exchange_media(self, session: Session) -> None:
        """The other leg's part: stay until the first one leaves."""
        channel, peer = session.channel, session.bridge_peer
        if peer is None:
            channel.hangup(Cause.DESTINATION_OUT_OF_ORDER)
            return
        await session.interact(lambda: not channel.bridged, on_dtmf=self._forward(peer), stays_over_break=True)
        session.bridge_peer = None
        if channel.transfer or channel.redirect or channel.state is not ChannelState.EXCHANGE_MEDIA:
            return
        if is_true(channel.get("park_after_bridge")):
            channel.state = ChannelState.PARK
        else:
            channel.hangup(Cause.NORMAL_CLEARING)


def _media_up(session: Session) -> bool:
    return session.channel.answered or session.channel.early_media


def handle_cause(session: Session, cause: Cause) -> None:
    """A call placed for this channel failed: hang up for the same cause, unless ``continue_on_fail`` or the cause say no."""
    channel = session.channel
    wanted = channel.get("continue_on_fail")
    if wanted is not None:
        names = [name.strip().upper() for name in wanted.split(",")]
        if is_true(wanted) or cause.name in names or str(cause.value) in names:
            return
    elif cause in (Cause.NO_ANSWER, Cause.NO_USER_RESPONSE, Cause.ORIGINATOR_CANCEL):
        return
    channel.hangup(causes.parse(cause.name))
