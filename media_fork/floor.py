"""Who has the floor: when the model may be asked to speak, and when its silence has lasted too long.

The protocol allows one response at a time, and server VAD makes one by itself after each turn of the caller. So what we
want said waits for the response under way, and for the caller; a response that was made after our item had reached the
conversation covers it. A model that was asked and does not answer is asked once more, then given up: the caller must
not be left in silence.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

from media_fork.clock import Clock, Timer

CALLER_S: Final = 10.0
"""What we want said waits at most this long for a caller whose speech does not end."""
AUTOMATIC_S: Final = 1.5
"""After the caller's speech has stopped the model's own response is awaited for this long."""
ANSWER_S: Final = 10.0
"""From a request, or the caller's turn, to response.created."""
OUTPUT_S: Final = 20.0
"""From response.created to the first output, and from output to output."""
RETRY_S: Final = 0.5
"""Before a failed response is asked for again."""
MAX_FAILURES: Final = 2


class Silence(Enum):
    """Why the model is given up."""

    NO_RESPONSE = "no_response"
    FAILED_RESPONSES = "failed_responses"


class Floor:
    """One conversation's. ``ask`` sends a response.create with these instructions, ``give_up`` ends the session."""

    def __init__(self, clock: Clock, ask: Callable[[str | None], None], give_up: Callable[[Silence], None]) -> None:
        self._clock = clock
        self._ask = ask
        self._give_up = give_up
        self.active: str | None = None
        """Id of the response under way."""
        self._asked = False
        """A response.create is on its way."""
        self._asked_with: str | None = None
        self._made_with: str | None = None
        """Instructions of the response under way, where it is one that we asked for."""
        self._wanted = False
        self._instructions: str | None = None
        self._unacknowledged: set[str] = set()
        self._covered = False
        """The response under way was made with all our items in the conversation."""
        self._held_until = 0.0
        self._failures = 0
        self._reminded = False
        self._caller_speaks = False
        self._has_output = False
        """The response under way has given something."""
        self._suspended = False
        self.on_wanted: Callable[[], None] | None = None
        """Called instead of asking, where it is set; whoever sets it has to ask again."""
        self._closed = False
        self._retry: Timer | None = None
        self._watch: Timer | None = None
        self._watch_at = 0.0
        self._silent_at: float | None = None
        """When the model's silence has lasted too long."""

    def request(self, instructions: str | None = None) -> None:
        """Have the model respond as soon as it may; ``instructions`` for this response alone."""
        if self._closed:
            return
        self._wanted = True
        self._instructions = instructions
        self._ask_if_free()

    def item_sent(self, item: str) -> None:
        """We have sent an item which the model is to respond to."""
        self._unacknowledged.add(item)

    def item_added(self, item: str) -> None:
        """The conversation has the item."""
        self._unacknowledged.discard(item)

    def caller_started(self) -> None:
        self._caller_speaks = True
        self._hold(CALLER_S)

    def caller_stopped(self) -> None:
        self._caller_speaks = False
        self._hold(AUTOMATIC_S)

    def caller_committed(self) -> None:
        """The caller's turn is in the conversation: the model answers by itself."""
        self._await(ANSWER_S)

    def created(self, response: str) -> None:
        """response.created."""
        self.active = response
        self._made_with = self._asked_with if self._asked else None
        self._asked = False
        self._reminded = False
        self._has_output = False
        self._held_until = 0.0
        self._covered = not self._unacknowledged
        if self._covered:
            self._wanted = False
        self._await(OUTPUT_S)

    def output(self) -> None:
        """The response under way goes on."""
        if self.active is not None:
            self._has_output = True
            self._await(OUTPUT_S)

    @property
    def is_idle(self) -> bool:
        """Nobody speaks, and the model owes nothing."""
        return (
            self.active is None
            and self._silent_at is None
            and not (self._asked or self._wanted or self._caller_speaks)
            and self._clock.now() >= self._held_until
        )

    @property
    def is_owed(self) -> bool:
        """The model is to say something, and the caller is silent."""
        return self._silent_at is not None and not self._caller_speaks

    @property
    def caller_speaks(self) -> bool:
        return self._caller_speaks

    def suspend(self, go_on: str) -> None:
        """The model is gone and another one comes: what this one owes, that one will be asked for.

        ``go_on``: the instructions where a response is cut off that had none of ours.
        """
        if self.active is not None:
            self._owe(self._made_with or (go_on if self._has_output else None))
        elif self._asked:
            self._owe(self._asked_with)
        elif self._silent_at is not None:
            self._owe(None)
        self.active = self._silent_at = None
        self._asked = self._caller_speaks = self._reminded = False
        self._unacknowledged.clear()
        self._failures = 0
        self._suspended = True
        self._cancel_timers()

    def resume(self, hears_caller: bool) -> None:
        """Another model is there. ``hears_caller``: it is given speech that it will answer by itself, so wait for that."""
        self._suspended = False
        self._held_until = self._clock.now() + (AUTOMATIC_S if hears_caller else 0.0)
        self._ask_if_free()

    def done(self, failed: bool) -> None:
        """response.done; ``failed`` where its status is failed."""
        self.active = None
        self._silent_at = None
        if failed:
            self._failed(self._made_with)
        else:
            self._failures = 0
            self._ask_if_free()

    def refused(self, already_active: bool) -> None:
        """Our response.create was answered by an error."""
        if not self._asked:
            return
        self._asked = False
        if not already_active:
            self._failed(self._asked_with)
        elif self.active is None or not self._covered:
            self._wanted = True
            self._instructions = self._asked_with

    def close(self) -> None:
        """Nothing is asked any more."""
        self._closed = True
        self._wanted = False
        self._cancel_timers()

    def _owe(self, instructions: str | None) -> None:
        self._instructions = instructions or self._instructions
        self._wanted = True

    def _cancel_timers(self) -> None:
        for timer in (self._retry, self._watch):
            if timer is not None:
                timer.cancel()
        self._retry = self._watch = None

    def _hold(self, seconds: float) -> None:
        self._held_until = self._clock.now() + seconds
        if self._wanted:
            self._ask_if_free()

    def _ask_if_free(self) -> None:
        if self._closed or self._suspended or not self._wanted or self._asked or self.active is not None:
            return
        if self.on_wanted is not None:
            self.on_wanted()
            return
        if self._clock.now() < self._held_until:
            if self._retry is not None:
                self._retry.cancel()
            self._retry = self._clock.call_at(self._held_until, self._ask_if_free)
            return
        self._wanted = False
        self._asked = True
        self._asked_with, self._instructions = self._instructions, None
        self._await(ANSWER_S)
        self._ask(self._asked_with)

    def _failed(self, instructions: str | None) -> None:
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self._give_up(Silence.FAILED_RESPONSES)
            return
        self._wanted = True
        self._instructions = instructions
        self._held_until = max(self._held_until, self._clock.now() + RETRY_S)
        self._ask_if_free()

    def _await(self, seconds: float) -> None:
        """Give the model so long. The timer is left where it is if it fires earlier: deltas come often."""
        if self._closed:
            return
        self._silent_at = self._clock.now() + seconds
        if self._watch is None or self._silent_at < self._watch_at:
            self._set_watch(self._silent_at)

    def _set_watch(self, when: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch_at = when
        self._watch = self._clock.call_at(when, self._on_watch)

    def _on_watch(self) -> None:
        self._watch = None
        if self._closed or self._silent_at is None:
            return
        if self._clock.now() < self._silent_at:
            self._set_watch(self._silent_at)
        elif self.active is None and not self._asked and not self._reminded:
            self._reminded = True
            self._silent_at = None
            self.request()
        else:
            self._give_up(Silence.NO_RESPONSE)
