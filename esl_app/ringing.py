"""The ringing that a caller hears while somebody is being rung for them: a tone in the cadence of the country."""

import contextlib

from esl_app.leg import Leg
from esl_app.protocol import CommandFailed

_CADENCES = {
    "double": "%(400,200,400,450);%(400,2000,400,450)",
    "north_american": "%(2000,4000,440,480)",
    "european": "%(1000,4000,425)",
}
_DOUBLE_RING = frozenset({"AU", "GB", "HK", "IE", "IN", "NZ", "SG", "ZA"})
_NORTH_AMERICAN_RING = frozenset({"CA", "PR", "US"})


class RingTone:
    """Mixed into what the caller hears: a media bug of its own, which neither a barge-in nor a playback ends."""

    def __init__(self, leg: Leg, country: str) -> None:
        self._leg = leg
        self._tone = f"tone_stream://{_CADENCES[_cadence(country)]};loops=-1"
        self._on = False

    def start(self) -> None:
        self._switch(True)

    def stop(self) -> None:
        self._switch(False)

    def silence(self) -> None:
        """Stop what an esl_app before this one may have started."""
        with contextlib.suppress(CommandFailed):
            self._leg.session.api("uuid_displace", self._leg.uuid, "stop", self._tone)

    def _switch(self, on: bool) -> None:
        if on == self._on:
            return
        self._on = on
        words = ("start", self._tone, "0", "mux") if on else ("stop", self._tone)
        try:
            self._leg.session.api("uuid_displace", self._leg.uuid, *words)
        except CommandFailed as error:
            self._leg.log.warning("no ringing for the caller: %s", error)


def _cadence(country: str) -> str:
    if country in _NORTH_AMERICAN_RING:
        return "north_american"
    return "double" if country in _DOUBLE_RING else "european"
