"""Settings of who is told of emergency calls, and how: ``emergency.notify`` (see tandem/notify)."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from tandem.fields import Host, LoopbackPort, Name, Port, Secret, Text, matching


class Event(StrEnum):
    """What is told of an emergency call."""

    PLACED = "placed"
    """On its way to the first carrier: the notification that 47 CFR 9.16(b)(2) asks for."""
    REFUSED = "refused"
    """A carrier refused it or was silent; another is tried."""
    ANSWERED = "answered"
    FAILED = "failed"
    """No carrier took it."""
    ABANDONED = "abandoned"
    """The caller gave up before an answer; a PSAP may call back all the same."""
    CALLBACK = "callback"
    """A PSAP called back, and was put through."""


class Mailbox(StrEnum):
    """How the mail server is spoken to."""

    PLAIN = "plain"
    STARTTLS = "starttls"
    TLS = "tls"


class Section(BaseModel):
    """Frozen, and unknown keys are errors. What was given is not repeated in an error: it may be a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True)


class _Recipient(Section):
    events: Annotated[list[Event], Field(min_length=1)] = list(Event)
    tenants: list[Name] = []
    """Only of calls of these tenants. Empty: of all."""
    trunks: list[Name] = []
    """Only of calls from these PBXs: a site. Empty: from all."""
    location: bool = True
    """Whether it is told where the caller is."""


class SignedPost(Section):
    """Where JSON is POSTed to, signed with the secret as docs/emergency.md says."""

    url: Annotated[str, matching(r"https?://\S+", "http:// or https:// and a host")]
    secret: Secret

    @model_validator(mode="after")
    def _long(self) -> Self:
        if len(self.secret.get_secret_value()) < 16:
            raise ValueError("secret is too short to sign with; expected at least 16 characters")
        return self


class MailServer(Section):
    """An SMTP server of yours, and between whom mails go."""

    server: Host
    port: Port = 587
    security: Mailbox = Mailbox.STARTTLS
    username: str | None = None
    password: Secret = SecretStr("")
    sender: Annotated[str, matching(r"[^@\s]+@[^@\s]+", "an address, e.g. 911@example.com")]
    to: Annotated[list[Annotated[str, matching(r"[^@\s]+@[^@\s]+", "an address")]], Field(min_length=1)]


class Webhook(_Recipient, SignedPost):
    type: Literal["webhook"]


class Email(_Recipient, MailServer):
    type: Literal["email"]


class SyslogTransport(StrEnum):
    UDP = "udp"
    TCP = "tcp"
    """Octet counting (RFC 6587)."""
    TLS = "tls"
    """RFC 5425."""


class Syslog(_Recipient):
    """A line of syslog (RFC 5424), facility alert, severity alert; of a test notice."""

    type: Literal["syslog"]
    location: bool = False
    """Logs are read by many; where the caller is stays out of them unless asked for."""
    server: Host
    port: Port = 514
    transport: SyslogTransport = SyslogTransport.UDP


Recipient = Annotated[Webhook | Email | Syslog, Field(discriminator="type")]


class Notify(Section):
    """Who is told of emergency calls, beside the call (47 CFR 9.16(b)(2))."""

    recipients: dict[Name, Recipient] = {}
    site: Text = "this site"
    """Where this is, in words, for those who are told."""
    listen: LoopbackPort = "127.0.0.1:5068"
    """ADDRESS:PORT of the notifier's health and metrics; loopback only."""
    journal: Path = Path("notices")
    """Folder for what is still to be told."""
    keep_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """What was told is kept this long."""
    give_up_hours: Annotated[int, Field(ge=1, le=720)] = 24
    """A recipient that takes nothing for this long is not told of that event any more."""
