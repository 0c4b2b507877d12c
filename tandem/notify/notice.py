"""One notice: what happened to an emergency call, as kamailio/notice.cfg leaves it, and what recipients are told of it."""

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import Message
from xml.etree import ElementTree

from pydantic import BaseModel, ConfigDict, ValidationError

from tandem.recipients import Event

VERSION = 1
PIDF_LO = "application/pidf+xml"
MAX_SUMMARY = 500
"""Characters of a location in words."""


class NoticeError(ValueError):
    """What Kamailio left cannot be read; the message says why."""


class Location(BaseModel):
    """Where the caller is, as it went to the carrier (RFC 6442)."""

    model_config = ConfigDict(frozen=True)

    geolocation: list[str]
    """Values of the Geolocation headers, in order."""
    geolocation_routing: str | None = None
    pidf_lo: list[str]
    """The PIDF-LO documents of the body (RFC 4119)."""

    def words(self) -> str:
        """The civic address or the coordinates of the PIDF-LOs, for people; empty where there are none to be read."""
        found = [text for document in self.pidf_lo for text in _places(document)]
        return "; ".join(dict.fromkeys(found))[:MAX_SUMMARY]


class Notice(BaseModel):
    """What recipients are told. ``model_dump_json()`` is the body of a webhook."""

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    id: str
    """The same each time that this notice is sent."""
    event: Event
    test: bool
    """Dialled 933 or another number for tests: nobody comes."""
    time: datetime
    site: str
    call: str
    """The token that log lines of the call have."""
    sip_call_id: str
    trunk: str
    """The PBX; of a callback the trunk that it came from."""
    tenant: str
    dialled: str
    """The emergency number meant, or ``sos`` or ``test.sos``."""
    phone: str
    """As the PBX calls it."""
    callback_number: str | None = None
    """What the PSAP was shown. None: nothing that it could call back."""
    carrier: str | None = None
    gateway: str | None = None
    status: int | None = None
    """SIP status of ``refused``."""
    location: Location | None = None
    """Of ``placed``. None: the call conveyed none, so that the address registered for the number counts."""

    @property
    def headline(self) -> str:
        """One line for people."""
        kind = f"TEST of {self.dialled}" if self.test else f"EMERGENCY CALL to {self.dialled}"
        if self.event is Event.CALLBACK:
            kind = "CALL BACK from emergency services"
        return f"{kind} {self.event.value}: phone {self.phone} at {self.site}, call back {self.callback_number or 'unknown'}"


def read(text: str, number: int, site: str, tests: list[str]) -> tuple[Notice, str]:
    """A notice from Kamailio's base64, its ``number`` in the table; and what is the same in a retransmission of its cause.

    Raises NoticeError.
    """
    try:
        head, _, invite = base64.b64decode(text, validate=True).partition(b"\n\n")
        facts = dict(line.partition(": ")[::2] for line in head.decode("utf-8", "replace").split("\n"))
        event = Event(facts["event"])
        notice = Notice(
            id=f"{facts['call']}-{number}",
            event=event,
            test=facts["meant"] in (*tests, "test.sos"),
            time=datetime.fromtimestamp(float(facts["time"]), UTC),
            site=site,
            call=facts["call"],
            sip_call_id=facts["call-id"],
            trunk=facts["trunk"],
            tenant=facts["tenant"],
            dialled=facts["meant"],
            phone=facts["phone"],
            callback_number=facts["callback"] or None,
            carrier=facts["carrier"] or None,
            gateway=facts["gateway"] or None,
            status=int(facts["status"]) if event is Event.REFUSED and facts["status"].isdigit() else None,
            location=_location(invite) if event is Event.PLACED else None,
        )
    except (KeyError, ValueError, OverflowError, binascii.Error, ValidationError) as error:
        raise NoticeError(f"notice {number}: {error!r}") from error
    # A PBX that sends the same INVITE again under a new transaction places no second call.
    same = f"{facts['call-id']} {facts['tag']}" if event is Event.PLACED else notice.id
    return notice, f"{event.value} {same}"


def _location(invite: bytes) -> Location | None:
    head, _, body = invite.partition(b"\r\n")[2].partition(b"\r\n\r\n")
    head = re.sub(rb"(?im)^c[ \t]*:", b"Content-Type:", head)
    message = message_from_bytes(head + b"\r\n\r\n" + body, policy=policy.compat32)
    geolocation = [str(value).strip() for value in message.get_all("Geolocation", [])]
    documents = [_text(part) for part in message.walk() if part.get_content_type() == PIDF_LO]
    if not geolocation and not documents:
        return None
    routing = message.get("Geolocation-Routing")
    return Location(
        geolocation=geolocation, geolocation_routing=str(routing).strip() if routing else None, pidf_lo=documents
    )


def _text(part: "Message[str, str]") -> str:
    payload = part.get_payload(decode=True)
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""


def _places(document: str) -> Iterator[str]:
    """Civic addresses (RFC 5139) and positions (RFC 5491) in a PIDF-LO."""
    if "<!DOCTYPE" in document:
        return
    try:
        root = ElementTree.fromstring(document.encode())
    except ElementTree.ParseError:
        return
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        if name == "civicAddress":
            parts = [(child.tag.rpartition("}")[2], (child.text or "").strip()) for child in element]
            yield ", ".join(f"{key} {value}" for key, value in parts if value)
        elif name == "pos" and element.text:
            yield f"position {' '.join(element.text.split())}"
