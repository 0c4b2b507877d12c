"""Calls as WAV, 8 kHz: in stereo, left what was said, right what was heard; or one line alone."""

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lab.hearing import RATE, Pcm


def write_stereo(file: Path, left: Pcm, right: Pcm) -> None:
    """Two lines of int16, the shorter one filled up with silence. Raises OSError."""
    both = np.zeros((max(len(left), len(right)), 2), "<i2")
    both[: len(left), 0], both[: len(right), 1] = left, right
    _write(file, both)


def write_mono(file: Path, line: Pcm) -> None:
    """One line of int16. Raises OSError."""
    _write(file, line.astype("<i2").reshape(-1, 1))


def _write(file: Path, channels: npt.NDArray[np.int16]) -> None:
    with wave.open(str(file), "wb") as wav:
        wav.setnchannels(channels.shape[1])
        wav.setsampwidth(2)
        wav.setframerate(RATE)
        wav.writeframes(channels.tobytes())
