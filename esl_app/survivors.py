"""What an esl_app that is gone left behind in FreeSWITCH.

An answered call that had its event socket is adrift: it goes on with its agent (freeswitch/dialplan.xml.j2) and is taken over
here. One that is connected with its target needs nobody, and is watched until it ends. What was not answered has had its
503. Legs that were dialled for somebody and have nobody now are hung up. What is on record as live and is none of these
ends as controller_lost.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import gevent
import orjson
from gevent import get_hub

from esl_app import recording
from esl_app.inbound import Inbound, SwitchAway
from esl_app.line import Recorder
from esl_app.metrics import ORPHANS
from esl_app.protocol import COMMAND_FAILURES, CommandFailed
from tandem.outcome import Outcome
from tandem.records import CallStory, Records, RecordsError
from tandem.rows import LostCalls

WATCH_S = 2.0
"""How often is looked again."""
LATE_S = 20.0
"""So long at least: a leg may appear after the esl_app that had it dialled is gone, and a call may still be busy with what
that one had it play or record.
"""
TALKING = frozenset({"CS_EXCHANGE_MEDIA", "CS_HIBERNATE", "CS_RESET", "CS_SOFT_EXECUTE"})
"""States of a leg that is connected with another, or is being."""
SELDOM_S = 30.0
"""How often is looked when there is nothing to look after: a call may lose its event socket for other reasons."""
_UNDEFINED = "_undef_"

_log = logging.getLogger(__name__)


@dataclass
class _Found:
    """Calls (id → the caller's channel) and legs that nobody answers for."""

    adrift: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)


class Survivors:
    """Run once, when FreeSWITCH is there for the first time. Looks for them from then on.

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
        self._taken: set[str] = set()

    def close(self) -> None:
        """Raises SwitchAway, CommandFailed, CommandTimeout where FreeSWITCH cannot say which calls there are."""
        found = self._find()
        alive = {**found.adrift, **found.others}
        self._recorder.put(LostCalls(worker=self._worker, except_ids=tuple(alive), now=self._since))
        self._adopt(lambda call: call not in alive)
        for call in found.others:
            _log.warning("goes on without the esl_app that had it", extra={"call": call})
        watched = self._look_after(found)
        while True:
            gevent.sleep(WATCH_S if watched or self._now() < self._since + LATE_S else SELDOM_S)
            try:
                found = self._find()
            except (SwitchAway, *COMMAND_FAILURES):
                continue
            for call in watched - found.adrift.keys() - found.others.keys():
                self._ended(call)
            watched = self._look_after(found)

    def _look_after(self, found: _Found) -> set[str]:
        """Take over, hang up; the calls that are to be watched."""
        for channel in found.strays:
            self._hang_up(channel)
        return set(found.others) | {
            call for call, channel in found.adrift.items() if not self._take_over(call, channel)
        }

    def _find(self) -> _Found:
        found = _Found()
        for channel, row in self._channels():
            call = self._variable(channel, "sip_h_X-Tandem-Call")
            if not call:
                continue
            if row.get("direction") != "inbound":
                mine = self._variable(channel, "tandem_controller") == self._inbound.identity
                if not mine and row.get("state") not in TALKING and row.get("application") != "conference":
                    found.strays.append(channel)
            elif self._variable(channel, "tandem_adrift") == "true":
                found.adrift[call] = channel
            elif float(row.get("created_epoch") or 0) <= self._since:
                found.others[call] = channel
        return found

    def _channels(self) -> Iterator[tuple[str, dict[str, str]]]:
        listing = orjson.loads(self._inbound.api("show", "channels", "as", "json"))
        return ((row["uuid"], row) for row in listing.get("rows", []))

    def _variable(self, channel: str, name: str) -> str:
        """Empty where it is not set, or the channel is gone."""
        try:
            value = self._inbound.api("uuid_getvar", channel, name)
        except CommandFailed:
            return ""
        return "" if value == _UNDEFINED else value

    def _take_over(self, call: str, channel: str) -> bool:
        """Have FreeSWITCH open an event socket for it once more: from there on it is a call like others."""
        try:
            self._inbound.api("uuid_transfer", channel, "controller", "XML", "tandem")
        except (SwitchAway, *COMMAND_FAILURES) as error:
            _log.warning("not taken over yet: %s", error, extra={"call": call})
            return False
        ORPHANS.labels("taken_over").inc()
        self._taken.add(call)
        return True

    def _hang_up(self, channel: str) -> None:
        try:
            self._inbound.api("uuid_kill", channel, "NORMAL_CLEARING")
        except (SwitchAway, *COMMAND_FAILURES):
            # Gone by itself, or found again at the next look.
            return
        ORPHANS.labels("hung_up").inc()
        _log.warning("a leg that was dialled for a lost call is hung up: %s", channel)

    def _adopt(self, is_lost: Callable[[str], bool]) -> None:
        """Have the archive take over the recordings of calls that are no more."""
        try:
            get_hub().threadpool.apply(recording.adopt, (self._recordings, self._since, self._now(), is_lost))
        except OSError as error:
            _log.error("recordings of lost calls are left as they are: %s", error)

    def _ended(self, call: str) -> None:
        self._adopt(lambda lost: lost == call)
        if call in self._taken:
            # Its record is its own greenlet's again.
            return
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
