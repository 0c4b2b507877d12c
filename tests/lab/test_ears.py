"""Ears on telephone speech: phrases in several voices through µ-law, other speech, and the model's own voice."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from lab import scenario
from lab.ears import Ears, EarsError, Recogniser
from lab.scenario import Understanding
from lab.voice import speak
from media_fork import g711

RECEPTION = Path(scenario.__file__).parent / "scenarios/reception.yaml"
VOICES = ("caller", "sales", "marin", "cedar")
SAID = [
    "What are your opening hours?",
    "When are you open?",
    "What time do you close?",
    "Please put me through to sales.",
    "Can I speak to someone in sales?",
    "I would like to talk to sales.",
    "Transfer me to the sales department please.",
    "I want a quote.",
    "Where are you located?",
    "What is your address?",
    "Where is my order?",
    "Call the premium number.",
    "Call nine one one.",
    "Thank you very much.",
    "Goodbye.",
]
OTHER = [
    "Tell me a joke about penguins.",
    "My hovercraft is full of eels.",
    "Can you spell your name?",
    "I have a problem with my computer.",
    "One two three four five.",
    "Do you sell bicycles?",
]


def telephone(text: str, voice: str) -> np.ndarray:
    """As it arrives: a pause before and after, some noise of the line, µ-law."""
    pcm = np.concatenate([np.zeros(2400), speak(text, voice), np.zeros(4000)])
    pcm += np.random.default_rng(len(text)).normal(0, 10, len(pcm))
    return g711.ulaw_decode(g711.ulaw_encode(pcm.astype(np.int16)))


@pytest.fixture(scope="module")
def understanding() -> Understanding:
    return Understanding(scenario.load(RECEPTION))


@pytest.fixture(scope="module")
def recogniser(understanding: Understanding) -> Recogniser:
    script = scenario.load(RECEPTION)
    return Recogniser(understanding.phrases, before=script.before, after=script.after, words=script.words)


@pytest.mark.parametrize("voice", VOICES)
def test_what_is_said_on_the_telephone_is_understood(
    recogniser: Recogniser, understanding: Understanding, voice: str
) -> None:
    missed = []
    for text in SAID:
        meant = understanding.of(text)
        assert meant is not None
        heard = recogniser.hear(telephone(text, voice), 8000)
        if heard is None:
            missed.append(text)
        else:
            assert understanding.of(heard) is meant, f"{text!r} heard as {heard!r}"
    assert len(missed) <= 1, missed


@pytest.mark.parametrize("voice", VOICES)
def test_what_is_no_phrase_is_not_understood(recogniser: Recogniser, voice: str) -> None:
    understood = {text: heard for text in OTHER if (heard := recogniser.hear(telephone(text, voice), 8000)) is not None}
    assert len(understood) <= 1, understood


@pytest.mark.parametrize("gain", [0.05, 0.3, 2.0])
def test_loudness_does_not_matter(recogniser: Recogniser, gain: float) -> None:
    pcm = np.clip(telephone("What are your opening hours?", "caller") * gain, -32768, 32767).astype(np.int16)
    assert recogniser.hear(pcm, 8000) == "what are your opening hours"


def test_wideband_speech_is_understood(recogniser: Recogniser) -> None:
    assert recogniser.hear(speak("When are you open?", "caller", 24000), 24000) == "when are you open"


@pytest.mark.parametrize("samples", [0, 1, 100, 4000, 400_000])
def test_silence_is_not_understood(recogniser: Recogniser, samples: int) -> None:
    assert recogniser.hear(np.zeros(samples, np.int16), 8000) is None


@pytest.mark.parametrize("seconds", [1, 3, 30])
def test_noise_is_not_understood(recogniser: Recogniser, seconds: int) -> None:
    noise = np.random.default_rng(1).normal(0, 500, seconds * 8000).astype(np.int16)
    assert recogniser.hear(noise, 8000) is None


def test_the_model_can_be_heard_by_the_same_ears() -> None:
    greetings = [
        "good day this is widgets",
        "hello and thank you for calling example widgets",
        "we are open monday to friday nine to five",
        "one moment i will put you through to sales",
        "sorry i did not catch that",
    ]
    ears = Recogniser(greetings)
    for voice in ("marin", "cedar", "alloy"):
        for text in greetings:
            assert ears.hear(telephone(text, voice), 8000) == text, voice


def test_a_word_that_nobody_can_pronounce_is_named() -> None:
    with pytest.raises(ValueError, match="xyzzyx"):
        Recogniser(["the xyzzyx department"])
    assert Recogniser(["xyzzyx"], words={"xyzzyx": "Z IH Z IH K S"}).hear(np.zeros(8000, np.int16), 8000) is None


def test_with_no_phrases_nothing_is_understood() -> None:
    assert Recogniser([]).hear(telephone("Goodbye.", "caller"), 8000) is None


async def test_many_may_be_heard_at_once() -> None:
    async with Ears(["goodbye", "where are you"], processes=2) as ears:
        pcm = [telephone(text, "caller") for text in ("Goodbye.", "Where are you?")] * 3
        assert await asyncio.gather(*(ears.hear(one, 8000) for one in pcm)) == ["goodbye", "where are you"] * 3


async def test_listening_does_not_hold_up_the_event_loop() -> None:
    async with Ears(["goodbye", "where are you"], processes=1) as ears:
        hearing = asyncio.ensure_future(ears.hear(telephone("Where are you?", "caller"), 8000))
        turns = 0
        while not hearing.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 20
        assert await hearing == "where are you"


async def test_a_recogniser_that_dies_is_replaced() -> None:
    async with Ears(["goodbye"], processes=1) as ears:
        pcm = telephone("Goodbye.", "caller")
        (pid,) = ears.pids
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EarsError):
            await ears.hear(pcm, 8000)
        assert await ears.hear(pcm, 8000) == "goodbye"


async def test_recognisers_end_with_the_ears() -> None:
    async with Ears(["goodbye"], processes=2) as ears:
        pids = ears.pids
    assert len(pids) == 2
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            pytest.fail("a recogniser was left behind")


async def test_phrases_that_cannot_be_pronounced_keep_the_ears_from_starting() -> None:
    with pytest.raises(ValueError, match="xyzzyx"):
        async with Ears(["xyzzyx"]):
            pytest.fail("started")
