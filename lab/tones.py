"""Keys as tones in the audio (ITU-T Q.23), as a phone without telephone-events sends them."""

from typing import Final

import numpy as np
import numpy.typing as npt

ROWS: Final = (697, 770, 852, 941)
COLUMNS: Final = (1209, 1336, 1477, 1633)
KEYS: Final = ("123A", "456B", "789C", "*0#D")
AMPLITUDE: Final = 6000
"""Of each of a key's two tones."""


def keys(pressed: str, rate: int = 8000, *, each_s: float = 0.08, pause_s: float = 0.08) -> npt.NDArray[np.int16]:
    """The keys one after the other, int16. Raises ValueError where one is none."""
    time = np.arange(round(each_s * rate)) / rate
    pause = np.zeros(round(pause_s * rate))
    parts = []
    for key in pressed:
        row = next((index for index, names in enumerate(KEYS) if key in names), None)
        if row is None:
            raise ValueError(f"{key!r} is no key; expected one of {' '.join(KEYS)}")
        hertz = (ROWS[row], COLUMNS[KEYS[row].index(key)])
        parts += [AMPLITUDE * sum(np.sin(2 * np.pi * tone * time) for tone in hertz), pause]
    return np.concatenate(parts or [pause]).astype(np.int16)
