"""Settings of recordings: what of an agent's calls is recorded, and how a site keeps it (see tandem/archive)."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, model_validator

from tandem.fields import Secret, matching
from tandem.recipients import Section


def _recipient(text: str) -> str:
    import pyrage  # the configuration of a site without recordings need not load it

    try:
        pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise ValueError(f"{text!r} is no public key of age ({error}); expected age1...") from None
    return text


def _identity(secret: SecretStr) -> SecretStr:
    import pyrage

    try:
        pyrage.x25519.Identity.from_str(secret.get_secret_value())
    except pyrage.IdentityError as error:
        raise ValueError(f"is no secret key of age ({error}); expected AGE-SECRET-KEY-1...") from None
    return secret


class RecordingMode(StrEnum):
    OFF = "off"
    ALWAYS = "always"
    ON_DEMAND = "on_demand"
    """Begun by the agent's tool or over the API."""


class ConsentBy(StrEnum):
    """How the caller comes to know, and to agree."""

    NOTHING = "nothing"
    """They agreed elsewhere, or need not; recorded from the answer on."""
    ANNOUNCEMENT = "announcement"
    """It is played before the agent is heard; who stays on the line agrees."""
    ANSWER = "answer"
    """The agent asks, and reports the answer by its tool; nothing is recorded before."""


class RecordingFormat(StrEnum):
    WAV = "wav"
    OPUS = "opus"
    """In Ogg (RFC 7845)."""


class Recording(Section):
    """What of one agent's calls is recorded."""

    mode: RecordingMode = RecordingMode.OFF
    consent: ConsentBy = ConsentBy.ANNOUNCEMENT
    announcement: Annotated[str, matching(r"[A-Za-z0-9_-]+\.wav", "a WAV file's name in freeswitch.prompts")] = (
        "recording.wav"
    )
    agent_pauses: bool = False
    """The agent has a tool to pause and to resume."""
    after_transfer: bool = False
    """It goes on once the caller was put through to somebody."""
    format: RecordingFormat = RecordingFormat.WAV
    keep_days: Annotated[int | None, Field(ge=1, le=36500)] = None
    """Default: the site's."""

    @model_validator(mode="after")
    def _off(self) -> "Recording":
        given = ", ".join(
            name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default
        )
        if self.mode is RecordingMode.OFF and given:
            raise ValueError(f"mode is off, so {given} mean nothing; expected mode: always or mode: on_demand")
        return self


class Recordings(Section):
    """How a site keeps its recordings: encrypted, each to whoever has one of the keys (https://age-encryption.org/v1)."""

    folder: Path = Path("recordings")
    """Of all workers on this machine. FreeSWITCH writes WORKER/incoming there, esl_app moves it to WORKER/kept."""
    recipients: list[Annotated[str, AfterValidator(_recipient)]] = []  # noqa: RUF012 - pydantic copies it
    """Public keys. Default: that of ``identity``."""
    identity: Annotated[Secret, AfterValidator(_identity)] | None = None
    """A secret key, to read with; a worker needs none where there are recipients."""
    keep_days: Annotated[int, Field(ge=1, le=36500)] = 90
