"""``start_dtmf``: keys that the peer sends as tones in its audio (ITU-T Q.23), told as DTMF events."""

from typing import Final

import numpy as np

from lab.codec import Frame
from lab.switch.media import Media
from lab.switch.session import Session
from lab.tones import COLUMNS, KEYS, ROWS

LEAST_RMS: Final = 200.0
PURE: Final = 0.7
"""Of the energy, what the two tones must have."""
TWIST: Final = 8.0
"""Of the two tones' energies, the greater at most so many times the other."""


class InbandDtmf:
    """A media bug. A key counts once two frames have it, and is told when it ends."""

    name = "inband_dtmf"
    target = "N/A"

    def __init__(self, media: Media) -> None:
        self._media = media
        self._key = ""
        self._frames = 0

    def read(self, frame: Frame) -> None:
        key = key_in(frame, self._media.rate)
        if key == self._key:
            self._frames += 1
            return
        if self._key and self._frames >= 2:
            self._media.channel.queue_dtmf(self._key, self._frames * 160, "INBAND_AUDIO")
        self._key, self._frames = key, 1

    def write(self, frame: Frame) -> Frame:
        return frame

    def close(self) -> None:
        pass


def key_in(frame: Frame, rate: int) -> str:
    """The key whose two tones the frame is made of, or an empty string."""
    samples = frame.astype(np.float64)
    energy = float((samples**2).sum())
    if energy < LEAST_RMS**2 * len(samples):
        return ""
    waves = np.exp(-2j * np.pi * np.outer(ROWS + COLUMNS, np.arange(len(samples))) / rate)
    powers = 2 * np.abs(waves @ samples) ** 2 / len(samples)
    row, column = int(powers[:4].argmax()), int(powers[4:].argmax())
    pair = (float(powers[row]), float(powers[4 + column]))
    if sum(pair) < PURE * energy or max(pair) > TWIST * min(pair):
        return ""
    return KEYS[row][column]


async def start_dtmf(session: Session, argument: str) -> None:
    """Once for a channel, however often it is asked for."""
    media = session.media
    if media is not None and media.bug(InbandDtmf.name) is None:
        media.add_bug(InbandDtmf(media))
