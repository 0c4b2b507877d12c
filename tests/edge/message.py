"""A SIP message as it came or went, and replies as a UAS makes them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
)
LOCAL_TAG = "to-tag"
"""The To-tag of every UAS here."""

COMPACT = {
    "i": "call-id",
    "m": "contact",
    "l": "content-length",
    "c": "content-type",
    "f": "from",
    "t": "to",
    "v": "via",
}
"""Compact names of headers (RFC 3261 section 7.3.3)."""

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Message:
    """A SIP message. Header names are matched without regard to case, compact ones as well; folded lines are unfolded."""

    raw: bytes
    at: float
    """time.monotonic() of its arrival."""
    peer: tuple[str, int]
    over: str = "udp"
    back: Callable[[bytes], None] | None = field(default=None, repr=False, compare=False)
    """Sends on the connection that it came by."""
    start: str = field(init=False)
    headers: tuple[tuple[str, str], ...] = field(init=False)
    body: bytes = field(init=False)

    def __post_init__(self) -> None:
        head, _, body = self.raw.partition(b"\r\n\r\n")
        lines = re.sub(r"\r\n[ \t]+", " ", head.decode("utf-8", "replace")).split("\r\n")
        pairs = [line.partition(":") for line in lines[1:]]
        object.__setattr__(self, "start", lines[0])
        object.__setattr__(self, "headers", tuple((name.strip(), value.strip()) for name, _, value in pairs))
        object.__setattr__(self, "body", body)

    @property
    def is_request(self) -> bool:
        return not self.start.startswith("SIP/2.0")

    @property
    def method(self) -> str:
        return self._word(0) if self.is_request else self["CSeq"].rpartition(" ")[2]

    @property
    def uri(self) -> str:
        return self._word(1)

    @property
    def status(self) -> int:
        return 0 if self.is_request else int(self._word(1))

    def _word(self, index: int) -> str:
        words = self.start.split()
        return words[index] if index < len(words) else ""

    @property
    def call_id(self) -> str:
        return self["Call-ID"]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if COMPACT.get(key.lower(), key.lower()) == name.lower()]

    def __getitem__(self, name: str) -> str:
        return next(iter(self.all(name)), "")

    @property
    def names(self) -> set[str]:
        return {key.lower() for key, _ in self.headers}

    @property
    def lines(self) -> list[str]:
        """Each header as ``Name: value``."""
        return [f"{name}: {value}" for name, value in self.headers]

    @property
    def branch(self) -> str:
        """The branch of the topmost Via."""
        match = re.search(r";branch=([^;,\s]+)", self["Via"])
        return match[1] if match else ""

    @property
    def reason(self) -> str:
        """The text of its Reason header."""
        match = re.search(r'text="([^"]*)"', self["Reason"])
        return match[1] if match else ""

    @property
    def tag(self) -> str:
        match = re.search(r";tag=([^;]+)", self["To"])
        return match[1] if match else ""


def reply(
    request: Message,
    status: int,
    reason: str = "",
    *,
    headers: Headers = (),
    body: str | bytes = "",
    contact: str = "",
) -> bytes:
    """A reply to ``request`` as a UAS makes it (RFC 3261 section 8.2.6)."""
    to = request["To"]
    if status > 100 and ";tag=" not in to:
        to += f";tag={LOCAL_TAG}"
    content = body.encode() if isinstance(body, str) else body
    lines = [
        f"SIP/2.0 {status} {reason or 'Because'}",
        *(f"Via: {via}" for via in request.all("Via")),
        *(f"Record-Route: {route}" for route in request.all("Record-Route")),
        f"From: {request['From']}",
        f"To: {to}",
        f"Call-ID: {request.call_id}",
        f"CSeq: {request['CSeq']}",
        *((f"Contact: <sip:far@{contact}>",) if contact and status >= 180 else ()),
        *(f"{name}: {value}" for name, value in headers),
        f"Content-Length: {len(content)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + content


def acknowledgement(invite: Message, final: Message) -> bytes:
    """The ACK of a final reply other than 2xx, hop by hop (RFC 3261 section 17.1.1.3)."""
    lines = [
        f"ACK {invite.uri} SIP/2.0",
        f"Via: {invite['Via']}",
        "Max-Forwards: 70",
        *(f"Route: {route}" for route in invite.all("Route")),
        f"From: {invite['From']}",
        f"To: {final['To']}",
        f"Call-ID: {invite.call_id}",
        f"CSeq: {invite['CSeq'].partition(' ')[0]} ACK",
        "Content-Length: 0",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
