"""``originate``: place a call from a dial string, and tell why it failed."""

import asyncio
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipmessage import Response

from lab import message as sip_message
from lab import sdp
from lab.switch import sip_variables
from lab.switch.cause import Cause
from lab.switch.channel import CallState, Channel
from lab.switch.leg import Leg
from lab.switch.profile import CallerProfile
from lab.switch.session import Session
from lab.switch.text import is_true, separate, to_int

if TYPE_CHECKING:
    from lab.switch.core import Switch

DEFAULT_TIMEOUT_S = 60
DEFAULT_NUMBER = "0000000000"
_BRACKETS = re.compile(r"^\s*([{<\[])")
_CLOSING = {"{": "}", "<": ">", "[": "]"}


class OriginateFailed(Exception):
    """The call was not answered; ``cause`` says why."""

    def __init__(self, cause: Cause, status: int | None = None) -> None:
        self.cause = cause
        self.status = status
        """SIP status of the peer's final response, where there was one."""
        super().__init__(cause.name)


@dataclass(frozen=True)
class DialString:
    """``{name=value,…}sofia/PROFILE/URI``."""

    variables: dict[str, str]
    endpoint: str


def parse_dial_string(text: str) -> DialString:
    """Split variables from destination. Raises OriginateFailed where brackets are left open."""
    variables: dict[str, str] = {}
    while match := _BRACKETS.match(text):
        opening = match.group(1)
        start = match.end()
        end = _closing(text, start, _CLOSING[opening])
        inside = text[start:end]
        delimiter = ","
        if inside.startswith("^^") and len(inside) > 3:
            delimiter, inside = inside[2], inside[3:]
        for pair in separate(inside, 1024, delimiter):
            name, equals, value = pair.partition("=")
            if equals:
                variables[name.strip()] = value
        text = text[end + 1 :]
    return DialString(variables, text.strip())


def _closing(text: str, start: int, closing: str) -> int:
    quoted = False
    for position in range(start, len(text)):
        if text[position] == "'":
            quoted = not quoted
        elif text[position] == closing and not quoted:
            return position
    raise OriginateFailed(Cause.DESTINATION_OUT_OF_ORDER)


async def originate(
    switch: "Switch",
    text: str,
    *,
    timeout_s: int = DEFAULT_TIMEOUT_S,
    caller: Session | None = None,
    caller_id: tuple[str, str] | None = None,
) -> Session:
    """Dial and wait for the answer (or early media, unless ``ignore_early_media``). Raises OriginateFailed.

    The new session waits for what to do: set its extension and state. ``caller``: the session on whose behalf; it gives its
    caller id and its custom headers, and its hangup ends the attempt. ``timeout_s`` counts whole seconds of the wall clock.
    """
    last = OriginateFailed(Cause.DESTINATION_OUT_OF_ORDER)
    common = ""
    if text.lstrip().startswith("{"):
        end = _closing(text, text.index("{") + 1, "}") + 1
        common, text = text[:end], text[end:]
    for attempt in text.split("|"):
        try:
            return await _attempt(switch, parse_dial_string(common + attempt), timeout_s, caller, caller_id)
        except OriginateFailed as failed:
            last = failed
            if caller is not None and caller.channel.down:
                break
    raise last


async def _attempt(
    switch: "Switch", dial: DialString, timeout_s: int, caller: Session | None, caller_id: tuple[str, str] | None
) -> Session:
    kind, _, rest = dial.endpoint.partition("/")
    profile_name, _, destination = rest.partition("/")
    if "outbound" in switch.paused or len(switch.sessions) >= switch.max_sessions:
        raise OriginateFailed(Cause.DESTINATION_OUT_OF_ORDER)
    if kind.lower() != "sofia":
        raise OriginateFailed(Cause.SUBSCRIBER_ABSENT if kind.lower() == "user" else Cause.CHAN_NOT_IMPLEMENTED)
    if not destination:
        raise OriginateFailed(Cause.INVALID_URL)
    if profile_name != "tandem":
        raise OriginateFailed(Cause.INVALID_PROFILE)
    uri = destination if destination.lower().startswith(("sip:", "sips:")) else f"sip:{destination}"
    parts = sip_message.sip_uri(uri)
    if parts is None:
        raise OriginateFailed(Cause.INVALID_URL)
    session = _new_session(switch, dial, uri, parts, caller, caller_id)
    attempt = _Attempt(switch, session, caller, is_true(dial.variables.get("ignore_early_media")))
    seconds = to_int(dial.variables.get("originate_timeout") or dial.variables.get("call_timeout")) or timeout_s
    await attempt.run(uri, seconds)
    return session


def _new_session(
    switch: "Switch",
    dial: DialString,
    uri: str,
    parts: sip_message.SipUri,
    caller: Session | None,
    caller_id: tuple[str, str] | None,
) -> Session:
    wanted = dial.variables
    name, number = caller_id or ("", "")
    if caller is not None:
        name = caller.channel.get("effective_caller_id_name") or caller.channel.profile.caller_id_name
        number = caller.channel.get("effective_caller_id_number") or caller.channel.profile.caller_id_number
    identity = wanted.get("origination_uuid") or str(uuid.uuid4())
    if switch.sessions.get(identity) is not None:
        raise OriginateFailed(Cause.DESTINATION_OUT_OF_ORDER)
    profile = CallerProfile(
        direction="outbound",
        uuid=identity,
        channel_name=f"sofia/tandem/{uri.partition(':')[2]}",
        destination_number=parts.user,
        caller_id_name=wanted.get("origination_caller_id_name", name),
        caller_id_number=wanted.get("origination_caller_id_number", number) or DEFAULT_NUMBER,
        network_address=parts.host,
        ani=wanted.get("origination_caller_id_number", number),
        source="src/switch_ivr_originate.c",
        context="default",
    )
    channel = Channel(switch.bus, profile, switch.next_session_id(), clock=switch.bus.clock)
    put = channel.set
    put("direction", "outbound")
    put("is_outbound", "true")
    put("uuid", channel.uuid)
    put("session_id", channel.session_id)
    put("sip_profile_name", "tandem")
    put("video_media_flow", "disabled")
    put("text_media_flow", "disabled")
    put("channel_name", channel.name)
    put("sip_destination_url", uri)
    if caller is not None:
        put("originator", caller.channel.uuid)
        put("originating_leg_uuid", caller.channel.uuid)
        _copy(caller.channel, channel)
    for key, value in wanted.items():
        put(key, value)
    put("originate_early_media", "false")
    put("originate_endpoint", "sofia")
    session = Session(switch, channel, Leg(switch, channel), [])
    if caller is not None:
        channel.other_profile = ("originator", caller.channel.profile)
    return session


def _copy(caller: Channel, channel: Channel) -> None:
    """What goes from the calling leg to the called one by itself: exported variables, and its custom headers."""
    exported = (caller.get("export_vars") or "").split(",")
    copies = is_true(caller.get("sip_copy_custom_headers") or "true")
    for name, value in caller.variables.items():
        if name in exported or (copies and name.startswith("sip_h_")):
            channel.set(name.removeprefix("nolocal:"), value)


class _Attempt:
    """One INVITE on its way."""

    def __init__(self, switch: "Switch", session: Session, caller: Session | None, ignore_early_media: bool) -> None:
        self._switch = switch
        self._session = session
        self._channel = session.channel
        self._leg = session.leg
        self._caller = caller
        self._ignore_early_media = ignore_early_media
        self._decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, uri: str, seconds: int) -> None:
        channel = self._channel
        channel.on_hangup.append(self._decide)
        self._switch.add(self._session)
        self._session.start()
        body = await self._leg.offer()
        if not channel.down:
            self._invite(uri, body)
        began = int(channel.clock())
        watched = self._caller.channel if self._caller is not None else None
        if watched is not None:
            watched.on_hangup.append(self._decide)
        while not self._decided.done():
            if int(channel.clock()) - began >= seconds:
                channel.hangup(Cause.NO_ANSWER)
                break
            await asyncio.wait([self._decided], timeout=1 - channel.clock() % 1 + 0.001)
        if watched is not None:
            watched.on_hangup.remove(self._decide)
            if watched.down:
                channel.hangup(Cause.ORIGINATOR_CANCEL)
        channel.on_hangup.remove(self._decide)
        if channel.down:
            assert channel.hangup_cause is not None
            raise OriginateFailed(channel.hangup_cause, to_int(channel.get("sip_term_status")) or None)

    def _decide(self) -> None:
        if not self._decided.done():
            self._decided.set_result(None)

    def _invite(self, uri: str, body: bytes) -> None:
        channel, leg = self._channel, self._leg
        profile = channel.profile
        address = self._switch.address
        from_uri = f"sip:{profile.caller_id_number}@{address}"
        identity = sip_message.format_name_addr(from_uri, profile.caller_id_name or None)
        headers = channel.extra_headers()
        headers.append(("X-FS-Support", "update_display,send_info"))
        headers.append(("P-Asserted-Identity", identity))
        try:
            dialog = leg.call(
                uri, from_uri=from_uri, from_name=profile.caller_id_name or None, headers=headers, body=body
            )
        except ValueError:
            channel.hangup(Cause.DESTINATION_OUT_OF_ORDER)
            return
        channel.set("sip_outgoing_contact_uri", dialog.contact)
        channel.set("sip_req_uri", uri.partition(":")[2])
        channel.set("sip_call_id", dialog.call_id)
        sip_variables.of_profile(channel, (address, self._switch.sip_port))
        dialog.on_provisional = self._on_provisional
        confirmed = dialog.on_confirmed
        assert confirmed is not None

        def on_confirmed() -> None:
            confirmed()
            assert dialog.final is not None
            self._on_answered(dialog.final)

        dialog.on_confirmed = on_confirmed

    def _on_provisional(self, response: Response) -> None:
        channel = self._channel
        if channel.down or response.code < 180 or channel.answered:
            return
        if response.body and not channel.early_media:
            self._on_early_media(response)
        elif not channel.ring_ready and not channel.early_media:
            channel.ring_ready = True
            channel.profile.times.progress = channel.now()
            channel.fire("CHANNEL_PROGRESS")
            channel.set_callstate(CallState.RINGING)
            if self._caller is not None:
                self._caller.leg.ring_ready()

    def _on_early_media(self, response: Response) -> None:
        channel, leg = self._channel, self._leg
        try:
            leg.early_media_from(response)
        except (sdp.BadSdp, sdp.NoCommonCodec):
            channel.counters["bad_early_sdp"] += 1
            return
        channel.early_media = True
        channel.profile.times.progress_media = channel.now()
        channel.fire("CHANNEL_PROGRESS_MEDIA")
        channel.set_callstate(CallState.EARLY)
        if not self._ignore_early_media:
            self._succeed()

    def _on_answered(self, response: Response) -> None:
        channel = self._channel
        if channel.down:
            return
        try:
            self._leg.answered_by(response)
        except (sdp.BadSdp, sdp.NoCommonCodec):
            channel.answered = True
            channel.hangup(Cause.INCOMPATIBLE_DESTINATION)
            return
        if not self._decided.done():
            self._succeed()

    def _succeed(self) -> None:
        channel = self._channel
        profile = channel.profile
        if "originator" not in channel.variables:
            # The called party becomes the caller of whatever comes now.
            channel.set("pre_transfer_caller_id_name", profile.caller_id_name)
            channel.set("pre_transfer_caller_id_number", profile.caller_id_number)
            profile.callee_id_name, profile.callee_id_number = profile.caller_id_name, profile.caller_id_number
            profile.caller_id_name, profile.caller_id_number = "Outbound Call", profile.destination_number
            channel.set("channel_cid_flipped", "yes")
            channel.fire("CALL_UPDATE", ("Direction", "RECV"))
        self._decide()
