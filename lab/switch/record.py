"""The ``record`` application: what the caller says, to a WAV file, with limits."""

import wave
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lab.codec import Frame
from lab.switch.cause import Cause
from lab.switch.media import IdleSilence
from lab.switch.session import Session
from lab.switch.text import separate, to_int

_WASTE = 1400
"""Comfort noise that is sent while recording, unless ``record_waste_resources`` says otherwise."""
DEFAULT_SILENCE_S = 3


class _Recorder:
    """Writes each frame that the peer really sent, and watches for silence."""

    def __init__(self, session: Session, file: wave.Wave_write, threshold: int, silence_frames: int) -> None:
        self._session = session
        self._file = file
        self._threshold = threshold
        self._allowed = silence_frames
        self._left = silence_frames
        self.samples = 0
        self.silent = False

    def frame(self, frame: Frame, sent: bool) -> None:
        if sent:
            self._file.writeframesraw(frame.astype("<i2").tobytes())
            self.samples += len(frame)
        if not self._threshold or self.silent:
            return
        score = int(np.abs(frame.astype(np.int32)).sum()) // len(frame)
        self._left = self._left - 1 if score < self._threshold else self._allowed
        if self._left <= 0:
            self.silent = True
            self._session.channel.wake.set()


async def record(session: Session, argument: str) -> None:
    """``record PATH [LIMIT_S] [SILENCE_THRESHOLD] [SILENCE_HITS_S]``."""
    channel, media = session.channel, session.media
    path, limit, threshold, hits = (*separate(argument, 4), "", "", "", "")[:4]
    channel.set("playback_terminator_used", None)
    if not path or media is None:
        return
    try:
        raw = _create(path)
    except OSError:
        channel.hangup(Cause.DESTINATION_OUT_OF_ORDER)
        return
    with raw, wave.open(raw, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(media.rate)
        frames = (to_int(hits) or DEFAULT_SILENCE_S) * 50
        recorder = _Recorder(session, file, to_int(threshold), frames)
        channel.set("silence_hits_exhausted", "false")
        session.leg.fire_codec("read", "L16")
        channel.fire("RECORD_START", ("Record-File-Path", path))
        await _run(session, recorder, to_int(limit.lstrip("+")))
    channel.break_flag = False
    if recorder.silent:
        channel.set("silence_hits_exhausted", "true")
    channel.set("record_seconds", recorder.samples // media.rate)
    channel.set("record_ms", recorder.samples * 1000 // media.rate)
    channel.set("record_samples", recorder.samples)
    channel.fire("RECORD_STOP", ("Record-File-Path", path))
    session.leg.fire_codec("read", channel.codec)
    if not channel.ready:
        channel.hangup(Cause.DESTINATION_OUT_OF_ORDER)


def _create(path: str) -> BinaryIO:
    return Path(path).open("wb")


async def _run(session: Session, recorder: _Recorder, limit: int) -> None:
    channel, media = session.channel, session.media
    assert media is not None
    terminators = channel.get("playback_terminators") or "*"

    def on_dtmf(digit: str) -> bool:
        ends = terminators == "any" or (terminators != "none" and digit in terminators)
        if ends:
            channel.set("playback_terminator_used", digit)
        return ends

    waste = channel.get("record_waste_resources")
    idle = IdleSilence(_WASTE if waste is None else to_int(waste), media)
    media.writers.append(idle)
    media.readers.append(recorder.frame)
    # As in FreeSWITCH the limit is in whole seconds of the wall clock, and is over once it is exceeded.
    timeout_s = int(channel.clock()) + limit + 1 - channel.clock() if limit else None
    await session.interact(lambda: recorder.silent, timeout_s=timeout_s, on_dtmf=on_dtmf)
    media.readers.remove(recorder.frame)
    media.writers.remove(idle)
