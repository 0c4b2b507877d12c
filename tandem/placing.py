"""Settings of calls that we place: ``outbound``, ``dialler``, ``on_call`` (see docs/outbound.md)."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from tandem.dial_rules import Weekly
from tandem.fields import E164, ApiToken, DatabaseUrl, Dialled, LoopbackPort, Name, Secret, Text, matching
from tandem.recipients import Section


class Outbound(Section):
    """Bounds of the calls that we place, beside those of the dial policy."""

    max_calls: Annotated[int, Field(ge=1, le=10000)] = 5
    """At one time, of each tenant and worker."""
    windows: list[Weekly] = Field(default=["daily 08:00-21:00"], min_length=1)
    """When people are called, by the clocks where they are."""
    messages: Path = Path("messages")
    """Folder of the messages that are left on voicemails, as FreeSWITCH sees it: NAME.wav, 8 kHz."""


class Dialler(Section):
    """The process that keeps jobs and escalations."""

    listen: LoopbackPort = "127.0.0.1:8087"
    """ADDRESS:PORT of its API; loopback only."""
    token: ApiToken | None = None
    """What its clients must present. None: there is no dialler."""
    jobs: Annotated[DatabaseUrl, Field(repr=False)] = "sqlite:///jobs.db"
    """SQLAlchemy URL; with PostgreSQL it may be that of the records, where it has a schema of its own."""


class Contact(Section):
    """Somebody who is on call."""

    name: Text
    dial: Dialled
    sms: E164 | None = None
    """Told to the webhook."""


def _long(secret: Secret) -> Secret:
    if len(secret.get_secret_value()) < 16:
        raise ValueError("is too short to sign with; expected at least 16 characters")
    return secret


class SmsWebhook(Section):
    """An HTTPS POST of JSON, signed as docs/emergency.md says, to whatever sends the SMS."""

    url: Annotated[str, matching(r"https?://\S+", "http:// or https:// and a host")]
    secret: Annotated[Secret, AfterValidator(_long)]


class OnCall(Section):
    """Who is woken, and in which order."""

    agent: Name
    """Who speaks with them."""
    contacts: Annotated[list[Contact], Field(min_length=1, max_length=20)]
    trunk: Name | None = None
    """Over which they are called. Default: as ``routes`` has it."""
    answer_within_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """Then the next one is woken as well."""
    rounds: Annotated[int, Field(ge=1, le=10)] = 2
    """How often the list is gone through."""
    ring_seconds: Annotated[int, Field(ge=5, le=120)] = 60
    webhook: SmsWebhook | None = None
