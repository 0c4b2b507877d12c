"""Voice activity on a line: when the caller begins to speak, and when they have been silent long enough.

Two judges must agree on each 10 ms: webrtcvad (does it sound like speech) and the level (is it above the line's noise).
Everything counts in audio time, milliseconds of audio fed since the beginning; no clock is read.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import webrtcvad

Pcm = npt.NDArray[np.int16]

FRAME_MS: Final = 10
ONSET_FRAMES: Final = 8
ONSET_ACTIVE: Final = 5
"""Speech begins when this many of the last ONSET_FRAMES were active: clicks and breaths are shorter."""
RESUME_ACTIVE: Final = 3
"""So many of the last ONSET_FRAMES keep speech going."""
WARM_UP_FRAMES: Final = 12
"""webrtcvad takes whatever begins a line for speech; meanwhile the noise floor is found."""
FLOOR_START_DB: Final = -60.0
FLOOR_HIGHEST_DB: Final = -35.0
"""Louder noise than this is taken for speech: it is a voice from the first moment on."""
FLOOR_FALL: Final = 0.2
FLOOR_RISE: Final = 0.02
FLOOR_RISE_SPEAKING_DB: Final = 0.005
"""How fast the noise floor follows the level: a share of the difference a frame, or dB a frame where speech is heard."""
SILENT_DB: Final = -96.0


@dataclass(frozen=True)
class SpeechStarted:
    at_ms: int


@dataclass(frozen=True)
class SpeechStopped:
    at_ms: int
    """The end of the silence that ended the turn."""


class VoiceActivity:
    """Feed it the line; it says what happened. ``rate`` is 8000 or 16000 Hz.

    ``threshold``, 0 to 1, is server_vad's: the higher, the louder and clearer speech must be.
    """

    def __init__(self, rate: int, threshold: float = 0.5, silence_duration_ms: int = 500) -> None:
        if rate not in (8000, 16000):
            raise ValueError(f"rate must be 8000 or 16000 Hz, not {rate}")
        self._rate = rate
        self._judge = webrtcvad.Vad(3 if threshold > 0.5 else 2 if threshold >= 0.25 else 1)
        self._margin_db = 4.0 + 8.0 * threshold
        self._lowest_db = -58.0 + 12.0 * threshold
        self._silence_frames = max(1, math.ceil(silence_duration_ms / FRAME_MS))
        self._samples = rate * FRAME_MS // 1000
        self._rest = np.zeros(0, dtype=np.int16)
        self._recent: deque[bool] = deque(maxlen=ONSET_FRAMES)
        self._floor_db = FLOOR_START_DB
        self._frames = 0
        self._silent = 0
        self.speaking = False

    @property
    def position_ms(self) -> int:
        """Audio judged so far."""
        return self._frames * FRAME_MS

    def feed(self, pcm: Pcm) -> list[SpeechStarted | SpeechStopped]:
        """The next samples, any number of them."""
        line = np.concatenate((self._rest, pcm)) if len(self._rest) else pcm
        whole = len(line) // self._samples * self._samples
        self._rest = line[whole:].copy()
        events = (self._frame(line[start : start + self._samples]) for start in range(0, whole, self._samples))
        return [event for event in events if event is not None]

    def _frame(self, frame: Pcm) -> SpeechStarted | SpeechStopped | None:
        level_db = level(frame)
        sounds_like_speech = self._judge.is_speech(frame.tobytes(), self._rate)
        self._frames += 1
        if self._frames <= WARM_UP_FRAMES:
            self._find_floor(level_db)
            return None
        active = sounds_like_speech and level_db > max(self._lowest_db, self._floor_db + self._margin_db)
        self._follow(level_db, sounds_like_speech)
        self._recent.append(active)
        if not self.speaking:
            if active and sum(self._recent) >= ONSET_ACTIVE:
                self.speaking = True
                self._silent = 0
                first = len(self._recent) - list(self._recent).index(True)
                return SpeechStarted((self._frames - first) * FRAME_MS)
            return None
        self._silent = 0 if active and sum(self._recent) >= RESUME_ACTIVE else self._silent + 1
        if self._silent >= self._silence_frames:
            self.speaking = False
            self._recent.clear()
            return SpeechStopped(self.position_ms)
        return None

    def _find_floor(self, level_db: float) -> None:
        """The lowest level since the beginning, as far as it can be noise."""
        lowest_db = level_db if self._frames == 1 else min(level_db, self._floor_db)
        self._floor_db = min(max(lowest_db, FLOOR_START_DB), FLOOR_HIGHEST_DB)

    def _follow(self, level_db: float, sounds_like_speech: bool) -> None:
        if level_db < self._floor_db:
            self._floor_db += FLOOR_FALL * (level_db - self._floor_db)
        elif sounds_like_speech:
            self._floor_db += FLOOR_RISE_SPEAKING_DB
        else:
            self._floor_db += FLOOR_RISE * (level_db - self._floor_db)
        self._floor_db = min(max(self._floor_db, SILENT_DB), FLOOR_HIGHEST_DB)


def level(frame: Pcm) -> float:
    """Of its samples, dB relative to full scale."""
    samples = frame.astype(np.float64)
    power = float(samples @ samples) / len(samples)
    return 10.0 * math.log10(power / 32768.0**2) if power else SILENT_DB
