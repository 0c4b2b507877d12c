"""Voicemail on the worker: a prompt, a tone, a recording, one WAV a call."""

import contextlib
import logging
from enum import Enum
from pathlib import Path

from esl_app.leg import HungUp, Leg, TimedOut
from esl_app.protocol import CommandFailed
from esl_app.quoting import quote
from tandem.settings import VOICEMAIL, Settings

PROMPT_S = 30.0
"""Longest time a prompt may take before the call goes on without its end."""
TONE = "tone_stream://%(500,0,1000)"
SILENCE_THRESHOLD = 200
"""Mean amplitude of a frame below which nobody is speaking."""
LAST_WORD_S = 0.3
"""A command that failed may have failed because the caller was going: the hangup is given this long to show."""
SILENCE_S = 5
"""The message is over after so much silence."""

_log = logging.getLogger(__name__)


class Taken(Enum):
    """What came of it, in words."""

    MESSAGE = "a message was left"
    NOTHING = "the caller hung up before the tone"
    FAILED = "nothing could be recorded"


def make_folder(settings: Settings) -> None:
    """FreeSWITCH makes no folders for recordings. Where it has another file system than this process, its operator does."""
    if any(VOICEMAIL in route.fallback for route in settings.numbers.values()):
        try:
            settings.freeswitch.voicemail.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _log.warning("no folder for messages: %s", error)


def file_of(settings: Settings, call: str) -> Path:
    """Where the message of ``call`` is kept, as FreeSWITCH sees it."""
    return settings.freeswitch.voicemail / f"{call}.wav"


def _can_record(leg: Leg, probe: Path) -> bool:
    """Whether FreeSWITCH can write in the folder: `record` hangs up the caller where it cannot, `uuid_record` says so.

    Raises HungUp.
    """
    try:
        for verb in ("start", "stop"):
            leg.session.api("uuid_record", leg.uuid, verb, quote(str(probe)))
    except CommandFailed as error:
        with contextlib.suppress(TimedOut):
            leg.until_hung_up(LAST_WORD_S)
        leg.log.error("FreeSWITCH cannot record into %s: %s", probe.parent, error)
        return False
    # FreeSWITCH discards what is that short; another switch may not.
    with contextlib.suppress(OSError):
        probe.unlink(missing_ok=True)
    return True


def take_message(leg: Leg, settings: Settings, call: str) -> Taken:
    """To the end of the message. A caller who hangs up before the tone has had voicemail, and knows it.

    Raises HungUp where the switch is lost, TimedOut.
    """
    file = file_of(settings, call)
    try:
        if not _can_record(leg, file.with_suffix(".probe.wav")):
            return Taken.FAILED
        leg.play(str(settings.freeswitch.prompts / "leave_message.wav"), PROMPT_S)
        leg.play(TONE, PROMPT_S)
        if not leg.record(str(file), settings.esl_app.voicemail_seconds, SILENCE_THRESHOLD, SILENCE_S):
            return Taken.FAILED
    except HungUp as gone:
        if gone.lost:
            raise
        leg.log.info("no message left")
        return Taken.NOTHING
    leg.log.info("message recorded in %s", file)
    return Taken.MESSAGE
