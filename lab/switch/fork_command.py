"""``uuid_audio_fork``: the API command of mod_audio_fork (streaming build), quoting rules and replies included."""

from typing import TYPE_CHECKING

from lab.switch.audio_fork import AudioFork, ForkRequest
from lab.switch.text import separate, to_int

if TYPE_CHECKING:
    from lab.switch.core import Switch
    from lab.switch.session import Session

DEFAULT_NAME = "audio_fork"
MAX_WORDS = 10
OK = "+OK Success\n"
FAILED = "-ERR Operation Failed\n"
NO_REPLY = ""
"""What a wrong mix type, or send_text without text, answers."""
USAGE = (
    "-USAGE: <uuid> [start | stop | send_text | pause | resume | graceful-shutdown | stop_play ] [wss-url | path]"
    " [mono | mixed | stereo] [8000 | 16000 | 24000 | 32000 | 64000] [bugname] [metadata] [bidirectionalAudio_enabled]"
    " [bidirectionalAudio_stream_enabled] [bidirectionalAudio_stream_samplerate]\n"
)


async def uuid_audio_fork(switch: "Switch", argument: str) -> str:
    """Run the command. ``+OK`` to start means queued: whether the connection is made comes as an event."""
    words = separate(argument, MAX_WORDS)
    if len(words) < 2 or (words[1] == "start" and len(words) < 4):
        return USAGE
    session = switch.locate(words[0])
    if session is None:
        return FAILED
    match words[1].lower():
        case "start":
            return await _start(switch, session, words)
        case "stop":
            return _stop(session, words)
        case "send_text":
            return _send_text(session, words)
        case "pause" | "resume" | "graceful-shutdown" | "stop_play" as what:
            return _control(session, what, words)
    return FAILED


def _find(session: "Session", name: str) -> AudioFork | None:
    bug = session.media.bug(name) if session.media is not None else None
    return bug if isinstance(bug, AudioFork) else None


def _is_json(text: str) -> bool:
    return text.startswith(("{", "["))


def _name_and_text(words: list[str]) -> tuple[str, str | None]:
    """The optional bug name and text of ``stop`` and ``send_text``: a lone one that begins like JSON is the text."""
    if len(words) > 3:
        return words[2], words[3]
    if len(words) > 2:
        return (DEFAULT_NAME, words[2]) if _is_json(words[2]) else (words[2], None)
    return DEFAULT_NAME, None


async def _start(switch: "Switch", session: "Session", words: list[str]) -> str:
    if words[3] not in ("mono", "mixed", "stereo"):
        return NO_REPLY
    if len(words) < 5:
        # The module dereferences a missing rate and takes the whole process with it; here the call only fails.
        return FAILED
    name, metadata, stream_rate = DEFAULT_NAME, "", 0
    if len(words) == MAX_WORDS:
        name, metadata = words[5] or DEFAULT_NAME, words[6]
        if words[7] == "true" and words[8] == "true":
            stream_rate = to_int(words[9])
    elif len(words) > 6:
        name, metadata = words[5], words[6]
    elif len(words) > 5:
        name, metadata = (DEFAULT_NAME, words[5]) if _is_json(words[5]) else (words[5], "")
    rate = {"8k": 8000, "16k": 16000}.get(words[4]) or to_int(words[4])
    if _find(session, name) is not None or rate < 8000 or rate % 8000:
        return FAILED
    if not await session.ensure_media() or session.media is None or session.channel.down:
        return FAILED
    request = ForkRequest(words[2], words[3], rate, name, metadata, stream_rate)
    AudioFork(session.channel, session.media, request, double_frame_every=switch.double_frame_every).start()
    return OK


def _stop(session: "Session", words: list[str]) -> str:
    name, text = _name_and_text(words)
    fork = _find(session, name)
    if fork is None or session.media is None:
        return FAILED
    if text:
        fork.send_text(text)
    session.media.remove_bug(fork)
    return OK


def _send_text(session: "Session", words: list[str]) -> str:
    if len(words) < 3:
        return NO_REPLY
    name, text = _name_and_text(words)
    fork = _find(session, name)
    if fork is None:
        return FAILED
    if text:
        fork.send_text(text)
    return OK


def _control(session: "Session", what: str, words: list[str]) -> str:
    # stop_play looks for the default name only.
    name = words[2] if len(words) > 2 and what != "stop_play" else DEFAULT_NAME
    fork = _find(session, name)
    if fork is None:
        return FAILED
    match what:
        case "pause":
            fork.paused = True
        case "resume":
            fork.paused = False
        case "graceful-shutdown":
            fork.graceful_shutdown()
        case "stop_play":
            fork.stop_play()
    return OK
