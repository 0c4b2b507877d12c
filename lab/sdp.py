"""SDP for one audio stream (RFC 8866) and its offer/answer (RFC 3264): the codecs of lab.codec and telephone-event."""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from lab.codec import CODECS, G711, RTP_CLOCK

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

STATIC_CODECS: Final = {0: "PCMU", 3: "GSM", 4: "G723", 8: "PCMA", 9: "G722", 15: "G728", 18: "G729"}
"""Payload types that need no rtpmap (RFC 3551)."""
TELEPHONE_EVENT: Final = "telephone-event"
TELEPHONE_EVENT_TYPE: Final = 101

_ANSWERED: dict[Direction, Direction] = {
    "sendrecv": "sendrecv",
    "sendonly": "recvonly",
    "recvonly": "sendonly",
    "inactive": "inactive",
}


class BadSdp(ValueError):
    """A body that is no session description with an audio stream; the text says why."""


class NoCommonCodec(ValueError):
    """Offer and our codecs have nothing in common: 488."""


@dataclass(frozen=True)
class Format:
    """One entry of the m= line."""

    payload_type: int
    name: str
    rate: int = 8000
    fmtp: str = ""


@dataclass(frozen=True)
class Session:
    """One audio stream. Port 0: refused or removed. Address 0.0.0.0: the old form of hold (RFC 3264 section 8.4)."""

    address: str
    port: int
    formats: tuple[Format, ...]
    direction: Direction = "sendrecv"
    ptime: int = 20
    origin: str = "tandem"
    session_id: int = 1
    version: int = 1
    other_media: tuple[str, ...] = ()
    """m= lines after the audio one, which an answer refuses one by one with port 0."""

    def codec(self, among: Collection[str] = tuple(CODECS)) -> Format | None:
        """The first codec that is ``among`` these, under its static payload type: FreeSWITCH knows them by no other."""
        types = {name: codec.payload_type for name, codec in CODECS.items() if name in among}
        return next(
            (e for e in self.formats if types.get(e.name.upper()) == e.payload_type and e.rate == RTP_CLOCK), None
        )

    @property
    def telephone_event(self) -> int | None:
        """Payload type of RFC 4733 events at 8 kHz."""
        return next(
            (e.payload_type for e in self.formats if e.name.lower() == TELEPHONE_EVENT and e.rate == 8000), None
        )

    @property
    def sends(self) -> bool:
        """The describing side sends audio."""
        return self.port != 0 and self.direction in ("sendrecv", "sendonly")

    @property
    def receives(self) -> bool:
        """The describing side wants audio."""
        return self.port != 0 and self.address != "0.0.0.0" and self.direction in ("sendrecv", "recvonly")

    def encode(self) -> bytes:
        kinds = " ".join(str(entry.payload_type) for entry in self.formats)
        lines = [
            "v=0",
            f"o={self.origin} {self.session_id} {self.version} IN IP4 {self.address}",
            "s=-",
            f"c=IN IP4 {self.address}",
            "t=0 0",
            f"m=audio {self.port} RTP/AVP {kinds}",
        ]
        for entry in self.formats:
            lines.append(f"a=rtpmap:{entry.payload_type} {entry.name}/{entry.rate}")
            if entry.fmtp:
                lines.append(f"a=fmtp:{entry.payload_type} {entry.fmtp}")
        lines += [f"a=ptime:{self.ptime}", f"a={self.direction}"]
        for line in self.other_media:
            kind, _, rest = line.partition(" ")
            lines.append(f"m={kind} 0 {rest.partition(' ')[2]}")
        return ("\r\n".join(lines) + "\r\n").encode()


def parse(body: bytes) -> Session:
    """The first audio stream of a body. Raises BadSdp."""
    address, ptime, direction = "", 20, "sendrecv"
    session_id, version = 0, 0
    media: str | None = None
    port = 0
    payload_types: list[int] = []
    names: dict[int, tuple[str, int]] = {}
    fmtps: dict[int, str] = {}
    others: list[str] = []
    for line in body.decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
        kind, _, value = line.strip().partition("=")
        try:
            if kind == "m":
                media, ports, profile, *types = value.split()
                if media == "audio" and profile == "RTP/AVP" and not payload_types:
                    port = int(ports.split("/")[0])
                    payload_types = [_payload_type(number) for number in types]
                else:
                    others.append(value)
                    media = "other"
            elif media == "other":
                continue
            elif kind == "o":
                _, identity, number, *_ = value.split()
                session_id, version = int(identity), int(number)
            elif kind == "c":
                address = value.split()[2].split("/")[0]
            elif kind == "a":
                name, _, text = value.partition(":")
                if name == "rtpmap":
                    number, mapping = text.split(None, 1)
                    encoding, rate = mapping.split("/")[:2]
                    names[int(number)] = (encoding, int(rate))
                elif name == "fmtp":
                    number, fmtp = text.split(None, 1)
                    fmtps[int(number)] = fmtp.strip()
                elif name == "ptime":
                    ptime = int(text)
                elif name in get_args(Direction):
                    direction = name
        except (ValueError, IndexError):
            raise BadSdp(f"cannot read the line {line[:80]!r}") from None
    if not payload_types:
        raise BadSdp("no m=audio line for RTP/AVP")
    if not 0 <= port <= 65535:
        raise BadSdp(f"port {port} is not one")
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        raise BadSdp(f"{address or 'no address'!r} in c= is not IPv4") from None
    formats = tuple(
        Format(number, *names.get(number, (STATIC_CODECS.get(number, "unknown"), 8000)), fmtps.get(number, ""))
        for number in payload_types
    )
    checked: Direction = direction  # type: ignore[assignment]  # one of get_args(Direction)
    return Session(address, port, formats, checked, ptime, "-", session_id, version, tuple(others))


def _payload_type(text: str) -> int:
    if not 0 <= int(text) <= 127:
        raise ValueError(f"payload type {text} is not in 0..127")
    return int(text)


def offer(
    address: str,
    port: int,
    *,
    codecs: tuple[str, ...] = G711,
    telephone_event: bool = True,
    direction: Direction = "sendrecv",
    session_id: int = 1,
    version: int = 1,
) -> Session:
    """An offer of ``codecs`` in their order, with telephone-event 101."""
    unknown = set(codecs) - set(CODECS)
    if unknown:
        raise ValueError(f"no codec {', '.join(sorted(unknown))} here; expected some of {', '.join(CODECS)}")
    formats = [Format(CODECS[name].payload_type, name) for name in codecs]
    if telephone_event:
        formats.append(Format(TELEPHONE_EVENT_TYPE, TELEPHONE_EVENT, 8000, "0-16"))
    return Session(address, port, tuple(formats), direction, session_id=session_id, version=version)


def answer(
    offered: Session,
    address: str,
    port: int,
    *,
    codecs: tuple[str, ...] = G711,
    direction: Direction = "sendrecv",
    session_id: int = 1,
    version: int = 1,
) -> Session:
    """The answer: the offer's first codec that is in ``codecs``, its events, the mirrored direction narrowed by ours.

    Raises NoCommonCodec.
    """
    chosen = offered.codec(codecs)
    if chosen is None:
        names = ", ".join(entry.name for entry in offered.formats)
        raise NoCommonCodec(f"offered {names}; expected one of {', '.join(codecs)}")
    events = [replace(e, fmtp="0-16") for e in offered.formats if e.payload_type == offered.telephone_event]
    mirrored = _ANSWERED[offered.direction]
    if offered.address == "0.0.0.0" and mirrored == "sendrecv":
        mirrored = "recvonly"
    return Session(
        address,
        port if offered.port else 0,
        (chosen, *events),
        _narrowed(mirrored, direction),
        session_id=session_id,
        version=version,
        other_media=offered.other_media,
    )


def _narrowed(one: Direction, other: Direction) -> Direction:
    sends = all(d in ("sendrecv", "sendonly") for d in (one, other))
    receives = all(d in ("sendrecv", "recvonly") for d in (one, other))
    if sends:
        return "sendrecv" if receives else "sendonly"
    return "recvonly" if receives else "inactive"
