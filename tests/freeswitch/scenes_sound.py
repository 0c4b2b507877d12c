"""Scenes: sound and digits."""

import asyncio
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lab import hearing, tones
from tests.freeswitch.story import TONE, Story, over, scene
from tests.lab.esl_client import PATIENCE_S
from tests.lab.switch_rig import Rig

Samples = npt.NDArray[np.int16]


@scene
async def playback(rig: Rig, story: Story) -> None:
    """Playback to its end, one broken by uuid_break, one that is not there, and what waits behind a break."""
    listener = await rig.listener()
    call, esl = await rig.answered()
    await esl.run("playback", "tone_stream://%(300,0,440)")
    story.tell("heard", f"{len(call.audio.heard()) > 0}")
    await esl.run("playback", "/nonexistent.wav")
    await esl.execute("playback", "tone_stream://%(20000,0,440)")
    await call.audio.wait_loud(PATIENCE_S)
    story.tell("replies", await esl.api(f"uuid_break {esl.uuid}"))
    await listener.event("PLAYBACK_STOP", Playback_Status="break")
    await esl.execute("playback", "silence_stream://20000", event_lock="true")
    await listener.event("PLAYBACK_START", Playback_File_Path="silence_stream://20000")
    await esl.execute("set", "behind=1")
    story.tell("replies", await esl.api(f"uuid_break {esl.uuid} all"))
    await listener.event("PLAYBACK_STOP", Playback_File_Path="silence_stream://20000")
    await esl.run("set", "done=1")
    story.tell("replies", await esl.api(f"uuid_getvar {esl.uuid} behind"))
    story.tell("replies", await esl.api(f"uuid_broadcast {esl.uuid} silence_stream://200"))
    await listener.event("PLAYBACK_STOP", Playback_File_Path="silence_stream://200")
    await esl.execute("playback", "silence_stream://40", loops="3")
    await listener.event("CHANNEL_EXECUTE_COMPLETE", Application_Data="silence_stream://40")
    await call.hangup()
    await over(rig, story, listener, {"a": (esl.uuid, call)})


@scene
async def displace(rig: Rig, story: Story) -> None:
    """A ringing tone mixed into silence."""
    listener = await rig.listener()
    call, esl = await rig.answered()
    tone = "tone_stream://%(400,200,400,450);%(400,2000,400,450);loops=-1"
    story.tell("replies", await esl.api(f"uuid_displace {esl.uuid} start {tone} 0 mux"))
    await call.audio.wait_loud(PATIENCE_S)
    story.tell("replies", await esl.api(f"uuid_displace {esl.uuid} start {tone} 0 mux"))
    story.tell("replies", await esl.api(f"uuid_displace {esl.uuid} stop {tone}"))
    story.tell("replies", await esl.api(f"uuid_displace {esl.uuid} stop {tone}"))
    story.tell("replies", await esl.api(f"uuid_displace {esl.uuid}"))
    await call.audio.wait_quiet(700, PATIENCE_S)
    await call.hangup()
    await over(rig, story, listener, {"a": (esl.uuid, call)})


@scene
async def dtmf(rig: Rig, story: Story) -> None:
    """Digits both ways; * ends a playback, # does not."""
    listener = await rig.listener()
    call, esl = await rig.answered()
    await call.dtmf("159#", duration_ms=160)
    await listener.event("DTMF", DTMF_Digit="#")
    await esl.execute("playback", "silence_stream://20000")
    await listener.event("PLAYBACK_START")
    await call.dtmf("#*", duration_ms=100)
    stopped = await listener.event("PLAYBACK_STOP")
    story.tell("playback", stopped.get("variable_playback_terminator_used"))
    story.tell("replies", await esl.api(f"uuid_send_dtmf {esl.uuid} 42#"))
    await call.audio.wait_digits("42#", PATIENCE_S)
    await call.hangup()
    await over(rig, story, listener, {"a": (esl.uuid, call)})


@scene
async def session_record(rig: Rig, story: Story) -> None:
    """A recording in stereo: what is masked is silent; what the fork's agent says is in it, for it began after the fork."""
    listener = await rig.listener()
    call, esl = await rig.answered()
    fork = await rig.fork(esl)
    folder = rig.site.folder / "a folder"
    path, nowhere = folder / "one.wav", "/proc/none/x.wav"
    story.name(str(rig.site.folder), "FOLDER")
    story.tell(
        "replies", await esl.api(f"uuid_setvar_multi {esl.uuid} RECORD_STEREO=true;enable_file_write_buffering=16384")
    )
    for words in (
        f"start '{path}'",
        f"start '{path}'",
        f"start {nowhere}",
        f"unmask {nowhere}",
        f"stop {nowhere}",
        "start",
    ):
        story.tell("replies", await esl.api(f"uuid_record {esl.uuid} {words}"))
    story.tell("replies", await esl.api(f"uuid_record nobody start {nowhere}"))
    for hz, verb in ((440, "mask"), (600, "unmask"), (440, "mask")):
        said = call.audio.play((8000 * np.sin(2 * np.pi * hz * np.arange(4000) / 8000)).astype(np.int16))
        await fork.send((8000 * np.sin(2 * np.pi * 2 * hz * np.arange(3840) / 8000)).astype("<i2").tobytes())
        await said
        await call.audio.wait_quiet(300, PATIENCE_S)
        story.tell("replies", await esl.api(f"uuid_record {esl.uuid} {verb} '{path}'"))
    story.tell("replies", await esl.api(f"uuid_record {esl.uuid} stop '{path}'"))
    stopped = await listener.event("RECORD_STOP")
    story.tell("events", stopped.get("Record-File-Path"))
    with wave.open(str(path)) as file:
        story.tell("file", f"{file.getnchannels()} channels, {file.getframerate()} Hz")
        both = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").reshape(-1, 2)
    for index, (side, pitches) in enumerate((("left", (440, 600)), ("right", (880, 1200)))):
        line = both[:, index]
        story.tell("file", f"{side}: " + ", ".join(f"{hz} Hz {hearing.tone_seconds(line, hz) > 0.3}" for hz in pitches))
    story.tell("replies", await esl.api(f"uuid_record {esl.uuid} start '{folder}/two.wav'"))
    await call.hangup()
    await over(rig, story, listener, {"a": (esl.uuid, call)})


@scene
async def keys(rig: Rig, story: Story) -> None:
    """Keys that the peer sends as tones; keys that are sent to it, with pauses; music that begins anew at its end."""
    call, esl = await rig.answered()
    for name in ("rtp_2833_recv_payload", "rtp_2833_send_payload", "dtmf_type"):
        story.tell("replies", f"{name} {await esl.api(f'uuid_getvar {esl.uuid} {name}')}")
    for _ in range(2):
        await esl.run("start_dtmf")
    await call.audio.play(tones.keys("159#0*"))
    await esl.event("DTMF", DTMF_Digit="*")
    await call.dtmf("42", duration_ms=160)
    await esl.event("DTMF", DTMF_Digit="2")
    for event in esl.events:
        if event.name == "DTMF":
            story.tell("keys", f"{event['DTMF-Digit']} {event['DTMF-Source']}")
    for keys in ("xyz", "wW", "1w2W3@120"):
        story.tell("replies", (await esl.api(f"uuid_send_dtmf {esl.uuid} {keys}")).replace(esl.uuid, "a"))
    await call.audio.wait_digits("123", PATIENCE_S)
    first, *_, last = [packet.time for packet in call.audio.rtp if packet.payload_type == 101]
    story.tell("sent", f"{call.audio.digits}, their pauses kept: {last - first > 1.4}")
    music = rig.site.folder / "music.wav"
    story.name(str(music), "MUSIC")
    write(music, TONE[:2400])
    for flags in ("m", "l"):
        since = call.audio.now()
        story.tell("replies", await esl.api(f"uuid_displace {esl.uuid} start {music} 0 {flags}"))
        await asyncio.sleep(1.5)
        story.tell("replies", await esl.api(f"uuid_displace {esl.uuid} stop {music}"))
        story.tell("heard", f"{flags} more than once: {hearing.loud_seconds(call.audio.heard(), since) > 0.6}")
        await call.audio.wait_quiet(300, PATIENCE_S)
    await call.hangup()


def write(path: Path, samples: Samples) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype("<i2").tobytes())
