"""16 ↔ 24 kHz in a stream: flat, no clicks at the borders of chunks, delay as stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_fork.resample import Resampler

DIRECTIONS = [(16000, 24000), (24000, 16000)]


def tone(frequency: float, rate: int, seconds: float = 0.5, level: float = 10000) -> np.ndarray:
    return np.round(level * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.int16)


def level_and_rest(signal: np.ndarray, frequency: float, rate: int) -> tuple[float, float]:
    """Amplitude of the tone in ``signal``, and of what is not the tone (RMS)."""
    at = 2 * np.pi * frequency * np.arange(len(signal)) / rate
    basis = np.stack([np.sin(at), np.cos(at)], axis=1)
    weights, *_ = np.linalg.lstsq(basis, signal.astype(float), rcond=None)
    return float(np.hypot(*weights)), float(np.std(signal - basis @ weights))


@pytest.mark.parametrize(("rate_in", "rate_out"), DIRECTIONS)
@pytest.mark.parametrize("frequency", [60, 300, 1000, 2000, 3000, 3400, 5000, 6500, 7000])
def test_flat_and_clean_to_7_khz(rate_in, rate_out, frequency):
    out = Resampler(rate_in, rate_out).process(tone(frequency, rate_in))[1000:-1000]
    level, rest = level_and_rest(out, frequency, rate_out)
    assert abs(20 * np.log10(level / 10000)) < 0.05
    assert 20 * np.log10(rest / 10000) < -70


@pytest.mark.parametrize("frequency", [9000, 10000, 11500])
def test_what_16_khz_cannot_carry_does_not_come_back_as_an_alias(frequency):
    out = Resampler(24000, 16000).process(tone(frequency, 24000))[1000:]
    assert 20 * np.log10(np.std(out) / 7071 + 1e-9) < -70


@pytest.mark.parametrize(("rate_in", "rate_out"), DIRECTIONS)
def test_the_delay_is_the_one_stated(rate_in, rate_out):
    resampler = Resampler(rate_in, rate_out)
    impulse = np.zeros(rate_in // 10, np.int16)
    at = rate_in // 20
    impulse[at] = 20000
    out = resampler.process(impulse)
    assert int(np.argmax(np.abs(out))) == at * rate_out // rate_in + resampler.delay


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_borders_of_chunks_leave_no_trace(data):
    rate_in, rate_out = data.draw(st.sampled_from(DIRECTIONS))
    signal = np.random.default_rng(7).integers(-32768, 32767, 3000).astype(np.int16)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(signal)), max_size=30)))
    whole = Resampler(rate_in, rate_out).process(signal)
    resampler = Resampler(rate_in, rate_out)
    parts = [resampler.process(part) for part in np.split(signal, cuts)]
    joined = np.concatenate(parts)
    assert len(joined) == len(whole)
    assert np.max(np.abs(joined.astype(int) - whole)) <= 1


@pytest.mark.parametrize(("rate_in", "rate_out"), DIRECTIONS)
def test_a_frame_in_is_a_frame_out(rate_in, rate_out):
    resampler = Resampler(rate_in, rate_out)
    for _ in range(5):
        assert len(resampler.process(np.zeros(rate_in // 50, np.int16))) == rate_out // 50


def test_full_scale_saturates_and_does_not_wrap():
    square = np.tile(np.repeat(np.array([32767, -32768], np.int16), 20), 50)
    out = Resampler(16000, 24000).process(square)
    inside = out[300:-300].reshape(-1, 60)
    assert (inside[:, 10:20] != 0).all()
    assert np.max(np.abs(np.diff(np.sign(inside.astype(int)), axis=1)).sum(axis=1)) <= 4


def test_after_a_reset_nothing_of_the_old_signal_is_heard():
    resampler = Resampler(24000, 16000)
    resampler.process(tone(1000, 24000, 0.05))
    resampler.reset()
    assert not resampler.process(np.zeros(480, np.int16)).any()


def test_other_rates_are_an_error():
    with pytest.raises(ValueError, match="16000 and 24000"):
        Resampler(8000, 24000)
