"""``uuid_displace``: a sound instead of, or mixed into, what the switch writes to the peer."""

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from lab.codec import Frame
from lab.switch.media import Media
from lab.switch.sound import Sound, SoundNotFound, open_sound, silence
from lab.switch.text import separate, to_int

if TYPE_CHECKING:
    from lab.switch.core import Switch
    from lab.switch.session import Session

USAGE = "-USAGE: <uuid> [start|stop] <path> [<limit>] [mux]\n"
OK = "+OK Success\n"


class Displacement:
    """A media bug; only frames that somebody writes are changed. It goes when its sound ends, or its time is up."""

    name = "displace"

    def __init__(self, media: Media, path: str, sound: Sound, *, mixes: bool, until: int | None) -> None:
        self.target = path
        self._media = media
        self._sound = sound
        self._mixes = mixes
        self._until = until
        """Whole seconds of Unix time."""

    def read(self, frame: Frame) -> None:
        """What the peer says is left as it is."""

    def write(self, frame: Frame) -> Frame:
        now = self._media.channel.clock()
        sound = self._sound.read() if self._until is None or int(now) < self._until else None
        if sound is None:
            self._media.remove_bug(self)
            sound = silence(self._media.rate)
        if not self._mixes:
            return sound
        return np.asarray(np.clip(frame.astype(np.int32) + sound, -32768, 32767), dtype=np.int16)

    def close(self) -> None:
        pass


async def uuid_displace(switch: "Switch", argument: str) -> str:
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
            limit = to_int(words[3]) if len(words) > 3 else 0
            flags = words[4] if len(words) > 4 else ""
            return OK if await _start(session, path, limit, flags) else "-ERR Cannot displace session!\n"
        case "stop":
            media = session.media
            bug = _find(media, path) if media is not None else None
            if media is None or bug is None:
                return "-ERR Cannot stop displace session!\n"
            media.remove_bug(bug)
            return OK
    return USAGE


def _find(media: Media, path: str) -> Displacement | None:
    return next((bug for bug in media.bugs if isinstance(bug, Displacement) and bug.target == path), None)


async def _start(session: "Session", path: str, limit_s: int, flags: str) -> bool:
    """``flags``: m to mix it in, l to begin it anew at its end. False without media, for a sound that is not there, and where this very sound displaces already."""
    if not await session.ensure_media() or session.media is None or session.channel.down:
        return False
    media = session.media
    try:
        sound = await asyncio.to_thread(open_sound, path, media.rate, -1 if "l" in flags else 1)
    except SoundNotFound:
        return False
    if session.channel.down or _find(media, path) is not None:
        return False
    until = int(session.channel.clock()) + limit_s if limit_s else None
    media.add_bug(Displacement(media, path, sound, mixes="m" in flags, until=until))
    return True
