"""mod_audio_fork, streaming build: the media bug that sends the caller's audio to a WebSocket and plays what comes back.

Behaviour and quirks as in the module (jambonz build of October 2024); its non-streaming mode (``playAudio``) is not here.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

import numpy as np

from lab.codec import Frame
from lab.switch import cjson
from lab.switch.channel import Channel
from lab.switch.fork_connection import ConnectFailed, ForkConnection
from lab.switch.fork_playout import ForkPlayout
from lab.switch.media import Media
from lab.switch.sound import FrameResampler
from lab.switch.text import decode, encode

MODULE = "mod_audio_fork"
BUFFER_SECONDS = 2
"""Audio kept for a server that does not read (MOD_AUDIO_FORK_BUFFER_SECS)."""
MAX_METADATA = 8192
_UNPAIRED = 5
"""Frames of one side that wait for the other side's, in a mixed or stereo fork."""


@dataclass(frozen=True)
class ForkRequest:
    """The arguments of ``uuid_audio_fork UUID start``."""

    url: str
    mix: str
    """mono, mixed or stereo."""
    rate: int
    """Hz of what is sent to the server."""
    name: str
    metadata: str = ""
    stream_rate: int = 0
    """Hz of what the server sends; 0: its binary frames are discarded."""


class AudioFork:
    """One fork: a media bug with its WebSocket. ``double_frame_every``: each so-many-th frame is sent with the next one."""

    def __init__(self, channel: Channel, media: Media, request: ForkRequest, *, double_frame_every: int = 0) -> None:
        self.name = request.name
        self.target = "N/A"
        self.paused = False
        self._channel = channel
        self._media = media
        self._request = request
        self._graceful = False
        self._removed = False
        self._overrun_told = False
        self._double_frame_every = double_frame_every
        self._frames = 0
        self._held = b""
        self._pending_reads: deque[Frame] = deque(maxlen=_UNPAIRED)
        self._pending_writes: deque[Frame] = deque(maxlen=_UNPAIRED)
        channels = 2 if request.mix == "stereo" else 1
        self._resamplers = (
            [FrameResampler(media.rate, request.rate) for _ in range(channels)] if request.rate != media.rate else []
        )
        self._playout = ForkPlayout(request.stream_rate, media.rate, self._send_mark) if request.stream_rate else None
        self._connection = ForkConnection(
            on_text=self._on_text,
            on_binary=self._on_binary,
            on_dropped=lambda: self._fire("disconnect"),
            buffer_bytes=request.rate * 2 * channels * BUFFER_SECONDS,
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Attach to the channel and dial; the outcome comes as an event, or never."""
        self._media.add_bug(self)
        self._task = asyncio.get_running_loop().create_task(self._connect(), name=f"fork {self._channel.uuid}")

    async def _connect(self) -> None:
        try:
            await self._connection.connect(self._request.url)
        except ConnectFailed as error:
            if not self._removed:
                self._fire("connect_failed", f'{{"reason":"{error}"}}')
            return
        except LookupError:
            return
        if self._removed:
            # As in the module: the connection that completes too late stays open, silent, until its server ends it.
            return
        self._fire("connect")
        if self._request.metadata:
            self._connection.send_text(encode(self._request.metadata)[:MAX_METADATA])

    def _fire(self, what: str, body: str = "") -> None:
        if not self._removed:
            self._channel.fire("CUSTOM", subclass=f"{MODULE}::{what}", body=body)

    # The media bug

    def read(self, frame: Frame) -> None:
        if self.paused or self._graceful or not self._connection.connected or self._removed:
            return
        if self._request.mix == "mono":
            self._send_frame([frame])
        else:
            self._pending_reads.append(frame)
            self._send_pairs()

    def write(self, frame: Frame) -> Frame:
        if self._request.mix != "mono":
            self._pending_writes.append(frame)
            self._send_pairs()
        return frame if self._playout is None else self._playout.mix(frame)

    def _send_pairs(self) -> None:
        while self._pending_reads and self._pending_writes:
            heard, said = self._pending_reads.popleft(), self._pending_writes.popleft()
            if self._request.mix == "stereo":
                self._send_frame([heard, said])
            else:
                self._send_frame([np.clip(heard.astype(np.int32) + said, -32768, 32767).astype(np.int16)])

    def _send_frame(self, channels: list[Frame]) -> None:
        if self._resamplers:
            channels = [resampler.process(frame) for resampler, frame in zip(self._resamplers, channels, strict=True)]
        audio = self._held + np.stack(channels, axis=1).astype("<i2").tobytes()
        self._held = b""
        self._frames += 1
        if self._double_frame_every and self._frames % self._double_frame_every == 0:
            self._held = audio
            return
        if not self._connection.send_audio(audio) and not self._overrun_told:
            self._overrun_told = True
            self._fire("buffer_overrun")

    def close(self) -> None:
        """Stopped, or the channel is gone: Close 1000. A connect in progress is left to itself."""
        self._removed = True
        if self._graceful:
            self._connection.send_empty()
        else:
            self._connection.close()

    # Commands

    def send_text(self, text: str) -> None:
        """One text frame; after a graceful shutdown only an empty binary one, as in the module."""
        if self._graceful:
            self._connection.send_empty()
        else:
            self._connection.send_text(encode(text))

    def graceful_shutdown(self) -> None:
        """An empty binary frame, and no audio any more; closing is left to the server."""
        self._graceful = True
        self._connection.send_empty()

    def stop_play(self) -> None:
        """Drop what waits to be played."""
        if self._playout is not None:
            self._playout.empty()

    def _send_mark(self, name: str, cleared: bool) -> None:
        what = "cleared" if cleared else "playout"
        self.send_text(f'{{"type": "mark", "data": {{"name":"{name}", "event": "{what}"}}}}')

    # What the server says

    def _on_binary(self, data: bytes) -> None:
        if self._playout is not None and not self._removed:
            self._playout.receive(data)

    def _on_text(self, data: bytes) -> None:
        if self._removed:
            return
        try:
            message = cjson.parse(decode(data))
        except ValueError:
            self._channel.counters["fork_bad_json"] += 1
            return
        kind = cjson.member(message, "type")
        kind = kind if isinstance(kind, str) else "json"
        has_data = isinstance(message, cjson.Pairs) and any(key.lower() == "data" for key, _ in message)
        data_member = cjson.member(message, "data")
        match kind:
            case "killAudio":
                self._fire("kill_audio")
                self._channel.break_flag = True
                self._channel.wake.set()
                if self._playout is not None:
                    self._playout.kill()
            case "mark":
                name = cjson.member(data_member, "name")
                if self._playout is not None and isinstance(name, str):
                    self._playout.mark(name)
            case "clearMarks":
                if self._playout is not None:
                    self._playout.clear_marks()
            case "transcription" | "transfer" | "disconnect" | "error":
                self._fire(kind, cjson.write(data_member) if has_data else "")
            case "json":
                self._fire("json", cjson.write(message))
            case _:
                self._channel.counters["fork_unsupported_message"] += 1
