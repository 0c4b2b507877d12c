"""Parking: a channel waits for commands, its controller's or anybody's (``switch_ivr_park``)."""

import asyncio

from lab.switch import cause as causes
from lab.switch.cause import Cause
from lab.switch.channel import Channel, ChannelState
from lab.switch.media import IdleSilence, Media
from lab.switch.session import Session
from lab.switch.text import is_true, to_int

NO_MEDIA_YIELD_S = 0.02
"""How often a parked channel without media looks for commands."""


async def park(session: Session, argument: str = "") -> None:
    """Wait for commands until hung up, transferred, or released by who controls the channel.

    With ``send_silence_when_idle`` silence is sent meanwhile; ``park_timeout`` bounds the wait.
    """
    channel = session.channel
    if channel.controlled or channel.state is ChannelState.RESET:
        return
    expires, cause = _timeout(channel)
    channel.controlled = channel.park = True
    channel.fire("CHANNEL_PARK")
    idle: IdleSilence | None = None
    media: Media | None = None
    while channel.ready and channel.controlled and channel.park:
        if media is None and session.media is not None:
            media = session.media
            divisor = to_int(channel.get("send_silence_when_idle"))
            if divisor:
                idle = IdleSilence(divisor, media)
                media.writers.append(idle)
        if media is None:
            await asyncio.sleep(NO_MEDIA_YIELD_S)
            if session.has_commands:
                await session.parse_event(channel.private_events.popleft())
        elif not session.has_commands:
            await session.woken(None if expires is None else max(0.0, expires - channel.clock()))
        if expires is not None and channel.clock() >= expires:
            channel.hangup(cause)
            break
        await session.parse_all_events()
        channel.dtmf.clear()
    if idle is not None and media is not None:
        media.writers.remove(idle)
    channel.controlled = channel.park = False
    channel.fire("CHANNEL_UNPARK")


def _timeout(channel: Channel) -> tuple[int | None, Cause]:
    """When ``park_timeout`` (SECONDS[:CAUSE]) ends a park, in whole seconds of Unix time, and how. It holds once."""
    timeout = channel.get("park_timeout")
    if timeout is None:
        return None, Cause.NORMAL_CLEARING
    channel.set("park_timeout", None)
    channel.set("park_after_bridge", None)
    _, colon, name = timeout.partition(":")
    seconds = to_int(timeout)
    expires = int(channel.clock()) + seconds if seconds >= 0 else None
    return expires, causes.parse(name) if colon else Cause.NORMAL_CLEARING


def unpark(session: Session) -> None:
    """Whoever controlled the channel is gone."""
    channel = session.channel
    if resumes(channel):
        channel.state = ChannelState.RESET
    channel.controlled = False
    channel.wake.set()


def resumes(channel: Channel) -> bool:
    """Whether the extension goes on without its controller: ``socket_resume``."""
    elsewhere = channel.down or channel.transfer or channel.redirect or channel.state is ChannelState.HIBERNATE
    return not elsewhere and is_true(channel.get("socket_resume"))
