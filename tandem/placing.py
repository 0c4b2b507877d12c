"""Settings of calls that we place: ``outbound`` (see docs/outbound.md)."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from tandem.dial_rules import Weekly
from tandem.recipients import Section


class Outbound(Section):
    """Bounds of the calls that we place, beside those of the dial policy."""

    max_calls: Annotated[int, Field(ge=1, le=10000)] = 5
    """At one time, of each tenant and worker."""
    windows: list[Weekly] = Field(default=["daily 08:00-21:00"], min_length=1)
    """When people are called, by the clocks where they are."""
    messages: Path = Path("messages")
    """Folder of the messages that are left on voicemails, as FreeSWITCH sees it: NAME.wav, 8 kHz."""
