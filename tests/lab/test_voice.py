"""Voices: telephone loudness, no dead air around the words, one a name."""

import itertools

import numpy as np
import pytest

from lab import voice
from lab.realtime_schema import RequestError, check
from lab.voice import VOICES, VoiceError, speak


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_speech_has_the_rate_asked_for_and_the_loudness_of_a_person(rate: int) -> None:
    pcm = speak("We are open Monday to Friday, nine to five.", "marin", rate)
    assert pcm.dtype == np.int16
    assert 1.5 < len(pcm) / rate < 5.0
    assert 15000 < np.abs(pcm).max() <= 16400


@pytest.mark.parametrize("name", VOICES)
def test_every_voice_speaks_at_once_and_stops_when_done(name: str) -> None:
    pcm = np.abs(speak("Good day, this is Widgets.", name).astype(np.int32))
    loud = np.flatnonzero(pcm > pcm.max() / 20)
    assert loud[0] < 8000 * 0.15
    assert len(pcm) - loud[-1] < 8000 * 0.3


def test_voices_can_be_told_apart() -> None:
    texts = [speak("Good day, this is Widgets.", name).tobytes() for name in VOICES]
    assert all(one != other for one, other in itertools.combinations(texts, 2))


def test_every_voice_of_the_api_has_one_here() -> None:
    with pytest.raises(RequestError) as refused:
        check({"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"voice": "nobody"}}}})
    offered = refused.value.message.partition("Supported values are: ")[2]
    names = {word.strip("',. ") for word in offered.replace("and ", "").split(",")}
    assert names == set(VOICES) - {"caller", "sales"}


def test_speed_is_a_factor() -> None:
    usual, slow = (len(speak("Good day, this is Widgets.", "marin", 8000, speed)) for speed in (1.0, 0.5))
    assert 1.5 < slow / usual < 2.5


def test_text_is_never_an_option_or_markup() -> None:
    assert len(speak("--help", "marin")) > 0
    assert len(speak("-v en", "marin")) > 0


def test_nothing_to_say_is_no_audio() -> None:
    assert len(speak("", "marin")) == 0


def test_what_is_kept_cannot_be_spoilt() -> None:
    with pytest.raises(ValueError, match="read-only"):
        speak("Good day.", "marin")[0] = 1


def test_a_voice_that_there_is_not_is_said() -> None:
    with pytest.raises(VoiceError, match="zz-nobody"):
        speak("Good day.", "zz-nobody")


def test_a_missing_espeak_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(VoiceError, match="apt-get install espeak-ng"):
        voice._espeak("Good day.", "en-us", 165)
