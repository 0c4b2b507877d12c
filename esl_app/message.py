"""A message that a caller has left: what recipients are told of it, and how it is put in a mail and a webhook."""

import io
import wave
from base64 import b64encode
from datetime import UTC, datetime
from email.message import EmailMessage
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from esl_app.arrival import Arrival
from tandem.notify.channels import DeliveryError, envelope
from tandem.voicemail import Mail, Post, Recipient

VERSION: Final = 1
MAX_BYTES: Final = 32 << 20
"""Of a recording that is sent; 600 s at 8 kHz have 10 MB."""


class Event(StrEnum):
    VOICEMAIL = "voicemail"


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    id: str
    """The same each time that this message is sent."""
    event: Event = Event.VOICEMAIL
    time: datetime
    call: str
    """The token that log lines and the record of the call have."""
    worker: str
    number: str
    caller: str
    verified: str
    trunk: str
    tenant: str
    cause: str
    """Why there was no agent: as in the call's record."""


class Message(_Facts):
    """What the journal keeps; the recording stays where FreeSWITCH put it."""

    file: Path

    @property
    def headline(self) -> str:
        return f"Voice message for {self.number} from {self.caller or 'an unknown caller'}"


class Audio(BaseModel):
    type: str = "audio/wav"
    base64: str


class Sent(_Facts):
    """The body of a webhook."""

    file: str
    """Its name, without a folder."""
    seconds: float
    audio: Audio | None = None


def message(arrival: Arrival, worker: str, cause: str, file: Path, now: float) -> Message:
    """The message that the call of ``arrival`` has left in ``file`` by ``now``, Unix seconds."""
    return Message(
        id=f"{arrival.call}-message",
        time=datetime.fromtimestamp(now, UTC),
        call=arrival.call,
        worker=worker,
        number=arrival.number,
        caller=arrival.caller,
        verified=arrival.verified,
        trunk=arrival.trunk,
        tenant=arrival.tenant,
        cause=cause,
        file=file,
    )


def concerns(recipient: Recipient, message: Message) -> bool:
    """Whether a recipient wants it."""
    return (not recipient.numbers or message.number in recipient.numbers) and (
        not recipient.tenants or message.tenant in recipient.tenants
    )


class Recording:
    """The WAV of a message. Raises DeliveryError where it cannot be read."""

    def __init__(self, file: Path) -> None:
        try:
            if file.stat().st_size > MAX_BYTES:
                raise DeliveryError(f"{file} has more than {MAX_BYTES} bytes")
            self.audio = file.read_bytes()
            with wave.open(io.BytesIO(self.audio)) as recorded:
                self.seconds = recorded.getnframes() / recorded.getframerate()
        except (OSError, wave.Error, EOFError, ZeroDivisionError) as error:
            raise DeliveryError(f"{file} cannot be read: {error}") from error


def body(place: Post, message: Message, recording: Recording) -> Sent:
    """What a webhook is sent."""
    audio = Audio(base64=b64encode(recording.audio).decode()) if place.file else None
    facts = message.model_dump(exclude={"file"})
    return Sent(**facts, file=message.file.name, seconds=round(recording.seconds, 1), audio=audio)


def letter(place: Mail, message: Message, recording: Recording) -> EmailMessage:
    """What a mail has."""
    mail = envelope(place, message.headline, message.time, message.id)
    facts = message.model_dump(mode="json", exclude={"version", "event", "file"})
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in facts.items() if value]
    lines += [f"seconds: {recording.seconds:.1f}", f"file: {message.file.name}"]
    mail.set_content("\n".join([message.headline, "", *lines]) + "\n")
    if place.file:
        mail.add_attachment(recording.audio, "audio", "wav", filename=message.file.name)
    return mail
