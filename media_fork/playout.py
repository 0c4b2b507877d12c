"""Playout: the agent's audio, sent to FreeSWITCH a known lead ahead of the caller's ear.

The model produces audio faster than real time. It waits here, by utterance, and leaves in chunks of CHUNK_MS, each when
the audio that FreeSWITCH still holds has run down far enough. What the caller has heard follows from what was sent and
the clock since: mod_audio_fork plays what it is given gaplessly, frame by frame, from the next frame on.

What shapes this file, in lws_glue.cpp of mod_audio_fork's streaming build:

* nothing is played until 1280 samples have come, once a connection: ``prime`` sends that much silence at its start;
* from then on 640 samples are passed on at a time: chunks are whole multiples, the end of an utterance is filled up;
* a chunk that comes while the module's mutex is taken stays back until the next: a chunk of silence follows the last;
* killAudio dumps what is there when the next 20 ms frame is written, whatever came in between: HOLD_S after it.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from media_fork.carriage import CHUNK_MS, Carriage
from media_fork.clock import Clock, Timer
from media_fork.metrics import Counts

CHUNK_S: Final = CHUNK_MS / 1000
FRAME_S: Final = 0.020
"""FreeSWITCH takes audio in frames of this: what was sent begins to be heard that much later at most, and is heard that
much at a time. On average the two cancel out, and heard is told to within one frame."""
HOLD_S: Final = 0.060
TIMER_S: Final = 0.001
"""Resolution of the event loop's timers, which may be early by half of it."""
PRIMING_CHUNKS: Final = 2
MAX_QUEUED_S: Final = 300
"""Audio that may wait for one call; beyond it is dropped and counted."""


class Utterance:
    """One message item of the agent, or a sound of our own. Amounts are bytes of the model's audio.

    ``owner``: the model whose conversation has the item; None: no model's.
    """

    __slots__ = (
        "buffer",
        "complete",
        "content_index",
        "heard",
        "item",
        "owner",
        "received",
        "response",
        "sent",
        "started_at",
    )

    def __init__(self, response: str, item: str, content_index: int, owner: object | None = None) -> None:
        self.owner = owner
        self.response = response
        self.item = item
        self.content_index = content_index
        self.buffer = bytearray()
        self.received = 0
        self.sent = 0
        self.heard = 0
        self.complete = False
        """The model has said all of it."""
        self.started_at: float | None = None
        """When its first chunk was sent, on the playout's clock."""


class Cut(NamedTuple):
    """An utterance not heard to its end. ``heard_ms`` lies in 1..received_ms, as conversation.item.truncate asks."""

    utterance: Utterance
    heard_ms: int
    received_ms: int


class Listener(Protocol):
    """Who is told how playout goes."""

    def on_first_audio(self, utterance: Utterance) -> None:
        """Its first chunk has just been sent."""

    def on_heard(self, utterance: Utterance) -> None:
        """It is complete and its last sample has been heard."""


class Playout:
    """One call's. ``send`` takes L16 for the fork, ``kill`` sends killAudio."""

    def __init__(
        self,
        carriage: Carriage,
        lead_ms: int,
        send: Callable[[bytes], None],
        kill: Callable[[], None],
        listener: Listener,
        counts: Counts,
        clock: Clock,
    ) -> None:
        self._chunk_bytes = carriage.chunk_bytes
        self._bytes_per_ms = carriage.bytes_per_ms
        self._bytes_per_s = 1000 * carriage.bytes_per_ms
        self._silence = carriage.silence
        self._audio = carriage.from_model()
        self._room_s = lead_ms / 1000 - CHUNK_S - FRAME_S
        """There is room for one more chunk where no more than this is still to be played."""
        self._send = send
        self._kill = kill
        self.kills = 0
        """How often killAudio was sent: an utterance was cut while it was being heard."""
        self._listener = listener
        self._counts = counts
        self._clock = clock
        self._queue: deque[Utterance] = deque()
        self._queued = 0
        self._sent: deque[tuple[float, Utterance | None, int]] = deque()
        """Sent and not yet heard: when it starts to be heard, whose it is, bytes without filling."""
        self._ends_at = 0.0
        """When the last that was sent will have been heard."""
        self._not_before = 0.0
        self._timer: Timer | None = None
        self._starved = True
        """Nothing to send; the next audio is to be looked at when it comes."""
        self._flushed = True
        self._paused = False

    def is_playing(self) -> bool:
        """Whether an utterance is waiting or being heard."""
        self._settle(self._clock.now())
        return bool(self._queue) or any(utterance is not None for _, utterance, _ in self._sent)

    def prime(self) -> None:
        """Fill mod_audio_fork's first prebuffer. Once, when the connection is there."""
        for _ in range(PRIMING_CHUNKS):
            self._send_chunk(self._clock.now(), None, self._silence * self._chunk_bytes, 0)
        self._arm()

    def push(self, utterance: Utterance, audio: bytes) -> None:
        """More audio of ``utterance``, in the model's format. A new utterance ends the one before it."""
        if not audio:
            return
        if self._queued + len(audio) > MAX_QUEUED_S * self._bytes_per_s or utterance.complete:
            self._counts.agent_bytes_dropped += len(audio)
            return
        if not utterance.received:
            if self._queue:
                self._queue[-1].complete = True
            self._queue.append(utterance)
        utterance.buffer += audio
        utterance.received += len(audio)
        self._queued += len(audio)
        if self._starved:
            self._pump()

    def complete(self, utterance: Utterance) -> None:
        """The model has said all of ``utterance``."""
        if not utterance.complete:
            utterance.complete = True
            self._pump()

    def cut(self) -> list[Cut]:
        """Stop at once: killAudio where an utterance is being heard, drop the rest.

        Gives what was not heard to its end, in the order of hearing, but for what had no full millisecond.
        """
        now = self._clock.now()
        self._settle(now)
        killed = any(utterance is not None for _, utterance, _ in self._sent)
        if killed:
            self.kills += 1
            self._kill()
        cuts = self._drop()
        if killed:
            self._sent.clear()
            self._ends_at = now
            self._not_before = now + HOLD_S
            self._flushed = True
        self._arm()
        return cuts

    def close(self) -> list[Cut]:
        """The connection is gone: nothing is sent and nobody is told anything from now on. Gives what ``cut`` gives."""
        self._settle(self._clock.now())
        self._paused = True
        cuts = self._drop()
        self._sent.clear()
        self._arm()
        return cuts

    def _drop(self) -> list[Cut]:
        unheard: dict[Utterance, None] = dict.fromkeys(u for _, u, _ in self._sent if u is not None)
        unheard.update(dict.fromkeys(self._queue))
        cuts = []
        for utterance in unheard:
            received_ms = self.received_ms(utterance)
            if received_ms:
                heard_ms = min(self.heard_ms(utterance), received_ms)
                cuts.append(Cut(utterance, max(1, heard_ms), received_ms))
            utterance.buffer.clear()
        self._queue.clear()
        self._queued = 0
        self._starved = True
        return cuts

    def pause(self) -> None:
        """The connection takes no more for now."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._pump()

    def heard_ms(self, utterance: Utterance) -> int:
        """How much of ``utterance`` has been heard by now, ms."""
        now = self._clock.now()
        heard = utterance.heard
        for starts, whose, amount in self._sent:
            if whose is utterance:
                heard += min(amount, max(0, int((now - starts) * self._bytes_per_s)))
        return heard // self._bytes_per_ms

    def received_ms(self, utterance: Utterance) -> int:
        """How much of ``utterance`` the model has sent, ms."""
        return utterance.received // self._bytes_per_ms

    def _pump(self) -> None:
        now = self._clock.now()
        self._settle(now)
        self._starved = False
        while not self._paused and now >= self._not_before and self._ends_at - now <= self._room_s + TIMER_S:
            if not self._send_next(now):
                self._starved = True
                break
        self._arm()

    def _send_next(self, now: float) -> bool:
        while self._queue:
            utterance = self._queue[0]
            buffer = utterance.buffer
            if len(buffer) >= self._chunk_bytes:
                chunk = bytes(buffer[: self._chunk_bytes])
                del buffer[: self._chunk_bytes]
                amount = self._chunk_bytes
            elif not utterance.complete:
                return False
            elif buffer:
                amount = len(buffer)
                chunk = bytes(buffer) + self._silence * (self._chunk_bytes - amount)
                buffer.clear()
            else:
                self._queue.popleft()
                if utterance.heard == utterance.received:
                    self._listener.on_heard(utterance)
                continue
            self._queued -= amount
            first = not utterance.sent
            if first:
                utterance.started_at = now
                self._audio.restart()
            elif self._ends_at < now:
                self._counts.underruns += 1
            utterance.sent += amount
            self._flushed = False
            self._send_chunk(now, utterance, chunk, amount)
            if first:
                self._listener.on_first_audio(utterance)
            return True
        return False

    def _send_chunk(self, now: float, utterance: Utterance | None, chunk: bytes, amount: int) -> None:
        self._send(self._audio.decode(chunk))
        self._counts.chunks += 1
        starts = max(self._ends_at, now)
        self._sent.append((starts, utterance, amount))
        self._ends_at = starts + CHUNK_S

    def _settle(self, now: float) -> None:
        """Count what has been heard by now."""
        sent = self._sent
        while sent:
            starts, utterance, amount = sent[0]
            if now < starts + (CHUNK_S if utterance is None else amount / self._bytes_per_s):
                break
            sent.popleft()
            if utterance is not None:
                utterance.heard += amount
                if utterance.complete and not utterance.buffer and utterance.heard == utterance.received:
                    if self._queue and self._queue[0] is utterance:
                        self._queue.popleft()
                    self._listener.on_heard(utterance)

    def _arm(self) -> None:
        """Come back when there is room, or when the last that was sent has been heard."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue and not self._starved and not self._paused:
            when = max(self._not_before, self._ends_at - self._room_s)
        elif self._sent:
            when = self._ends_at + TIMER_S
        else:
            return
        self._timer = self._clock.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()
        if not self._queue and not self._sent and not self._flushed and not self._paused:
            self._flushed = True
            self._send_chunk(self._clock.now(), None, self._silence * self._chunk_bytes, 0)
            self._arm()
