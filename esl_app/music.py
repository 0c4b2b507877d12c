"""Music for a caller who waits: a file of freeswitch.prompts, from its beginning, over and over."""

import contextlib
from pathlib import Path

from esl_app.leg import Leg
from esl_app.protocol import COMMAND_FAILURES, CommandFailed
from esl_app.quoting import quote

FILE = "hold.wav"
_LOOPED = "l"
"""Flag of uuid_displace: at its end it begins anew. Without m it takes the place of whatever else is written."""


class Music:
    """On one leg."""

    def __init__(self, leg: Leg, prompts: Path) -> None:
        self._leg = leg
        self._file = str(prompts / FILE)
        self._plays = False

    def start(self) -> None:
        """Nothing where it plays already. Without the file, or where FreeSWITCH cannot, the caller waits in silence."""
        if not self._plays:
            self._plays = self._displace("start", "0", _LOOPED)

    def stop(self) -> None:
        if self._plays:
            self._plays = False
            self._displace("stop")

    def silence(self) -> None:
        """Stop what an esl_app before this one may have started."""
        with contextlib.suppress(CommandFailed):
            self._leg.session.api("uuid_displace", self._leg.uuid, "stop", quote(self._file))

    def _displace(self, verb: str, *words: str) -> bool:
        try:
            self._leg.session.api("uuid_displace", self._leg.uuid, verb, quote(self._file), *words)
        except COMMAND_FAILURES as error:
            self._leg.log.warning("no music for the caller: %s", error)
            return False
        return True
