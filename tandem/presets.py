"""What each kind of trunk really does, as data: the headers it may set, its pace, the addresses it publishes.

Facts of the carriers' own documentation; what differs for one operator is set in tandem.yaml and wins.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import yaml

from tandem.shipped import shipped

WORKER = "worker"
"""Beside the kinds of trunks: what our own workers may say."""


@dataclass(frozen=True)
class Preset:
    """One kind of trunk. ``says`` are the names of the headers that it may send of those that are reserved (``X-Twilio-*``
    and ``P-*``), as extended regular expressions; the others are taken out.
    """

    says: tuple[str, ...]
    keepalive_seconds: int
    """Between two OPTIONS to a gateway; 0: none."""
    least_keepalive_seconds: int = 1
    """Less leads to a ban, where the carrier says so."""
    calls_per_second_out: int | None = None
    """What the carrier takes at most, where it says so."""

    @property
    def says_pattern(self) -> str:
        return f"^({'|'.join(self.says)})$"


_IDENTITY = "P-Asserted-Identity"
_EARLY_MEDIA = "P-Early-Media"

PRESETS: dict[str, Preset] = {
    # More than one OPTIONS in 10 to 15 s leads to a ban; 1 call a second is what a trunk has until more is asked for.
    "twilio": Preset(("X-Twilio-.*", _IDENTITY, _EARLY_MEDIA), 60, 15, 1),
    "bandwidth": Preset((_IDENTITY, _EARLY_MEDIA, "P-Attestation-Indicator", "P-Origination-ID", "P-Charge-Info"), 60),
    "generic": Preset(("P-.*",), 60),
    "pbx": Preset((_IDENTITY, "P-Preferred-Identity", _EARLY_MEDIA), 30),
    # FreeSWITCH copies P-* from one leg to the other.
    WORKER: Preset((_IDENTITY, _EARLY_MEDIA), 0),
}


@cache
def twilio_ranges() -> dict[str, tuple[str, ...]]:
    """The networks that Twilio's Elastic SIP Trunking signals from, by edge location."""
    data = yaml.safe_load(shipped("kamailio/twilio.yaml").read_text(encoding="utf-8"))
    return {region: tuple(networks) for region, networks in data["signalling"].items()}


def twilio_sources(regions: Iterable[str]) -> list[str]:
    """Networks of those locations; of all where none is named. Raises ValueError for a location that there is not."""
    ranges = twilio_ranges()
    chosen = list(regions) or list(ranges)
    for region in chosen:
        if region not in ranges:
            raise ValueError(f"Twilio has no location {region!r}; expected some of: {', '.join(ranges)}")
    return [network for region in chosen for network in ranges[region]]
