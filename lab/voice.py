"""Voices of the lab, by espeak-ng: those of the Realtime API that the model speaks with, and those of callers and colleagues.

Audio is int16, mono, with its pauses before and after cut short and its peak at half of full scale, as loud as a person
on the telephone.
"""

import io
import subprocess
import wave
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

Pcm = npt.NDArray[np.int16]

VOICES: Final = MappingProxyType(
    {
        "alloy": "en-us+f5",
        "ash": "en-us+m2",
        "ballad": "en-gb-x-rp",
        "cedar": "en-us+m3",
        "coral": "en-us+f1",
        "echo": "en-us+m4",
        "marin": "en-us+f2",
        "sage": "en-gb-scotland+f2",
        "shimmer": "en-gb-x-rp+f3",
        "verse": "en-gb-x-rp+m3",
        "caller": "en-us",
        "sales": "en-gb",
    }
)
"""Name → voice of espeak-ng. The last two are people of the lab, no voices of the Realtime API."""

WORDS_PER_MINUTE: Final = 165
WITHIN_S: Final = 20.0
PEAK: Final = 0.5
LEAD_MS: Final = 20
TAIL_MS: Final = 60
QUIET: Final = 0.01
"""Of the peak: what counts as pause before and after the words."""


class VoiceError(RuntimeError):
    """espeak-ng is missing, or did not speak; the message says which."""


@lru_cache(maxsize=128)
def speak(text: str, voice: str, rate: int = 8000, speed: float = 1.0) -> Pcm:
    """``text`` as speech at ``rate`` Hz; read-only, since it is kept. Blocks for some 30 ms when it is new.

    ``voice`` is a key of VOICES or a voice of espeak-ng; ``speed`` is a factor. Raises VoiceError.
    """
    if not text.strip():
        return np.zeros(0, dtype=np.int16)
    native, samples = _espeak(text, VOICES.get(voice, voice), round(WORDS_PER_MINUTE * speed))
    speech = _trimmed(soxr.resample(samples.astype(np.float32) / 32768, native, rate), rate)
    peak = float(np.abs(speech).max(initial=0.0))
    pcm: Pcm = np.round(speech * (PEAK * 32767 / peak if peak else 0.0)).astype(np.int16)
    pcm.flags.writeable = False
    return pcm


def _espeak(text: str, voice: str, words_per_minute: int) -> tuple[int, Pcm]:
    """Rate in Hz and samples, from a WAV on standard output (whose header does not know the length)."""
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "--stdin", "--stdout"]
    try:
        run = subprocess.run(command, input=text.encode(), capture_output=True, timeout=WITHIN_S, check=True)
    except FileNotFoundError:
        raise VoiceError("espeak-ng is not installed; install it with: apt-get install espeak-ng") from None
    except subprocess.TimeoutExpired:
        raise VoiceError(f"espeak-ng did not finish within {WITHIN_S:.0f} s") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise VoiceError(f"espeak-ng -v {voice} ended with {error.returncode}: {said}") from None
    try:
        with wave.open(io.BytesIO(run.stdout)) as audio:
            rate = audio.getframerate()
            frames = audio.readframes(len(run.stdout))
    except (wave.Error, EOFError) as error:
        raise VoiceError(f"espeak-ng has no voice {voice!r}, or gave no WAV: {error}") from None
    return rate, np.frombuffer(frames[: len(frames) // 2 * 2], dtype="<i2").astype(np.int16)


def _trimmed(speech: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    loud = np.flatnonzero(np.abs(speech) > QUIET * np.abs(speech).max(initial=0.0))
    if not len(loud):
        return speech[:0]
    start = max(0, int(loud[0]) - rate * LEAD_MS // 1000)
    return speech[start : int(loud[-1]) + rate * TAIL_MS // 1000]
