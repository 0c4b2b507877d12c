"""The lab's model as a process, spoken with by clients that share nothing with it: websocket-client and the openai package."""

import asyncio
import base64
import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websocket
from openai import AsyncOpenAI

from lab import scenario
from lab.ears import Recogniser
from lab.voice import speak
from media_fork import g711

RECEPTION = Path(scenario.__file__).parent / "scenarios/reception.yaml"
PATIENCE_S = 30.0
TOOLS = [{"type": "function", "name": name} for name in ("transfer", "hang_up", "lookup_order")]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run(port: int, *options: str, file: Path = RECEPTION) -> subprocess.Popen[str]:
    listen = ["--listen", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "lab.model", "--scenario", str(file), *listen, *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_listening(port: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail("not listening")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    process = run(port)
    try:
        wait_listening(port, process)
        yield f"ws://127.0.0.1:{port}/v1/realtime"
    finally:
        process.kill()
        process.communicate()


class Telephone:
    """A blocking client that sends 20 ms of µ-law every 20 ms, speech or silence, and keeps what comes back."""

    def __init__(self, url: str) -> None:
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.audio: dict[str, bytes] = {}
        self._speech: queue.Queue[bytes] = queue.Queue()
        self._socket = websocket.create_connection(
            f"{url}?model=gpt-realtime-2.1", header=["Authorization: Bearer key"], timeout=PATIENCE_S
        )
        self._open = True
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._talk)]
        self.until("session.created", start=True)

    def send(self, **event: Any) -> None:
        self._socket.send(json.dumps(event))

    def say(self, text: str) -> float:
        """Returns when the last of it has been sent."""
        encoded = g711.ulaw_encode(speak(text, "caller"))
        for start in range(0, len(encoded), 160):
            self._speech.put(encoded[start : start + 160].ljust(160, b"\xff"))
        deadline = time.monotonic() + PATIENCE_S
        while not self._speech.empty() and time.monotonic() < deadline:
            time.sleep(0.005)
        return time.monotonic()

    def until(self, kind: str, start: bool = False) -> dict[str, Any]:
        if start:
            self._threads[0].start()
        while True:
            event = self.events.get(timeout=PATIENCE_S)
            if event["type"] == kind:
                if kind == "session.created":
                    self._threads[1].start()
                return event

    def close(self) -> None:
        self._open = False
        self._threads[1].join(PATIENCE_S)
        self._socket.close()
        self._threads[0].join(PATIENCE_S)

    def _receive(self) -> None:
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while message := self._socket.recv():
                event = json.loads(message)
                if event["type"] == "response.output_audio.delta":
                    item = event["item_id"]
                    self.audio[item] = self.audio.get(item, b"") + base64.b64decode(event["delta"])
                self.events.put(event)

    def _talk(self) -> None:
        due = time.monotonic()
        while self._open:
            frame = b"\xff" * 160
            with contextlib.suppress(queue.Empty):
                frame = self._speech.get_nowait()
            self.send(type="input_audio_buffer.append", audio=base64.b64encode(frame).decode())
            due += 0.02
            time.sleep(max(0.0, due - time.monotonic()))


def test_a_telephone_conversation_in_real_time(url: str) -> None:
    telephone = Telephone(url)
    pcmu = {"type": "audio/pcmu"}
    audio = {
        "input": {
            "format": pcmu,
            "turn_detection": {"type": "server_vad"},
            "transcription": {"model": "gpt-transcribe"},
        },
        "output": {"format": pcmu, "voice": "marin"},
    }
    telephone.send(type="session.update", session={"type": "realtime", "audio": audio, "tools": TOOLS})
    telephone.until("session.updated")
    telephone.send(type="response.create", response={"instructions": 'Say exactly: "Good day, this is Widgets."'})
    greeting = telephone.until("response.done")["response"]["output"][0]
    ears = Recogniser(["good day this is widgets", "we are open monday to friday nine to five"])
    assert ears.hear(g711.ulaw_decode(telephone.audio[greeting["id"]]), 8000) == "good day this is widgets"

    telephone.say("What are your opening hours?")
    transcript = telephone.until("conversation.item.input_audio_transcription.completed")["transcript"]
    assert transcript == "What are your opening hours."
    answer = telephone.until("response.done")["response"]["output"][0]
    heard = ears.hear(g711.ulaw_decode(telephone.audio[answer["id"]]), 8000)
    assert heard == "we are open monday to friday nine to five"

    telephone.say("Please put me through to sales.")
    output = telephone.until("response.done")["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call"]
    assert json.loads(output[1]["arguments"])["destination"] == "sales"
    item = {"type": "function_call_output", "call_id": output[1]["call_id"], "output": '{"outcome": "busy"}'}
    telephone.send(type="conversation.item.create", item=item)
    telephone.send(type="response.create")
    told = telephone.until("response.done")["response"]["output"][0]["content"][0]["transcript"]
    assert told.startswith("I am sorry, the sales team is busy")
    telephone.close()


async def test_the_client_of_the_openai_package_converses(url: str) -> None:
    base = url.removesuffix("/realtime")
    async with (
        asyncio.timeout(PATIENCE_S),
        AsyncOpenAI(api_key="key", websocket_base_url=base, base_url=base.replace("ws:", "http:")) as openai,
        openai.realtime.connect(model="gpt-realtime-2.1") as connection,
    ):
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": None}}, "tools": TOOLS}  # type: ignore[typeddict-item]
        )
        line = np.concatenate([speak("Where is my order?", "caller", 24000), np.zeros(12000, np.int16)])
        await connection.input_audio_buffer.append(audio=base64.b64encode(line.tobytes()).decode())
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        audio, output = b"", None
        async for event in connection:
            if event.type == "response.output_audio.delta":
                audio += base64.b64decode(event.delta)
            if event.type == "response.done":
                output = event.response.output
                break
        assert output is not None
        assert [item.type for item in output] == ["message", "function_call"]
        assert len(audio) > 24000


def test_sigterm_ends_it_with_status_0_and_leaves_no_recogniser() -> None:
    port = free_port()
    process = run(port, "--drain-seconds", "0.2")
    wait_listening(port, process)
    client = websocket.create_connection(
        f"ws://127.0.0.1:{port}/v1/realtime?model=gpt-realtime-2.1", header=["Authorization: Bearer key"]
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, log
    client.close()
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_killed_it_leaves_no_recogniser() -> None:
    port = free_port()
    process = run(port)
    wait_listening(port, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while any(_runs(int(child)) for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_runs(int(child)) for child in children)


def _runs(pid: int) -> bool:
    """And is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_only_the_keys_named_are_good() -> None:
    port = free_port()
    process = run(port, "--key", "right")
    try:
        wait_listening(port, process)
        where = f"ws://127.0.0.1:{port}/v1/realtime?model=gpt-realtime-2.1"
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            websocket.create_connection(where, header=["Authorization: Bearer wrong"])
        assert refused.value.status_code == 401
        websocket.create_connection(where, header=["Authorization: Bearer right"]).close()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scenario", "/nonexistent.yaml", "--listen", "127.0.0.1:0"], "/nonexistent.yaml: cannot be read"),
        (["--scenario", str(RECEPTION), "--listen", "nowhere"], "expected ADDR:PORT"),
        (["--scenario", str(RECEPTION), "--listen", "192.0.2.1:80"], "address"),
    ],
)
def test_what_keeps_it_from_starting_is_one_clear_line(options: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab.model", *options], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert os.linesep not in done.stderr.splitlines()[-1]
