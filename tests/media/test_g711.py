"""ITU-T G.711, bit-exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_fork import g711

CODES = bytes(range(256))
LINEAR = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)

# G.711 table 2a/2b (µ-law) and 1a/1b (A-law): decoder output values at the ends of the segments, scaled to 16 bits.
ULAW_VALUES = {0x80: 32124, 0x8F: 16764, 0x90: 15996, 0x9F: 8316, 0xA0: 7932, 0xEF: 132, 0xF0: 120, 0xFE: 8, 0xFF: 0}
ALAW_VALUES = {0xAA: 32256, 0xA5: 16896, 0xBA: 16128, 0xD5: 8, 0xD4: 24, 0xC5: 264, 0x55: -8, 0x2A: -32256}


def test_ulaw_decodes_to_the_values_of_the_recommendation():
    decoded = g711.ulaw_decode(CODES)
    for code, value in ULAW_VALUES.items():
        assert decoded[code] == value
        assert decoded[code & 0x7F] == -value


def test_alaw_decodes_to_the_values_of_the_recommendation():
    decoded = g711.alaw_decode(CODES)
    for code, value in ALAW_VALUES.items():
        assert decoded[code] == value
    assert sorted(decoded) == sorted(-decoded.astype(np.int32))


def test_every_alaw_code_survives_the_round_trip():
    assert g711.alaw_encode(g711.alaw_decode(CODES)) == CODES


def test_every_ulaw_code_but_negative_zero_survives_the_round_trip():
    expected = bytes(0xFF if code == 0x7F else code for code in CODES)
    assert g711.ulaw_encode(g711.ulaw_decode(CODES)) == expected


def reference_ulaw(sample: int) -> int:
    """The compression of G.191 (STL), sample by sample."""
    magnitude = min(((~sample if sample < 0 else sample) >> 2) + 33, 0x1FFF)
    segment = 1
    while magnitude >> 5 + segment:
        segment += 1
    code = (8 - segment << 4) | (0x0F - (magnitude >> segment & 0x0F))
    return code | 0x80 if sample >= 0 else code


def reference_alaw(sample: int) -> int:
    magnitude = (~sample if sample < 0 else sample) >> 4
    if magnitude > 15:
        exponent = 1
        while magnitude > 16 + 15:
            magnitude >>= 1
            exponent += 1
        magnitude = magnitude - 16 + (exponent << 4)
    return (magnitude | 0x80 if sample >= 0 else magnitude) ^ 0x55


def test_all_65536_samples_encode_as_the_reference_code_does():
    assert list(g711.ulaw_encode(LINEAR)) == [reference_ulaw(int(sample)) for sample in LINEAR]
    assert list(g711.alaw_encode(LINEAR)) == [reference_alaw(int(sample)) for sample in LINEAR]


@given(st.binary(max_size=2000).filter(lambda data: len(data) % 2 == 0))
def test_bytes_and_arrays_agree(l16):
    samples = np.frombuffer(l16, "<i2")
    assert g711.ulaw_from_l16(l16) == g711.ulaw_encode(samples)
    assert g711.alaw_from_l16(l16) == g711.alaw_encode(samples)
    assert g711.ulaw_to_l16(l16) == g711.ulaw_decode(l16).astype("<i2").tobytes()
    assert g711.alaw_to_l16(l16) == g711.alaw_decode(l16).astype("<i2").tobytes()


def test_other_dtypes_and_half_samples_are_errors():
    with pytest.raises(TypeError, match="int16"):
        g711.ulaw_encode(np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="multiple"):
        g711.ulaw_from_l16(b"\x00\x01\x02")
