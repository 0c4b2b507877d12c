"""The dialplan applications, by FreeSWITCH's names. Each gets its session and its expanded argument."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lab.codec import PCMU, Frame
from lab.switch import bridge as bridges
from lab.switch.cause import Cause, of_sip
from lab.switch.channel import CallState
from lab.switch.event_socket import socket
from lab.switch.inband_dtmf import InbandDtmf, start_dtmf
from lab.switch.originate import DEFAULT_TIMEOUT_S, OriginateFailed, originate
from lab.switch.park import park
from lab.switch.record import record
from lab.switch.refer import ACKNOWLEDGED_WITHIN_S, deflect
from lab.switch.session import Session
from lab.switch.sound import Sound, SoundNotFound, open_sound
from lab.switch.text import is_true, to_int
from lab.telephone_event import EVENTS

_RESPONSE = "current_application_response"


@dataclass(frozen=True)
class Application:
    run: Callable[[Session, str], Awaitable[None]]
    needs_media: bool = False
    """An unanswered inbound call is pre-answered first."""


# The call's own state


async def _answer(session: Session, argument: str) -> None:
    await session.leg.answer()


async def _pre_answer(session: Session, argument: str) -> None:
    await session.leg.pre_answer()


async def _ring_ready(session: Session, argument: str) -> None:
    session.leg.ring_ready()


async def _hangup(session: Session, argument: str) -> None:
    session.channel.hangup_text(argument)


async def _respond(session: Session, argument: str) -> None:
    """``respond STATUS [PHRASE]``: final status of an unanswered call; an answered one is hung up for the same cause."""
    code, _, phrase = argument.strip().partition(" ")
    status = to_int(code) or 488
    if status >= 300:
        if not session.channel.answered:
            session.leg.respond_with = (status, phrase, ())
        session.channel.hangup(of_sip(status))


async def _transfer(session: Session, argument: str) -> None:
    """``transfer EXTENSION [DIALPLAN] [CONTEXT]``: go on there, in the dialplan that there is."""
    session.channel.profile.destination_number = argument.split(" ")[0]
    session.transfer_to(session.switch.extension(session.channel))


async def _redirect(session: Session, argument: str) -> None:
    """``redirect URI[,URI…]``: 302, or 300 for several, on an unanswered call."""
    channel = session.channel
    if channel.answered or not argument:
        channel.counters["late_redirect"] += 1
        return
    targets = [target.strip() for target in argument.split(",")]
    contacts = [target if "<" in target else f'"unknown" <{target}>' for target in targets]
    headers = [("Contact", ",".join(contacts)), *channel.extra_headers()]
    several = len(targets) > 1
    status, phrase = (300, "Multiple Choices") if several else (302, "Moved Temporarily")
    session.leg.respond_with = (status, phrase, headers)
    channel.hangup(Cause.NORMAL_UNSPECIFIED)


async def _deflect(session: Session, argument: str) -> None:
    try:
        await asyncio.wait_for(session.channel.acknowledged.wait(), ACKNOWLEDGED_WITHIN_S)
    except TimeoutError:
        session.channel.counters["deflect_unacknowledged"] += 1
    await deflect(session, argument)


async def _sleep(session: Session, argument: str) -> None:
    await session.interact(lambda: False, timeout_s=to_int(argument) / 1000)
    session.channel.break_flag = False


# Variables


async def _set(session: Session, argument: str) -> None:
    name, _, value = argument.partition("=")
    session.channel.set(name.strip(), value.strip(" "))


async def _multiset(session: Session, argument: str) -> None:
    delimiter = " "
    if argument.startswith("^^") and len(argument) > 2:
        delimiter, argument = argument[2], argument[3:]
    for pair in argument.split(delimiter):
        await _set(session, pair)


async def _unset(session: Session, argument: str) -> None:
    session.channel.set(argument.strip(), None)


async def _export(session: Session, argument: str) -> None:
    """``export [nolocal:]NAME=VALUE``: set, and let it go over to the legs that this one calls."""
    channel = session.channel
    name, _, value = argument.partition("=")
    channel.set(name, value)
    exported = (channel.get("export_vars") or "").split(",")
    if name not in exported:
        channel.set("export_vars", ",".join(part for part in (*exported, name) if part))


# Sound


class _Playback:
    """Writes a sound's frames; wakes the session at its end."""

    def __init__(self, session: Session, sound: Sound) -> None:
        self._session = session
        self._sound = sound
        self.finished = False
        self.frames = 0

    def next_frame(self) -> Frame | None:
        frame = None if self.finished else self._sound.read()
        if frame is None:
            self.finished = True
            self._session.channel.wake.set()
        else:
            self.frames += 1
        return frame


async def _playback(session: Session, argument: str) -> None:
    """Play until the end, a terminating digit (``playback_terminators``, by default ``*``), or ``uuid_break``."""
    channel, media = session.channel, session.media
    channel.set("playback_terminator_used", None)
    try:
        sound = await asyncio.to_thread(open_sound, argument, PCMU.rate if media is None else media.rate)
    except SoundNotFound:
        channel.set(_RESPONSE, "FILE NOT FOUND")
        return
    if media is None or channel.down:
        channel.set(_RESPONSE, "PLAYBACK ERROR")
        return
    terminators = channel.get("playback_terminators") or "*"
    terminated = False

    def on_dtmf(digit: str) -> bool:
        nonlocal terminated
        terminated = terminators == "any" or (terminators != "none" and digit in terminators)
        if terminated:
            channel.set("playback_terminator_used", digit)
        return terminated

    playing = _Playback(session, sound)
    channel.fire("PLAYBACK_START", ("Playback-File-Path", argument))
    media.writers.append(playing)
    await session.interact(lambda: playing.finished, on_dtmf=on_dtmf)
    media.writers.remove(playing)
    broken = terminated or (channel.break_flag and not playing.finished)
    channel.break_flag = False
    samples = playing.frames * media.rate // 50
    channel.set("playback_last_offset_pos", samples)
    channel.set("playback_seconds", playing.frames // 50)
    channel.set("playback_ms", playing.frames * 20)
    channel.set("playback_samples", samples)
    status = "break" if broken else "done"
    channel.fire("PLAYBACK_STOP", ("Playback-File-Path", argument), ("Playback-Status", status))
    channel.set(_RESPONSE, "FILE PLAYED")


async def _break(session: Session, argument: str) -> None:
    session.channel.break_flag = True


# Digits


def sendable(digits: str) -> str:
    """What can be sent of ``12w#@160``: digits and pauses (w, W)."""
    return "".join(digit for digit in digits.partition("@")[0] if digit in "wW" or digit.upper() in EVENTS)


def digit_duration_ms(digits: str) -> int:
    """Duration after the ``@``; FreeSWITCH's default of 2000 samples otherwise."""
    return to_int(digits.partition("@")[2]) or 250


async def _send_dtmf(session: Session, argument: str) -> None:
    session.switch.send_digits(session, sendable(argument), digit_duration_ms(argument))


async def _stop_dtmf(session: Session, argument: str) -> None:
    """No more keys are looked for in the audio."""
    bug = session.media.bug(InbandDtmf.name) if session.media is not None else None
    if session.media is not None and bug is not None:
        session.media.remove_bug(bug)


# Calls


async def _bridge(session: Session, argument: str) -> None:
    """Dial and join; on failure hang up for the same cause, unless ``continue_on_fail``."""
    channel = session.channel
    if not argument:
        return
    timeout_s = to_int(channel.get("call_timeout")) or DEFAULT_TIMEOUT_S
    dialling = asyncio.get_running_loop().create_task(
        originate(session.switch, argument, timeout_s=timeout_s, caller=session)
    )
    dialling.add_done_callback(lambda task: channel.wake.set())
    channel.set("originate_disposition", "failure")
    before = channel.callstate
    if channel.answered:
        channel.set_callstate(CallState.RING_WAIT)
    await session.interact(dialling.done, stays_over_break=True)
    try:
        peer = await dialling
    except OriginateFailed as failed:
        channel.set("originate_disposition", failed.cause.name)
        channel.set("originate_failed_cause", failed.cause.name)
        channel.set("last_bridge_hangup_cause", failed.cause.name)
        if failed.status is not None:
            channel.set("last_bridge_proto_specific_hangup_cause", f"sip:{failed.status}")
            channel.set("sip_invite_failure_status", failed.status)
        if not channel.down:
            channel.set_callstate(before)
            bridges.handle_cause(session, failed.cause)
        return
    channel.set("originate_disposition", "SUCCESS")
    channel.other_profile = ("originatee", peer.channel.profile)
    if channel.answered:
        channel.set_callstate(before)
    await session.switch.bridges.bridge(session, peer)
    if channel.down and not peer.channel.down and not is_true(peer.channel.get("park_after_bridge")):
        peer.channel.hangup(Cause.NORMAL_CLEARING)


APPLICATIONS: dict[str, Application] = {
    "answer": Application(_answer),
    "break": Application(_break),
    "bridge": Application(_bridge),
    "deflect": Application(_deflect),
    "export": Application(_export),
    "hangup": Application(_hangup),
    "multiset": Application(_multiset),
    "park": Application(park),
    "playback": Application(_playback, needs_media=True),
    "pre_answer": Application(_pre_answer),
    "record": Application(record, needs_media=True),
    "redirect": Application(_redirect),
    "respond": Application(_respond),
    "ring_ready": Application(_ring_ready),
    "send_dtmf": Application(_send_dtmf),
    "set": Application(_set),
    "sleep": Application(_sleep),
    "socket": Application(socket),
    "start_dtmf": Application(start_dtmf, needs_media=True),
    "stop_dtmf": Application(_stop_dtmf, needs_media=True),
    "transfer": Application(_transfer),
    "unset": Application(_unset),
}
