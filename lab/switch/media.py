"""A channel's media: every 20 ms one frame is read from the peer, shown to the bugs, and one is written.

Reading never pauses: where the peer sends nothing there is silence. Writing happens only while somebody has something to
write (a playback, the other leg of a bridge, or silence because ``send_silence_when_idle`` asks for it), and only then can a
bug add its sound, exactly as in FreeSWITCH.
"""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import numpy as np

from lab.codec import RTP_CLOCK, Frame
from lab.rtp import Digit, RtpStream
from lab.switch.cause import Cause
from lab.switch.channel import Channel
from lab.switch.jitter import Playout, Smoother
from lab.switch.sound import FrameResampler, comfort_noise, silence

MAX_BACKLOG = 10
"""Frames that wait to be read; what comes on top makes a tick read two, as a stall in FreeSWITCH does."""


class Writer(Protocol):
    def next_frame(self) -> Frame | None:
        """The next 20 ms to send, None where there is nothing to send now."""


class MediaBug(Protocol):
    """What listens in on a channel, and may change what is written."""

    name: str
    """Its function."""
    target: str

    def read(self, frame: Frame) -> None:
        """What the peer said."""

    def write(self, frame: Frame) -> Frame:
        """What is about to be sent; returns what shall be sent instead."""

    def close(self) -> None:
        """The bug is removed, or the channel is gone."""


class IdleSilence:
    """A parked channel's writing where ``send_silence_when_idle`` was set: -1, or a divisor for comfort noise."""

    def __init__(self, divisor: int, media: "Media") -> None:
        self._divisor = divisor
        self._media = media
        self._random = np.random.default_rng(0)

    def next_frame(self) -> Frame | None:
        return comfort_noise(self._random, self._divisor, self._media.rate)


class Media:
    """Ties a channel to its RTP stream. ``tick`` is the stream's source."""

    def __init__(self, channel: Channel, stream: RtpStream) -> None:
        self.channel = channel
        self.stream = stream
        self.counters: Counter[str] = Counter()
        """frames_in, frames_out (packets, both), backlog_dropped."""
        self.sending = True
        """The peer wants to receive (SDP direction)."""
        self.timeout_ms = 0
        """A peer that sends nothing for so long is gone; 0: never."""
        self.writers: list[Writer] = []
        """The last one speaks."""
        self.bugs: list[MediaBug] = []
        self.readers: list[Callable[[Frame, bool], None]] = []
        """Called with each frame read, and whether the peer really sent it."""
        self.partner: Media | None = None
        self._incoming = Smoother(5 * MAX_BACKLOG)
        self._quiet_frames = 0
        self._part: Frame | None = None
        """The beginning of a frame, from a peer whose packets are not of 20 ms."""
        self._bridged = Playout()
        self._to_partner: FrameResampler | None = None
        stream.on_frame = self._on_frame
        stream.on_digit = self._on_digit
        stream.source = self.tick

    @property
    def rate(self) -> int:
        """Hz of every frame read and written: the codec's."""
        return self.stream.rate

    def _on_frame(self, frame: Frame) -> None:
        self.counters["frames_in"] += 1
        packet = self.stream.latest
        begin = packet.timestamp if packet is not None else 0
        if self._part is not None:
            begin -= len(self._part) * RTP_CLOCK // self.rate
            frame, self._part = np.concatenate((self._part, frame)), None
        samples = self.rate // 50
        whole = len(frame) // samples * samples
        for start in range(0, whole, samples):
            piece = frame[start : start + samples]
            if self.partner is not None:
                said = self._at_rate_of(self.partner, piece)
                self.partner.forward(said, begin + start * RTP_CLOCK // self.rate)
            if not self._incoming.put(piece):
                self.counters["backlog_dropped"] += 1
        if whole < len(frame):
            self._part = frame[whole:]

    def _at_rate_of(self, partner: "Media", frame: Frame) -> Frame:
        rates = (self.rate, partner.rate)
        if rates[0] == rates[1]:
            return frame
        if self._to_partner is None or self._to_partner.rates != rates:
            self._to_partner = FrameResampler(*rates)
        return self._to_partner.process(frame)

    def _on_digit(self, digit: Digit) -> None:
        self.channel.queue_dtmf(digit.digit, round(digit.duration_ms * 8))

    def tick(self) -> Frame | None:
        """20 ms have passed: read, then write. Returns what goes to the peer, None for no packet."""
        self._read()
        if len(self._incoming) > MAX_BACKLOG:
            self._read()
        frame = self._next_frame()
        if frame is None:
            return None
        for bug in tuple(self.bugs):
            frame = bug.write(frame)
        if not self.sending:
            return None
        self.counters["frames_out"] += 1
        return frame

    def _read(self) -> None:
        heard = self._incoming.take()
        sent = heard is not None
        self._quiet_frames = 0 if sent else self._quiet_frames + 1
        if self.timeout_ms and self._quiet_frames * 20 > self.timeout_ms:
            self.channel.hangup(Cause.MEDIA_TIMEOUT)
        frame = silence(self.rate) if heard is None else heard
        for bug in tuple(self.bugs):
            bug.read(frame)
        for reader in tuple(self.readers):
            reader(frame, sent)

    def _next_frame(self) -> Frame | None:
        if self.writers:
            return self.writers[-1].next_frame()
        return self._bridged.take()

    def forward(self, frame: Frame, timestamp: int) -> None:
        """A frame of the other leg, to be written here, with its RTP timestamp."""
        self._bridged.put(frame, timestamp & 0xFFFFFFFF)

    def join(self, partner: "Media | None") -> None:
        """Begin to send what the peer says to the other leg, as it comes, or stop it."""
        self.partner = partner
        self._to_partner = None
        self._bridged.clear()

    # Bugs

    def bug(self, name: str) -> MediaBug | None:
        return next((bug for bug in self.bugs if bug.name == name), None)

    def add_bug(self, bug: MediaBug) -> None:
        self.bugs.append(bug)
        self._tell("MEDIA_BUG_START", bug)

    def remove_bug(self, bug: MediaBug) -> None:
        self.bugs.remove(bug)
        bug.close()
        self._tell("MEDIA_BUG_STOP", bug)

    def _tell(self, what: str, bug: MediaBug) -> None:
        self.channel.fire(what, ("Media-Bug-Function", bug.name), ("Media-Bug-Target", bug.target))

    def close(self) -> None:
        """The call is over: no more packets, the port is free again. Bugs were removed before."""
        self.stream.close()
