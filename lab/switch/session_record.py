"""``uuid_record``: what is said and heard on a channel, to a WAV file, with what is masked left silent."""

import asyncio
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lab.codec import Frame
from lab.switch.media import Media
from lab.switch.text import is_true, separate

if TYPE_CHECKING:
    from lab.switch.core import Switch
    from lab.switch.session import Session

USAGE = "-USAGE: <uuid> [start|stop|mask|unmask] <path> [<limit>] [<recording_vars>]\n"
OK = "+OK Success\n"
_SILENT = -1
"""Value of the samples that stand for what was masked, or not written."""


class SessionRecord:
    """A media bug. Of what is written it hears what the bugs before it have made of that."""

    name = "session_record"

    def __init__(self, media: Media, path: str, file: wave.Wave_write, *, stereo: bool) -> None:
        self.target = path
        self.masked = False
        self._media = media
        self._file = file
        self._stereo = stereo
        self._said: list[Frame] = []
        """Frames read that still wait for what was written in their time."""
        self._samples = 0

    def read(self, frame: Frame) -> None:
        self._said.append(frame)
        if len(self._said) > 1:
            self._put(None)

    def write(self, frame: Frame) -> Frame:
        self._put(frame)
        return frame

    def _put(self, heard: Frame | None) -> None:
        if not self._said:
            return
        said = self._said.pop(0)
        silent = np.full(len(said), _SILENT, dtype=np.int16)
        left, right = (silent, silent) if self.masked else (said, silent if heard is None else heard)
        mixed = np.clip(left.astype(np.int32) + right, -32768, 32767)
        both = np.column_stack((left, right)) if self._stereo else mixed
        self._file.writeframesraw(both.astype("<i2").tobytes())
        self._samples += len(said)

    def close(self) -> None:
        self._file.close()
        channel = self._media.channel
        channel.set("record_samples", self._samples)
        channel.set("record_seconds", self._samples // self._media.rate)
        channel.set("record_ms", self._samples * 1000 // self._media.rate)
        channel.fire("RECORD_STOP", ("Record-File-Path", self.target))


async def uuid_record(switch: "Switch", argument: str) -> str:
    """Run the command."""
    words = separate(argument, 5)
    if len(words) < 3 or not all(words[:3]):
        return USAGE
    identity, action, path = words[0], words[1].lower(), words[2]
    session = switch.locate(identity)
    if session is None:
        return "-ERR Cannot locate session!\n"
    match action:
        case "start":
            return OK if await _start(session, path) else "-ERR Cannot record session!\n"
        case "stop" if path == "all":
            for recording in tuple(session.media.bugs) if session.media is not None else ():
                if isinstance(recording, SessionRecord) and session.media is not None:
                    session.media.remove_bug(recording)
            return OK
        case "stop":
            bug = _find(session.media, path)
            if bug is None or session.media is None:
                return "-ERR Cannot stop record session!\n"
            session.media.remove_bug(bug)
            return OK
        case "mask" | "unmask":
            bug = _find(session.media, path)
            if bug is None:
                return f"-ERR Cannot {action} recording session!\n"
            bug.masked = action == "mask"
            return OK
    return USAGE


def _find(media: Media | None, path: str) -> SessionRecord | None:
    bugs = media.bugs if media is not None else ()
    return next((bug for bug in bugs if isinstance(bug, SessionRecord) and bug.target == path), None)


async def _start(session: "Session", path: str) -> bool:
    """False without media, and where the file cannot be written. A file that is being written already goes on."""
    if not await session.ensure_media() or session.media is None or session.channel.down:
        return False
    media, channel = session.media, session.channel
    if _find(media, path) is not None:
        return True
    try:
        raw = await asyncio.to_thread(_open, path)
    except OSError:
        return False
    if channel.down:
        return False
    stereo = is_true(channel.get("RECORD_STEREO"))
    raw.setnchannels(2 if stereo else 1)
    raw.setsampwidth(2)
    raw.setframerate(media.rate)
    channel.fire("RECORD_START", ("Record-File-Path", path))
    media.add_bug(SessionRecord(media, path, raw, stereo=stereo))
    return True


def _open(path: str) -> wave.Wave_write:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return wave.open(path, "wb")
