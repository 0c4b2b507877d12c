"""What ``playback`` can play (WAV files, tone_stream, silence_stream, file_string), and frames at another rate. Sounds become 20 ms frames at their channel's rate."""

import re
import wave
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import soxr

from lab.codec import Frame

Samples = npt.NDArray[np.int16]

MAX_SECONDS = 3600
"""Longest sound file that is taken."""
TONE_AMPLITUDE = 10364
"""Peak of each frequency of a tone, as FreeSWITCH 1.10.12 was heard to play it."""

_TONE = re.compile(r"%\(\s*(\d+)\s*,\s*(\d+)\s*,\s*([^)]*)\)")


class SoundNotFound(LookupError):
    """There is no such sound, or it cannot be read; the text says why."""


class Sound(Protocol):
    def read(self) -> Frame | None:
        """The next 20 ms, int16; None at the end."""


class Recorded:
    """Samples that are there as a whole; the last frame is filled up with silence. ``loops``: times to play, -1 for ever."""

    def __init__(self, samples: Samples, rate: int, loops: int = 1) -> None:
        self._frame = rate // 50
        padding = -len(samples) % self._frame
        self._samples = np.concatenate((samples, np.zeros(padding, dtype=np.int16)))
        self._position = 0
        self._loops = loops

    def read(self) -> Frame | None:
        if self._position >= len(self._samples):
            if self._loops == 1 or not len(self._samples):
                return None
            self._loops -= self._loops > 0
            self._position = 0
        frame = self._samples[self._position : self._position + self._frame]
        self._position += self._frame
        return frame


class Silence:
    """``silence_stream://MS[,DIVISOR]``: silence, for ever where MS is -1; a DIVISOR above 0 makes it comfort noise."""

    def __init__(self, milliseconds: int, rate: int, divisor: int = 0, *, seed: int = 0) -> None:
        self._rate = rate
        self._frames = None if milliseconds < 0 else -(-milliseconds // 20)
        self._divisor = divisor
        self._random = np.random.default_rng(seed)

    def read(self) -> Frame | None:
        if self._frames is not None:
            if self._frames == 0:
                return None
            self._frames -= 1
        return comfort_noise(self._random, self._divisor, self._rate)


def silence(rate: int) -> Frame:
    """20 ms of nothing."""
    return np.zeros(rate // 50, dtype=np.int16)


def comfort_noise(random: np.random.Generator, divisor: int, rate: int) -> Frame:
    """One frame as ``switch_generate_sln_silence`` makes it: the greater the divisor, the quieter. 0 and -1: digital silence."""
    if divisor <= 0:
        return silence(rate)
    noise = random.integers(-32768, 32768, (6, rate // 50)).mean(axis=0) / divisor
    return np.asarray(noise, dtype=np.int16)


class FrameResampler:
    """20 ms in, 20 ms out, at another rate."""

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rates = (rate_in, rate_out)
        self._samples = rate_out // 50
        # The quickest has no filter: good enough upwards, downwards all that is too high would fold back.
        quality = "QQ" if rate_out > rate_in else "MQ"
        self._stream = soxr.ResampleStream(rate_in, rate_out, 1, dtype="int16", quality=quality)
        self._ready: Samples = np.zeros(0, dtype=np.int16)

    def process(self, frame: Frame) -> Samples:
        self._ready = np.concatenate((self._ready, self._stream.resample_chunk(np.ascontiguousarray(frame))))
        missing = max(0, self._samples - len(self._ready))
        out = np.concatenate((np.zeros(missing, dtype=np.int16), self._ready[: self._samples - missing]))
        self._ready = self._ready[self._samples - missing :]
        return out


class Sequence:
    """One sound after the other (``file_string://A!B``)."""

    def __init__(self, sounds: list[Sound]) -> None:
        self._sounds = sounds

    def read(self) -> Frame | None:
        while self._sounds:
            frame = self._sounds[0].read()
            if frame is not None:
                return frame
            self._sounds.pop(0)
        return None


def open_sound(path: str, rate: int, loops: int = 1) -> Sound:
    """The sound that an application names, at ``rate`` Hz; a file is played ``loops`` times, -1 for ever. Raises SoundNotFound."""
    scheme, separator, rest = path.partition("://")
    if separator and scheme == "file_string":
        return Sequence([open_sound(part, rate) for part in rest.split("!")])
    if separator and scheme == "silence_stream":
        milliseconds, _, divisor = rest.partition(",")
        try:
            return Silence(int(milliseconds), rate, int(divisor or 0))
        except ValueError:
            raise SoundNotFound(f"{path!r} does not say how long") from None
    if separator and scheme == "tone_stream":
        return _tones(path, rest, rate)
    if separator:
        raise SoundNotFound(f"no sound has the scheme {scheme!r}")
    return Recorded(_wav(Path(path), rate), rate, loops)


def _tones(path: str, script: str, rate: int) -> Sound:
    loops = 1
    pieces: list[Samples] = []
    for part in script.split(";"):
        tone = _TONE.match(part.strip())
        if tone:
            on, off, frequencies = int(tone[1]), int(tone[2]), [float(text) for text in tone[3].split(",") if text]
            if on + off > MAX_SECONDS * 1000:
                raise SoundNotFound(f"{path!r} is longer than {MAX_SECONDS} s")
            time = np.arange(on * rate // 1000) / rate
            waves = [np.sin(2 * np.pi * frequency * time) for frequency in frequencies]
            audible = np.sum(waves, axis=0) * TONE_AMPLITUDE if waves else np.zeros(len(time))
            pieces.append(
                np.concatenate((np.clip(audible, -32767, 32767), np.zeros(off * rate // 1000))).astype(np.int16)
            )
        elif part.startswith("loops="):
            loops = int(part.removeprefix("loops="))
    if not pieces:
        raise SoundNotFound(f"{path!r} has no tone %(ON,OFF,HZ)")
    return Recorded(np.concatenate(pieces), rate, loops)


def _wav(path: Path, rate: int) -> Samples:
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise SoundNotFound(f"{path} has {file.getsampwidth() * 8} bits a sample; expected 16")
            if file.getnframes() > MAX_SECONDS * file.getframerate():
                raise SoundNotFound(f"{path} is longer than {MAX_SECONDS} s")
            data = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
            channels, own = file.getnchannels(), file.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        raise SoundNotFound(f"{path} cannot be read: {error}") from None
    mono = data.reshape(-1, channels).mean(axis=1).astype(np.int16) if channels > 1 else data.astype(np.int16)
    resampled: Samples = mono if own == rate else soxr.resample(mono, own, rate)
    return resampled
