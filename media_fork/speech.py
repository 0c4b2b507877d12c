"""What the agent says: its utterances with their words, from the first delta until they are heard or cut."""

from typing import Final

from media_fork.chronicle import Chronicle
from media_fork.clock import Clock
from media_fork.memory import Memory
from media_fork.playout import Utterance
from tandem.seam import LiveEventKind

MAX_OPEN: Final = 64
"""Utterances whose audio or words may still come, or are still to be heard."""
MAX_CHARACTERS: Final = 16384
"""Kept of one utterance's words."""


class _Spoken:
    __slots__ = ("ended_at", "heard_ms", "received_ms", "response_done", "started_at", "text", "utterance")

    def __init__(self, utterance: Utterance) -> None:
        self.utterance = utterance
        self.text = ""
        self.started_at: float | None = None
        """Unix time of its first audio out."""
        self.ended_at: float | None = None
        """Unix time when it was heard to its end, or cut."""
        self.heard_ms = 0
        self.received_ms = 0
        self.response_done = False


class Speech:
    """One conversation's. An utterance is one message item of a response."""

    def __init__(self, clock: Clock, chronicle: Chronicle, memory: Memory) -> None:
        self._clock = clock
        self._chronicle = chronicle
        self._memory = memory
        self._open: dict[str, _Spoken] = {}

    def utterance(self, response: str, item: str, content_index: int, owner: object | None) -> Utterance:
        """The utterance of ``item``, begun by this where it is not known yet; see Utterance for ``owner``."""
        spoken = self._open.get(item)
        if spoken is None:
            spoken = self._open[item] = _Spoken(Utterance(response, item, content_index, owner))
            self._memory.said(item, "assistant", "")
            while len(self._open) > MAX_OPEN:
                del self._open[next(iter(self._open))]
        return spoken.utterance

    def find(self, item: str) -> Utterance | None:
        spoken = self._open.get(item)
        return None if spoken is None else spoken.utterance

    def words(self, item: str, more: str) -> None:
        """Part of the transcript of ``item``."""
        spoken = self._open.get(item)
        if spoken is not None:
            spoken.text = (spoken.text + more)[:MAX_CHARACTERS]
            self._remember(spoken)

    def all_words(self, item: str, text: str) -> None:
        """The whole transcript of ``item``. It may come when the utterance is over."""
        spoken = self._open.get(item)
        if spoken is not None:
            spoken.text = text[:MAX_CHARACTERS]
            self._remember(spoken)
            if spoken.ended_at is not None:
                self._record(spoken)

    def started(self, utterance: Utterance) -> None:
        """Its first audio is out."""
        spoken = self._open.get(utterance.item)
        if spoken is not None:
            spoken.started_at = self._clock.unix()

    def over(self, utterance: Utterance, heard_ms: int, received_ms: int) -> None:
        """It was heard to its end, or cut after ``heard_ms``."""
        spoken = self._open.get(utterance.item)
        if spoken is None or spoken.ended_at is not None:
            return
        spoken.ended_at = self._clock.unix()
        spoken.heard_ms = heard_ms if utterance.sent else 0
        spoken.received_ms = received_ms
        self._record(spoken)
        self._remember(spoken)
        self._chronicle.publish(
            LiveEventKind.AGENT_SAID, spoken.text, heard_ms=spoken.heard_ms, duration_ms=received_ms
        )
        if spoken.response_done:
            del self._open[utterance.item]

    def response_done(self, response: str) -> list[Utterance]:
        """Nothing more comes of ``response``. Its utterances that are still to be heard."""
        unheard = []
        for spoken in [spoken for spoken in self._open.values() if spoken.utterance.response == response]:
            spoken.response_done = True
            if spoken.ended_at is None and spoken.utterance.received:
                unheard.append(spoken.utterance)
            else:
                del self._open[spoken.utterance.item]
        return unheard

    def break_off(self) -> list[Utterance]:
        """Nothing more comes of any response: the model is gone. Utterances that are still to be heard."""
        responses = dict.fromkeys(spoken.utterance.response for spoken in self._open.values())
        return [utterance for response in responses for utterance in self.response_done(response)]

    def _remember(self, spoken: _Spoken) -> None:
        """The words that were heard, or still may be: of an utterance that was cut about so much of its words."""
        text = spoken.text
        if spoken.ended_at is not None and spoken.heard_ms < spoken.received_ms:
            text = text[: len(text) * spoken.heard_ms // spoken.received_ms].rpartition(" ")[0]
            text = text and f"{text} —"
        self._memory.said(spoken.utterance.item, "assistant", text)

    def _record(self, spoken: _Spoken) -> None:
        ended_at = spoken.ended_at or self._clock.unix()
        self._chronicle.agent_turn(
            spoken.utterance.item,
            spoken.text,
            spoken.started_at or ended_at,
            ended_at,
            spoken.received_ms,
            spoken.heard_ms,
        )
