"""The phone against a real FreeSWITCH: what both call a call, heard bit for bit. Skipped where there is none."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from lab.dialog import End
from lab.phone import Call, Phone
from lab.process import Process
from lab.switches import NoFreeSwitch, find_freeswitch
from lab.transferee import Transferee, answers, reports
from media_fork import g711

PATIENCE_S = 20.0
SIP_PORT = 5060
NETWORK = f"127.46.{os.getpid() % 250 + 1}"
SWITCH = (f"{NETWORK}.10", SIP_PORT)

try:
    INSTALL = find_freeswitch()
except NoFreeSwitch as error:
    pytest.skip(str(error), allow_module_level=True)

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIGURATION = """<?xml version="1.0"?>
<document type="freeswitch/xml">
 <section name="configuration">
  <configuration name="switch.conf"><settings>
   <param name="rtp-start-port" value="20000"/><param name="rtp-end-port" value="20998"/>
   <param name="core-db-name" value="STATE/db/core.db"/>
  </settings></configuration>
  <configuration name="modules.conf"><modules>
   <load module="mod_commands"/><load module="mod_dptools"/><load module="mod_dialplan_xml"/><load module="mod_sofia"/>
   <load module="mod_tone_stream"/>
  </modules></configuration>
  <configuration name="acl.conf"><network-lists/></configuration>
  <configuration name="timezones.conf"><timezones/></configuration>
  <configuration name="post_load_modules.conf"><modules/></configuration>
  <configuration name="sofia.conf"><global_settings><param name="log-level" value="0"/></global_settings>
   <profiles><profile name="lab"><settings>
    <param name="sip-ip" value="ADDRESS"/><param name="rtp-ip" value="ADDRESS"/><param name="sip-port" value="5060"/>
    <param name="context" value="lab"/><param name="dialplan" value="XML"/><param name="auth-calls" value="false"/>
    <param name="inbound-codec-prefs" value="PCMU,PCMA"/><param name="outbound-codec-prefs" value="PCMU"/>
    <param name="rtp-timer-name" value="soft"/><param name="manage-presence" value="false"/>
    <param name="enable-3pcc" value="true"/><param name="disable-register" value="true"/>
    <param name="dbname" value="STATE/db/sofia.db"/>
   </settings></profile></profiles></configuration>
 </section>
 <section name="dialplan"><context name="lab">
  <extension name="echo"><condition field="destination_number" expression="^echo$">
   <action application="answer"/><action application="echo"/></condition></extension>
  <extension name="bridge"><condition field="destination_number" expression="^bridge(\\d+)$">
   <action application="bridge" data="sofia/lab/sip:desk@NETWORK.2:$1"/></condition></extension>
  <extension name="deflect"><condition field="destination_number" expression="^deflect(\\d+)$">
   <action application="answer"/><action application="sleep" data="200"/>
   <action application="set" data="sip_refer_continue_after_reply=true"/>
   <action application="deflect" data="sip:sales@NETWORK.3:$1"/><action application="park"/></condition></extension>
  <extension name="busy"><condition field="destination_number" expression="^busy$">
   <action application="answer"/><action application="sleep" data="100"/>
   <action application="hangup" data="USER_BUSY"/></condition></extension>
  <extension name="ring"><condition field="destination_number" expression="^ring$">
   <action application="ring_ready"/><action application="sleep" data="20000"/></condition></extension>
  <extension name="early"><condition field="destination_number" expression="^early$">
   <action application="pre_answer"/><action application="playback" data="tone_stream://%(400,0,440)"/>
   <action application="hangup" data="USER_BUSY"/></condition></extension>
 </context></section>
</document>
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def switch(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    state: Path = tmp_path_factory.mktemp("freeswitch")
    text = CONFIGURATION.replace("STATE", str(state)).replace("ADDRESS", SWITCH[0]).replace("NETWORK", NETWORK)
    (state / "freeswitch.xml").write_text(text)
    argv = [str(INSTALL.program), "-nonat", "-nf", "-nc", "-conf", str(state)]
    for option in ("log", "db", "run", "temp", "certs", "scripts", "recordings", "sounds", "storage", "cache"):
        (state / option).mkdir()
        argv += [f"-{option}", str(state / option)]
    process = Process("freeswitch", [*argv, "-mod", str(INSTALL.modules)], state / "freeswitch.log")
    await process.start()
    probe = Phone(f"{NETWORK}.9", 0, "probe")
    await probe.start()
    deadline = time.monotonic() + 60
    while await probe.options(SWITCH, timeout_s=1.0) != 200:
        process.check()
        assert time.monotonic() < deadline, f"FreeSWITCH did not come up:\n{process.tail()}"
    await probe.stop()
    yield process
    await process.stop(1.0)


@pytest_asyncio.fixture(loop_scope="module")
async def phones(switch: Process) -> AsyncIterator[list[Phone]]:
    """Caller, desk and sales; the last two answer."""
    made = [Phone(f"{NETWORK}.{place}", 0, name) for place, name in ((1, "caller"), (2, "desk"), (3, "sales"))]

    async def answer(call: Call) -> None:
        await call.ringing()
        await call.answer()

    for one in made:
        await one.start()
        if one.name != "caller":
            one.on_invite = answer
    yield made
    for one in made:
        await one.stop()
    assert [one.endpoint.counters["malformed"] + one.endpoint.counters["handler_error"] for one in made] == [0, 0, 0]


async def dial(caller: Phone, extension: str, **options) -> Call:
    return await caller.invite(extension, proxy=SWITCH, from_number="+12025550147", **options)


async def answered(caller: Phone, extension: str, **options) -> Call:
    call = await dial(caller, extension, **options)
    await call.wait_answered(PATIENCE_S)
    return call


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
async def test_echo_returns_every_code_bit_exact(phones, codec):
    decode = g711.ulaw_decode if codec == "PCMU" else g711.alaw_decode
    codes = np.random.default_rng(3).integers(0, 256, 8500, dtype=np.uint8)
    codes = np.delete(codes, codes == 0x7F)[:8000].reshape(-1, 160)
    sent = [frame.tobytes() for frame in codes]
    silence = {bytes([g711.ULAW_SILENCE]) * 160, bytes([g711.ALAW_SILENCE]) * 160}
    returned: list[int] = []
    # FreeSWITCH drops the first two packets of a call, and those that it reads late on a busy machine; it never alters one.
    for _ in range(3):
        call = await answered(phones[0], "echo", codecs=(codec,))
        await call.audio.play(decode(codes.tobytes()))
        await call.audio.wait_quiet(1500, PATIENCE_S)
        returned = [sent.index(packet.payload) for packet in call.audio.rtp if packet.payload not in silence]
        await call.hangup()
        assert returned == sorted(returned)
        if len(returned) >= 0.8 * len(sent):
            break
    assert len(returned) >= 0.8 * len(sent)


async def test_hold_and_resume(phones):
    call = await answered(phones[0], "echo")
    assert (await call.hold()).code == 200 and call.remote_sdp.direction == "recvonly"
    assert (await call.resume()).code == 200 and call.remote_sdp.direction == "sendrecv"
    sounds = call.audio.play(np.resize(np.int16([4000, -4000]), 8000))
    await call.audio.wait_loud(PATIENCE_S)
    await sounds
    await call.hangup()


async def test_a_late_offer_is_answered(phones):
    call = await answered(phones[0], "echo", body=b"")
    call.audio.play(np.resize(np.int16([4000, -4000]), 8000))
    await call.audio.wait_loud(PATIENCE_S)
    await call.hangup()


async def test_freeswitch_hangs_up_with_its_cause(phones):
    end = await (await dial(phones[0], "busy")).wait_ended(PATIENCE_S)
    assert end == End("peer", "bye", 200, 'Q.850;cause=17;text="USER_BUSY"')


async def test_cancel_while_it_rings(phones):
    call = await dial(phones[0], "ring")
    assert (await call.wait_ringing(PATIENCE_S)).code == 180
    await call.cancel()
    assert (await call.wait_ended(PATIENCE_S)).status == 487


async def test_early_media_then_refusal(phones):
    call = await dial(phones[0], "early")
    assert (await call.wait_ringing(PATIENCE_S)).code == 183
    await call.audio.wait_loud(PATIENCE_S)
    assert (await call.wait_ended(PATIENCE_S)).status == 486


async def test_an_unknown_extension_is_refused(phones):
    assert (await (await dial(phones[0], "nobody")).wait_ended(PATIENCE_S)).status == 404


async def test_audio_digits_hold_and_refer_through_a_bridge(phones):
    caller, desk, _ = phones
    call = await answered(caller, f"bridge{desk.port}")
    other = desk.calls[0]
    call.audio.play(np.resize(np.int16([4000, -4000]), 16000))
    await other.audio.wait_loud(PATIENCE_S)
    await call.dtmf("42#")
    await other.audio.wait_digits("42#", PATIENCE_S)
    assert (await other.hold("inactive")).code == 200
    assert (await other.resume()).code == 200
    referral = await other.refer(f"sip:echo@{SWITCH[0]}:{SWITCH[1]}")
    assert referral.response_status == 202 and await referral.wait_done(PATIENCE_S) == 200
    assert (await other.wait_ended(PATIENCE_S)).by == "peer"
    await call.audio.wait_quiet(200, PATIENCE_S)
    call.audio.play(np.resize(np.int16([4000, -4000]), 16000))
    await call.audio.wait_loud(PATIENCE_S)
    await call.hangup()


async def test_freeswitch_refers_and_is_notified(phones):
    caller, _, sales = phones
    caller.handlers["REFER"] = transferee = Transferee(caller)
    call = await answered(caller, f"deflect{sales.port}")
    assert (await call.wait_ended(PATIENCE_S)).by == "peer"
    assert [len(sales.calls), transferee.calls[0].final_status] == [1, 200]
    assert sales.calls[0].called == "sales"
    await transferee.calls[0].hangup()


async def test_a_failed_refer_is_told_and_freeswitch_lets_go(phones):
    caller, _, sales = phones
    caller.handlers["REFER"] = reports(100, 180, 486)
    call = await answered(caller, f"deflect{sales.port}")
    assert (await call.wait_ended(PATIENCE_S)).by == "peer"


async def test_a_refused_refer_leaves_the_call_up(phones):
    caller, _, sales = phones
    caller.handlers["REFER"] = answers(603)
    call = await answered(caller, f"deflect{sales.port}")
    await call.wait_request("REFER", PATIENCE_S)
    assert (await call.hold()).code == 200 and call.end is None
    await call.hangup()
