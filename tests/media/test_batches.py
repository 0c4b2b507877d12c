"""Batches in simulated time: frames wait only where they are many, and never longer than a millisecond."""

from collections import deque
from collections.abc import Callable

from media_fork.batches import BATCH_S, LOOK_S, Batches
from media_fork.metrics import Counts
from tests.media.simulated import SimulatedClock

FRAME_S = 0.020


class Loop:
    """An event loop that frames come to at an even rate; to serve one takes ``work_s``."""

    def __init__(self, calls: int, work_s: float = 0.0) -> None:
        self.clock = SimulatedClock()
        self.counts = Counts()
        self.calls = calls
        self.work_s = work_s
        self.slept: list[float] = []
        self.delays: list[float] = []
        self._soon: deque[Callable[[], None]] = deque()
        self._next_frame = self.clock.now()
        self.batches = Batches(self.clock, self.counts, self._soon.append, self._sleep)

    def run_for(self, seconds: float) -> None:
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            self.turn()
            if not self._soon:
                self.clock.run_until(self._next_frame if self.calls else self.clock.now() + LOOK_S)
            self._serve()
            self.clock.run_for(0)

    def turn(self) -> None:
        """What was called for soon, once."""
        for _ in range(len(self._soon)):
            self._soon.popleft()()

    def _serve(self) -> None:
        came = self.clock.now()
        while self.calls and self._next_frame <= came:
            self.delays.append(self.clock.now() - self._next_frame)
            self._next_frame += FRAME_S / self.calls
            self.counts.leg_frames += 1
            self.clock.run_for(self.work_s)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.run_for(seconds)


def test_where_frames_are_few_none_waits():
    loop = Loop(calls=30)
    loop.run_for(1.0)
    assert not loop.batches.on
    assert loop.slept == []
    assert max(loop.delays) == 0


def test_where_frames_are_many_they_wait_for_a_batch_and_no_longer():
    loop = Loop(calls=200)
    loop.run_for(2 * LOOK_S)
    assert loop.batches.on
    loop.slept.clear()
    loop.delays.clear()
    loop.run_for(1.0)
    assert len(loop.slept) <= 1.0 / BATCH_S + 1
    assert max(loop.slept) <= BATCH_S * 1.001
    assert 0.4 * BATCH_S < max(loop.delays) <= BATCH_S * 1.001


def test_time_spent_on_a_batch_is_taken_off_the_sleep():
    loop = Loop(calls=200, work_s=0.00006)
    loop.run_for(2 * LOOK_S)
    loop.slept.clear()
    loop.run_for(1.0)
    assert max(loop.slept) < 0.6 * BATCH_S
    assert len(loop.slept) > 0.9 / BATCH_S


def test_a_loop_that_is_busy_all_the_time_does_not_sleep():
    loop = Loop(calls=200, work_s=0.00012)
    loop.run_for(2 * LOOK_S)
    assert loop.batches.on
    loop.slept.clear()
    loop.run_for(1.0)
    assert loop.slept == []


def test_batches_end_with_the_load():
    loop = Loop(calls=200)
    loop.run_for(2 * LOOK_S)
    assert loop.batches.on
    loop.calls = 20
    loop.run_for(2 * LOOK_S)
    assert not loop.batches.on
    loop.slept.clear()
    loop.run_for(1.0)
    assert loop.slept == []


def test_a_load_about_the_threshold_does_not_switch_batches_to_and_fro():
    loop = Loop(calls=50)
    loop.run_for(2 * LOOK_S)
    assert loop.batches.on
    loop.calls = 36
    loop.run_for(1.0)
    assert loop.batches.on


def test_what_is_posted_is_sent_at_once_where_there_are_no_batches():
    loop = Loop(calls=30)
    loop.run_for(1.0)
    sent: list[bytes] = []
    loop.batches.post(sent.append, b"1")
    assert sent == [b"1"]


def test_what_is_posted_in_a_batch_is_sent_in_order_before_the_loop_sleeps():
    loop = Loop(calls=200)
    loop.run_for(2 * LOOK_S)
    sent: list[bytes] = []
    for message in (b"1", b"2", b"3"):
        loop.batches.post(sent.append, message)
    assert sent == []
    loop.slept.clear()
    loop.turn()
    assert sent == [b"1", b"2", b"3"]
    assert len(loop.slept) == 1


def test_what_is_posted_is_not_overtaken_by_what_flushes():
    loop = Loop(calls=200)
    loop.run_for(2 * LOOK_S)
    sent: list[bytes] = []
    loop.batches.post(sent.append, b"audio")
    loop.batches.flush()
    sent.append(b"event")
    loop.run_for(0.01)
    assert sent == [b"audio", b"event"]


def test_nothing_that_was_posted_is_left_when_batches_end():
    loop = Loop(calls=200)
    loop.run_for(2 * LOOK_S)
    sent: list[bytes] = []
    loop.calls = 0
    posted = 0
    while loop.batches.on:
        loop.batches.post(sent.append, b"audio")
        posted += 1
        loop.clock.run_for(LOOK_S)
    assert len(sent) == posted
