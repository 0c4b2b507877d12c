"""The caller's turns and how quickly they are answered.

The model speaks of positions in the audio it was sent. The latest sample was sent just now, and the caller speaks in
real time, so a position is a time: now less what was sent after it.
"""

from collections.abc import Callable
from typing import Final

from media_fork.clock import Clock

MAX_OPEN: Final = 32
"""Turns whose transcript may still come."""


class Turn:
    """One message item of the caller. Times are Unix seconds, None where not known."""

    __slots__ = (
        "answered_at",
        "committed_at",
        "ended_at",
        "first_model_audio_at",
        "item",
        "started_at",
        "text",
    )

    def __init__(self, item: str, started_at: float) -> None:
        self.item = item
        self.started_at = started_at
        self.ended_at: float | None = None
        """End of the caller's speech."""
        self.committed_at: float | None = None
        self.first_model_audio_at: float | None = None
        self.answered_at: float | None = None
        """First audio out after it."""
        self.text = ""

    @property
    def duration_ms(self) -> int:
        return 0 if self.ended_at is None else max(0, round((self.ended_at - self.started_at) * 1000))

    @property
    def response_ms(self) -> int | None:
        """From the caller's end of speech to the first audio out."""
        if self.ended_at is None or self.answered_at is None:
            return None
        return max(0, round((self.answered_at - self.ended_at) * 1000))


class Turns:
    """One conversation's. ``sent_ms`` tells how much audio the model has been sent, ``silence_ms`` how much silence it
    waits for before it says that speech has stopped (its audio_end_ms includes that)."""

    def __init__(self, clock: Clock, sent_ms: Callable[[], float], silence_ms: int) -> None:
        self._clock = clock
        self._sent_ms = sent_ms
        self._silence_ms = silence_ms
        self._open: dict[str, Turn] = {}
        self._unanswered: Turn | None = None

    def started(self, item: str, audio_start_ms: float) -> Turn:
        """input_audio_buffer.speech_started."""
        turn = Turn(item, self._time_of(audio_start_ms))
        self._open[item] = turn
        while len(self._open) > MAX_OPEN:
            del self._open[next(iter(self._open))]
        return turn

    def stopped(self, item: str, audio_end_ms: float) -> None:
        """input_audio_buffer.speech_stopped."""
        turn = self.find(item)
        turn.ended_at = max(turn.started_at, self._time_of(audio_end_ms - self._silence_ms))

    def committed(self, item: str) -> Turn:
        """input_audio_buffer.committed: the turn is the model's to answer."""
        turn = self.find(item)
        turn.committed_at = self._clock.unix()
        self._unanswered = turn
        return turn

    def find(self, item: str) -> Turn:
        """The turn of ``item``; a new one where it was never said to start (committed by silence, say)."""
        return self._open.get(item) or self.started(item, self._sent_ms())

    def close(self, item: str) -> None:
        """Nothing more comes of it."""
        self._open.pop(item, None)

    def model_audio(self) -> None:
        """An audio delta, the first of its utterance."""
        if self._unanswered is not None and self._unanswered.first_model_audio_at is None:
            self._unanswered.first_model_audio_at = self._clock.unix()

    def audio_out(self) -> Turn | None:
        """First audio of an utterance out. The turn that this answers, if there is one."""
        turn, self._unanswered = self._unanswered, None
        if turn is not None:
            turn.answered_at = self._clock.unix()
        return turn

    def interrupted(self) -> Turn | None:
        """The caller speaks again. The turn that stays unanswered, if there is one."""
        turn, self._unanswered = self._unanswered, None
        return turn

    def break_off(self) -> None:
        """The model is gone: nothing more comes of its items. What was unanswered, another model answers."""
        self._open.clear()

    def _time_of(self, position_ms: float) -> float:
        return self._clock.unix() - max(0.0, self._sent_ms() - position_ms) / 1000
