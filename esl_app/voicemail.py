"""Voicemail on the worker: a prompt, a tone, a recording, one WAV a call."""

import logging

from esl_app.leg import HungUp, Leg
from tandem.settings import VOICEMAIL, FreeSwitch, Settings

PROMPT_S = 30.0
"""Longest time a prompt may take before the call goes on without its end."""
TONE = "tone_stream://%(500,0,1000)"
SILENCE_THRESHOLD = 200
"""Mean amplitude of a frame below which nobody is speaking."""
SILENCE_S = 5
"""The message is over after so much silence."""

_log = logging.getLogger(__name__)


def make_folder(settings: Settings) -> None:
    """FreeSWITCH makes no folders for recordings. Where it has another file system than this process, its operator does."""
    if any(route.fallback == VOICEMAIL for route in settings.numbers.values()):
        try:
            settings.freeswitch.voicemail.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _log.warning("no folder for messages: %s", error)


def take_message(leg: Leg, freeswitch: FreeSwitch, call: str, seconds: int) -> bool:
    """False where FreeSWITCH could not record. A caller who hangs up, be it before the tone, has had voicemail and knows
    it. Raises HungUp where the switch is lost, TimedOut.
    """
    file = freeswitch.voicemail / f"{call}.wav"
    try:
        leg.play(str(freeswitch.prompts / "leave_message.wav"), PROMPT_S)
        leg.play(TONE, PROMPT_S)
        if not leg.record(str(file), seconds, SILENCE_THRESHOLD, SILENCE_S):
            return False
    except HungUp as gone:
        if gone.lost:
            raise
        leg.log.info("no message left")
        return True
    leg.log.info("message recorded in %s", file)
    return True
