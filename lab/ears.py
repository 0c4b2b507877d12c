"""Ears: which of a scenario's phrases was said, or none of them. pocketsphinx with a grammar, on telephone speech.

The recogniser weighs every phrase against a loop of bare phones: speech that no phrase fits better than arbitrary sounds
do is not understood. Decoding is blocking work of some 100 ms, so :class:`Ears` has it done in processes of its own
(``python -m lab.ears``), which end with the process that started them.
"""

import asyncio
import contextlib
import os
import re
import signal
import struct
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import orjson
import pocketsphinx
import soxr

Pcm = npt.NDArray[np.int16]

RATE: Final = 16000
LONGEST_S: Final = 20
"""Speech beyond this is not listened to: no phrase is that long."""
PEAK: Final = 13000.0
MAX_GAIN: Final = 20.0
DITHER: Final = 120.0
"""Standard deviation of the noise that fills what the telephone cuts off above 3.4 kHz: the acoustic model takes true silence
there for something else than it is."""
PHONE_PROBABILITY: Final = 2e-11
"""Of each phone of the loop that phrases compete with. Higher: more is taken for not understood."""
COURTESY_PROBABILITY: Final = 1e-20
"""Of each word around a phrase; about what the phones it has would cost in the loop."""
PAUSE: Final = 0.03
"""Of the peak: what is quieter, before and after the words, is cut off but for MARGIN_MS."""
MARGIN_MS: Final = 200
FRAME_MS: Final = 20
STEADY: Final = 2.0
"""Speech varies more than this in level, loud parts to quiet ones."""
SEARCH: Final = {"beam": 1e-100, "wbeam": 1e-80, "pbeam": 1e-100, "maxhmmpf": 3000, "bestpath": False}
"""Wide beams: the grammars are small, and a phrase pruned is a caller not understood. What is bounded is the work a frame."""
HISS: Final = "S"
BREATHS: Final = ("F", "TH")
"""What a hiss that begins a word may be heard as: the telephone leaves little of it. At the end of a word it may go unheard."""
PHONES: Final = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
PHONE_WORD: Final = "++phone-{}"
WITHIN_S: Final = 20.0
STARTED_WITHIN_S: Final = 60.0

_START, _END, _LOOP, _FIRST_FREE = range(4)
"""States of the grammar."""
_HEADER: Final = struct.Struct("!II")
_VARIANT: Final = re.compile(r"\(\d+\)$")


class EarsError(RuntimeError):
    """Nothing could be heard: the recogniser's process failed, or took too long."""


def pronunciations(words: Iterable[str], extra: Mapping[str, str]) -> dict[str, list[str]]:
    """Word → ways to say it in ARPAbet, from ``extra`` and the bundled CMU dictionary; a word in neither has none."""
    found: dict[str, list[str]] = {word: [extra[word]] if word in extra else [] for word in words}
    path = Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict"
    with path.open(encoding="utf-8") as dictionary:
        for line in dictionary:
            entry, _, phones = line.strip().partition(" ")
            word = _VARIANT.sub("", entry)
            if word in found and word not in extra:
                found[word].append(phones)
    return found


class Recogniser:
    """A decoder for ``phrases`` (lower-case words), any of which ``before`` words may precede and ``after`` words follow.

    Raises ValueError for a word that nobody knows how to pronounce. Not for more than one thread.
    """

    def __init__(
        self,
        phrases: Sequence[str],
        *,
        before: Sequence[str] = (),
        after: Sequence[str] = (),
        words: Mapping[str, str] | None = None,
    ) -> None:
        self._phrases = frozenset(phrases)
        self._before = frozenset(before)
        self._after = frozenset(after)
        vocabulary = {word for phrase in phrases for word in phrase.split()} | self._before | self._after
        known = pronunciations(vocabulary, words or {})
        if missing := sorted(word for word, ways in known.items() if not ways):
            raise ValueError(f"no pronunciation for: {', '.join(missing)}")
        model = str(Path(pocketsphinx.get_model_path()) / "en-us" / "en-us")
        with tempfile.NamedTemporaryFile("w", suffix=".dict", encoding="utf-8") as dictionary:
            dictionary.writelines(_entries(known))
            dictionary.flush()
            self._decoder = pocketsphinx.Decoder(hmm=model, dict=dictionary.name, lm=None, loglevel="FATAL", **SEARCH)
        self._decoder.add_fsg("phrases", self._decoder.create_fsg("phrases", _START, _END, self._transitions()))
        self._decoder.activate_search("phrases")

    def hear(self, pcm: Pcm, rate: int) -> str | None:
        """The phrase in one utterance of int16 at ``rate`` Hz, without the words around it; None where it is none."""
        speech = soxr.resample(pcm[: rate * LONGEST_S].astype(np.float32), rate, RATE)
        peak = float(np.abs(speech).max(initial=0.0))
        if not peak or _is_steady(speech):
            return None
        loud = np.flatnonzero(np.abs(speech) > PAUSE * peak)
        margin = RATE * MARGIN_MS // 1000
        speech = speech[max(0, int(loud[0]) - margin) : int(loud[-1]) + margin]
        noise = np.random.default_rng(0).normal(0.0, DITHER, len(speech))
        levelled = np.clip(speech * min(PEAK / peak, MAX_GAIN) + noise, -32768, 32767).astype("<i2")
        self._decoder.start_utt()
        self._decoder.process_raw(levelled.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return self._phrase(hypothesis.hypstr.split()) if hypothesis else None

    def _phrase(self, words: list[str]) -> str | None:
        """What is left of ``words`` when courtesies are taken off both ends."""
        for first in range(len(words)):
            for last in range(len(words), first, -1):
                phrase = " ".join(words[first:last])
                if phrase in self._phrases and self._after.issuperset(words[last:]):
                    return phrase
            if words[first] not in self._before:
                break
        return None

    def _transitions(self) -> list[tuple[int, int, float, str]]:
        """The phrases as a tree of states, beside it the loop of phones."""
        transitions: list[tuple[int, int, float, str]] = []
        states: dict[tuple[str, ...], int] = {(): _START}
        for phrase in sorted(self._phrases):
            words = tuple(phrase.split())
            for length in range(1, len(words)):
                if words[:length] not in states:
                    states[words[:length]] = _FIRST_FREE + len(states) - 1
                    transitions.append((states[words[: length - 1]], states[words[:length]], 1.0, words[length - 1]))
            transitions.append((states[words[:-1]], _END, 1.0, words[-1]))
        transitions += [(_START, _START, COURTESY_PROBABILITY, word) for word in self._before]
        transitions += [(_END, _END, COURTESY_PROBABILITY, word) for word in self._after]
        for phone in PHONES.split():
            word = PHONE_WORD.format(phone.lower())
            transitions += [
                (start, end, PHONE_PROBABILITY, word) for start, end in ((_START, _LOOP), (_LOOP, _LOOP), (_LOOP, _END))
            ]
        return transitions


def _is_steady(speech: npt.NDArray[np.float32]) -> bool:
    """As loud all the time: noise, of which the recogniser would make whatever phrase is shortest."""
    frame = RATE * FRAME_MS // 1000
    frames = speech[: len(speech) // frame * frame].reshape(-1, frame)
    if not len(frames):
        return True
    quiet, loud = np.percentile(np.sqrt((frames**2).mean(axis=1)), (5, 95))
    return bool(loud < STEADY * quiet)


def _entries(known: Mapping[str, Sequence[str]]) -> list[str]:
    lines = [f"{PHONE_WORD.format(phone.lower())} {phone}\n" for phone in PHONES.split()]
    for word, ways in known.items():
        heard = dict.fromkeys([*ways, *(variant for way in ways for variant in _on_the_telephone(way))])
        lines += [f"{word}{f'({number})' if number > 1 else ''} {way}\n" for number, way in enumerate(heard, 1)]
    return lines


def _on_the_telephone(way: str) -> list[str]:
    """Ways in which a word may be heard that is said in this way."""
    phones = way.split()
    heard = [phones]
    if phones[0] == HISS:
        heard += [[breath, *phones[1:]] for breath in BREATHS]
    if phones[-1] == HISS and len(phones) > 2:
        heard += [other[:-1] for other in heard]
    return [" ".join(other) for other in heard]


class Ears:
    """Recognisers in processes, used in turn. ``async with`` starts and ends them; ``hear`` may be called by many at once."""

    def __init__(
        self,
        phrases: Sequence[str],
        *,
        before: Sequence[str] = (),
        after: Sequence[str] = (),
        words: Mapping[str, str] | None = None,
        processes: int = 2,
    ) -> None:
        self._task = orjson.dumps(
            {"phrases": list(phrases), "before": list(before), "after": list(after), "words": dict(words or {})}
        )
        self._processes = processes
        self._idle: asyncio.Queue[_Listener] = asyncio.Queue()
        self._all: list[_Listener] = []

    async def __aenter__(self) -> Self:
        self._all = [_Listener(self._task) for _ in range(self._processes)]
        try:
            await asyncio.gather(*(listener.start() for listener in self._all))
        except BaseException:
            await self.__aexit__()
            raise
        for listener in self._all:
            self._idle.put_nowait(listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(listener.stop() for listener in self._all))

    @property
    def pids(self) -> list[int]:
        """Of the processes that run now."""
        return [pid for listener in self._all if (pid := listener.pid) is not None]

    async def hear(self, pcm: Pcm, rate: int) -> str | None:
        """As Recogniser.hear. Raises EarsError; the next call finds a fresh process."""
        listener = await self._idle.get()
        try:
            return await listener.hear(pcm, rate)
        except (EarsError, asyncio.CancelledError):
            await listener.stop()
            raise
        finally:
            self._idle.put_nowait(listener)


class _Listener:
    """One process with a Recogniser: started when needed, asked one thing at a time."""

    def __init__(self, task: bytes) -> None:
        self._task = task
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lab.ears"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))},
        )
        try:
            reply = await self._ask(_HEADER.pack(len(self._task), 0) + self._task, STARTED_WITHIN_S)
        except (EarsError, asyncio.CancelledError):
            await self.stop()
            raise
        if "error" in reply:
            await self.stop()
            raise ValueError(reply["error"])

    async def hear(self, pcm: Pcm, rate: int) -> str | None:
        if self._process is None:
            await self.start()
        audio = pcm[: rate * LONGEST_S].astype("<i2").tobytes()
        heard = (await self._ask(_HEADER.pack(len(audio), rate) + audio, WITHIN_S))["heard"]
        return None if heard is None else str(heard)

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, message: bytes, within_s: float) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                process.stdin.write(message)
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            raise EarsError(f"no answer from the recogniser within {within_s:.0f} s") from None
        except ConnectionError as error:
            raise EarsError(f"the recogniser's process is gone: {error}") from error
        if not line:
            raise EarsError("the recogniser's process ended")
        reply: dict[str, Any] = orjson.loads(line)
        return reply


def _serve() -> None:
    """The process: a task, then utterances, one line of JSON in answer to each, until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    recogniser: Recogniser | None = None
    while len(header := source.read(_HEADER.size)) == _HEADER.size:
        length, rate = _HEADER.unpack(header)
        body = source.read(length)
        if recogniser is not None:
            answer: dict[str, Any] = {"heard": recogniser.hear(np.frombuffer(body, dtype="<i2"), rate)}
        else:
            task = orjson.loads(body)
            try:
                recogniser = Recogniser(task.pop("phrases"), **task)
                answer = {}
            except ValueError as error:
                answer = {"error": str(error)}
        sink.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))
        sink.flush()


if __name__ == "__main__":
    _serve()
