"""ITU-T G.711: µ-law and A-law to and from linear PCM, by table, bit-exact.

Linear samples are int16 at full scale, as FreeSWITCH and mod_audio_fork carry them (L16): the 14-bit values of µ-law
are shifted left by 2, the 13-bit values of A-law by 3. Negative samples are taken as ones' complement, as the reference
code of G.191 does. Every code is returned by a round trip through linear, with one
exception that G.711 itself makes: µ-law has two zeros, 0xFF (+0) and 0x7F (-0), and linear zero encodes as 0xFF.

The functions on bytes (``*_from_l16``, ``*_to_l16``) are for the hot path; L16 there is little-endian, as on the fork.
"""

import sys
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Int16 = NDArray[np.int16]

BIAS: Final = 0x84
"""Added to a µ-law magnitude (33 in 14 bits, shifted to 16 bits) before its segment is found."""
CLIP: Final = 32635
"""Largest magnitude that µ-law can carry, before the bias."""

ULAW_SILENCE: Final = 0xFF
ALAW_SILENCE: Final = 0xD5


def _ulaw_decoding() -> Int16:
    code = ~np.arange(256, dtype=np.uint8) & 0xFF
    segment = (code >> 4) & 0x07
    magnitude = ((((code & 0x0F).astype(np.int32) << 3) + BIAS) << segment) - BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_decoding() -> Int16:
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    segment = ((code >> 4) & 0x07).astype(np.int32)
    step = (code & 0x0F).astype(np.int32) << 4
    magnitude = np.where(segment == 0, step + 8, (step + 0x108) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _segment(magnitude: NDArray[np.int32], first: int) -> NDArray[np.int32]:
    """Number of the segment, 0 to 7, whose lowest magnitudes are 0, 2*first, 4*first, ..."""
    ends = first << np.arange(1, 8)
    return np.searchsorted(ends, magnitude, side="right").astype(np.int32)


def _linear() -> NDArray[np.int32]:
    """All 65536 samples in the order of their bits as uint16, which is how the encoding tables are indexed."""
    return np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)


def _ulaw_encoding() -> NDArray[np.uint8]:
    linear = _linear()
    magnitude = np.minimum(np.where(linear >= 0, linear, ~linear), CLIP) + BIAS
    segment = _segment(magnitude, 0x80)
    step = (magnitude >> (segment + 3)) & 0x0F
    code: NDArray[np.int32] = np.where(linear < 0, 0x80, 0x00) | (segment << 4) | step
    return (~code & 0xFF).astype(np.uint8)


def _alaw_encoding() -> NDArray[np.uint8]:
    linear = _linear()
    magnitude = np.where(linear >= 0, linear, ~linear)
    segment = _segment(magnitude, 0x80)
    step = (magnitude >> np.maximum(segment + 3, 4)) & 0x0F
    code: NDArray[np.int32] = np.where(linear >= 0, 0x80, 0x00) | (segment << 4) | step
    return ((code ^ 0x55) & 0xFF).astype(np.uint8)


_ULAW_DECODING: Final = _ulaw_decoding()
_ALAW_DECODING: Final = _alaw_decoding()
_ULAW_ENCODING: Final = _ulaw_encoding()
_ALAW_ENCODING: Final = _alaw_encoding()


def _wire(table: Int16) -> Int16:
    return table if sys.byteorder == "little" else table.byteswap()


_L16: Final = np.dtype("<u2")
"""L16 as an index into the tables; parsing the name costs as much as the look-up."""
_ULAW_L16: Final = _wire(_ULAW_DECODING)
_ALAW_L16: Final = _wire(_ALAW_DECODING)


def _codes(encoded: bytes | bytearray | memoryview) -> NDArray[np.uint8]:
    return np.frombuffer(encoded, dtype=np.uint8)


def _index(samples: NDArray[Any]) -> NDArray[np.uint16]:
    if samples.dtype != np.int16:
        raise TypeError(f"G.711 encodes int16 samples, not {samples.dtype}")
    return np.ascontiguousarray(samples).view(np.uint16)


def ulaw_decode(encoded: bytes | bytearray | memoryview) -> Int16:
    """µ-law codes to int16 samples, one for each byte."""
    return _ULAW_DECODING[_codes(encoded)]


def ulaw_encode(samples: Int16) -> bytes:
    """int16 samples, shape (n,), to n bytes of µ-law. TypeError for any other dtype."""
    return _ULAW_ENCODING[_index(samples)].tobytes()


def alaw_decode(encoded: bytes | bytearray | memoryview) -> Int16:
    """A-law codes to int16 samples, one for each byte."""
    return _ALAW_DECODING[_codes(encoded)]


def alaw_encode(samples: Int16) -> bytes:
    """int16 samples, shape (n,), to n bytes of A-law. TypeError for any other dtype."""
    return _ALAW_ENCODING[_index(samples)].tobytes()


def ulaw_to_l16(encoded: bytes | bytearray | memoryview) -> bytes:
    """µ-law to little-endian L16, twice as many bytes."""
    return _ULAW_L16.take(_codes(encoded)).tobytes()


def alaw_to_l16(encoded: bytes | bytearray | memoryview) -> bytes:
    """A-law to little-endian L16, twice as many bytes."""
    return _ALAW_L16.take(_codes(encoded)).tobytes()


def ulaw_from_l16(l16: bytes | bytearray | memoryview) -> bytes:
    """Little-endian L16 (an even number of bytes, else ValueError) to µ-law, half as many bytes."""
    return _ULAW_ENCODING.take(np.frombuffer(l16, dtype=_L16)).tobytes()


def alaw_from_l16(l16: bytes | bytearray | memoryview) -> bytes:
    """Little-endian L16 (an even number of bytes, else ValueError) to A-law, half as many bytes."""
    return _ALAW_ENCODING.take(np.frombuffer(l16, dtype=_L16)).tobytes()
