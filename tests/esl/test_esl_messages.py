"""A message that a caller left is told to those who are to have it, with the recording, until they have taken it."""

import base64
import json
import socket
import sqlite3
import threading
import time
import wave
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from esl_app import messages
from esl_app.arrival import read
from esl_app.message import Message, Recording, letter, message
from esl_app.messages import Messages
from tandem.notify.channels import DeliveryError, signature
from tandem.voicemail import Mail, Voicemail

SECRET = "a secret of some length"
PATIENCE_S = 20.0


class Receiver:
    """A webhook's server, and what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        self.statuses: list[int] = []
        """Of the next answers; then 200."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.bodies.append((self.headers["Tandem-Signature"], body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/messages"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "SETTLED_S", 0.05)


def recorded(folder: Path, seconds: float = 2.0) -> Path:
    file = folder / "call-1.wav"
    with wave.open(str(file), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(8000)
        wav.writeframes(bytes(round(16000 * seconds)))
    return file


def left(file: Path, **changes: Any) -> Message:
    said = {"Call": "call-1", "Trunk": "carrier", "Tenant": "acme", "Agent": "reception", "Number": "+12025550100"}
    headers = {f"variable_sip_h_X-Tandem-{name}": value for name, value in (said | {"Caller": "+12025550147"}).items()}
    arrival = read(headers | {"Unique-ID": "channel-1"})
    return message(arrival, "worker-1", "model_lost", file, time.time()).model_copy(update=changes)


def voicemail(folder: Path, **recipients: Any) -> Voicemail:
    return Voicemail.model_validate({"journal": folder / "journal", "recipients": recipients})


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.02)


class Running:
    def __init__(self, settings: Voicemail) -> None:
        self.messages = Messages(settings, settings.journal / "worker-1")

    def __enter__(self) -> Messages:
        self.messages.start()
        until(self.messages._ready.is_set, "thread")
        return self.messages

    def __exit__(self, *_: object) -> None:
        self.messages.close()


def test_a_webhook_gets_the_recording_signed_and_again_when_it_was_not_taken(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    file = recorded(tmp_path)
    crm = {"type": "webhook", "url": receiver.url, "secret": SECRET}
    with Running(voicemail(tmp_path, crm=crm)) as running:
        running.put(left(file))
        running.put(left(file))
        until(lambda: len(receiver.bodies) == 2, "second attempt")
    (_, first), (signed, body) = receiver.bodies
    assert first == body
    timestamp = int(signed.removeprefix("t=").partition(",")[0])
    assert signed == signature(SECRET, timestamp, body)
    told = json.loads(body)
    assert base64.b64decode(told.pop("audio")["base64"]) == file.read_bytes()
    assert told.pop("time")
    assert told == {
        "version": 1, "id": "call-1-message", "event": "voicemail", "call": "call-1", "worker": "worker-1",
        "number": "+12025550100", "caller": "+12025550147", "verified": "", "trunk": "carrier", "tenant": "acme",
        "cause": "model_lost", "file": "call-1.wav", "seconds": 2.0,
    }  # fmt: skip


def test_who_is_told_is_told_of_what_concerns_them_and_not_more_than_they_want(
    tmp_path: Path, receiver: Receiver
) -> None:
    place = {"type": "webhook", "url": receiver.url, "secret": SECRET}
    settings = voicemail(
        tmp_path,
        other=place | {"numbers": ["+12025550101"]},
        tenant=place | {"tenants": ["widgets"]},
        told=place | {"numbers": ["+12025550100"], "tenants": ["acme"], "file": False},
    )
    with Running(settings) as running:
        running.put(left(recorded(tmp_path)))
        until(lambda: receiver.bodies, "message")
        until(lambda: not waiting(tmp_path), "end of the delivery")
    assert len(receiver.bodies) == 1
    assert "audio" not in json.loads(receiver.bodies[0][1])


def waiting(folder: Path) -> int:
    """Deliveries that wait, as the journal on disk has them."""
    with sqlite3.connect(folder / "journal/worker-1/journal.sqlite") as journal:
        (count,) = journal.execute("select count(*) from deliveries where state = 'waiting'").fetchone()
    return int(count)


def test_what_was_not_told_is_told_by_the_next_process(tmp_path: Path, receiver: Receiver) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = {"type": "webhook", "url": f"http://127.0.0.1:{taken.getsockname()[1]}/x", "secret": SECRET}
        with Running(voicemail(tmp_path, crm=place)) as running:
            running.put(left(recorded(tmp_path)))
            until(lambda: waiting(tmp_path), "message in the journal")
    with Running(voicemail(tmp_path, crm=place | {"url": receiver.url})):
        until(lambda: receiver.bodies, "message")


def test_a_recording_with_nothing_in_it_is_told_to_nobody(tmp_path: Path, receiver: Receiver) -> None:
    place = {"type": "webhook", "url": receiver.url, "secret": SECRET}
    with Running(voicemail(tmp_path, crm=place)) as running:
        running.put(left(recorded(tmp_path, 0.5)))
        until(lambda: (tmp_path / "journal/worker-1/journal.sqlite").exists(), "journal")
        until(lambda: not waiting(tmp_path), "end of the delivery")
    assert receiver.bodies == []


def test_a_recording_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"gone\.wav cannot be read"):
        Recording(tmp_path / "gone.wav")
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(DeliveryError, match=r"text\.wav cannot be read"):
        Recording(tmp_path / "text.wav")


def test_a_mail_has_the_recording_attached_and_says_who_called(tmp_path: Path) -> None:
    file = recorded(tmp_path)
    place = {"type": "email", "server": "mail.example.com", "sender": "pbx@example.com", "to": ["desk@example.com"]}
    mail = letter(Mail.model_validate(place), left(file), Recording(file))
    assert mail["Subject"] == "Voice message for +12025550100 from +12025550147"
    assert mail["Message-ID"] == "<call-1-message@tandem.invalid>"
    text, attached = mail.iter_parts()
    assert "seconds: 2.0" in text.get_content()
    assert attached.get_filename() == "call-1.wav"
    assert attached.get_content() == file.read_bytes()
    without = letter(Mail.model_validate(place | {"file": False}), left(file), Recording(file))
    assert not without.is_multipart()


def test_where_nobody_is_to_be_told_there_is_no_thread(tmp_path: Path) -> None:
    idle = Messages(voicemail(tmp_path), tmp_path / "journal")
    idle.start()
    idle.put(left(tmp_path / "x.wav"))
    idle.close()
    assert not (tmp_path / "journal").exists()
