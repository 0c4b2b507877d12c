"""What recipients get: the signature that docs/emergency.md tells how to verify, the mail, the line of syslog."""

import asyncio
import re
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from tandem.notify.channels import DeliveryError, letter, line, signature, tell
from tandem.notify.notice import Location, Notice
from tandem.recipients import Email, Event, Mailbox, Syslog, SyslogTransport, Webhook

GUIDE = (Path(__file__).parents[2] / "docs/emergency.md").read_text(encoding="utf-8")
PIDF = (
    '<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:ca="urn:ietf:params:xml:ns:pidf:geopriv10:civicAddr">'
    "<ca:civicAddress><ca:HNO>12</ca:HNO><ca:RD>Harbour</ca:RD><ca:FLR>3</ca:FLR></ca:civicAddress></presence>"
)


def notice(**changes: Any) -> Notice:
    values: dict[str, Any] = {
        "id": "c0ffee-1",
        "event": Event.PLACED,
        "test": False,
        "time": datetime(2026, 1, 31, 12, 0, 0, 250000, UTC),
        "site": 'the "head" office]',
        "call": "c0ffee",
        "sip_call_id": "1@pbx",
        "trunk": "pbx",
        "tenant": "default",
        "dialled": "911",
        "phone": "2001",
        "callback_number": "+12025550191",
        "location": Location(geolocation=["<cid:there@example.com>"], pidf_lo=[PIDF]),
    }
    return Notice.model_validate(values | changes)


def test_signature_is_verified_as_the_guide_says():
    (snippet,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)
    body = notice().model_dump_json().encode()
    now = int(time.time())
    verify = names["is_genuine"]
    assert verify("a-secret-of-sixteen", signature("a-secret-of-sixteen", now, body), body)
    assert not verify("another-of-sixteen!", signature("a-secret-of-sixteen", now, body), body)
    assert not verify("a-secret-of-sixteen", signature("a-secret-of-sixteen", now, body), body + b" ")
    assert not verify("a-secret-of-sixteen", signature("a-secret-of-sixteen", now - 3600, body), body)


def email(port: int = 25, **changes: Any) -> Email:
    values = {"type": "email", "server": "127.0.0.1", "port": port, "security": Mailbox.PLAIN}
    return Email.model_validate(values | {"sender": "911@example.com", "to": ["desk@example.com"]} | changes)


def test_mail_says_who_where_and_how_to_call_back():
    mail = letter(email(), notice())
    assert mail["Subject"].startswith("EMERGENCY CALL to 911 placed: phone 2001 at")
    (text, attached) = mail.iter_parts()
    for part in (
        "call back +12025550191",
        "location: HNO 12, RD Harbour, FLR 3",
        "geolocation: <cid:there@example.com>",
    ):
        assert part in text.get_content()
    assert (attached.get_content_type(), attached.get_content()) == ("application/pidf+xml", PIDF.encode())


def test_mail_of_a_test_says_so():
    assert letter(email(), notice(test=True, dialled="933"))["Subject"].startswith("TEST of 933 placed")


def test_mail_without_a_location_says_that_none_was_sent():
    assert "location: none was sent" in letter(email(), notice(location=None)).get_content()


async def smtp(answer_to_data: str, heard: list[str]) -> asyncio.Server:
    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test\r\n")
        in_data = False
        while raw := await reader.readline():
            said = raw.decode().rstrip("\r\n")
            heard.append(said)
            if in_data:
                in_data = said != "."
                if not in_data:
                    writer.write(b"250 taken\r\n")
            elif said == "data":
                in_data = answer_to_data.startswith("354")
                writer.write(f"{answer_to_data}\r\n".encode())
            else:
                writer.write(b"250 fine\r\n")
        writer.close()

    return await asyncio.start_server(session, "127.0.0.1", 0)


async def test_mail_is_sent():
    heard: list[str] = []
    server = await smtp("354 go on", heard)
    async with server, aiohttp.ClientSession() as http:
        await tell(email(server.sockets[0].getsockname()[1]), notice(), http, time.time)
    assert any(said.startswith("rcpt TO:<desk@example.com>") for said in heard)
    assert any(said.startswith("Subject: EMERGENCY CALL") for said in heard)


async def test_mail_that_is_not_taken_is_an_error_without_what_it_says():
    server = await smtp("452 full", [])
    async with server, aiohttp.ClientSession() as http:
        with pytest.raises(DeliveryError, match="452") as failure:
            await tell(email(server.sockets[0].getsockname()[1]), notice(), http, time.time)
    assert "Harbour" not in str(failure.value)


def test_line_of_syslog_is_that_of_rfc_5424():
    text = line(notice(), "edge-1", 4711).decode()
    assert re.match(r"<113>1 2026-01-31T12:00:00\.250000\+00:00 edge-1 tandem 4711 placed \[tandem@32473 ", text)
    assert 'site="the \\"head\\" office\\]"' in text
    assert 'location="HNO 12, RD Harbour, FLR 3"' in text
    assert line(notice(test=True), "edge-1", 4711).startswith(b"<117>1 ")


async def test_syslog_has_no_location_unless_asked_for():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        place = {"type": "syslog", "server": "127.0.0.1", "port": receiver.getsockname()[1]}
        async with aiohttp.ClientSession() as http:
            await tell(Syslog.model_validate(place), notice(), http, time.time)
            assert b"Harbour" not in receiver.recv(65535)
            await tell(Syslog.model_validate(place | {"location": True}), notice(), http, time.time)
            assert b"Harbour" in receiver.recv(65535)


async def test_syslog_over_tcp_counts_octets():
    got = asyncio.get_running_loop().create_future()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.set_result(await reader.read())
        writer.close()

    async with await asyncio.start_server(session, "127.0.0.1", 0) as server, aiohttp.ClientSession() as http:
        place = {"server": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "transport": SyslogTransport.TCP}
        await tell(Syslog.model_validate(place | {"type": "syslog"}), notice(), http, time.time)
        length, _, message = (await asyncio.wait_for(got, 5)).partition(b" ")
    assert int(length) == len(message)


async def test_nobody_there_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    recipient = Webhook(type="webhook", url=url, secret=SecretStr("a-secret-of-sixteen"))
    async with aiohttp.ClientSession() as http:
        with pytest.raises(DeliveryError, match="Connect"):
            await tell(recipient, notice(), http, time.time)
