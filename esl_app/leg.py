"""The caller's leg as the call's greenlet sees it: its session, and one queue with everything that happens."""

import time
import uuid
from collections.abc import Callable

from gevent.queue import Empty, Queue

from esl_app.happenings import (
    Answered,
    Decision,
    Digit,
    Elsewhere,
    Executed,
    ForkDown,
    ForkUp,
    Happening,
    LegEnded,
    Lost,
    Recording,
    read,
)
from esl_app.metrics import DROPPED
from esl_app.protocol import Event, Log
from esl_app.session import EVENTS, Session

MAX_WAITING = 1000
"""Happenings that may wait for the call's greenlet."""

LAST_EVENTS_S = 0.3
"""Events of a leg come in 20 ms ticks, and by another way than the results of commands."""

Clock = Callable[[], float]


class HungUp(Exception):
    """The caller's leg is no more. ``cause`` is FreeSWITCH's, or ``switch_lost`` where the event socket went first."""

    def __init__(self, cause: str, lost: bool = False) -> None:
        self.cause = cause
        self.lost = lost
        super().__init__(cause)


class TimedOut(Exception):
    """The switch did not do in time what it said it would."""


class Leg:
    """Waits here raise HungUp as soon as the caller is gone, and ever after. Times are ``clock()`` seconds."""

    def __init__(self, session: Session, clock: Clock = time.monotonic) -> None:
        self.session = session
        self.clock = clock
        self._happenings: Queue[Happening] = Queue()
        self._over: HungUp | None = None
        self.was_answered = False
        for name in EVENTS.replace("CUSTOM ", "").split():
            session.register_handle(name, self._on_event)
        session.on_drop = self._on_drop

    @property
    def uuid(self) -> str:
        return self.session.uuid

    @property
    def log(self) -> Log:
        return self.session.log

    @property
    def has_hung_up(self) -> bool:
        """Whether the channel is known to be no more."""
        return self._over is not None and not self._over.lost

    @property
    def over(self) -> bool:
        """Whether the hangup has been seen by a wait."""
        return self._over is not None

    def put(self, happening: Happening) -> None:
        """From any greenlet. A call that has MAX_WAITING happenings to look at is given up: nothing sane makes so many."""
        if self._happenings.qsize() < MAX_WAITING:
            self._happenings.put(happening)
        elif self.session.connected:
            DROPPED.labels("overflow").inc()
            self.log.error("more than %d things happened and were not looked at", MAX_WAITING)
            self.session.stop()

    def _on_event(self, event: Event) -> None:
        happening = read(event)
        channel = event.get("Unique-ID")
        if channel != self.uuid and isinstance(happening, Digit | Decision | ForkUp | ForkDown):
            happening = Elsewhere(channel, happening)
        if happening is not None:
            self.put(happening)

    def _on_drop(self, cause: str) -> None:
        # Beyond the bound as well: this is the last one.
        self._happenings.put(Lost(cause))

    def next(self, deadline: float | None = None) -> Happening | None:
        """What happens next, or None at ``deadline``. Raises HungUp."""
        if self._over is not None:
            raise self._over
        try:
            timeout = None if deadline is None else max(0.0, deadline - self.clock())
            happening = self._happenings.get(timeout=timeout)
        except Empty:
            return None
        match happening:
            case LegEnded(channel=self.uuid, cause=cause):
                self._over = HungUp(cause)
            case Lost():
                self._over = HungUp("switch_lost", lost=True)
        if self._over is not None:
            raise self._over
        return happening

    def answer(self, within_s: float) -> None:
        """Answer the call. Raises HungUp, TimedOut."""
        self.session.execute("answer")
        self.until(lambda happening: happening == Answered(self.uuid), within_s, "the answer")
        self.was_answered = True

    def play(self, file: str, within_s: float) -> bool:
        """Play a file, or a tone, to its end. One that cannot be played is logged: False. Raises HungUp, TimedOut."""
        identity = str(uuid.uuid4())
        self.session.execute("playback", file, identity)
        done = self.until(_end_of(identity), within_s, "playback")
        if isinstance(done, Executed) and done.response == "FILE NOT FOUND":
            self.log.error("FreeSWITCH cannot play %s", file)
            return False
        return True

    def record(self, file: str, seconds: int, threshold: int, silence_s: int, margin_s: float = 10.0) -> bool:
        """Record the caller into ``file``; False where FreeSWITCH could not. Raises TimedOut, HungUp before it began.

        A caller who hangs up has finished the message.
        """
        identity = str(uuid.uuid4())
        self.session.execute("record", f"{file} {seconds} {threshold} {silence_s}", identity)
        is_end = _end_of(identity)
        begun = self.until(lambda happening: happening == Recording(self.uuid) or is_end(happening), margin_s, "record")
        if begun != Recording(self.uuid):
            self.log.error("FreeSWITCH cannot record into %s", file)
            return False
        try:
            self.until(is_end, seconds + margin_s, "record")
        except HungUp as gone:
            if gone.lost:
                raise
        return True

    def until(self, condition: Callable[[Happening], bool], within_s: float, what: str) -> Happening:
        """Pass over everything until ``condition`` holds, and return what met it. Raises HungUp, TimedOut."""
        deadline = self.clock() + within_s
        while (happening := self.next(deadline)) is not None:
            if condition(happening):
                return happening
        raise TimedOut(f"{what} took longer than {within_s:g} s")

    def until_hung_up(self, within_s: float) -> None:
        """Wait for the caller's end alone. Raises HungUp, which is what it is for, or TimedOut."""
        self.until(lambda _: False, within_s, "the hangup")


def _end_of(identity: str) -> Callable[[Happening], bool]:
    return lambda happening: isinstance(happening, Executed) and happening.identity == identity
