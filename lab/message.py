"""SIP messages on top of `sipmessage`: reading what real peers send, and keeping their text verbatim.

`sipmessage` splits and joins messages and knows the headers; it is strict where RFC 3261 is, and its typed accessors
write values back in its own spelling (a tag ``a!b`` returns as ``a%21b``). So header values are read here from their
text and echoed as they came.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from sipmessage import URI, Message, Request, Response
from sipmessage.message import COMPACT_FORMS

MAGIC_COOKIE = "z9hG4bK"
"""Start of a branch that identifies its transaction (RFC 3261 section 8.1.1.7)."""
MAX_MESSAGE = 65507
"""Bytes of the largest UDP datagram."""

_FOLD = re.compile(rb"\r\n[ \t]+")
_UNDECODABLE = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}
_RESTORED = {private: surrogate for surrogate, private in _UNDECODABLE.items()}
_REQUEST_LINE = re.compile(rb"^([A-Za-z0-9.!%*_+`'~-]+) (\S+) SIP/2\.0$")
_PARAMETER = re.compile(r';\s*([^=;\s]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]*))?')
_NAME_ADDR = re.compile(r'^\s*(?:"((?:[^"\\]|\\.)*)"|([^"<]*?))\s*<([^>]*)>(.*)$', re.DOTALL)
_ADDR_SPEC = re.compile(r"^\s*([^;\s]+)(.*)$", re.DOTALL)
_LIST_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"|<[^>]*>|[^,"<])+')
_SIP_URI = re.compile(
    r"^sips?:(?:([^@]*)@)?(\[[^\]]+\]|[^:;?]+)(?::(\d{1,5}))?((?:;[^?]*)?)(?:\?(.*))?$", re.IGNORECASE
)
_VIA = re.compile(r"^SIP\s*/\s*2\.0\s*/\s*(\w+)\s+(\[[^\]]+\]|[^:;,\s]+)\s*(?::\s*(\d{1,5}))?(.*)$", re.IGNORECASE)
_CSEQ = re.compile(r"^(\d{1,10})\s+(\S+)$")

REASONS = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Moved Temporarily",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    415: "Unsupported Media Type",
    420: "Bad Extension",
    422: "Session Interval Too Small",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    484: "Address Incomplete",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    607: "Unwanted",
}


class MalformedMessage(ValueError):
    """Bytes that cannot be taken for a SIP message; the text says why."""


@dataclass(frozen=True)
class VerbatimURI(URI):
    """A Request-URI kept as it was written, whatever its scheme (``urn:service:sos`` included)."""

    text: str = ""

    def __str__(self) -> str:
        return self.text


def verbatim(text: str) -> VerbatimURI:
    """``text`` as a Request-URI."""
    parts = sip_uri(text)
    scheme = text.partition(":")[0].lower()
    if parts is None:
        return VerbatimURI(scheme=scheme, host="", text=text)
    return VerbatimURI(scheme=scheme, host=parts.host, user=parts.user or None, port=parts.port, text=text)


def parse(data: bytes) -> Request | Response:
    """One datagram as a message with Via, From, To, Call-ID and CSeq in place. Raises MalformedMessage."""
    head, separator, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    if not separator:
        raise MalformedMessage("no empty line after the headers")
    start, _, rest = _FOLD.sub(b" ", head).partition(b"\r\n")
    request_line = _REQUEST_LINE.match(start)
    if request_line:
        start = request_line.group(1) + b" sip:verbatim.invalid SIP/2.0"
    elif re.fullmatch(rb"SIP/2\.0 \d{3}", start):
        start += b" "
    head = start + b"\r\n" + rest
    text = head.decode("utf-8", "surrogateescape").translate(_UNDECODABLE)
    try:
        message = Message.parse(text.encode() + b"\r\n\r\n")
    except ValueError as error:
        raise MalformedMessage(str(error)) from None
    if isinstance(message, Request):
        if request_line is None:
            raise MalformedMessage("the request line is not METHOD SP URI SP SIP/2.0")
        message.uri = verbatim(request_line.group(2).decode("utf-8", "surrogateescape").translate(_UNDECODABLE))
    elif not 100 <= message.code <= 699:
        raise MalformedMessage(f"status {message.code} is not in 100..699")
    _tidy_names(message)
    message.body = _framed(message, body)
    for name in ("Via", "From", "To", "Call-ID", "CSeq"):
        if not message.headers.get(name):
            raise MalformedMessage(f"no {name} header")
    cseq(message)
    top_via(message)
    return message


def _tidy_names(message: Request | Response) -> None:
    """``Via : …`` is legal (RFC 3261 section 7.3.1): take the space away, and expand the compact form behind it."""
    for name in message.headers.keys():  # noqa: SIM118 - not a mapping
        tidy = name.strip()
        if tidy != name:
            values = message.headers.getlist(name)
            message.headers.remove(name)
            for value in values:
                message.headers.add(COMPACT_FORMS.get(tidy.lower(), tidy), value)


def _framed(message: Request | Response, body: bytes) -> bytes:
    length = message.headers.get("Content-Length")
    if length is None:
        return body
    if not re.fullmatch(r"\d{1,9}", length):
        raise MalformedMessage(f"Content-Length {length!r} is not a number")
    if int(length) > len(body):
        raise MalformedMessage(f"Content-Length {length} but {len(body)} bytes of body")
    return body[: int(length)]


def serialise(message: Request | Response) -> bytes:
    """The message's bytes, with Content-Length set from its body."""
    message.headers.set("Content-Length", str(len(message.body)))
    data = bytes(message)
    head = data[: len(data) - len(message.body)]
    return head.decode().translate(_RESTORED).encode("utf-8", "surrogateescape") + message.body


def values(message: Request | Response, name: str) -> list[str]:
    """Every value of a header that may be a comma-separated list, in order, verbatim."""
    return [item.strip() for line in message.headers.getlist(name) for item in _LIST_ITEM.findall(line) if item.strip()]


def parameters(text: str) -> dict[str, str]:
    """``;name=value;flag`` as a dict with lower-case names; a flag's value is empty, quotes are kept."""
    return {name.lower(): value for name, value in _PARAMETER.findall(text)}


class NameAddr(NamedTuple):
    """A From, To, Contact, Route or Refer-To value."""

    display: str
    uri: str
    parameters: dict[str, str]

    @property
    def tag(self) -> str:
        return self.parameters.get("tag", "")


def name_addr(value: str) -> NameAddr:
    """Read a name-addr or addr-spec. Never raises: text that is neither becomes the URI."""
    match = _NAME_ADDR.match(value)
    if match:
        quoted, token, uri, rest = match.groups()
        display = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
        return NameAddr(display, uri.strip(), parameters(rest))
    match = _ADDR_SPEC.match(value)
    return NameAddr("", match.group(1), parameters(match.group(2))) if match else NameAddr("", value, {})


def format_name_addr(uri: str, display: str | None = None) -> str:
    """``"Display" <uri>``, the display name quoted. ValueError where a line break would end the header."""
    for part in (uri, display or ""):
        if "\r" in part or "\n" in part:
            raise ValueError(f"line break in {part!r}")
    if display is None:
        return f"<{uri}>"
    escaped = display.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}" <{uri}>'


def without_tag(value: str) -> str:
    """A From or To value without its tag, otherwise verbatim, in angle brackets."""
    match = _NAME_ADDR.match(value)
    address = name_addr(value)
    kept = value[: match.start(4)] if match else f"<{address.uri}>"
    return kept + "".join(_parameter(*item) for item in address.parameters.items() if item[0] != "tag")


def _parameter(name: str, value: str) -> str:
    return f";{name}={value}" if value else f";{name}"


def warning(host: str, text: str) -> tuple[str, str]:
    """A Warning header (RFC 3261 section 20.43) of code 399, for a person to read."""
    plain = re.sub(r"[\r\n]+", " ", text).replace("\\", "").replace('"', "'")
    return "Warning", f'399 {host} "{plain}"'


def reason_in(headers: Iterable[tuple[str, str]]) -> str | None:
    """The Reason header (RFC 3326) among ``headers``."""
    return next((value for name, value in headers if name.lower() == "reason"), None)


def copy_header(source: Request | Response, target: Request | Response, name: str) -> None:
    """All values of a header, verbatim; nothing where there is none."""
    found = source.headers.getlist(name)
    if found:
        target.headers.setlist(name, list(found))


@dataclass(frozen=True)
class SipUri:
    """The parts of a sip: or sips: URI; ``headers`` is what follows the question mark, still escaped."""

    user: str
    host: str
    port: int | None
    parameters: dict[str, str] = field(default_factory=dict)
    headers: str = ""


def sip_uri(text: str) -> SipUri | None:
    """Parts of a sip URI, or None where it is none."""
    match = _SIP_URI.match(text.strip())
    if match is None:
        return None
    user, host, port, params, headers = match.groups()
    return SipUri(user or "", host, int(port) if port else None, parameters(params), headers or "")


class ViaHop(NamedTuple):
    """The topmost Via."""

    transport: str
    host: str
    port: int | None
    parameters: dict[str, str]

    @property
    def branch(self) -> str:
        return self.parameters.get("branch", "")

    @property
    def sent_by(self) -> str:
        return f"{self.host}:{self.port or 5060}".lower()


def top_via(message: Request | Response) -> ViaHop:
    """The topmost Via. Raises MalformedMessage where there is none to read."""
    first = values(message, "Via")[:1]
    match = _VIA.match(first[0]) if first else None
    if match is None:
        raise MalformedMessage(f"Via {first[0] if first else ''!r} cannot be read")
    transport, host, port, rest = match.groups()
    return ViaHop(transport.upper(), host, int(port) if port else None, parameters(rest))


def stamped_via(message: Request, source: tuple[str, int]) -> list[str]:
    """The request's Via values as its response carries them: ``received`` and ``rport`` filled in (RFC 3581)."""
    first, *others = values(message, "Via")
    hop = top_via(message)
    if "rport" in hop.parameters:
        first = re.sub(r";\s*rport(?:\s*=\s*\d*)?", f";rport={source[1]}", first, count=1, flags=re.IGNORECASE)
    if "rport" in hop.parameters or hop.host != source[0]:
        first += f";received={source[0]}"
    return [first, *others]


class CSeq(NamedTuple):
    number: int
    method: str


def cseq(message: Request | Response) -> CSeq:
    """The CSeq. Raises MalformedMessage, also where its method is not the request's or the number exceeds 32 bits."""
    match = _CSEQ.match(message.headers.get("CSeq") or "")
    if match is None or int(match.group(1)) > 0xFFFFFFFF:
        raise MalformedMessage(f"CSeq {message.headers.get('CSeq')!r} cannot be read")
    if isinstance(message, Request) and match.group(2) != message.method:
        raise MalformedMessage(f"CSeq {match.group(0)!r} in a {message.method}")
    return CSeq(int(match.group(1)), match.group(2))


def from_tag(message: Request | Response) -> str:
    return name_addr(message.headers.get("From") or "").tag


def to_tag(message: Request | Response) -> str:
    return name_addr(message.headers.get("To") or "").tag


def call_id(message: Request | Response) -> str:
    return message.headers.get("Call-ID") or ""


def new_branch() -> str:
    return MAGIC_COOKIE + secrets.token_hex(8)


def new_tag() -> str:
    return secrets.token_hex(6)


def response_to(
    request: Request, source: tuple[str, int], status: int, reason: str | None = None, *, tag: str = ""
) -> Response:
    """A response with the headers that RFC 3261 section 8.2.6 copies; ``tag`` goes on To unless it has one."""
    response = Response(status, reason or REASONS.get(status, "Unknown"))
    headers = response.headers
    headers.setlist("Via", stamped_via(request, source))
    headers.set("From", request.headers["From"])
    to = request.headers["To"]
    headers.set("To", f"{to};tag={tag}" if tag and status > 100 and not to_tag(request) else to)
    headers.set("Call-ID", call_id(request))
    headers.set("CSeq", request.headers["CSeq"])
    return response
