"""Settings of who is told how transfers ended, and what of the caller's context goes along with a transfer."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from tandem.fields import Name
from tandem.outcome import TransferOutcome
from tandem.recipients import Section, SignedPost


class Context(StrEnum):
    """What the far end of a trunk is told of a caller who is transferred to it."""

    NONE = "none"
    KEY = "key"
    """A key for the screen-pop, as User-to-User (RFC 7433)."""
    FULL = "full"
    """That, and what the caller wants in X-Context-* headers: for peers that are trusted."""


class _Model(BaseModel):
    model_config = Section.model_config


class TransferWebhook(_Model, SignedPost):
    """Each transfer that ended is told to it."""

    outcomes: Annotated[list[TransferOutcome], Field(min_length=1)] = list(TransferOutcome)


class Transfers(_Model):
    """What is told of transfers beside the call."""

    briefing_seconds: Annotated[int, Field(ge=10, le=120)] = 45
    """In a warm transfer: for so long the one who answered may listen and ask before they take the call."""
    context_minutes: Annotated[int, Field(ge=1, le=1440)] = 60
    """For so long the key that a transfer carries can be used."""
    webhooks: dict[Name, TransferWebhook] = {}
    journal: Path = Path("transfers")
    """Folder for what is still to be told; each worker has one of its own in it."""
    keep_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """What was told is kept this long."""
    give_up_hours: Annotated[int, Field(ge=1, le=720)] = 24
    """A webhook that takes nothing for this long is not told of that transfer any more."""
