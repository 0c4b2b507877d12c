"""A channel: one call leg's state, variables and caller profile, and the events that tell of it."""

import asyncio
import re
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Literal

from lab.codec import CODECS, PCMU
from lab.switch import cause as causes
from lab.switch.cause import Cause
from lab.switch.event import WITH_VARIABLES, Event, EventBus
from lab.switch.profile import CallerProfile

_VARIABLE = re.compile(r"\$\{([^{}]+)\}")
_SLICE = re.compile(r"^(.*?):(-?\d+)(?::(-?\d+))?$")
MAX_PRIVATE_EVENTS = 1000
"""Commands that may wait for one channel."""


class ChannelState(IntEnum):
    NEW = 0
    INIT = 1
    ROUTING = 2
    SOFT_EXECUTE = 3
    EXECUTE = 4
    EXCHANGE_MEDIA = 5
    PARK = 6
    CONSUME_MEDIA = 7
    HIBERNATE = 8
    RESET = 9
    HANGUP = 10
    REPORTING = 11
    DESTROY = 12
    NONE = 13


class CallState(StrEnum):
    DOWN = "DOWN"
    RINGING = "RINGING"
    EARLY = "EARLY"
    ACTIVE = "ACTIVE"
    HELD = "HELD"
    UNHELD = "UNHELD"
    RING_WAIT = "RING_WAIT"
    HANGUP = "HANGUP"


@dataclass
class PrivateEvent:
    """A command for the channel's session: what ``sendmsg`` sent, in its headers (lower-case names) and body."""

    headers: dict[str, str]
    body: str = ""


class Channel:
    """State, flags, variables, events. What runs on it is its session."""

    def __init__(
        self, bus: EventBus, profile: CallerProfile, session_id: int, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.bus = bus
        self.uuid = profile.uuid
        self.name = profile.channel_name
        self.profile = profile
        self.session_id = session_id
        self.clock = clock
        self.counters: Counter[str] = Counter()
        self._state = ChannelState.NEW
        self.running_state = ChannelState.NEW
        self.callstate = CallState.DOWN
        self.answered = False
        self.early_media = False
        self.ring_ready = False
        self.acknowledged = asyncio.Event()
        """The dialog is confirmed on both sides (FreeSWITCH's CF_MEDIA_ACK)."""
        self.hangup_cause: Cause | None = None
        self.codec = ""
        """A name of lab.codec.CODECS once the offer was read."""
        self.reads = ""
        """Name of what frames are read as: the codec, or L16 where an application wants them so."""
        self.variables: dict[str, str] = {}
        self.other_profile: tuple[Literal["originator", "originatee"], CallerProfile] | None = None
        self.private_events: deque[PrivateEvent] = deque()
        self.dtmf: deque[tuple[str, int]] = deque()
        """Digits not yet read by an application, with their duration in samples of 8 kHz."""
        self.wake = asyncio.Event()
        """Set whenever the session has something to look at."""
        self.on_hangup: list[Callable[[], None]] = []
        # Flags of FreeSWITCH's channel, under its names.
        self.controlled = False
        self.park = False
        self.transfer = False
        self.redirect = False
        self.bridged = False
        self.broadcast = False
        self.stop_broadcast_flag = False
        self.break_flag = False
        self.event_lock = 0
        self.uuid_bridge_originator = False
        now = self.now()
        profile.times.created = profile.times.created or now
        profile.times.profile_created = profile.times.profile_created or now
        profile.original_caller_id_name = profile.original_caller_id_name or profile.caller_id_name
        profile.original_caller_id_number = profile.original_caller_id_number or profile.caller_id_number

    @property
    def rate(self) -> int:
        """Hz of the audio, as far as the codec is known."""
        return CODECS[self.codec].rate if self.codec else PCMU.rate

    def bit_rate(self, codec: str) -> int:
        """Of the channel's own codec, or of L16 in its place."""
        return 16 * self.rate if codec == "L16" else 64000

    def now(self) -> int:
        """Unix time in microseconds."""
        return int(self.clock() * 1_000_000)

    # Variables

    def set(self, name: str, value: str | int | None) -> None:
        """Set a variable; it moves to the end of the list. Nothing, or an empty text, takes it away."""
        self.variables.pop(name, None)
        if value is not None and value != "":
            self.variables[name] = str(value)

    def get(self, name: str) -> str | None:
        """A variable, or what FreeSWITCH answers for the caller profile's fields."""
        value = self.variables.get(name)
        if value is None:
            value = {
                "caller_id_name": self.profile.caller_id_name,
                "caller_id_number": self.profile.caller_id_number,
                "destination_number": self.profile.destination_number,
                "network_addr": self.profile.network_address,
                "uuid": self.uuid,
                "channel_name": self.name,
                "context": self.profile.context,
            }.get(name)
        return value or None

    def expand(self, text: str) -> str:
        """Put values for ``${name}`` and ``${name:offset:length}``."""
        if "${" not in text:
            return text

        def value_of(match: re.Match[str]) -> str:
            sliced = _SLICE.match(match.group(1))
            value = self.get(match.group(1))
            if value is not None or sliced is None:
                return value or ""
            value, offset = self.get(sliced.group(1)) or "", int(sliced.group(2))
            value = value[offset:]
            return value[: int(sliced.group(3))] if sliced.group(3) else value

        return _VARIABLE.sub(value_of, text)

    def extra_headers(self) -> list[tuple[str, str]]:
        """Custom headers of what this leg sends: its sip_h_ variables but for those that exclude_outgoing_extra_header,
        a regular expression, finds.
        """
        excluded = self.get("exclude_outgoing_extra_header")
        return [
            (name.removeprefix("sip_h_"), value)
            for name, value in self.variables.items()
            if name.startswith("sip_h_") and not (excluded and re.search(excluded, name))
        ]

    # What the state allows

    @property
    def state(self) -> ChannelState:
        return self._state

    @state.setter
    def state(self, state: ChannelState) -> None:
        # A channel that has hung up goes on to its end and nowhere else, whoever comes too late to know.
        if self._state < ChannelState.HANGUP or state > self._state:
            self._state = state

    @property
    def down(self) -> bool:
        return self.state >= ChannelState.HANGUP

    @property
    def ready(self) -> bool:
        """An application may go on: not hung up, and not asked to leave for elsewhere."""
        return (
            self.hangup_cause is None
            and ChannelState.ROUTING < self.state < ChannelState.HANGUP
            and self.state is not ChannelState.RESET
            and not self.transfer
        )

    @property
    def answer_state(self) -> str:
        if self.down:
            return "hangup"
        if self.answered:
            return "answered"
        return "early" if self.early_media else "ringing"

    # Events

    def headers(self, *, variables: bool) -> list[tuple[str, str]]:
        """The channel's data as events carry it."""
        event = Event("")
        event.add("Channel-State", f"CS_{self.running_state.name}")
        event.add("Channel-Call-State", self.callstate)
        event.add("Channel-State-Number", self.state.value)
        event.add("Channel-Name", self.name)
        event.add("Unique-ID", self.uuid)
        event.add("Call-Direction", self.profile.direction)
        event.add("Presence-Call-Direction", self.profile.direction)
        hit = self.profile.direction == "inbound" or self.variables.get("channel_cid_flipped") is not None
        event.add("Channel-HIT-Dialplan", "true" if hit else "false")
        event.add("Channel-Call-UUID", self.variables.get("call_uuid", self.uuid))
        event.add("Answer-State", self.answer_state)
        if self.hangup_cause is not None:
            event.add("Hangup-Cause", self.hangup_cause.name)
        if self.codec:
            for way, name in (("Read", self.reads or self.codec), ("Write", self.codec)):
                event.add(f"Channel-{way}-Codec-Name", name)
                event.add(f"Channel-{way}-Codec-Rate", self.rate)
                event.add(f"Channel-{way}-Codec-Bit-Rate", self.bit_rate(name))
        if self.running_state is not ChannelState.NEW:
            event.extend(self.profile.headers("Caller"))
        if self.other_profile is not None:
            kind, profile = self.other_profile
            event.add("Other-Type", kind)
            event.extend(profile.headers("Other-Leg"))
        if variables:
            event.extend((f"variable_{name}", value) for name, value in self.variables.items())
        return event.headers

    def fire(self, name: str, *headers: tuple[str, str | int | None], subclass: str = "", body: str = "") -> None:
        """Fire an event about this channel, with ``headers`` after its data."""
        event = Event(name, subclass, self.headers(variables=name in WITH_VARIABLES), body)
        for header, value in headers:
            event.add(header, value)
        self.bus.fire(event)

    def run_state(self, state: ChannelState) -> None:
        """The session has entered a state."""
        self.running_state = state
        self.fire("CHANNEL_STATE")

    def set_callstate(self, callstate: CallState) -> None:
        if callstate is self.callstate:
            return
        original, self.callstate = self.callstate, callstate
        self.fire("CHANNEL_CALLSTATE", ("Original-Channel-Call-State", original))

    # Signals to the session

    def queue_private_event(self, event: PrivateEvent) -> bool:
        """Give the session a command. False where too many wait already."""
        if len(self.private_events) >= MAX_PRIVATE_EVENTS:
            self.counters["private_events_lost"] += 1
            return False
        self.private_events.append(event)
        self.wake.set()
        return True

    def queue_dtmf(self, digit: str, duration: int, source: str = "RTP") -> None:
        """A digit came from the peer, ``duration`` in samples of 8 kHz."""
        self.fire("DTMF", ("DTMF-Digit", digit), ("DTMF-Duration", duration), ("DTMF-Source", source))
        self.dtmf.append((digit, duration))
        self.wake.set()

    def break_(self, *, flush: bool = False) -> None:
        """``uuid_break``: end what plays; ``flush`` drops what waits as well."""
        if flush:
            self.private_events.clear()
        if self.broadcast:
            self.stop_broadcast()
        else:
            self.break_flag = True
        self.wake.set()

    def stop_broadcast(self) -> None:
        if self.broadcast:
            self.break_flag = True
            self.stop_broadcast_flag = True
            self.wake.set()

    def hangup(self, cause: Cause) -> None:
        """Hang up, once; the session does the rest."""
        if self.hangup_cause is not None:
            return
        self.hangup_cause = cause or Cause.NORMAL_CLEARING
        self.profile.times.hungup = self.now()
        self.state = ChannelState.HANGUP
        self.fire("CHANNEL_HANGUP")
        self.wake.set()
        for callback in tuple(self.on_hangup):
            callback()

    def hangup_text(self, text: str | None) -> None:
        """Hang up for a cause given by name or number."""
        self.hangup(causes.parse(text))

    def step_profile(self) -> None:
        """Begin a new page of the caller profile, as a transfer does."""
        times = replace(self.profile.times, profile_created=self.now())
        self.profile = replace(self.profile, index=self.profile.index + 1, times=times)
