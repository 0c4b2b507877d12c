"""What a line may sound like when a call is answered: people, machines, faxes, silence, each made from nothing on demand.

Voices are espeak-ng's, tones and noises numpy's, all seeded; everything passes through G.711 at telephone loudness. There
are two sets: ``tuning``, to which the rules' times were fitted, and ``held out``, other words by other voices, which they had
not seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from lab.voice import speak
from media_fork import g711
from tandem.outcome import Answerer

Pcm = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]
Set = Literal["tuning", "held out"]

RATE: Final = 8000
AFTER_S: Final = 6.0
"""Of the line's noise behind everything."""
SPEECH_PEAK: Final = 0.25


@dataclass(frozen=True)
class Recording:
    """``beep_over_ms``: when a machine's beep has ended. ``why``: what makes it hard, where something does."""

    name: str
    set: Set
    who: Answerer
    pcm: Pcm
    beep_over_ms: int | None = None
    why: str = ""


@dataclass(frozen=True)
class _Person:
    text: str
    voice: str
    line: str = "quiet"
    after_ms: int = 350
    speed: float = 1.0
    peak: float = SPEECH_PEAK
    why: str = ""


@dataclass(frozen=True)
class _Machine:
    text: str
    voice: str
    beep: tuple[float, int] | None = (1000.0, 400)
    """Hz and ms; None: it records without a beep."""
    line: str = "quiet"
    pause_ms: int = 500
    why: str = ""


_PEOPLE: Final[dict[Set, Sequence[_Person]]] = {
    "tuning": [
        _Person("Hello?", "en-us"),
        _Person("Hello?", "en-us+f2", "hiss", 700),
        _Person("Hello?", "en-gb+m3", "street", 200),
        _Person("Yes?", "en-us+m4"),
        _Person("Yes, hello?", "en-us+f4", "hiss"),
        _Person("Hi.", "en-us+f1", "quiet", 900),
        _Person("Speaking.", "en-gb"),
        _Person("Smith.", "en-us+m2", "hum"),
        _Person("Hello, Anna speaking.", "en-gb+f3"),
        _Person("Hello, this is Robert.", "en-us+m1", "hiss", 500, 1.1),
        _Person("Jones residence.", "en-us+f5"),
        _Person("Good morning, how can I help?", "en-gb-x-rp", "babble"),
        _Person("Hello, who is this please?", "en-us+m7"),
        _Person("Hallo?", "de+f2"),
        _Person("Müller, guten Tag.", "de"),
        _Person("Oui, allô?", "fr-fr+f1", "hiss"),
        _Person("Dígame.", "es"),
        _Person("Hello? Hello?", "en-us+m5", "street", 300),
        _Person("Good afternoon, Miller and Sons, Anna speaking.", "en-gb+f2"),
        _Person(
            "Good afternoon, thank you for calling Miller and Sons, this is Anna, how may I direct your call?",
            "en-us+f3",
            why="a receptionist who talks as long as a machine",
        ),
    ],
    "held out": [
        _Person("Hello?", "en-gb-scotland"),
        _Person("Hello?", "en-us+m6", "hiss", 1200),
        _Person("Hello?", "en-us+f5", "quiet", peak=0.06),
        _Person("Hello.", "en-gb+f1", "babble", 500),
        _Person("Yeah?", "en-us+m3", "street"),
        _Person("Yes.", "en-029"),
        _Person("Hey.", "en-us+f2", "quiet", 250, 1.2),
        _Person("Taylor.", "en-gb+m2", "hiss", peak=0.1),
        _Person("Hi, this is Karen.", "en-us+f4", "quiet", 400, 1.1),
        _Person("Hello, Peter here.", "en-gb-x-rp+m3", "hum"),
        _Person("The Wilsons, hello.", "en-us+f1"),
        _Person("Hello, how are you?", "en-us+m1", "hiss", 600),
        _Person("Front desk, good evening.", "en-us+m2", "babble"),
        _Person("Who is calling please?", "en-gb+m4"),
        _Person("Ja, hallo?", "de+m3", "hiss"),
        _Person("Schneider.", "de+f4"),
        _Person("Allô, bonjour.", "fr-fr"),
        _Person("¿Sí, diga?", "es+f2", "street"),
        _Person("Pronto?", "it"),
        _Person("Hello? Who is there?", "en-us+f3", "quiet", 1500),
        _Person("Good morning, Green Dental, Susan speaking.", "en-us+f3", "babble", 200),
        _Person("What do you want?", "en-us+m4", "street", peak=0.15),
        _Person("Hang on. Yes, hello, sorry, who is that?", "en-us+f2", why="talks on"),
        _Person(
            "Good evening, you have reached the Grand Hotel, my name is Paul, what can I do for you tonight?",
            "en-gb",
            why="a receptionist who talks as long as a machine",
        ),
    ],
}
_MACHINES: Final[dict[Set, Sequence[_Machine]]] = {
    "tuning": [
        _Machine("You have reached the voice mailbox of Robert Smith. Please leave a message after the tone.", "en-us"),
        _Machine(
            "Hi, this is Anna. I can not come to the phone right now. Leave me a message and I will call you back.",
            "en-us+f2",
            (850.0, 250),
        ),
        _Machine(
            "The person you are calling is not available. At the tone, please record your message. When you have"
            " finished recording, you may hang up.",
            "en-gb+f3",
            (1400.0, 500),
            "hiss",
        ),
        _Machine("Your call has been forwarded to an automatic voice message system.", "en-us+f4", (440.0, 600)),
        _Machine("Hello, we are not at home. Please speak after the beep.", "en-gb", (950.0, 900), "hum", 900),
        _Machine("Hey, it's Mike. You know what to do, so do it now and be quick.", "en-us+m3", (1000.0, 180)),
        _Machine("Der angerufene Teilnehmer ist nicht erreichbar. Bitte hinterlassen Sie eine Nachricht.", "de+f2"),
        _Machine(
            "Our office is closed. Our hours are nine to five. Leave your name and number.",
            "en-us+m1",
            (1250.0, 300),
            "hiss",
            1500,
        ),
        _Machine("This mailbox is full at this time, but please try again later. Goodbye.", "en-us+f1", None),
        _Machine("Leave a message.", "en-us+m2", (1000.0, 400), pause_ms=400, why="as short as a person"),
    ],
    "held out": [
        _Machine("Welcome to voicemail. The customer at this number cannot take your call.", "en-gb+m2"),
        _Machine(
            "Hi, you've reached Karen's phone. Sorry I missed you, I'm probably at work. Leave a message, bye.",
            "en-us+f4",
            (880.0, 350),
            "street",
        ),
        _Machine(
            "The number you have dialed is not available. Please leave a detailed message after the tone.",
            "en-us+m4",
            (1400.0, 450),
        ),
        _Machine("Hello. You have called the Taylor family. Nobody can answer the phone.", "en-gb-x-rp", (700.0, 1000)),
        _Machine(
            "You've reached Green Dental. If this is an emergency, please hang up. Otherwise, leave a message.",
            "en-us+f5",
            (1000.0, 500),
            "hiss",
            1200,
        ),
        _Machine("Yo, it's Dave. I am not around. You can leave one after the beep.", "en-us+m6", (1600.0, 200)),
        _Machine("Bonjour, vous êtes sur la messagerie de Paul. Laissez un message après le bip.", "fr-fr"),
        _Machine(
            "Hola, ahora no puedo contestar. Por favor deja tu mensaje después de la señal.", "es+f2", (500.0, 400)
        ),
        _Machine("Sie sind mit der Mailbox von Familie Schneider verbunden, bitte sprechen Sie jetzt.", "de", None),
        _Machine(
            "Hello? Just kidding, I am not here. Talk to the machine.",
            "en-us+m5",
            (1100.0, 300),
            why="begins as a person would",
        ),
        _Machine("Not here. Message please.", "en-gb+m4", (1000.0, 300), pause_ms=500, why="as short as a person"),
    ],
}


def recordings() -> Iterator[Recording]:
    """Both sets, always the same."""
    for set in _PEOPLE:
        for number, person in enumerate(_PEOPLE[set]):
            yield _person(f"human {number + 1}", set, person, seed=number)
        for number, machine in enumerate(_MACHINES[set]):
            yield _machine(f"machine {number + 1}", set, machine, seed=100 + number)
        yield from _others(set)


def _person(name: str, set: Set, person: _Person, seed: int) -> Recording:
    said = np.concatenate(
        (_still(person.after_ms / 1000), _speech(person.text, person.voice, person.speed, person.peak))
    )
    return Recording(f"{name}: {person.text}", set, Answerer.HUMAN, _line(said, person.line, seed), why=person.why)


def _machine(name: str, set: Set, machine: _Machine, seed: int) -> Recording:
    said = np.concatenate((_still(0.5), _speech(machine.text, machine.voice)))
    beep_over_ms = None
    if machine.beep is not None:
        hz, ms = machine.beep
        said = np.concatenate((said, _still(machine.pause_ms / 1000), tone(hz, ms)))
        beep_over_ms = round(len(said) * 1000 / RATE)
    pcm = _line(said, machine.line, seed)
    return Recording(f"{name}: {machine.text}", set, Answerer.MACHINE, pcm, beep_over_ms, machine.why)


def _others(set: Set) -> Iterator[Recording]:
    """Faxes, machines that only beep, and lines on which nobody speaks."""
    held_out = set == "held out"
    fax = np.concatenate((_still(1.8 if held_out else 0.8), tone(2100, 2600), _still(0.07), _modem(held_out)))
    yield Recording("fax", set, Answerer.FAX, _line(fax, "hiss" if held_out else "quiet", 201))
    turned = np.concatenate([tone(2100, 450) * (1 if part % 2 else -1) for part in range(6)])
    yield Recording("fax, V.8 reversals", set, Answerer.FAX, _line(np.concatenate((_still(1.0), turned)), "quiet", 202))
    for hz, ms, after_s in (
        ((770.0, 300, 0.9), (1300.0, 700, 2.0)) if held_out else ((1000.0, 500, 0.4), (600.0, 250, 1.5))
    ):
        said = np.concatenate((_still(after_s), tone(hz, ms)))
        over_ms = round(len(said) * 1000 / RATE)
        yield Recording(f"beep alone, {hz:.0f} Hz", set, Answerer.MACHINE, _line(said, "quiet", 203), over_ms)
    for line in ("silent", "hiss", "street") if held_out else ("silent", "quiet", "hum"):
        yield Recording(f"nobody, {line}", set, Answerer.SILENCE, _line(_still(1.0), line, 204 + held_out))


def tone(hz: float, ms: int, peak: float = 0.25) -> Floats:
    """A beep with soft edges; full scale is 1."""
    count = RATE * ms // 1000
    edge = np.minimum(1.0, np.minimum(np.arange(count), np.arange(count)[::-1]) / (RATE * 0.005))
    return peak * edge * np.sin(2 * np.pi * hz * np.arange(count) / RATE)


def _modem(held_out: bool) -> Floats:
    """V.21 at 300 bit/s, as a fax sends it after its tone."""
    bits = np.random.default_rng(7 + held_out).integers(0, 2, 600)
    hz = np.repeat(np.where(bits, 1650.0, 1850.0), RATE // 300)
    wave: Floats = 0.2 * np.sin(2 * np.pi * np.cumsum(hz) / RATE)
    return wave


def _speech(text: str, voice: str, speed: float = 1.0, peak: float = SPEECH_PEAK) -> Floats:
    said = speak(text, voice, RATE, speed).astype(np.float64)
    loud: Floats = said * (peak / max(1.0, float(np.abs(said).max())))
    return loud


def _still(seconds: float) -> Floats:
    return np.zeros(round(RATE * seconds))


def _line(said: Floats, noise: str, seed: int) -> Pcm:
    """What arrives over G.711, with AFTER_S of nothing but noise behind it."""
    count = len(said) + round(RATE * AFTER_S)
    sum = np.concatenate((said, np.zeros(count - len(said)))) + _noise(noise, count, seed)
    pcm = np.clip(np.round(sum * 32767), -32768, 32767).astype(np.int16)
    return g711.ulaw_decode(g711.ulaw_encode(pcm))


def _noise(kind: str, count: int, seed: int) -> Floats:
    random = np.random.default_rng(seed)
    white = random.standard_normal(count)
    match kind:
        case "silent":
            return np.zeros(count)
        case "quiet":
            return _scaled(white, -62)
        case "hiss":
            return _scaled(white, -48)
        case "hum":
            return _scaled(white, -60) + _scaled(np.sin(2 * np.pi * 120 * np.arange(count) / RATE), -45)
        case "street":
            # Pink, coming and going as cars do.
            pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.arange(1, count // 2 + 2)), count)
            return _scaled(pink * (1 + 0.6 * np.sin(2 * np.pi * 0.3 * np.arange(count) / RATE)), -42)
        case "babble":
            voices = [
                _speech("People are talking here about many things and nobody listens. " * 4, f"en-us+m{n}")
                for n in (5, 7)
            ]
            mixed = sum(np.resize(np.roll(voice, int(random.integers(RATE * 5))), count) for voice in voices)
            return _scaled(np.asarray(mixed), -50)
    raise ValueError(f"no noise {kind!r}")


def _scaled(wave: Floats, db: float) -> Floats:
    """Root mean square at ``db`` below full scale."""
    level: Floats = wave * (10 ** (db / 20) / float(np.sqrt(np.mean(wave**2))))
    return level
