"""A call as a stereo WAV: left what was said, right what was heard."""

import wave
from pathlib import Path

import numpy as np

from lab.hearing import RATE, Pcm


def write_stereo(file: Path, left: Pcm, right: Pcm) -> None:
    """Two lines of int16 at 8 kHz, the shorter one filled up with silence. Raises OSError."""
    both = np.zeros((max(len(left), len(right)), 2), "<i2")
    both[: len(left), 0], both[: len(right), 1] = left, right
    with wave.open(str(file), "wb") as wav:
        wav.setnchannels(2)
        wav.setsampwidth(2)
        wav.setframerate(RATE)
        wav.writeframes(both.tobytes())
