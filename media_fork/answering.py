"""A call that we placed, until it is known who answered: the agent hears and says nothing, the detector listens.

People, and lines on which nobody speaks, are greeted. Of a machine or a fax esl_app is told, and decides. A voicemail that
began like a person is still found out while the agent speaks, by its beep, or by the agent itself.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from media_fork.answer import Detector
from tandem.outcome import Answerer, AnswerRule
from tandem.seam import WhoAnswered

BEEP_WITHIN_MS: Final = 30_000
"""A human is listened to for a beep this long."""


class Answering:
    """One placed call's. ``tell`` puts a command on the fork, ``greet`` lets the agent speak."""

    def __init__(self, rate: int, tell: Callable[[WhoAnswered], None], greet: Callable[[], None]) -> None:
        self._detector: Detector | None = Detector(rate)
        self._tell = tell
        self._greet = greet
        self._odd = b""
        self.holding = True
        """The agent is not in the conversation yet."""

    def hear(self, l16: bytes) -> None:
        """The next bytes of the line, any number of them."""
        detector = self._detector
        if detector is None:
            return
        line = self._odd + l16
        whole = len(line) & ~1
        self._odd = line[whole:]
        for verdict in detector.feed(np.frombuffer(line[:whole], dtype="<i2").astype(np.int16)):
            self._tell(WhoAnswered(who=verdict.who, rule=verdict.rule, ready=verdict.ready))
            if verdict.who in (Answerer.HUMAN, Answerer.SILENCE):
                self.release()
        verdict_now = detector.verdict
        is_human = verdict_now is not None and verdict_now.who is not Answerer.MACHINE
        if detector.ready or (is_human and detector.ms >= BEEP_WITHIN_MS):
            self._detector = None

    def agent_says_machine(self) -> None:
        """The agent noticed that it speaks with a machine."""
        self._tell(WhoAnswered(who=Answerer.MACHINE, rule=AnswerRule.AGENT))
        if self._detector is not None:
            self._detector.told_machine()

    def release(self) -> None:
        """The agent speaks from here on."""
        if self.holding:
            self.holding = False
            self._greet()
