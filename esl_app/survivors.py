"""What a killed esl_app left behind: calls that died with it, and calls put through that go on without it.

FreeSWITCH hangs up a parked call whose socket closes; one that is bridged to its target stays. At the start the first are
ended on record as controller_lost; the others are watched until they end. Targets that still ring for nobody are hung up.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import gevent
import orjson
from gevent import get_hub

from esl_app import recording
from esl_app.inbound import Inbound, SwitchAway
from esl_app.line import Recorder
from esl_app.protocol import CommandFailed, CommandTimeout
from tandem.outcome import Outcome
from tandem.records import CallStory, Records, RecordsError
from tandem.rows import LostCalls

WATCH_S = 5.0
"""How often a surviving call is looked for."""

_log = logging.getLogger(__name__)


class Survivors:
    """Run once, when FreeSWITCH is there for the first time. Returns when the last survivor has ended.

    ``recordings``: folder of those that esl_app has notes of.
    """

    def __init__(
        self,
        inbound: Inbound,
        recorder: Recorder,
        records_url: str,
        worker: str,
        recordings: Path,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._inbound = inbound
        self._recorder = recorder
        self._records_url = records_url
        self._worker = worker
        self._recordings = recordings
        self._now = now
        self._since = now()

    def close(self) -> None:
        """Raises SwitchAway, CommandFailed, CommandTimeout where FreeSWITCH cannot say which calls there are."""
        alive, strays = self._channels()
        for channel in strays:
            self._hang_up(channel)
        self._recorder.put(LostCalls(worker=self._worker, except_ids=tuple(alive), now=self._since))
        self._adopt(lambda call: call not in alive)
        for call in alive:
            _log.warning("goes on without the esl_app that put it through", extra={"call": call})
        while alive:
            gevent.sleep(WATCH_S)
            for call, channel in list(alive.items()):
                if not self._exists(channel):
                    del alive[call]
                    self._ended(call)

    def _channels(self) -> tuple[dict[str, str], list[str]]:
        """What FreeSWITCH has from before: callers' legs (call id → channel), and dialled legs whose caller is gone."""
        callers: dict[str, str] = {}
        dialled: dict[str, str] = {}
        listing = orjson.loads(self._inbound.api("show", "channels", "as", "json"))
        for row in listing.get("rows", []):
            if float(row.get("created_epoch") or 0) > self._since:
                continue
            try:
                call = self._inbound.api("uuid_getvar", row["uuid"], "sip_h_X-Tandem-Call")
            except CommandFailed:
                continue
            if call and row.get("direction") == "inbound":
                callers[call] = row["uuid"]
            elif call:
                dialled[row["uuid"]] = call
        return callers, [channel for channel, call in dialled.items() if call not in callers]

    def _hang_up(self, channel: str) -> None:
        try:
            self._inbound.api("uuid_kill", channel, "NORMAL_CLEARING")
        except CommandFailed:
            return
        _log.warning("a leg that was dialled for a lost call is hung up: %s", channel)

    def _exists(self, channel: str) -> bool:
        try:
            return self._inbound.api("uuid_exists", channel) == "true"
        except (SwitchAway, CommandFailed, CommandTimeout):
            return True

    def _adopt(self, is_lost: Callable[[str], bool]) -> None:
        """Have the archive take over the recordings of calls that are no more."""
        try:
            get_hub().threadpool.apply(recording.adopt, (self._recordings, self._since, self._now(), is_lost))
        except OSError as error:
            _log.error("recordings of lost calls are left as they are: %s", error)

    def _ended(self, call: str) -> None:
        self._adopt(lambda lost: lost == call)
        try:
            story = get_hub().threadpool.apply(self._read, (call,))
        except RecordsError as error:
            _log.error("its end cannot be put on record: %s", error, extra={"call": call})
            return
        if story is None or story.call.outcome is not None:
            return
        outcome = Outcome.TRANSFERRED if story.call.transferred_to else Outcome.CONTROLLER_LOST
        self._recorder.put(story.call.model_copy(update={"outcome": outcome, "ended_at": self._now()}))

    def _read(self, call: str) -> CallStory | None:
        with Records(self._records_url) as records:
            return records.call(call)
