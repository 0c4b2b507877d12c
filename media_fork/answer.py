"""Who answered a call that we placed: a human, a machine, a fax, or nobody who speaks; and when a machine's beep has gone.

People say a few words and wait; machines talk on. The rules and their times are below; docs/outbound.md has how often they
err, measured. Times are milliseconds of audio since the answer, no clock is read.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from media_fork.tones import STEP_MS, Tone, Tones
from media_fork.voice_activity import SpeechStarted, SpeechStopped, VoiceActivity, level
from tandem.outcome import Answerer, AnswerRule

Pcm = npt.NDArray[np.int16]

GAP_MS: Final = 160
"""A shorter pause belongs to the word."""
WAITS_MS: Final = ((1200, 640), (2200, 800), (3400, 1000))
"""Speech of at most so long, then silence of so long: a human, who waits for an answer."""
TALKS_ON_MS: Final = 3400
"""Speech of more than this, shorter pauses included: a machine."""
SILENCE_MS: Final = 4000
"""Nothing said for this long."""
QUIETEST_DB: Final = -46.0
BELOW_LOUDEST_DB: Final = 20.0
"""What is quieter than this, absolutely or beside the loudest speech so far, is said by nobody on the telephone."""
FAX_HZ: Final = (2100.0, 1100.0)
"""Answering tone (T.30 CED), and calling tone (CNG)."""
FAX_WITHIN_HZ: Final = 25.0
FAX_MS: Final = 400
BEEP_MS: Final = 140
"""Shortest beep."""
BEEP_PAUSE_MS: Final = 100
"""Of quiet after a tone, which then was a beep."""
LONGEST_BEEP_MS: Final = 3000
MESSAGE_OVER_MS: Final = 2400
"""Silence after a machine's greeting: it records, and its beep was none that we know."""


@dataclass(frozen=True)
class Verdict:
    """``after_ms``: of audio since the answer. ``ready``: a machine that now records."""

    who: Answerer
    rule: AnswerRule
    after_ms: int
    ready: bool = False


class Detector:
    """One call's. Feed it what is heard from the answer on; it gives a verdict once, and after a machine one that is ready.

    A human who turns out to beep is a machine after all: that verdict comes on top.
    """

    def __init__(self, rate: int) -> None:
        self._step = rate * STEP_MS // 1000
        self._voice = VoiceActivity(rate, silence_duration_ms=GAP_MS)
        self._tones = Tones(rate)
        self._rest = np.zeros(0, dtype=np.int16)
        self._nothing = np.zeros(self._step, dtype=np.int16)
        self._loudest_db = QUIETEST_DB
        self._ms = 0
        self._began: int | None = None
        """When the first word began."""
        self._ended: int | None = None
        """When the last word ended; None while it is being said."""
        self._toned_until = 0
        """Until then a tone was on, or may have been: what sounded like speech was none."""
        self._beeped_at: int | None = None
        self.verdict: Verdict | None = None
        self.ready = False

    @property
    def ms(self) -> int:
        """Audio judged so far."""
        return self._ms

    def feed(self, pcm: Pcm) -> list[Verdict]:
        """The next samples, any number of them."""
        line = np.concatenate((self._rest, pcm)) if len(self._rest) else pcm
        whole = len(line) // self._step * self._step
        self._rest = line[whole:].copy()
        verdicts = (self._next(line[start : start + self._step]) for start in range(0, whole, self._step))
        return [verdict for verdict in verdicts if verdict is not None]

    def _next(self, pcm: Pcm) -> Verdict | None:
        self._ms += STEP_MS
        fax = self._tone(self._tones.step(pcm))
        for event in self._voice.feed(self._foreground(pcm)):
            self._speech(event)
        if self.ready:
            return None
        if fax and self.verdict is None:
            return self._is(Answerer.FAX, AnswerRule.FAX_TONE)
        if self._beeped_at is not None and self._ms - self._beeped_at >= BEEP_PAUSE_MS:
            return self._records(AnswerRule.BEEP)
        if self.verdict is None:
            return self._judge()
        quiet_ms = 0 if self._ended is None else self._ms - self._ended
        if self.verdict.who is Answerer.MACHINE and quiet_ms >= MESSAGE_OVER_MS:
            return self._records(AnswerRule.SILENCE_AFTER_GREETING)
        return None

    def _foreground(self, pcm: Pcm) -> Pcm:
        """``pcm``, or silence where it is no more than what goes on around whoever is on the telephone."""
        level_db = level(pcm)
        if self._voice.speaking and self._ms > self._toned_until:
            self._loudest_db = max(self._loudest_db, level_db)
        quietest_db = max(QUIETEST_DB, self._loudest_db - BELOW_LOUDEST_DB)
        return pcm if level_db >= quietest_db else self._nothing

    def _tone(self, tone: Tone | None) -> bool:
        """Whether it is a fax's."""
        if tone is None:
            return False
        if not tone.over:
            self._beeped_at = None
            if tone.ms >= BEEP_MS // 2:
                self._toned_until = self._ms + GAP_MS
                if self._began is not None and self._began >= self._ms - tone.ms - 2 * STEP_MS:
                    self._began = self._ended = None
            return tone.ms >= FAX_MS and any(abs(tone.hz - hz) <= FAX_WITHIN_HZ for hz in FAX_HZ)
        if BEEP_MS <= tone.ms <= LONGEST_BEEP_MS:
            self._beeped_at = self._ms
        return False

    def _speech(self, event: SpeechStarted | SpeechStopped) -> None:
        if isinstance(event, SpeechStopped):
            if self._began is not None and self._ended is None:
                self._ended = event.at_ms - GAP_MS
        elif event.at_ms >= self._toned_until:
            self._beeped_at = None
            self._began = event.at_ms if self._began is None else self._began
            self._ended = None

    def _judge(self) -> Verdict | None:
        if self._began is None:
            return self._is(Answerer.SILENCE, AnswerRule.NO_SPEECH) if self._ms >= SILENCE_MS else None
        spoken_ms = (self._ms if self._ended is None else self._ended) - self._began
        if spoken_ms > TALKS_ON_MS:
            return self._is(Answerer.MACHINE, AnswerRule.LONG_SPEECH)
        if self._ended is None:
            return None
        wait_ms = next(wait for longest, wait in WAITS_MS if spoken_ms <= longest)
        if self._ms - self._ended >= wait_ms:
            return self._is(Answerer.HUMAN, AnswerRule.BRIEF_SPEECH)
        return None

    def told_machine(self) -> None:
        """Somebody else found out that it is a machine; when it records is still to be heard."""
        if not self.ready:
            self.verdict = Verdict(Answerer.MACHINE, AnswerRule.AGENT, self._ms)

    def _is(self, who: Answerer, rule: AnswerRule) -> Verdict:
        self.verdict = Verdict(who, rule, self._ms)
        return self.verdict

    def _records(self, rule: AnswerRule) -> Verdict:
        self.ready = True
        self.verdict = Verdict(Answerer.MACHINE, rule, self._ms, ready=True)
        return self.verdict
