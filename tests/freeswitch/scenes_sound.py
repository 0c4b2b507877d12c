"""Scenes: sound and digits."""

from tests.freeswitch.story import Story, over, scene
from tests.lab.esl_client import PATIENCE_S
from tests.lab.switch_rig import Rig


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
