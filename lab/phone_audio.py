"""A phone call's audio: what is played into it, what is heard from it, and waiting for sound or silence."""

import asyncio
from collections import deque

import numpy as np

from lab import clock as lab_clock
from lab.codec import FRAME_TIMESTAMPS, RTP_CLOCK, Frame
from lab.hearing import LOUD_RMS, RATE
from lab.rtp import Packet, RtpStream
from lab.telephone_event import Digit
from lab.timeline import Arrival, Timeline, position_at, resampled

WATCH_S = 0.05
"""How often a wait for silence looks whether the process runs at all."""


class _Utterance:
    """Audio that is to be played, at whatever rate the line has when its turn comes."""

    def __init__(self, pcm: Frame, rate: int, done: "asyncio.Future[bool]") -> None:
        self.done = done
        self._left = pcm
        self._rate = rate

    def take(self, samples: int, rate: int) -> Frame:
        """The next so many at ``rate``; fewer at its end."""
        if rate != self._rate:
            self._left, self._rate = resampled(self._left, self._rate, rate), rate
        taken, self._left = self._left[:samples], self._left[samples:]
        return taken

    @property
    def over(self) -> bool:
        return not len(self._left)


class PhoneAudio:
    """Times are seconds since the answer (before it: since the line was opened); audio is int16 at 8 kHz, or at another rate that is asked for."""

    def __init__(self, stream: RtpStream, *, record: bool, clock: lab_clock.Clock) -> None:
        self.stream = stream
        self.comfort = True
        """Send silence while nothing is played. False: send nothing then."""
        self.digits = ""
        """DTMF received so far."""
        self._record = record
        self._now = clock
        self._opened_at = clock()
        self._answered_at: float | None = None
        self._received = Timeline()
        self._sent = Timeline()
        self._arrival = Arrival()
        self._next_sent: int | None = None
        self._playing: deque[_Utterance] = deque()
        self._last_loud: float | None = None
        self._heard_something = asyncio.Event()
        self._digit_came = asyncio.Event()
        self._closed = False
        stream.source = self._next_frame
        stream.on_frame = self._frame_received
        stream.on_sent = self._frame_sent
        stream.on_digit = self._digit_received

    # Time

    @property
    def origin(self) -> float:
        """Unix time of sample 0 of heard() and spoken()."""
        return self._opened_at if self._answered_at is None else self._answered_at

    def now(self) -> float:
        """Seconds since the answer."""
        return self._now() - self.origin

    def answered(self) -> None:
        """The call is answered now: sample 0."""
        if self._answered_at is None:
            self._answered_at = self._now()

    # Speaking

    def play(self, pcm: Frame, rate: int = RATE) -> "asyncio.Future[bool]":
        """Queue audio of ``rate`` Hz behind what is playing. The future is True when all of it was sent, False when it was cut off."""
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise TypeError(f"expected int16 samples of one channel, not {pcm.dtype} of shape {pcm.shape}")
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._closed or not len(pcm):
            done.set_result(not self._closed)
        else:
            self._playing.append(_Utterance(pcm, rate, done))
        return done

    def stop_playing(self) -> None:
        """Drop what is playing and what is queued."""
        while self._playing:
            self._finish(False)

    async def send_digits(self, digits: str, *, duration_ms: int = 160, pause_ms: int = 80) -> None:
        """RFC 4733 events; returns when the last is sent. See RtpStream.send_digits."""
        await self.stream.send_digits(digits, duration_ms=duration_ms, pause_ms=pause_ms)

    def _finish(self, complete: bool) -> None:
        done = self._playing.popleft().done
        if not done.done():
            done.set_result(complete)

    def _next_frame(self) -> Frame | None:
        rate = self.stream.rate
        missing = rate // 50
        if not self._playing:
            return np.zeros(missing, np.int16) if self.comfort else None
        parts = []
        while missing and self._playing:
            part = self._playing[0].take(missing, rate)
            parts.append(part)
            missing -= len(part)
            if self._playing[0].over:
                self._finish(True)
        if missing:
            parts.append(np.zeros(missing, np.int16))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _frame_sent(self, frame: Frame) -> None:
        if not self._record:
            return
        now = position_at(self._now())
        expected = self._next_sent
        position = now if expected is None or abs(now - expected) > 4 * FRAME_TIMESTAMPS else expected
        self._next_sent = position + len(frame) * RTP_CLOCK // self.stream.rate
        self._sent.place(position, frame, self.stream.rate)

    # Hearing

    def heard(self, *, from_start: bool = False, rate: int = RATE) -> Frame:
        """All that was received; sample 0 is the answer, or (``from_start``) the opening of the line."""
        return self._received.samples(self._opened_at if from_start else self.origin, rate)

    def spoken(self, *, from_start: bool = False, rate: int = RATE) -> Frame:
        """All that was sent, on the same clock as heard()."""
        return self._sent.samples(self._opened_at if from_start else self.origin, rate)

    @property
    def rtp(self) -> list[Packet]:
        """Every packet as it arrived."""
        return self.stream.packets

    def _frame_received(self, frame: Frame) -> None:
        packet = self.stream.latest
        assert packet is not None
        if self._record:
            self._received.place(self._arrival.position(packet), frame, self.stream.rate)
        samples = frame.astype(np.float32)
        if len(frame) and float(samples @ samples) > LOUD_RMS * LOUD_RMS * len(frame):
            self._last_loud = packet.time
            self._heard_something.set()

    def _digit_received(self, digit: Digit) -> None:
        self.digits += digit.digit
        self._digit_came.set()

    async def wait_loud(self, timeout_s: float) -> float:
        """The next loud packet from now on: when it came, in seconds since the answer. Raises TimeoutError."""
        self._heard_something.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._heard_something.wait()
        except TimeoutError:
            raise TimeoutError(f"waited {timeout_s:g} s for sound on the line") from None
        assert self._last_loud is not None
        return self._last_loud - self.origin

    async def wait_quiet(self, quiet_ms: float, timeout_s: float) -> float:
        """Until nothing loud came for ``quiet_ms``: when the last loud packet came. Raises TimeoutError.

        A line without packets is quiet. Returns at once where it has been quiet for so long already. Time in which this
        process did not run is no silence: what came in it has not been heard yet.
        """
        deadline = self._now() + timeout_s
        ran_since = 0.0
        while True:
            last = self.origin if self._last_loud is None else self._last_loud
            now, over = self._now(), max(last, ran_since) + quiet_ms / 1000
            if now >= over:
                return last - self.origin
            if now >= deadline:
                raise TimeoutError(f"waited {timeout_s:g} s for {quiet_ms:g} ms of silence on the line")
            wake_at = min(over, deadline, now + WATCH_S)
            await asyncio.sleep(wake_at - now)
            if self._now() > wake_at + WATCH_S:
                ran_since = self._now()

    async def wait_digits(self, digits: str, timeout_s: float) -> None:
        """Until DTMF received so far ends with ``digits``. Raises TimeoutError."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.digits.endswith(digits):
                    self._digit_came.clear()
                    await self._digit_came.wait()
        except TimeoutError:
            raise TimeoutError(f"waited {timeout_s:g} s for DTMF {digits}; received {self.digits!r}") from None

    def close(self) -> None:
        """The call is over: stop, and release the port. What was recorded stays."""
        self._closed = True
        self.stop_playing()
        self.stream.close()
