"""Actions: what the agent has esl_app do at once, not waiting to be heard out, and the result that comes back."""

from collections.abc import Callable
from typing import Final

import orjson

from media_fork.clock import Clock, Timer
from media_fork.tools import Result
from tandem.outcome import ActionOutcome
from tandem.seam import Acted, Action, Command

ACTED_S: Final = 10.0
"""An action without a result after this long has failed."""


class Actions:
    """One conversation's. ``send`` puts a command on the fork; ``settle`` is told what the model is to be told."""

    def __init__(
        self, clock: Clock, send: Callable[[Command], None], settle: Callable[[str, Result, bool], None]
    ) -> None:
        self._clock = clock
        self._send = send
        self._settle = settle
        self._open: dict[str, Timer] = {}

    def carry_out(self, action: Action) -> None:
        """``action.id`` is the function call's."""
        self._open[action.id] = self._clock.call_at(
            self._clock.now() + ACTED_S,
            lambda: self.on_acted(Acted(id=action.id, outcome=ActionOutcome.FAILED, detail="no result came of it")),
        )
        self._send(action)

    def on_acted(self, acted: Acted) -> bool:
        """A notice from esl_app. False where no action of that id is under way."""
        timer = self._open.pop(acted.id, None)
        if timer is None:
            return False
        timer.cancel()
        output = orjson.dumps({"outcome": acted.outcome.value, "detail": acted.detail}).decode()
        self._settle(acted.id, Result(acted.outcome.value, output), True)
        return True

    def close(self) -> None:
        """The call or the model is gone."""
        for timer in self._open.values():
            timer.cancel()
        self._open.clear()
