"""The phone against SIPp's own scenarios: an independent peer must be content with every message."""

import asyncio
import os
import shutil

import pytest

from lab.phone import Call
from lab.transferee import reports

PATIENCE_S = 20.0

pytestmark = pytest.mark.skipif(
    shutil.which("sipp") is None, reason="SIPp is not installed (apt-get install sip-tester)"
)


@pytest.fixture
def address() -> str:
    return f"127.45.{os.getpid() >> 8 & 0xFF}.{os.getpid() % 254 + 1}"


async def sipp(tmp_path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("sipp", *arguments, "-nostdin", "-trace_err", "-timeout", "15s", "-timeout_error"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def exit_status(process: asyncio.subprocess.Process) -> int:
    try:
        return await asyncio.wait_for(process.wait(), PATIENCE_S)
    except TimeoutError:
        process.kill()
        raise


async def test_sipp_calls_the_phone(phone, tmp_path, address):
    desk = await phone("desk")

    async def answer(call: Call) -> None:
        await call.ringing()
        await call.answer()

    desk.on_invite = answer
    target = f"127.0.0.1:{desk.port}"
    process = await sipp(
        tmp_path, "-sn", "uac", "-i", address, "-p", "5060", "-m", "5", "-r", "20", "-d", "200", target
    )
    assert await exit_status(process) == 0
    assert [call.end.by for call in desk.calls if call.end] == ["peer"] * 5
    assert desk.endpoint.counters["malformed"] == 0


async def test_the_phone_calls_sipp(phone, tmp_path, address):
    caller = await phone("caller")
    process = await sipp(tmp_path, "-sn", "uas", "-i", address, "-p", "5060", "-m", "3")
    for _ in range(3):
        call = await caller.invite("2001", proxy=(address, 5060), from_number="+12025550147", from_name='A "B"')
        await call.wait_answered(PATIENCE_S)
        assert [response.code for response in call.provisionals] == [180]
        await call.hangup()
    assert await exit_status(process) == 0


REFERS = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="calls, refers, and hears how it went">
  <send retrans="500"><![CDATA[
    INVITE sip:2001@[remote_ip]:[remote_port] SIP/2.0
    COMMON
    CSeq: 1 INVITE
    To: <sip:2001@[remote_ip]:[remote_port]>
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=- 1 1 IN IP4 [local_ip]
    s=-
    c=IN IP4 [media_ip]
    t=0 0
    m=audio [media_port] RTP/AVP 8 101
    a=rtpmap:101 telephone-event/8000
  ]]></send>
  <recv response="100" optional="true"/>
  <recv response="180"/>
  <recv response="200"/>
  <send><![CDATA[
    ACK sip:2001@[remote_ip]:[remote_port] SIP/2.0
    COMMON
    CSeq: 1 ACK
    To: <sip:2001@[remote_ip]:[remote_port]>[peer_tag_param]
    Content-Length: 0
  ]]></send>
  <send retrans="500"><![CDATA[
    REFER sip:2001@[remote_ip]:[remote_port] SIP/2.0
    COMMON
    CSeq: 2 REFER
    To: <sip:2001@[remote_ip]:[remote_port]>[peer_tag_param]
    Refer-To: <sip:sales@[remote_ip]:[remote_port]>
    Content-Length: 0
  ]]></send>
  <recv response="202"/>
  <recv request="NOTIFY"/>
  OK
  <recv request="NOTIFY">
    <action>
      <ereg regexp="SIP/2.0 486 Busy Here" search_in="body" check_it="true" assign_to="body"/>
      <ereg regexp="terminated" search_in="hdr" header="Subscription-State:" check_it="true" assign_to="state"/>
    </action>
  </recv>
  <Reference variables="body,state"/>
  OK
  <recv request="BYE"/>
  OK
</scenario>
"""
COMMON = """Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: <sip:sipp@[local_ip]:[local_port]>;tag=[call_number]
    Call-ID: [call_id]
    Contact: <sip:sipp@[local_ip]:[local_port]>
    Max-Forwards: 70"""
OK = """<send><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:]
    [last_Call-ID:]
    [last_CSeq:]
    Content-Length: 0
  ]]></send>"""


async def test_sipp_refers_the_phone_and_is_notified(phone, tmp_path, address):
    desk = await phone("desk")

    async def answer(call: Call) -> None:
        call.handlers["REFER"] = reports(100, 486)
        await call.ringing()
        await call.answer()
        refer = await call.wait_request("REFER", PATIENCE_S)
        assert "sales" in refer.headers["Refer-To"]
        async with asyncio.timeout(PATIENCE_S):
            while sum(m.direction == "in" and b"NOTIFY\r\n" in m.data for m in call.messages) < 2:
                await asyncio.sleep(0.01)
        await call.hangup()

    desk.on_invite = answer
    scenario = tmp_path / "refers.xml"
    scenario.write_text(REFERS.replace("COMMON", COMMON).replace("\n  OK\n", f"\n  {OK}\n"))
    process = await sipp(
        tmp_path, "-sf", str(scenario), "-i", address, "-p", "5060", "-m", "1", f"127.0.0.1:{desk.port}"
    )
    assert await exit_status(process) == 0
