"""Whether this worker is fit to take calls; while it is not, FreeSWITCH itself refuses them, and OPTIONS, with 503.

So the edge passes the worker over before a call is lost on it. What is judged is judged again every CHECK_S, and believed
when it has stayed so for some checks: a worker that comes and goes is worse than one that is away.
"""

import logging
from collections.abc import Callable
from enum import StrEnum

import gevent

from esl_app.inbound import Inbound, SwitchAway
from esl_app.media import MediaFork
from esl_app.metrics import DUTY_ERRORS, UNFIT
from esl_app.protocol import COMMAND_FAILURES

CHECK_S = 1.0
UNFIT_AFTER = 2
"""Checks in a row."""
FIT_AFTER = 3

_log = logging.getLogger(__name__)


class Unfit(StrEnum):
    """Why no call is taken."""

    MEDIA_FORK_DOWN = "media_fork_down"
    MEDIA_FORK_DRAINING = "media_fork_draining"
    MODEL_RESTING = "model_resting"
    """No endpoint of the model works, and none is to be tried yet."""
    RECORDS_FULL = "records_full"
    """The database is away, and there is no room on disk for what would be put on record."""


NO_CONVERSATION = frozenset({Unfit.MEDIA_FORK_DOWN, Unfit.MEDIA_FORK_DRAINING, Unfit.MODEL_RESTING})
"""What voicemail, or a spoken regret, can stand in for."""


class Fitness:
    """``stands_in``: some number has voicemail or a spoken regret behind it, for which a worker without a model is of use."""

    def __init__(
        self, inbound: Inbound, media_fork: MediaFork, records_are_full: Callable[[], bool], stands_in: bool
    ) -> None:
        self._inbound = inbound
        self._media_fork = media_fork
        self._records_are_full = records_are_full
        self._stands_in = stands_in
        self._watching: gevent.Greenlet[..., None] | None = None
        self._draining = False
        self._seen: Unfit | None = None
        self._times = 0
        """Checks in a row that saw it."""
        self.unfit: Unfit | None = None
        """As it is believed."""

    @property
    def pauses(self) -> bool:
        """FreeSWITCH is to refuse new calls."""
        if self._draining:
            return True
        return self.unfit is not None and not (self._stands_in and self.unfit in NO_CONVERSATION)

    def start(self) -> None:
        self._watching = gevent.spawn(self._watch)

    def stop(self) -> None:
        if self._watching is not None:
            self._watching.kill()

    def drain(self) -> None:
        """For good."""
        self._draining = True
        self.apply()

    def apply(self) -> None:
        """Have FreeSWITCH do as is to be done, unless it does."""
        try:
            paused = self._inbound.api("fsctl", "pause_check", "inbound") == "true"
            if paused != self.pauses:
                self._inbound.api("fsctl", "pause" if self.pauses else "resume", "inbound")
        except (SwitchAway, *COMMAND_FAILURES) as error:
            _log.warning("FreeSWITCH was not %s: %s", "paused" if self.pauses else "resumed", error)

    def check(self) -> None:
        """Look once, and believe what was seen often enough."""
        seen = self._judge()
        self._times = self._times + 1 if seen == self._seen else 1
        self._seen = seen
        if seen == self.unfit or self._times < (FIT_AFTER if seen is None else UNFIT_AFTER):
            return
        _log.warning("takes calls again" if seen is None else f"unfit to take calls: {seen.value}")
        self.unfit = seen
        for cause in Unfit:
            UNFIT.labels(cause.value).set(cause is seen)

    def _judge(self) -> Unfit | None:
        if self._records_are_full():
            return Unfit.RECORDS_FULL
        health = self._media_fork.health()
        if health is None:
            return Unfit.MEDIA_FORK_DOWN
        if health.status != "ok":
            return Unfit.MEDIA_FORK_DRAINING
        return Unfit.MODEL_RESTING if health.model != "ok" else None

    def _watch(self) -> None:
        while True:
            try:
                self.check()
                if self._inbound.up:
                    self.apply()
            except Exception:  # noqa: BLE001 - counted and logged
                DUTY_ERRORS.labels("fitness").inc()
                _log.exception("the check of fitness failed")
            gevent.sleep(CHECK_S)
