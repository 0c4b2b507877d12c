"""Keys and hold against a scripted switch: tones are listened for where there are no events, keys are sent, music plays."""

import pytest

from tests.esl.conftest import World
from tests.esl.fake_switch import FakeCall, until

EVENTS = "v=0\r\nm=audio 4000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
TONES = "v=0\r\nm=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"


def acted(call: FakeCall) -> list[tuple[str, str]]:
    return [(text["id"], text["outcome"]) for text in call.texts if text.get("notice") == "acted"]


@pytest.mark.parametrize(("sdp", "listens"), [(EVENTS, False), (TONES, True)], ids=["events", "tones"])
def test_tones_are_listened_for_where_there_are_no_events(world: World, sdp: str, listens: bool) -> None:
    call = world.talking(variable_switch_r_sdp=sdp)
    call.decides({"command": "hold", "id": "h1", "on": True})
    until(lambda: any(api.startswith("uuid_displace") for api in world.switch.apis), "the command after it")
    assert (("start_dtmf", "") in call.executed) is listens


def test_keys_are_sent_and_the_agent_is_told_when_they_were(world: World) -> None:
    call = world.talking(variable_switch_r_sdp=EVENTS)
    call.decides({"command": "send_dtmf", "id": "s1", "digits": "1w2"})
    until(lambda: f"uuid_send_dtmf {call.uuid} 1w2@160" in world.switch.apis, "the keys")
    assert acted(call) == []
    until(lambda: acted(call) == [("s1", "done")], "the agent to be told")


def test_keys_that_cannot_be_sent_are_refused_or_failed(world: World) -> None:
    call = world.talking(variable_switch_r_sdp=TONES)
    call.decides({"command": "send_dtmf", "id": "s1", "digits": "1"})
    until(lambda: acted(call) == [("s1", "refused")], "the agent to be told")
    other = world.talking(variable_switch_r_sdp=EVENTS)
    world.switch.refuse_api.add("uuid_send_dtmf")
    other.decides({"command": "send_dtmf", "id": "s2", "digits": "1"})
    until(lambda: acted(other) == [("s2", "failed")], "the agent to be told")


def test_music_plays_while_the_caller_waits_and_not_without(world: World) -> None:
    call = world.talking()
    for on, music in ((True, True), (True, True), (False, True), (True, False), (False, False)):
        call.decides({"command": "hold", "id": "h1", "on": on, "music": music})
    call.decides({"command": "send_dtmf", "id": "s1", "digits": "1"})
    until(lambda: acted(call), "all of it to be done")
    file = world.settings.freeswitch.prompts / "hold.wav"
    displaced = [api for api in world.switch.apis if api.startswith("uuid_displace")]
    assert displaced == [
        f"uuid_displace {call.uuid} start '{file}' 0 l",
        f"uuid_displace {call.uuid} stop '{file}'",
    ]
