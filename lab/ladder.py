"""SIP ladders: messages between parties as text, or as a rich renderable in colour."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.text import Text
from sipmessage import Request, Response

from lab import message as sip_message
from lab.transaction import Address
from lab.transport import TracedMessage

_LEFT = 14
"""Columns for the time and the call's letter."""
_MIN_GAP = 22
_MAX_GAP = 44
_STYLES = {1: "dim", 2: "green", 3: "yellow", 4: "red", 5: "red", 6: "red"}
Piece = tuple[str, str]
"""Text and its rich style."""


@dataclass(frozen=True)
class WireMessage:
    """One datagram from one party to another."""

    time: float
    """Unix time, seconds."""
    source: str
    """The party's name."""
    target: str
    data: bytes

    @cached_property
    def message(self) -> Request | Response | None:
        """The datagram parsed; None where it is not SIP."""
        try:
            return sip_message.parse(self.data)
        except sip_message.MalformedMessage:
            return None

    @property
    def label(self) -> str:
        """``INVITE +12025550100 SDP``, ``200 OK INVITE SDP``, ``REFER to 2001``, ``NOTIFY 180 Ringing``."""
        message = self.message
        if message is None:
            return f"not SIP, {len(self.data)} bytes"
        media = " SDP" if b"m=audio" in message.body else ""
        if isinstance(message, Response):
            return f"{message.code} {message.phrase} {sip_message.cseq(message).method}{media}"
        return f"{message.method}{_detail(message)}{media}"

    @property
    def style(self) -> str:
        message = self.message
        if isinstance(message, Response):
            return _STYLES[message.code // 100]
        return "bold cyan" if message is not None else "magenta"


def _detail(request: Request) -> str:
    if request.method == "NOTIFY" and request.body:
        line = request.body.lstrip().split(b"\r\n")[0].decode("utf-8", "replace")
        return " " + line.removeprefix("SIP/2.0 ")
    if request.method == "REFER":
        return " to " + _user(sip_message.name_addr(request.headers.get("Refer-To") or "").uri)
    if request.method == "INVITE":
        return " " + _user(str(request.uri))
    reason = request.headers.get("Reason")
    return f" {reason.split(';')[1].strip()}" if reason and ";" in reason else ""


def _user(uri: str) -> str:
    parts = sip_message.sip_uri(uri)
    return (parts.user or parts.host) if parts is not None else uri


def from_trace(traced: Iterable[TracedMessage], us: str, names: Mapping[Address, str]) -> list[WireMessage]:
    """A phone's own trace as wire messages; peers that ``names`` lacks are shown as ADDRESS:PORT."""
    found = []
    for entry in traced:
        peer = names.get(entry.peer, f"{entry.peer[0]}:{entry.peer[1]}")
        source, target = (us, peer) if entry.direction == "out" else (peer, us)
        found.append(WireMessage(entry.time, source, target, entry.data))
    return found


def ladder_text(messages: Sequence[WireMessage], parties: Sequence[str] = ()) -> str:
    """The ladder as plain text, one line a message, a column a party (``parties`` first, others as they appear)."""
    return "\n".join("".join(text for text, _ in row).rstrip() for row in _rows(messages, parties)) + "\n"


def ladder(messages: Sequence[WireMessage], parties: Sequence[str] = ()) -> Text:
    """The same in colour: requests, and responses by class."""
    text = Text(no_wrap=True)
    for row in _rows(messages, parties):
        for piece, style in row:
            text.append(piece, style)
        text.append("\n")
    return text


def _rows(messages: Sequence[WireMessage], parties: Sequence[str]) -> list[list[Piece]]:
    columns = list(dict.fromkeys([*parties, *(name for m in messages for name in (m.source, m.target))]))
    if not messages:
        return [[("no messages", "dim")]]
    ordered = sorted(messages, key=lambda m: m.time)
    labels = _labels(ordered)
    places = {name: index for index, name in enumerate(columns)}
    widest = max(
        len(label) // max(1, abs(places[m.source] - places[m.target])) for m, label in zip(ordered, labels, strict=True)
    )
    gap = min(_MAX_GAP, max(_MIN_GAP, widest + 8, *(len(name) + 2 for name in columns)))
    calls: dict[str, str] = {}
    rows = [[(" " * _LEFT, ""), *(((name.center(gap)), "bold") for name in columns)]]
    for message, label in zip(ordered, labels, strict=True):
        identity = sip_message.call_id(message.message) if message.message is not None else ""
        letter = calls.setdefault(identity, _letter(len(calls))) if identity else "-"
        head = f"{message.time - ordered[0].time:9.3f} {letter:<3} "
        source, target = places[message.source], places[message.target]
        rows.append([(head, "dim"), *_arrow(source, target, len(columns), gap, label, message.style)])
    return rows


def _labels(messages: Sequence[WireMessage]) -> list[str]:
    seen: set[tuple[str, str, bytes]] = set()
    labels = []
    for message in messages:
        key = (message.source, message.target, message.data)
        labels.append(message.label + (" (again)" if key in seen else ""))
        seen.add(key)
    return labels


def _letter(index: int) -> str:
    return (chr(65 + index // 26 - 1) if index >= 26 else "") + chr(65 + index % 26)


def _arrow(source: int, target: int, columns: int, gap: int, label: str, style: str) -> list[Piece]:
    """One line: life lines, and between two of them the arrow with its label."""
    middle = gap // 2
    life = [" "] * (columns * gap)
    for column in range(columns):
        life[column * gap + middle] = "│"
    if source == target:
        start = source * gap + middle + 1
        label = _fitted(f"↺ {label}", len(life) - start)
        return [("".join(life[:start]), "dim"), (label, style), ("".join(life[start + len(label) :]), "dim")]
    left, right = sorted((source * gap + middle, target * gap + middle))
    inside = right - left - 1
    text = _fitted(f" {label} ", inside - 4).center(inside - 1, "─")
    shaft = f"{text}▶" if source < target else f"◀{text}"
    return [("".join(life[: left + 1]), "dim"), (shaft, style), ("".join(life[right:]), "dim")]


def _fitted(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + "… "
