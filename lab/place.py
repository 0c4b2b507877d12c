"""``tandem call place``: one probe call through the edge. Is it answered, is anything heard, and how soon?"""

import asyncio
import ipaddress
import wave
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab import hearing
from lab.call import Call
from lab.dialog import DialogEnded
from lab.hearing import RATE, Pcm
from lab.phone import Phone
from lab.voice import speak
from lab.wav import write_stereo
from tandem.probes import is_here
from tandem.settings import Settings

ANSWER_S = 60.0
GREETING_S = 10.0
"""Waited for the first sound, and for a pause to speak into."""
PAUSE_MS = 700


class CannotPlace(Exception):
    """The probe cannot be made: one line with the cause and what to do."""


@dataclass(frozen=True)
class Probe:
    """What to try; see ``tandem call place --help``."""

    to: str
    from_number: str
    trunk: str | None = None
    source: str | None = None
    say: str | None = None
    wav: Path | None = None
    listen_s: float = 8.0
    out: Path | None = None


@dataclass(frozen=True)
class Report:
    """What came of it. Times are seconds."""

    what: str
    status: int | None
    reason: str = ""
    answered_s: float | None = None
    codec: str | None = None
    sound_s: float | None = None
    """First sound, counted from the answer."""
    heard_s: float = 0.0
    """Sound heard in all."""
    reply_s: float | None = None
    """First sound after what was said; None where nothing was said, or nothing came."""
    said: bool = False
    out: Path | None = None

    @property
    def ok(self) -> bool:
        return self.answered_s is not None and self.heard_s > 0 and (self.reply_s is not None or not self.said)

    def lines(self) -> Iterator[str]:
        yield self.what
        if self.answered_s is None:
            yield f"not answered: {self.status or 'no final response'} {self.reason}".rstrip()
            return
        yield f"answered after {self.answered_s:.2f} s, {self.codec}"
        if self.sound_s is None:
            yield "nothing was heard"
        else:
            yield f"first sound {self.sound_s:.2f} s after the answer, {self.heard_s:.1f} s of sound in all"
        if self.said:
            reply = f"{self.reply_s:.2f} s after the last word" if self.reply_s is not None else "none"
            yield f"reply to what was said: {reply}"
        if self.out:
            yield f"{self.out}: left what was said, right what was heard"


def place(settings: Settings, probe: Probe) -> Report:
    """Place the call and hang up. Raises CannotPlace."""
    source = _source(settings, probe)
    speech = _speech(probe)
    try:
        return asyncio.run(_place(settings, probe, source, speech))
    except OSError as error:
        raise CannotPlace(f"cannot call from {source}: {error}") from error


def _source(settings: Settings, probe: Probe) -> str:
    """An address of this machine that is a source of a trunk."""
    if probe.trunk is not None and probe.trunk not in settings.trunks:
        raise CannotPlace(f"no trunk {probe.trunk!r}; expected one of: {', '.join(settings.trunks)}")
    try:
        ipaddress.ip_address(probe.source or "127.0.0.1")
    except ValueError as error:
        raise CannotPlace(f"--source: {error}; expected an address of this machine") from error
    for name in [probe.trunk] if probe.trunk else settings.trunks:
        networks = [ipaddress.ip_network(text) for text in settings.trunks[name].sources]
        candidates = [probe.source] if probe.source else [str(next(iter(network), "")) for network in networks]
        for candidate in candidates:
            if any(ipaddress.ip_address(candidate) in network for network in networks) and is_here(candidate):
                return candidate
    wanted = probe.source or f"an address in the sources of {probe.trunk or 'a trunk'}"
    raise CannotPlace(f"the edge knows callers by address, and this machine cannot call from {wanted}; give --source")


def _speech(probe: Probe) -> Pcm | None:
    if probe.say is not None and probe.wav is not None:
        raise CannotPlace("--say and --wav are two ways to say something; give one")
    if probe.say is not None:
        return speak(probe.say, "caller")
    if probe.wav is None:
        return None
    try:
        with wave.open(str(probe.wav), "rb") as file:
            form = (file.getframerate(), file.getsampwidth(), file.getnchannels())
            frames = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise CannotPlace(f"{probe.wav} cannot be read: {error}") from error
    if form != (RATE, 2, 1):
        raise CannotPlace(f"{probe.wav} is not 8 kHz, 16 bit, mono; run: sox {probe.wav} -r 8000 -b 16 -c 1 OUT.wav")
    return np.frombuffer(frames, "<i2").astype(np.int16)


async def _place(settings: Settings, probe: Probe, source: str, speech: Pcm | None) -> Report:
    edge = settings.edge.listen[0]
    phone = Phone(source, 0, name="probe")
    await phone.start()
    try:
        what = f"{probe.from_number} at {source} calls {probe.to} by {edge.address}:{edge.port}"
        call = await phone.invite(probe.to, proxy=(edge.address, edge.port), from_number=probe.from_number)
        loop = asyncio.get_running_loop()
        invited = loop.time()
        try:
            await call.wait_answered(ANSWER_S)
        except (TimeoutError, DialogEnded):
            await call.cancel()
            return Report(what, call.final_status, (call.end and call.end.reason_header) or "")
        answered_s = loop.time() - invited
        spoken_until = await _talk(call, speech, probe.listen_s)
        await call.hangup()
        heard = call.audio.heard()
        sounds = hearing.spans(heard)
        reply = next((span.start for span in sounds if spoken_until is not None and span.end > spoken_until), None)
        if probe.out:
            write_stereo(probe.out, call.audio.spoken(), heard)
        return Report(
            what,
            call.final_status,
            answered_s=answered_s,
            codec=call.codec,
            sound_s=sounds[0].start if sounds else None,
            heard_s=hearing.loud_seconds(heard),
            reply_s=None if reply is None or spoken_until is None else max(0.0, reply - spoken_until),
            said=speech is not None,
            out=probe.out,
        )
    finally:
        await phone.stop()


async def _talk(call: Call, speech: Pcm | None, listen_s: float) -> float | None:
    """Let the other side greet, speak into the pause, listen; when the last word was said, seconds after the answer."""
    spoken_until = None
    if speech is not None:
        with suppress(TimeoutError):  # a line that stays silent or never pauses is spoken into all the same
            await call.audio.wait_loud(GREETING_S)
            await call.audio.wait_quiet(PAUSE_MS, GREETING_S)
        await call.audio.play(speech)
        spoken_until = call.audio.now()
    with suppress(TimeoutError):
        await call.wait_ended(listen_s)
    return spoken_until
