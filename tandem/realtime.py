"""Settings of the Realtime model: the endpoints that have it, and how one stands in for another."""

from enum import StrEnum
from typing import Annotated
from urllib.parse import parse_qs, urlencode, urlsplit

from pydantic import BaseModel, Field, SecretStr, model_validator

from tandem.fields import Secret, Text, matching
from tandem.recipients import Section


class KeyHeader(StrEnum):
    """How an endpoint is shown its key."""

    BEARER = "bearer"
    """``Authorization: Bearer KEY``."""
    API_KEY = "api-key"
    """``api-key: KEY``, as Azure OpenAI has it."""


class Model(BaseModel):
    model_config = Section.model_config


class Endpoint(Model):
    """One server of the OpenAI GA Realtime protocol."""

    url: Annotated[str, matching(r"wss?://[^\s/]+(/\S*)?", "ws:// or wss:// and a host")] = (
        "wss://api.openai.com/v1/realtime"
    )
    name: Text = "gpt-realtime-2.1"
    key: Secret = SecretStr("")
    key_header: KeyHeader = KeyHeader.BEARER
    transcription: Text | None = None
    """Its name for the model that writes down what the caller says (Azure: the deployment). Default: the agent's."""

    @property
    def session_url(self) -> str:
        """Where a session is opened: ``url``, with the model's name in its query."""
        query = urlsplit(self.url).query
        if "model" in parse_qs(query):
            return self.url
        return f"{self.url}{'&' if query else '?'}{urlencode({'model': self.name})}"

    @property
    def headers(self) -> dict[str, str]:
        """With the key in them, where there is one."""
        key = self.key.get_secret_value()
        if not key:
            return {}
        return {"api-key": key} if self.key_header is KeyHeader.API_KEY else {"Authorization": f"Bearer {key}"}


class RealtimeModel(Endpoint):
    """The first endpoint, and those that are asked where it cannot be had."""

    ready_within_ms: Annotated[int, Field(ge=200, le=20000)] = 3000
    """From the first connect to the first session.updated, of whichever endpoint."""
    alternatives: Annotated[list[Endpoint], Field(max_length=4)] = []
    next_after_ms: Annotated[int, Field(ge=100, le=10000)] = 1000
    """An endpoint that is not ready after this is not waited for alone: the next one is asked beside it."""
    rest_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """An endpoint that failed is passed over for this long, where there is another."""
    reconnect_within_ms: Annotated[int, Field(ge=500, le=30000)] = 6000
    """A model lost in mid-call is replaced within this, or the caller goes down the number's ladder."""

    @model_validator(mode="after")
    def _different(self) -> "RealtimeModel":
        seen = {(self.url, self.name)}
        for endpoint in self.alternatives:
            if (endpoint.url, endpoint.name) in seen:
                raise ValueError(
                    f"has {endpoint.name} at {endpoint.url} twice; expected other endpoints in alternatives"
                )
            seen.add((endpoint.url, endpoint.name))
        return self

    @property
    def endpoints(self) -> list[Endpoint]:
        """All, in order of preference."""
        return [self, *self.alternatives]
