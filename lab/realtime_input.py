"""The input audio buffer: what the caller said, cut into turns by voice activity or by hand."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import soxr

from lab.realtime_config import AudioFormat, Pcm, silence_ms
from media_fork.voice_activity import SpeechStarted, SpeechStopped, VoiceActivity

MAX_BUFFER_MS: Final = 600_000
"""The oldest audio is dropped beyond this."""
MIN_COMMIT_MS: Final = 100
SLACK_MS: Final = 1000
VAD_RATE: Final = 16000
"""Voice activity in 24 kHz audio is looked for at this rate; in 8 kHz audio as it is."""


@dataclass(frozen=True)
class Segment:
    """A piece of the input, ``start_ms`` and ``end_ms`` of all that was appended in the session."""

    pcm: Pcm
    rate: int
    start_ms: int
    end_ms: int


class AudioInput:
    """One session's. Milliseconds count all audio appended in the session."""

    def __init__(self, audio_format: AudioFormat, turn_detection: dict[str, Any] | None) -> None:
        self._base_ms = 0
        self._configure(audio_format, turn_detection)

    def configure(self, audio_format: AudioFormat, turn_detection: dict[str, Any] | None) -> None:
        """From here on. A change of the format empties the buffer; other changes begin to listen anew."""
        if (audio_format, turn_detection) != (self.format, self._turn_detection):
            self._base_ms = self.position_ms
            self._configure(audio_format, turn_detection)

    def _configure(self, audio_format: AudioFormat, turn_detection: dict[str, Any] | None) -> None:
        self.format = audio_format
        self._turn_detection = turn_detection
        self._rate = audio_format.rate
        self._total = 0
        self._chunks: list[Pcm] = []
        self._buffered = 0
        self._vad: VoiceActivity | None = None
        self._resampler: soxr.ResampleStream | None = None
        if turn_detection is not None:
            vad_rate = self._rate if self._rate == 8000 else VAD_RATE
            threshold = float(turn_detection.get("threshold", 0.5))
            self._vad = VoiceActivity(vad_rate, threshold, silence_ms(turn_detection))
            if vad_rate != self._rate:
                self._resampler = soxr.ResampleStream(self._rate, vad_rate, 1, dtype="int16", quality="LQ")

    @property
    def position_ms(self) -> int:
        return self._base_ms + self._total * 1000 // self._rate

    @property
    def buffered_ms(self) -> int:
        return self._buffered * 1000 // self._rate

    @property
    def speaking(self) -> bool:
        return self._vad is not None and self._vad.speaking

    @property
    def prefix_padding_ms(self) -> int:
        return int((self._turn_detection or {}).get("prefix_padding_ms", 300))

    def append(self, audio: bytes) -> list[SpeechStarted | SpeechStopped]:
        pcm = self.format.decode(audio)
        self._chunks.append(pcm)
        self._buffered += len(pcm)
        self._total += len(pcm)
        events = []
        if self._vad is not None:
            line = pcm if self._resampler is None else self._resampler.resample_chunk(pcm)
            for event in self._vad.feed(line):
                events.append(type(event)(self._base_ms + event.at_ms))
        if self._vad is not None and not events and not self._vad.speaking:
            self._keep(self.prefix_padding_ms + SLACK_MS)
        else:
            self._keep(MAX_BUFFER_MS)
        return events

    def take(self, start_ms: int, end_ms: int) -> Segment:
        """The audio between two moments, as far as it is buffered; what lies before ``end_ms`` leaves the buffer."""
        buffer = self._joined()
        first_ms = self.position_ms - self.buffered_ms
        start, end = (max(0, (at - first_ms) * self._rate // 1000) for at in (start_ms, end_ms))
        rest = buffer[end:]
        self._chunks, self._buffered = [rest], len(rest)
        return Segment(buffer[start:end], self._rate, max(start_ms, first_ms), end_ms)

    def take_all(self) -> Segment:
        """All that is buffered, as for a commit by hand; voice activity begins anew."""
        segment = self.take(self.position_ms - self.buffered_ms, self.position_ms)
        self.clear()
        return segment

    def clear(self) -> None:
        self._base_ms = self.position_ms
        self._configure(self.format, self._turn_detection)

    def _keep(self, newest_ms: int) -> None:
        samples = newest_ms * self._rate // 1000
        while self._chunks and self._buffered - len(self._chunks[0]) >= samples:
            self._buffered -= len(self._chunks.pop(0))

    def _joined(self) -> Pcm:
        return np.concatenate(self._chunks) if self._chunks else np.zeros(0, dtype=np.int16)
