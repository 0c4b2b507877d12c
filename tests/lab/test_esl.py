"""The switch's event socket, both ways: login, commands, events, filters, and how connections end."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.lab.esl_client import PATIENCE_S, EventSocket, until
from tests.lab.switch_rig import NUMBER, LabRig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[LabRig]:
    async with LabRig(tmp_path) as rig:
        yield rig
    for counter in ("task_errors", "session_errors", "api_errors"):
        assert not rig.switch.counters[counter], counter


# Login


async def test_a_wrong_password_is_refused_and_the_connection_closed(rig):
    esl = await rig.event_socket(None)
    assert await esl.send("auth nope") == "-ERR invalid"
    await asyncio.wait_for(esl.closed.wait(), PATIENCE_S)
    assert esl.notices[0].body.startswith("Disconnected, goodbye.")


async def test_nothing_goes_before_the_password(rig):
    esl = await rig.event_socket(None)
    assert await esl.send("api status") == "-ERR command not found"
    assert await esl.send(f"auth {rig.password}") == "+OK accepted"
    assert (await esl.api("status")).startswith("UP 0 years")


async def test_exit_says_goodbye(rig):
    esl = await rig.event_socket()
    assert await esl.send("exit") == "+OK bye"
    await asyncio.wait_for(esl.closed.wait(), PATIENCE_S)


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff\n\n", b"api\n\n", b"sendmsg\n\n", b"x" * 5000 + b"\n\n", b"\r\n\r\nfoo\r\n\r\n"]
)
async def test_garbage_is_an_unknown_command_and_hurts_nobody(rig, garbage):
    esl = await rig.event_socket()
    esl.write(garbage)
    assert (await esl.reply())["Reply-Text"].startswith("-ERR")
    assert await esl.api("module_exists mod_audio_fork") == "true"


async def test_a_body_beyond_all_bounds_ends_the_connection(rig):
    esl = await rig.event_socket()
    esl.write(b"sendmsg x\ncontent-length: 99999999999\n\n")
    await asyncio.wait_for(esl.closed.wait(), PATIENCE_S)
    assert (await (await rig.event_socket()).api("status")).startswith("UP")


# Commands


async def test_a_background_job_answers_at_once_and_reports_as_an_event(rig):
    esl = await rig.listener("BACKGROUND_JOB")
    reply = await esl.message("bgapi module_exists mod_sofia\nJob-UUID: job-1")
    assert reply["Reply-Text"] == "+OK Job-UUID: job-1" and reply["Job-UUID"] == "job-1"
    job = await esl.event("BACKGROUND_JOB")
    assert job.body == "true" and job["Job-Command"] == "module_exists" and job["Job-Command-Arg"] == "mod_sofia"
    assert (await esl.message("bgapi status"))["Job-UUID"]


async def test_a_job_that_dials_does_not_block_its_connection(rig):
    esl = await rig.listener("BACKGROUND_JOB")
    rig.edge.on_invite = lambda call: call.ringing()
    await esl.send(f"bgapi originate {rig.dial_string(origination_uuid='leg-1')} &park()\nJob-UUID: dial")
    await until(lambda: rig.edge.calls, lambda: "the call")
    assert await esl.api("uuid_exists leg-1") == "true"
    assert await esl.api("uuid_kill leg-1 NO_ANSWER") == "+OK\n"
    assert (await esl.event("BACKGROUND_JOB", Job_UUID="dial")).body == "-ERR NO_ANSWER\n"


async def test_a_call_is_told_to_its_controller_as_freeswitch_does(rig):
    _, esl = await rig.call(headers=[("X-Tandem-Call", "a b%41"), ("X-Tandem-Trunk", "carrier")])
    raw = esl.info.head.decode()
    assert raw.startswith("Event-Name: CHANNEL_DATA\n")
    assert "variable_sip_h_X-Tandem-Call: a%20b%41\n" in raw
    assert "\nReply-Text: %2BOK%0A\n" in raw and "\nContent-Type: command/reply\n" in raw
    assert esl.info["Caller-Destination-Number"] == NUMBER
    assert esl.info["Socket-Mode"] == "async" and esl.info["Control"] == "full"


async def test_arguments_may_come_as_a_body(rig):
    _, esl = await rig.answered()
    command = "sendmsg\ncall-command: execute\nexecute-app-name: set\ncontent-type: text/plain"
    assert await esl.send(command, "long=a b c") == "+OK"
    await esl.event("CHANNEL_EXECUTE_COMPLETE", Application_Data="long=a b c")
    assert await esl.api(f"uuid_getvar {esl.uuid} long") == "a b c"


async def test_an_execution_has_the_identity_it_was_given(rig):
    _, esl = await rig.answered()
    done = await esl.run("set", "x=1", Event_UUID="11111111-2222-3333-4444-555555555555")
    assert done["Application-UUID"] == "11111111-2222-3333-4444-555555555555"


async def test_sendmsg_reaches_another_channel_and_none(rig):
    _, first = await rig.answered()
    _, second = await rig.answered()
    assert await first.send(f"sendmsg {second.uuid}\ncall-command: hangup\nhangup-cause: USER_BUSY") == "+OK"
    assert (await second.event("CHANNEL_HANGUP"))["Hangup-Cause"] == "USER_BUSY"
    assert await first.send("sendmsg nobody\ncall-command: hangup") == "-ERR invalid session id [nobody]"


async def test_a_locked_command_holds_off_the_next_ones(rig):
    call, esl = await rig.answered()
    await esl.execute("playback", "silence_stream://300", event_lock="true")
    await esl.execute("set", "after=1")
    await esl.event("CHANNEL_EXECUTE_COMPLETE", Application_Data="after=1")
    names = [(event.name, event.get("Application")) for event in esl.events]
    assert names[names.index(("CHANNEL_EXECUTE_COMPLETE", "playback")) + 1 :].count(("CHANNEL_EXECUTE", "set")) == 1
    await call.hangup()


async def test_without_a_lock_it_interrupts_and_the_first_goes_on(rig):
    _, esl = await rig.answered()
    await esl.execute("playback", "silence_stream://400")
    await esl.event("PLAYBACK_START")
    before = len(esl.events)
    await esl.execute("set", "inner=1")
    await esl.event("PLAYBACK_STOP", Playback_Status="done")
    names = [event.get("Application") for event in esl.events[before:] if event.name == "CHANNEL_EXECUTE_COMPLETE"]
    assert names[0] == "set"


# Events


async def test_event_formats_and_lists(rig):
    esl = await rig.event_socket()
    assert await esl.send("event plain nothing") == "-ERR no keywords supplied"
    assert await esl.send("event xml ALL") == "-ERR format xml is not supported"
    assert await esl.send("event json API") == "+OK event listener enabled json"
    assert await esl.send("nixevent API") == "+OK events nixed"
    assert await esl.send("noevents") == "+OK no longer listening for events"
    assert await esl.send("noevents") == "-ERR not listening for events"


async def test_json_events_are_objects_with_the_body_in_them(rig):
    reader, writer = await asyncio.open_connection(rig.loopback, rig.settings.freeswitch.event_socket_port)
    writer.write(f"auth {rig.password}\n\nevent json BACKGROUND_JOB\n\nbgapi module_exists mod_x\n\n".encode())
    text = b""
    while b"text/event-json" not in text:
        text = await asyncio.wait_for(reader.readuntil(b"\n\n"), PATIENCE_S)
    length = int(text.split(b"Content-Length: ")[1].split(b"\n")[0])
    event = json.loads(await reader.readexactly(length))
    assert event["Event-Name"] == "BACKGROUND_JOB" and event["_body"] == "false"
    writer.close()


async def test_only_named_custom_events_come(rig):
    _, esl = await rig.answered(events="CHANNEL_EXECUTE_COMPLETE CUSTOM mod_audio_fork::json")
    await esl.api(f"uuid_audio_fork {esl.uuid} start {rig.forks.url} mono 8000 audio_fork {{}} true true 8000")
    fork = await rig.forks.next_fork()
    await fork.send('{"type":"json"}')
    await esl.event("mod_audio_fork::json")
    assert all(event.name != "mod_audio_fork::connect" for event in esl.events)


async def test_filters_add_up_and_can_be_taken_back(rig):
    _, first = await rig.answered()
    _, second = await rig.answered()
    esl = await rig.listener()
    assert await esl.send(f"filter Unique-ID {first.uuid}") == f"+OK filter added. [Unique-ID]=[{first.uuid}]"
    assert await esl.send(f"filter Unique-ID {second.uuid}") == f"+OK filter added. [Unique-ID]=[{second.uuid}]"
    assert await esl.send(f"filter delete Unique-ID {first.uuid}") == f"+OK filter deleted. [Unique-ID][{first.uuid}]"
    assert await esl.send("filter nothing") == "-ERR invalid syntax"
    esl.events.clear()
    await first.run("set", "a=1")
    await second.run("set", "b=1")
    await esl.event("CHANNEL_EXECUTE_COMPLETE", Application_Data="b=1")
    assert {event.get("Unique-ID") for event in esl.events} == {second.uuid}


async def test_myevents_is_this_channel_only(rig):
    _, esl = await rig.call()
    assert await esl.send("myevents") == "+OK Events Enabled"
    assert await esl.send("myevents") == "-ERR aready enabled."
    _, other = await rig.answered()
    await other.run("set", "x=1")
    await esl.run("ring_ready")
    assert {event["Unique-ID"] for event in esl.events} == {esl.uuid}


async def test_events_come_in_ticks_of_20_ms(rig):
    _, esl = await rig.answered()
    began = time.monotonic()
    for number in range(10):
        await esl.run("set", f"n={number}")
    # Each execution's events wait for the next tick.
    assert time.monotonic() - began > 0.1


async def test_a_client_that_does_not_read_holds_up_nobody(rig):
    reader, writer = await asyncio.open_connection(rig.loopback, rig.settings.freeswitch.event_socket_port)
    writer.write(f"auth {rig.password}\n\nevent plain ALL\n\n".encode())
    reader._transport.pause_reading()
    esl = await rig.event_socket()
    for _ in range(2000):
        assert await esl.api("module_exists mod_sofia") == "true"
    writer.close()


# The end of a controlled call


async def test_linger_keeps_the_socket_for_whole_seconds(rig):
    call, esl = await rig.call()
    assert await esl.send("linger 1") == "+OK will linger 1 seconds"
    await esl.send("myevents")
    await call.cancel()
    await until(lambda: esl.notices, lambda: "the linger notice")
    began = time.monotonic()
    assert esl.notices[0]["Content-Disposition"] == "linger" and esl.notices[0]["Linger-Time"] == "1"
    await esl.event("CHANNEL_HANGUP_COMPLETE")
    assert (await esl.api("status")).startswith("UP")
    await asyncio.wait_for(esl.closed.wait(), PATIENCE_S)
    assert time.monotonic() - began > 0.9
    assert esl.notices[1]["Content-Disposition"] == "disconnect"


async def test_without_linger_the_socket_closes_with_the_call(rig):
    call, esl = await rig.answered()
    await call.hangup()
    await asyncio.wait_for(esl.closed.wait(), PATIENCE_S)
    assert [notice["Content-Disposition"] for notice in esl.notices] == ["disconnect"]


async def test_a_controller_that_leaves_an_answered_call_leaves_it_adrift_for_a_time(rig):
    rig.switch._adrift_s = 1
    call, esl = await rig.answered()
    esl.close()
    end = await call.wait_ended(PATIENCE_S)
    assert end.reason_header == 'Q.850;cause=41;text="NORMAL_TEMPORARY_FAILURE"'


async def test_a_bridged_call_survives_its_controller(rig):
    rig.edge.on_invite = lambda call: call.answer()
    call, esl = await rig.answered()
    listener = await rig.listener()
    reply = await esl.api(f"originate {rig.dial_string(origination_uuid='leg-2')} &park()")
    assert reply == "+OK leg-2\n"
    await esl.api(f"uuid_setvar {esl.uuid} socket_resume false")
    await esl.api(f"uuid_bridge {esl.uuid} leg-2")
    await listener.event("CHANNEL_BRIDGE")
    esl.close()
    await call.dtmf("5")
    await rig.edge.calls[-1].audio.wait_digits("5", PATIENCE_S)
    assert call.end is None
    await call.hangup()


async def test_commands_split_over_packets_and_several_in_one(rig):
    esl: EventSocket = await rig.event_socket()
    for byte in b"api module_exists mod_sofia\n\n":
        esl.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await esl.reply()).body == "true"
    esl.write(b"api module_exists mod_x\n\napi create_uuid\n\n")
    assert (await esl.reply()).body == "false"
    assert len((await esl.reply()).body) == 36
