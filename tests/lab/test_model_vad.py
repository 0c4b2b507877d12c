"""Voice activity on telephone speech: begins in time, ends in time, and not for noise."""

import numpy as np
import pytest

from lab.voice import speak
from media_fork import g711
from media_fork.voice_activity import SpeechStarted, SpeechStopped, VoiceActivity

RATE = 8000
VOICES = ("caller", "sales", "marin", "cedar", "sage")


def noise(seconds: float, rms: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, rms, int(seconds * RATE))


def line(*parts: np.ndarray, rms: float = 0.0) -> np.ndarray:
    """Parts one after the other with noise under all of them, as µ-law carries it."""
    whole = np.concatenate(parts).astype(np.float64)
    whole += noise(len(whole) / RATE, rms) if rms else 0.0
    return g711.ulaw_decode(g711.ulaw_encode(np.clip(np.round(whole), -32768, 32767).astype(np.int16)))


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE))


def onset_ms(pcm: np.ndarray) -> int:
    """Where a voice becomes louder than a twentieth of its peak."""
    return int(np.flatnonzero(np.abs(pcm) > np.abs(pcm).max() / 20)[0]) * 1000 // RATE


@pytest.mark.parametrize("rms", [0, 10, 60], ids=["clean", "idle line", "noisy line"])
@pytest.mark.parametrize("voice", VOICES)
def test_speech_is_noticed_within_a_tenth_of_a_second(voice: str, rms: float) -> None:
    speech = speak("Put me through to sales.", voice)
    pcm = line(silence(1.0), speech, silence(1.0), rms=rms)
    vad = VoiceActivity(RATE)
    noticed_ms = None
    for start in range(0, len(pcm), 160):
        events = vad.feed(pcm[start : start + 160])
        if noticed_ms is None and any(isinstance(event, SpeechStarted) for event in events):
            noticed_ms = (start + 160) * 1000 // RATE
    assert noticed_ms is not None
    assert -20 <= noticed_ms - 1000 - onset_ms(speech) <= 120
    assert not vad.speaking


@pytest.mark.parametrize("voice", VOICES)
def test_one_sentence_is_one_turn_that_ends_after_the_silence_asked_for(voice: str) -> None:
    speech = speak("I would like to talk to someone in sales, please.", voice)
    events = VoiceActivity(RATE, silence_duration_ms=400).feed(line(silence(0.5), speech, silence(2.0), rms=10))
    assert [type(event) for event in events] == [SpeechStarted, SpeechStopped]
    end_ms = 500 + len(speech) * 1000 // RATE
    assert abs(events[1].at_ms - end_ms - 400) <= 150


def test_a_pause_shorter_than_the_silence_does_not_end_a_turn() -> None:
    speech = speak("Put me through", "caller")
    pcm = line(silence(0.5), speech, silence(0.4), speech, silence(2.0), rms=10)
    assert len(VoiceActivity(RATE, silence_duration_ms=700).feed(pcm)) == 2
    assert len(VoiceActivity(RATE, silence_duration_ms=200).feed(pcm)) == 4


@pytest.mark.parametrize("rms", [0, 5, 30, 100, 250])
def test_steady_noise_is_not_speech(rms: float) -> None:
    assert VoiceActivity(RATE).feed(line(noise(20, rms) if rms else silence(20))) == []


def test_hum_and_clicks_are_not_speech() -> None:
    at = np.arange(20 * RATE) / RATE
    hum = 400 * np.sin(2 * np.pi * 60 * at) + 200 * np.sin(2 * np.pi * 120 * at)
    clicks = np.zeros(len(at))
    clicks[::RATE] = 12000
    clicks[1::RATE] = -12000
    assert VoiceActivity(RATE).feed(line(hum + clicks, rms=10)) == []


def test_a_higher_threshold_wants_louder_speech() -> None:
    faint = line(silence(0.5), speak("Put me through to sales.", "caller") * 0.025, silence(1.0))
    assert VoiceActivity(RATE, threshold=0.0).feed(faint)
    assert not VoiceActivity(RATE, threshold=1.0).feed(faint)


def test_how_the_audio_is_cut_does_not_matter() -> None:
    pcm = line(silence(0.5), speak("Put me through to sales.", "caller"), silence(1.0), rms=10)
    whole = VoiceActivity(RATE).feed(pcm)
    for size in (1, 37, 160, 4000):
        vad = VoiceActivity(RATE)
        assert [event for start in range(0, len(pcm), size) for event in vad.feed(pcm[start : start + size])] == whole


def test_wideband_speech_is_noticed_too() -> None:
    speech = speak("Put me through to sales.", "caller", 16000)
    pcm = np.concatenate([np.zeros(8000, np.int16), speech, np.zeros(16000, np.int16)])
    assert len(VoiceActivity(16000).feed(pcm)) == 2


def test_other_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="24000"):
        VoiceActivity(24000)
