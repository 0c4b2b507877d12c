"""The ladder and the capture show what was on the wire: who, what, and when."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from lab.capture import Capture, CaptureUnavailable
from lab.ladder import WireMessage, from_trace, ladder, ladder_text
from lab.phone import Phone
from lab.transferee import reports
from tests.lab.sip_peer import PATIENCE_S

NETWORK = f"127.47.{os.getpid() % 250 + 1}"


def wire(time: float, source: str, target: str, start: str, *headers: str, body: str = "") -> WireMessage:
    method = start.split(" ", 1)[0] if not start.startswith("SIP/2.0") else "INVITE"
    names = {line.split(":")[0] for line in headers}
    common = (
        "Via: SIP/2.0/UDP h;branch=z9hG4bK1",
        "From: <sip:a@b>;tag=1",
        "To: <sip:c>",
        "Call-ID: 1",
        f"CSeq: 1 {method}",
    )
    lines = [start, *headers, *(line for line in common if line.split(":")[0] not in names)]
    return WireMessage(time, source, target, ("\r\n".join(lines) + "\r\n\r\n" + body).encode())


@pytest.mark.parametrize(
    ("start", "headers", "body", "label"),
    [
        ("INVITE sip:+1555@h SIP/2.0", (), "m=audio 1 RTP/AVP 0\r\n", "INVITE +1555 SDP"),
        ("INVITE urn:service:sos SIP/2.0", (), "", "INVITE urn:service:sos"),
        ("SIP/2.0 486 Busy Here", (), "", "486 Busy Here INVITE"),
        ("REFER sip:h SIP/2.0", ("Refer-To: <sip:2001@h>",), "", "REFER to 2001"),
        ("NOTIFY sip:h SIP/2.0", (), "SIP/2.0 180 Ringing\r\n", "NOTIFY 180 Ringing"),
        ("BYE sip:h SIP/2.0", ('Reason: Q.850;cause=16;text="NORMAL_CLEARING"',), "", "BYE cause=16"),
    ],
)
def test_each_message_has_a_label(start, headers, body, label):
    assert wire(0, "a", "b", start, *headers, body=body).label == label


def test_what_is_not_sip_is_shown_as_such():
    assert WireMessage(0, "a", "b", b"garbage").label == "not SIP, 7 bytes"


def test_the_ladder_has_a_column_a_party_and_a_line_a_message():
    messages = [
        wire(100.25, "edge", "worker", "INVITE sip:2@h SIP/2.0", "Call-ID: 2"),
        wire(100.0, "carrier", "edge", "INVITE sip:1@h SIP/2.0"),
        wire(100.5, "worker", "carrier", "BYE sip:1@h SIP/2.0"),
        wire(100.6, "worker", "carrier", "BYE sip:1@h SIP/2.0"),
        wire(100.7, "edge", "edge", "OPTIONS sip:1@h SIP/2.0"),
    ]
    text = ladder_text(messages, ["carrier"])
    head, *lines = text.splitlines()
    assert head.split() == ["carrier", "edge", "worker"]
    columns = [head.index(name) + len(name) // 2 for name in head.split()]
    assert lines[0].startswith("    0.000 A") and lines[1].startswith("    0.250 B")
    assert "INVITE 1 ─" in lines[0] and lines[0].index("▶") <= columns[1] < lines[0].index("▶") + 3
    assert abs(lines[2].index("◀") - columns[0]) <= 2 and "│" not in lines[2][columns[0] + 2 : columns[2] - 2]
    assert "(again)" in lines[3] and "↺ OPTIONS" in lines[4]
    assert ladder(messages, ["carrier"]).plain.split() == text.split()


def test_a_long_label_is_cut_not_spilt():
    message = wire(0, "a", "b", f"INVITE sip:{'9' * 200}@h SIP/2.0")
    line = ladder_text([message]).splitlines()[1]
    assert "…" in line and len(line) < 120


def test_no_messages_are_no_error():
    assert ladder_text([]) == "no messages\n"


async def call_once(caller: Phone, desk: Phone) -> list[WireMessage]:
    async def answer(call) -> None:
        call.handlers["REFER"] = reports(100, 200)
        await call.ringing()
        await call.answer()

    desk.on_invite = answer
    call = await caller.invite(
        "2001", proxy=(desk.address, desk.port), from_number="1000", headers=[("X-Long", "x" * 4000)]
    )
    await call.wait_answered(PATIENCE_S)
    await (await call.refer("sip:2002@127.0.0.1")).wait_done(PATIENCE_S)
    await call.hangup()
    return from_trace(call.messages, "caller", {(desk.address, desk.port): "desk"})


async def test_a_phones_own_trace_makes_a_ladder(phone):
    messages = await call_once(await phone("caller"), await phone("desk"))
    assert [message.label for message in messages if message.source == "caller"] == [
        "INVITE 2001 SDP", "ACK", "REFER to 2002", "200 OK NOTIFY", "200 OK NOTIFY", "BYE",
    ]  # fmt: skip


def may_capture() -> bool:
    return shutil.which("tshark") is not None and os.geteuid() == 0


@pytest.mark.skipif(not may_capture(), reason="needs tshark and the right to capture (root)")
async def test_the_capture_has_every_message_live_and_in_the_file(tmp_path):
    caller, desk = Phone(f"{NETWORK}.1", 5060, "caller"), Phone(f"{NETWORK}.2", 5080, "desk")
    await caller.start()
    await desk.start()
    live: list[WireMessage] = []
    names = {caller.address: "caller", desk.address: "desk"}
    capture = Capture(tmp_path / "sip.pcapng", network=f"{NETWORK}.0/24", names=names, on_message=live.append)
    async with capture:
        own = await call_once(caller, desk)
        caller.endpoint.send_raw(b"\xff\xfegarbage", (desk.address, desk.port))
    await caller.stop()
    await desk.stop()
    assert [(m.source, m.target, m.data) for m in capture.messages[:-1]] == [(m.source, m.target, m.data) for m in own]
    assert capture.messages[-1].label == "not SIP, 9 bytes"
    assert live == capture.messages and capture.unread == 0
    assert await sip_packets(capture.file) == len(own)


async def sip_packets(file: Path) -> int:
    reading = await asyncio.create_subprocess_exec(
        *("tshark", "-r", str(file), "-Y", "sip"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await reading.communicate()
    return len(output.splitlines())


async def test_without_tshark_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CaptureUnavailable, match="apt-get install tshark"):
        await Capture(tmp_path / "x.pcapng", network="127.0.0.0/8").start()


@pytest.mark.skipif(not may_capture(), reason="needs tshark and the right to capture (root)")
async def test_a_capture_that_cannot_begin_says_why(tmp_path):
    with pytest.raises(CaptureUnavailable, match="nosuch"):
        await Capture(tmp_path / "x.pcapng", network="127.0.0.0/8", interface="nosuch0").start()


@pytest.mark.skipif(shutil.which("tshark") is None or os.geteuid() != 0, reason="needs tshark, and root to give it up")
async def test_without_the_right_to_capture_it_says_how_to_get_it(tmp_path, monkeypatch):
    fake = tmp_path / "tshark"
    fake.write_text('#!/bin/sh\necho "tshark: You don\'t have permission to capture on that device" >&2\nexit 2\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(CaptureUnavailable, match="setcap cap_net_raw"):
        await Capture(tmp_path / "x.pcapng", network="127.0.0.0/8").start()
