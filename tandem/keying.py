"""Settings of what callers are asked to key in: an agent's ``collect``."""

from typing import Annotated

from pydantic import Field, model_validator

from tandem.fields import Secret, Text, matching
from tandem.recipients import Section


class Sink(Section):
    """Where a secret goes: one POST of JSON; the model is told its reply, and never the digits."""

    url: Annotated[str, matching(r"https?://\S+", "http:// or https:// and a host")]
    headers: dict[str, Secret] = {}  # noqa: RUF012 - pydantic copies it
    timeout_ms: Annotated[int, Field(ge=100, le=60000)] = 5000


class Collection(Section):
    """Something to be keyed in. With a ``sink`` it is a secret; without, the agent is given it."""

    name: Annotated[str, matching(r"[a-zA-Z0-9_-]{1,64}", "1 to 64 letters, digits, - and _")]
    description: Text
    """Told to the model."""
    min_digits: Annotated[int, Field(ge=1, le=32)] = 1
    max_digits: Annotated[int, Field(ge=1, le=32)] = 32
    seconds: Annotated[int, Field(ge=5, le=300)] = 60
    """For all of it, from the request on."""
    masked: bool = True
    """Records and recording do not have the digits."""
    sink: Sink | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Collection":
        if self.min_digits > self.max_digits:
            raise ValueError(f"min_digits {self.min_digits} is more than max_digits {self.max_digits}")
        if self.sink is not None and not self.masked:
            raise ValueError("what goes to a sink is secret; expected masked: true")
        return self
