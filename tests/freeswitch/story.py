"""How what happened is written down so that two runs can be compared."""

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from lab.phone import Call
from tests.lab.esl_client import PATIENCE_S, EventSocket, Message
from tests.lab.switch_rig import Rig

KEYS = (
    "Channel-State",
    "Channel-Call-State",
    "Answer-State",
    "Call-Direction",
    "Original-Channel-Call-State",
    "Hangup-Cause",
    "Channel-Read-Codec-Name",
    "Caller-Caller-ID-Number",
    "Caller-Destination-Number",
    "Other-Type",
    "Other-Leg-Unique-ID",
    "Bridge-A-Unique-ID",
    "Bridge-B-Unique-ID",
    "Application",
    "Application-Data",
    "Application-Response",
    "Media-Bug-Function",
    "Media-Bug-Target",
    "Playback-File-Path",
    "Playback-Status",
    "DTMF-Digit",
    "DTMF-Duration",
    "DTMF-Source",
    "Job-Command",
    "subscription-substate",
    "subscription-reason",
    "variable_hangup_cause",
    "variable_hangup_cause_q850",
    "variable_sip_hangup_disposition",
    "variable_sip_term_status",
    "variable_sip_term_cause",
    "variable_sip_invite_failure_status",
    "variable_sip_rh_X-Tandem-Refused",
    "variable_proto_specific_hangup_cause",
    "variable_endpoint_disposition",
    "variable_originate_disposition",
    "variable_sip_refer_status_code",
    "variable_sip_refer_target_status_code",
    "variable_sip_refer_reply",
)
"""Headers that are compared, where an event has them."""
SILENT_EVENTS = frozenset(("HEARTBEAT", "RE_SCHEDULE", "API", "MODULE_LOAD", "PRESENCE_IN", "SESSION_HEARTBEAT"))


RECORDED = Path(__file__).parent / "recorded"
"""What FreeSWITCH 1.10.12 was seen to do in each scene; written anew by test_parity.py with RECORD=1."""


class Story:
    """Lanes of lines; within a lane the order counts, between lanes it does not."""

    def __init__(self, rig: Rig) -> None:
        self._lanes: dict[str, list[str]] = defaultdict(list)
        self._names = {rig.address: "WORKER", rig.loopback: "WORKER", rig.edge.address: "EDGE"}
        self._rig = rig

    def name(self, identity: str, label: str) -> str:
        """Let ``identity`` (a channel's UUID, say) be known as ``label``."""
        self._names[identity] = label
        return identity

    def tell(self, lane: str, text: object) -> None:
        self._lanes[lane].append(str(text))

    @property
    def lanes(self) -> dict[str, list[str]]:
        return {lane: [self._plain(line) for line in lines] for lane, lines in self._lanes.items()}

    def _plain(self, text: str) -> str:
        """Without what differs from run to run."""
        for identity, label in self._names.items():
            text = text.replace(identity, label)
        text = re.sub(r"(WORKER|EDGE):\d{4,5}", r"\1:PORT", text)
        text = re.sub(r"refer;id=\d+", "refer;id=N", text)
        return text.replace("\r", "\\r").replace("\n", "\\n")

    def text(self) -> str:
        """All lanes, as they are recorded."""
        return "".join(f"## {lane}\n" + "".join(f"{line}\n" for line in lines) for lane, lines in self.lanes.items())

    def events(self, esl: EventSocket, channels: dict[str, str]) -> None:
        """Every event about these channels (label: UUID), each channel a lane."""
        for label, identity in channels.items():
            self.name(identity, label)
        for label, identity in channels.items():
            application = ""
            before: dict[str, str] = {}
            for event in esl.events:
                if identity not in (event.get("Unique-ID"), event.get("UniqueID")) or event.name in SILENT_EVENTS:
                    continue
                # Between bridge and exchange of media FreeSWITCH may or may not get to this state.
                passing = event.get("Channel-State") == "CS_CONSUME_MEDIA" and application == "uuid_bridge"
                application = event.get("Application")
                if not passing:
                    now = {key: self._plain(event[key]) for key in KEYS if key in event.headers}
                    self.tell(f"{label}: events", describe(event, before, now))
                    before = now

    def sip(self, label: str, call: Call) -> None:
        """The dialog's messages as the edge's phone saw them."""
        for traced in call.messages:
            message = traced.message
            if message is None:
                continue
            first = traced.data.split(b"\r\n", 1)[0].decode()
            if first.startswith(("ACK", "SIP/2.0 100")) or (
                first.startswith("SIP") and "BYE" in message.headers["CSeq"]
            ):
                continue
            kept = [
                f"{name}: {message.headers[name]}"
                for name in ("Reason", "Refer-To", "Event")
                if message.headers.get(name)
            ]
            first = re.sub(r"^(\w+) \S+ SIP/2.0", r"\1", first)
            arrow = "<-" if traced.direction == "in" else "->"
            self.tell(f"{label}: SIP", " ".join([arrow, first, f"({message.headers['CSeq'].split()[1]})", *kept]))


def describe(event: Message, before: dict[str, str], now: dict[str, str]) -> str:
    """An event's name, and those of its headers that are not as in the event before."""
    parts = [event.name, *(f"{key}={value}" for key, value in now.items() if before.get(key) != value)]
    parts += [f"-{key}" for key in before if key not in now]
    return " ".join([*parts, f"BODY {event.body!r}"] if event.body else parts)


Scene = Callable[[Rig, Story], Awaitable[None]]
SCENES: dict[str, Scene] = {}


def scene(function: Scene) -> Scene:
    SCENES[function.__name__] = function
    return function


async def play(rig: Rig, name: str) -> Story:
    """Play one scene and leave the rig as it was."""
    story = Story(rig)
    try:
        await SCENES[name](rig, story)
    finally:
        await rig.clean()
    return story


TONE = (8000 * np.sin(np.arange(16000) * 0.3)).astype(np.int16)


async def over(rig: Rig, story: Story, listener: EventSocket, calls: dict[str, tuple[str, Call]]) -> None:
    """Wait until every channel (label: UUID, call) is destroyed, then write all of it down."""
    for identity, call in calls.values():
        await listener.event("CHANNEL_STATE", Unique_ID=identity, Channel_State="CS_DESTROY")
        await call.wait_ended(PATIENCE_S)
    story.events(listener, {label: identity for label, (identity, _) in calls.items()})
    for label, (_, call) in calls.items():
        story.sip(label, call)
