"""Hold: the caller waits, with music or without; the model hears nothing and says nothing until it is over.

It begins once what the agent said has been heard, and ends when its time is up, or there is something to be said: a tool
has its result, the caller has pressed keys.
"""

from collections.abc import Callable
from typing import Final

import orjson

from media_fork.clock import Clock, Timer
from media_fork.decisions import INTERRUPTED
from media_fork.tools import Result, failure

LONGEST_S: Final = 300
UNLESS_SAID_S: Final = 30


class Hold:
    """One conversation's. ``shut(id, on, music)``: nothing is heard or said on either side, or it is again."""

    def __init__(
        self,
        clock: Clock,
        heard_within_ms: int,
        is_playing: Callable[[], bool],
        shut: Callable[[str, bool, bool], None],
        settle: Callable[[str, Result, bool], None],
    ) -> None:
        self._clock = clock
        self._heard_within_s = heard_within_ms / 1000
        self._is_playing = is_playing
        self._shut = shut
        self._settle = settle
        self._call_id = ""
        """The function call's, from the request on; empty where there is none."""
        self._seconds = 0.0
        self._music = True
        self._since: float | None = None
        self._timer: Timer | None = None

    def begin(self, call_id: str, seconds: float, music: bool) -> None:
        """The agent wants the caller to wait for at most so long."""
        if self._call_id:
            self._settle(call_id, failure("refused", "the caller is on hold already"), True)
            return
        self._call_id, self._music = call_id, music
        self._seconds = min(max(seconds, 1.0), LONGEST_S)
        if self._is_playing():
            self._timer = self._clock.call_at(self._clock.now() + self._heard_within_s, self._start)
        else:
            self._start()

    def heard(self) -> None:
        """An utterance has been heard to its end."""
        if self._call_id and self._since is None and not self._is_playing():
            self._start()

    def interrupted(self) -> None:
        """The caller speaks while the agent was to be heard out."""
        if self._call_id and self._since is None:
            self._over(INTERRUPTED, respond=False)

    def wanted(self) -> None:
        """There is something to be said."""
        if self._since is not None:
            self._resume()
        elif self._call_id:
            self._over(Result("resumed", '{"outcome":"resumed","detail":"the caller need not wait"}'), respond=False)

    @property
    def is_open(self) -> bool:
        return bool(self._call_id)

    def close(self) -> None:
        """The call or the model is gone."""
        self._cancel()
        if self._since is not None:
            self._shut(self._call_id, False, self._music)
        self._call_id, self._since = "", None

    def _start(self) -> None:
        self._cancel()
        self._since = self._clock.now()
        self._timer = self._clock.call_at(self._since + self._seconds, self._resume)
        self._shut(self._call_id, True, self._music)

    def _resume(self) -> None:
        assert self._since is not None
        lasted_s = round(self._clock.now() - self._since)
        self._since = None
        self._shut(self._call_id, False, self._music)
        output = {"outcome": "resumed", "detail": f"the caller is back after {lasted_s} s"}
        self._over(Result("resumed", orjson.dumps(output).decode()), respond=True)

    def _over(self, result: Result, respond: bool) -> None:
        self._cancel()
        call_id, self._call_id = self._call_id, ""
        self._settle(call_id, result, respond)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
