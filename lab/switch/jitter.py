"""Buffers between packets that come unevenly and ticks of 20 ms: one keeps every frame, one keeps the time."""

from collections import deque

from lab.codec import FRAME_TIMESTAMPS, Frame

LATE_TICKS = 10
"""Nothing but late frames at so many ticks means that the way has become longer: that is accepted."""
GAP_FRAMES = 50
"""After a pause of a second the next frame begins anew."""


class Smoother:
    """Every frame is given out, one a tick. At the start and after each gap one more is waited for first."""

    def __init__(self, limit: int) -> None:
        self._frames: deque[Frame] = deque()
        self._limit = limit
        self._flowing = False
        self._waited = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame) -> bool:
        """False where the oldest frame had to go for it."""
        fits = len(self._frames) < self._limit
        if not fits:
            self._frames.popleft()
        self._frames.append(frame)
        return fits

    def take(self) -> Frame | None:
        """The next frame; None where there is none, or not yet."""
        if not self._frames:
            self._flowing, self._waited = False, 0
            return None
        self._waited += 1
        if not self._flowing and len(self._frames) < 2 and self._waited < 3:
            return None
        self._flowing = True
        return self._frames.popleft()


class Playout:
    """Each frame is given out at its time, as its RTP timestamp has it, ``depth`` frames late; one that comes later is
    dropped. What is behind a gap stays where it belongs.
    """

    def __init__(self, depth: int = 3) -> None:
        self.late = 0
        """Frames dropped."""
        self._depth = depth
        self._frames: deque[tuple[int, Frame]] = deque()
        self._due: int | None = None
        """Timestamp of the frame that the next tick gives out."""
        self._waited = 0
        self._late_ticks = 0

    def put(self, frame: Frame, timestamp: int) -> None:
        """``timestamp``: RTP's, of the first sample."""
        self._frames.append((timestamp, frame))
        if len(self._frames) > 2 * GAP_FRAMES:
            self._frames.popleft()

    def take(self) -> Frame | None:
        """The frame of this tick; None where none is due, or it has not come."""
        if self._due is None and not self._starts():
            return None
        assert self._due is not None
        due, self._due = self._due, (self._due + FRAME_TIMESTAMPS) & 0xFFFFFFFF
        late = self.late
        while self._frames:
            timestamp, frame = self._frames[0]
            ahead = ((timestamp - due + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
            if -FRAME_TIMESTAMPS < ahead < FRAME_TIMESTAMPS:
                self._late_ticks = 0
                self._frames.popleft()
                return frame
            if abs(ahead) > GAP_FRAMES * FRAME_TIMESTAMPS or self._late_ticks >= LATE_TICKS:
                self._restart()
                return self.take()
            if ahead > 0:
                break
            self._frames.popleft()
            self.late += 1
        self._late_ticks += self.late > late
        return None

    def _starts(self) -> bool:
        if not self._frames:
            return False
        self._waited += 1
        if len(self._frames) < self._depth and self._waited <= self._depth:
            return False
        self._due = self._frames[0][0]
        return True

    def _restart(self) -> None:
        """Begin anew with the next frame."""
        self._due = None
        self._waited = self._late_ticks = 0

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()
        self._restart()
