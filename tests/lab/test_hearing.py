"""A known voice is told from other words and other voices, whatever a line does to it on the way."""

import numpy as np
import pytest
import soxr

from lab.codec import G722
from lab.hearing import ALIKE, RATE, Pcm, heard_until, likeness, loud_frames
from lab.voice import speak
from media_fork.g711 import ulaw_decode, ulaw_encode

MARGIN = 0.1
FRAME = 160
EXTENSION = "This is extension 2 0 0 1, hello."
ORDER = "I would like to order two large blue widgets please."
PARTNER = "This is the partner, hello to you."
GREETING = "Good day, this is Widgets."
SENTENCES = [(EXTENSION, "sales"), (ORDER, "caller"), (GREETING, "marin")]


def carried(voice: Pcm) -> Pcm:
    return ulaw_decode(ulaw_encode(voice))


def on_line(voice: Pcm) -> Pcm:
    """Between other people's words."""
    pause = np.zeros(RATE // 2, np.int16)
    before, after = speak("One moment, I will put you through.", "cedar"), speak("Thank you for calling.", "cedar")
    return np.concatenate([before, pause, carried(voice), pause, after])


def lossy(voice: Pcm) -> Pcm:
    """Each twentieth frame is lost."""
    kept = voice.copy()
    for start in range(10 * FRAME, len(kept), 20 * FRAME):
        kept[start : start + FRAME] = 0
    return kept


def stalled(voice: Pcm) -> Pcm:
    """Each second a frame comes late, and all that follows with it."""
    pieces = [voice[start : start + RATE] for start in range(0, len(voice), RATE)]
    return np.concatenate([np.concatenate([piece, np.zeros(FRAME, np.int16)]) for piece in pieces])


def begun_late(voice: Pcm) -> Pcm:
    return voice[RATE * 4 // 10 :]


def faint(voice: Pcm) -> Pcm:
    return (voice * 0.3).astype(np.int16)


def ringing(voice: Pcm) -> Pcm:
    time = np.arange(len(voice)) / RATE
    tone = 1500 * (np.sin(2 * np.pi * 440 * time) + np.sin(2 * np.pi * 480 * time))
    return np.clip(voice + tone, -32768, 32767).astype(np.int16)


def through_g722(voice: Pcm) -> Pcm:
    wide = soxr.resample(voice, RATE, G722.rate)
    encode, decode = G722.encoder(), G722.decoder()
    frames = [decode(encode(frame)) for frame in wide[: len(wide) // 320 * 320].reshape(-1, 320)]
    return np.asarray(soxr.resample(np.concatenate(frames)[1:], G722.rate, RATE), np.int16)


@pytest.mark.parametrize("way", [carried, lossy, stalled, begun_late, faint, ringing, through_g722])
@pytest.mark.parametrize(("text", "voice"), SENTENCES)
def test_a_voice_is_known_whatever_the_line_does_to_it(text, voice, way):
    spoken = speak(text, voice)
    assert likeness(on_line(way(spoken)), spoken) > ALIKE + MARGIN


@pytest.mark.parametrize("voice", ["sales", "marin"])
@pytest.mark.parametrize(("said", "sought"), [(PARTNER, EXTENSION), (EXTENSION, PARTNER), (GREETING, ORDER)])
def test_other_words_in_the_same_voice_are_not_it(said, sought, voice):
    assert likeness(on_line(speak(said, voice)), speak(sought, voice)) < ALIKE - MARGIN


@pytest.mark.parametrize("other", ["caller", "cedar", "marin"])
def test_the_same_words_in_another_voice_are_not_it(other):
    assert likeness(on_line(speak(EXTENSION, other)), speak(EXTENSION, "sales")) < ALIKE - MARGIN


def test_silence_and_noise_are_nobodys_voice():
    voice = speak(ORDER, "caller")
    noise = np.random.default_rng(1).integers(-8000, 8000, 4 * RATE).astype(np.int16)
    for line in (np.zeros(4 * RATE, np.int16), np.zeros(0, np.int16), noise):
        assert likeness(line, voice) < 0.2
    assert likeness(noise, np.zeros(RATE, np.int16)) == 0


def test_a_third_of_a_voice_is_not_enough():
    voice = speak(ORDER, "caller")
    assert likeness(on_line(voice[: len(voice) // 3]), voice) < ALIKE - MARGIN


@pytest.mark.parametrize("way", [carried, through_g722])
@pytest.mark.parametrize("cut_ms", [740, 1200, 1990])
def test_what_was_heard_of_a_voice_is_told_to_within_a_frame(way, cut_ms):
    voice = speak(ORDER, "marin")
    cut = voice[: cut_ms * RATE // 1000]
    line = np.concatenate(
        [on_line(np.zeros(0, np.int16)), way(cut), np.zeros(RATE, np.int16), speak(EXTENSION, "marin")]
    )
    last_loud = (np.flatnonzero(loud_frames(cut))[-1] + 1) * FRAME / RATE
    assert heard_until(line, voice) == pytest.approx(last_loud, abs=0.021)


def test_nothing_was_heard_of_a_voice_that_is_not_there():
    assert heard_until(on_line(speak(PARTNER, "marin")), speak(ORDER, "marin")) == 0
