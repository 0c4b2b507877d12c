"""Single tones on a line: the beep of a voicemail, and the answering tone of a fax machine.

A tone is one steady frequency that holds nearly all of the power; speech, music and two-frequency signals (ringing, busy,
DTMF) are none.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]

STEP_MS: Final = 20
WINDOW_STEPS: Final = 2
LOWEST_HZ: Final = 300.0
HIGHEST_HZ: Final = 3200.0
SHARE: Final = 0.85
"""Of a window's power that must be within the tone's own bins."""
STEADY: Final = 0.03
"""A tone's frequency changes by less than this from window to window."""
QUIETEST_DB: Final = -40.0
"""Below full scale: what is quieter is no tone that anybody is meant to hear."""
_OWN_BINS: Final = 2
"""On either side of the peak: the main lobe of a Hann window."""


@dataclass(frozen=True)
class Tone:
    """A tone that is on, or has just ended: its frequency, how long it has lasted, and whether it is over."""

    hz: float
    ms: int
    over: bool


class Tones:
    """Feed it the line in steps of STEP_MS; ``rate`` is 8000 or 16000 Hz."""

    def __init__(self, rate: int) -> None:
        self.samples = rate * STEP_MS // 1000
        self._window = np.hanning(self.samples * WINDOW_STEPS)
        self._bin_hz = rate / (self.samples * WINDOW_STEPS)
        self._line = np.zeros(self.samples * WINDOW_STEPS)
        self._full_scale = float(np.sum(self._window**2)) * 32768.0**2
        self._hz = 0.0
        self._ms = 0

    def step(self, pcm: Pcm) -> Tone | None:
        """The next STEP_MS of the line: the tone that is on or just over, None where there is none."""
        self._line = np.concatenate((self._line[self.samples :], pcm.astype(np.float64)))
        hz = self._frequency()
        if self._ms and (hz is None or abs(hz - self._hz) > STEADY * self._hz):
            ended = Tone(self._hz, self._ms, over=True)
            self._hz, self._ms = (hz or 0.0), (STEP_MS if hz else 0)
            return ended
        if hz is None:
            return None
        self._hz = hz
        self._ms += STEP_MS
        return Tone(hz, self._ms, over=False)

    def _frequency(self) -> float | None:
        power = np.abs(np.fft.rfft(self._line * self._window)) ** 2
        total = float(power.sum())
        peak = int(power.argmax())
        if 10 * np.log10(2 * total / len(self._line) / self._full_scale * WINDOW_STEPS + 1e-12) < QUIETEST_DB:
            return None
        own = slice(max(0, peak - _OWN_BINS), peak + _OWN_BINS + 1)
        hz = float(np.average(np.arange(own.start, own.start + len(power[own])), weights=power[own])) * self._bin_hz
        return hz if power[own].sum() >= SHARE * total and LOWEST_HZ <= hz <= HIGHEST_HZ else None
