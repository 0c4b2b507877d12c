"""Events: what the switch tells those who listen, and how an event is written on the event socket."""

import itertools
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate

import orjson

from lab.switch.text import encode, url_encode

ALL = "ALL"
CUSTOM = "CUSTOM"
EVENT_NAMES = frozenset(
    """
    CUSTOM CLONE CHANNEL_CREATE CHANNEL_DESTROY CHANNEL_STATE CHANNEL_CALLSTATE CHANNEL_ANSWER CHANNEL_HANGUP
    CHANNEL_HANGUP_COMPLETE CHANNEL_EXECUTE CHANNEL_EXECUTE_COMPLETE CHANNEL_HOLD CHANNEL_UNHOLD CHANNEL_BRIDGE
    CHANNEL_UNBRIDGE CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_OUTGOING CHANNEL_PARK CHANNEL_UNPARK
    CHANNEL_APPLICATION CHANNEL_ORIGINATE CHANNEL_UUID API LOG INBOUND_CHAN OUTBOUND_CHAN STARTUP SHUTDOWN
    PUBLISH UNPUBLISH TALK NOTALK SESSION_CRASH MODULE_LOAD MODULE_UNLOAD DTMF MESSAGE PRESENCE_IN NOTIFY_IN
    PRESENCE_OUT PRESENCE_PROBE MESSAGE_WAITING MESSAGE_QUERY ROSTER CODEC BACKGROUND_JOB DETECTED_SPEECH
    DETECTED_TONE PRIVATE_COMMAND HEARTBEAT TRAP ADD_SCHEDULE DEL_SCHEDULE EXE_SCHEDULE RE_SCHEDULE RELOADXML
    NOTIFY PHONE_FEATURE PHONE_FEATURE_SUBSCRIBE SEND_MESSAGE RECV_MESSAGE REQUEST_PARAMS CHANNEL_DATA GENERAL
    COMMAND SESSION_HEARTBEAT CLIENT_DISCONNECTED SERVER_DISCONNECTED SEND_INFO RECV_INFO RECV_RTCP_MESSAGE
    SEND_RTCP_MESSAGE CALL_SECURE NAT RECORD_START RECORD_STOP PLAYBACK_START PLAYBACK_STOP CALL_UPDATE FAILURE
    SOCKET_DATA MEDIA_BUG_START MEDIA_BUG_STOP CONFERENCE_DATA_QUERY CONFERENCE_DATA CALL_SETUP_REQ
    CALL_SETUP_RESULT CALL_DETAIL DEVICE_STATE TEXT SHUTDOWN_REQUESTED ALL
    """.split()  # noqa: SIM905 - a list of words
)

WITH_VARIABLES = frozenset(
    """
    CUSTOM CHANNEL_CREATE CHANNEL_ORIGINATE CHANNEL_UUID CHANNEL_ANSWER CHANNEL_PARK CHANNEL_UNPARK
    CHANNEL_BRIDGE CHANNEL_UNBRIDGE CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_HANGUP
    CHANNEL_HANGUP_COMPLETE REQUEST_PARAMS CHANNEL_DATA CHANNEL_EXECUTE CHANNEL_EXECUTE_COMPLETE CHANNEL_DESTROY
    SESSION_HEARTBEAT API RECORD_START RECORD_STOP PLAYBACK_START PLAYBACK_STOP CALL_UPDATE MEDIA_BUG_START
    MEDIA_BUG_STOP CHANNEL_HOLD CHANNEL_UNHOLD TEXT
    """.split()  # noqa: SIM905 - a list of words
)
"""Events about a channel that carry its variables; the others have its state and caller profile only."""


@dataclass
class Event:
    """One event. Header names keep their spelling, are found whatever their case, and may come twice."""

    name: str
    subclass: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""

    def add(self, name: str, value: str | int | None) -> None:
        """Append a header; one without a value is left out."""
        if value is not None and value != "":
            self.headers.append((name, str(value)))

    def extend(self, headers: Iterable[tuple[str, str]]) -> None:
        for name, value in headers:
            self.add(name, value)

    def get(self, name: str) -> str | None:
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    def serialize(self) -> bytes:
        """The text form of ``event plain``: escaped headers, an empty line, the body."""
        lines = [f"{name}: {url_encode(value)}\n" for name, value in self.headers]
        if not self.body:
            return encode("".join((*lines, "\n")))
        body = encode(self.body)
        return encode("".join(lines)) + b"Content-Length: %d\n\n" % len(body) + body

    def serialize_json(self) -> bytes:
        """The form of ``event json``: one object of strings, the body under ``_body``."""
        document: dict[str, str] = {}
        for name, value in self.headers:
            document.setdefault(name, _printable(value))
        if self.body:
            document["Content-Length"] = str(len(encode(self.body)))
            document["_body"] = _printable(self.body)
        return orjson.dumps(document)


def _printable(text: str) -> str:
    return encode(text).decode("utf-8", "replace")


class EventBus:
    """Stamps events with who, when and a running number, and hands them to all who subscribed, in order."""

    def __init__(self, *, switchname: str, address: str, clock: Callable[[], float] = time.time) -> None:
        self.core_uuid = str(uuid.uuid4())
        self.switchname = switchname
        self.address = address
        self.clock = clock
        self._sequence = itertools.count(1)
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``subscriber`` with every event from now on; returns what ends the subscription."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def stamp(self, event: Event) -> Event:
        """Put the headers that every event begins with in front of those it has."""
        now = self.clock()
        stamped = Event("", "", [])
        stamped.add("Event-Subclass", event.subclass)
        stamped.add("Event-Name", event.name)
        stamped.add("Core-UUID", self.core_uuid)
        stamped.add("FreeSWITCH-Hostname", self.switchname)
        stamped.add("FreeSWITCH-Switchname", self.switchname)
        stamped.add("FreeSWITCH-IPv4", self.address)
        stamped.add("FreeSWITCH-IPv6", "::1")
        stamped.add("Event-Date-Local", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)))
        stamped.add("Event-Date-GMT", formatdate(now, usegmt=True))
        stamped.add("Event-Date-Timestamp", int(now * 1_000_000))
        stamped.add("Event-Calling-File", "switch.py")
        stamped.add("Event-Calling-Function", "fire")
        stamped.add("Event-Calling-Line-Number", 1)
        stamped.add("Event-Sequence", next(self._sequence))
        event.headers[:0] = stamped.headers
        return event

    def fire(self, event: Event) -> None:
        self.stamp(event)
        for subscriber in tuple(self._subscribers):
            subscriber(event)
