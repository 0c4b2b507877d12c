"""What the dialler's API is asked for."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tandem.fields import Name
from tandem.seam import MAX_CONTEXT

ID = r"^[A-Za-z0-9_-]{4,48}$"
MAX_ALERT = 2000


class Job(BaseModel):
    """``POST /v1/jobs``: a call, as ``POST /v1/calls`` of a worker has it, and when and how often it is tried."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=ID)] | None = None
    """Asked for twice it is one job."""
    to: Annotated[str, Field(min_length=1, max_length=64)]
    agent: Name
    trunk: Name | None = None
    tenant: Name | None = None
    caller_id: Annotated[str, Field(max_length=16)] | None = None
    ring_seconds: Annotated[int, Field(ge=5, le=120)] = 30
    context: Annotated[str, Field(max_length=MAX_CONTEXT)] = ""
    answer_detection: bool = True
    on_machine: Annotated[str, Field(pattern="^(hang_up|message|agent)$")] = "hang_up"
    message: Name | None = None
    not_before: Annotated[float, Field(ge=0, le=4e9)] = 0.0
    """Unix seconds."""
    give_up_after_seconds: Annotated[int, Field(ge=1, le=2_592_000)] = 86_400
    """From not_before, or from when it was asked for."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    retry_seconds: Annotated[int, Field(ge=1, le=86_400)] = 900
    """Between two attempts."""

    def call(self) -> dict[str, object]:
        """The body for a worker."""
        own = {"id", "not_before", "give_up_after_seconds", "attempts", "retry_seconds"}
        return self.model_dump(exclude=own, exclude_none=True)


class Alert(BaseModel):
    """``POST /v1/escalations``: what those on call are woken for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=ID)] | None = None
    on_call: Name
    text: Annotated[str, Field(min_length=1, max_length=MAX_ALERT)]


class Acknowledgement(BaseModel):
    """``POST /v1/escalations/{id}/acknowledge``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Annotated[str, Field(min_length=1, max_length=64)]
