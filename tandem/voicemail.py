"""Settings of voicemail: who is told of the messages that callers leave, and gets them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from tandem.fields import E164, Name
from tandem.recipients import MailServer, Section, SignedPost


class Model(BaseModel):
    model_config = Section.model_config


class _Recipient(Model):
    numbers: list[E164] = []
    """Only of messages for these numbers. Empty: for all."""
    tenants: list[Name] = []
    """Only of calls of these tenants. Empty: of all."""
    file: bool = True
    """Whether it gets the recording, or is only told of it."""


class Post(_Recipient, SignedPost):
    """A POST of JSON, with the WAV in base64."""

    type: Literal["webhook"]


class Mail(_Recipient, MailServer):
    """A mail, the WAV attached."""

    type: Literal["email"]


Recipient = Annotated[Post | Mail, Field(discriminator="type")]


class Voicemail(Model):
    """Each message is told to all recipients whom it concerns, again and again until they have taken it."""

    recipients: dict[Name, Recipient] = {}
    journal: Path = Path("undelivered")
    """Folder for what is still to be told, a folder a worker in it."""
    keep_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """What was told is kept this long in the journal. Recordings are kept until an operator removes them."""
    give_up_hours: Annotated[int, Field(ge=1, le=720)] = 72
    """A recipient that takes nothing for this long is not told of that message any more."""
