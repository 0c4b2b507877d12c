"""How a call's audio is carried: L16 on the fork, µ-law, A-law or 24 kHz PCM to and from the model.

One :class:`Carriage` a codec, shared by all calls; :class:`ToModel` and :class:`FromModel` hold the state of one call's
two directions. G.711 is carried as the very codes that came over RTP; wideband is resampled 16 ↔ 24 kHz.
"""

from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from media_fork import g711
from media_fork.resample import Resampler
from tandem.seam import Codec

CHUNK_MS: Final = 80
"""What playout sends at a time. At 8 kHz 640 samples, at 16 kHz 1280: whole multiples of what mod_audio_fork passes on
at a time (640 samples; twice that where it halves the rate), so that nothing is ever left in its prebuffer."""

_APPEND: Final = b'{"type":"input_audio_buffer.append","audio":"'
_END: Final = b'"}'


@dataclass(frozen=True, eq=False)
class Carriage:
    """One codec's formats on both sides."""

    model_format: dict[str, str | int]
    """``audio.input.format`` and ``audio.output.format`` of session.update."""
    rate: Literal[8000, 16000]
    """Of the fork, Hz."""
    bytes_per_ms: int
    """Of the model's audio."""
    silence: bytes
    """One byte of the model's silence."""
    _encode: Callable[[bytes], bytes] | None = None
    """L16 to the model's bytes, where no state is needed."""
    _decode: Callable[[bytes], bytes] | None = None

    @property
    def chunk_bytes(self) -> int:
        """CHUNK_MS of the model's audio."""
        return CHUNK_MS * self.bytes_per_ms

    @property
    def model_rate(self) -> int:
        """Of the model's audio, Hz."""
        return 8000 if self._encode is not None else 24000

    def encode(self, l16: bytes) -> bytes:
        """L16 at ``model_rate`` in the model's format."""
        return l16 if self._encode is None else self._encode(l16)

    def appended_ms(self, append: bytes) -> float:
        """How much audio an event of :class:`ToModel` holds, ms."""
        base64_bytes = len(append) - len(_APPEND) - len(_END)
        return base64_bytes * 3 // 4 / self.bytes_per_ms

    def to_model(self) -> "ToModel":
        return ToModel(self._encode or _Wideband(16000, 24000).convert)

    def from_model(self) -> "FromModel":
        if self._decode is not None:
            return FromModel(self._decode, None)
        wideband = _Wideband(24000, 16000)
        return FromModel(wideband.convert, wideband.reset)


class _Wideband:
    def __init__(self, rate_in: int, rate_out: int) -> None:
        self._resampler = Resampler(rate_in, rate_out)
        self.reset = self._resampler.reset

    def convert(self, l16: bytes) -> bytes:
        return self._resampler.process(np.frombuffer(l16, dtype="<i2")).astype("<i2", copy=False).tobytes()


class ToModel:
    """The caller's audio: a stream of L16 bytes, cut anywhere, made into input_audio_buffer.append events."""

    __slots__ = ("_encode", "_odd", "received")

    def __init__(self, encode: Callable[[bytes], bytes]) -> None:
        self._encode = encode
        self._odd = b""
        self.received = 0
        """Bytes of L16 so far."""

    def append(self, l16: bytes) -> bytes:
        """The event for the next bytes of the stream, as JSON; empty where they complete no sample."""
        self.received += len(l16)
        if self._odd or len(l16) & 1:
            l16 = self._odd + l16
            whole = len(l16) & ~1
            self._odd = l16[whole:]
            l16 = l16[:whole]
        audio = self._encode(l16)
        return _APPEND + b2a_base64(audio, newline=False) + _END if audio else b""


class FromModel:
    """The agent's audio: whole chunks of the model's bytes made into L16 for the fork."""

    __slots__ = ("_reset", "decode")

    def __init__(self, decode: Callable[[bytes], bytes], reset: Callable[[], None] | None) -> None:
        self.decode = decode
        self._reset = reset

    def restart(self) -> None:
        """The next chunk starts a new utterance."""
        if self._reset is not None:
            self._reset()


CARRIAGES: Final[dict[Codec, Carriage]] = {
    Codec.PCMU: Carriage(
        {"type": "audio/pcmu"}, 8000, 8, bytes([g711.ULAW_SILENCE]), g711.ulaw_from_l16, g711.ulaw_to_l16
    ),
    Codec.PCMA: Carriage(
        {"type": "audio/pcma"}, 8000, 8, bytes([g711.ALAW_SILENCE]), g711.alaw_from_l16, g711.alaw_to_l16
    ),
    Codec.L16: Carriage({"type": "audio/pcm", "rate": 24000}, 16000, 48, b"\x00"),
}
