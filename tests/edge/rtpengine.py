"""Real rtpengines with the rendered configuration, and RTP and SRTP sockets for the two ends of a call."""

import base64
import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pylibsrtp

from tests.edge.needs import missing

SUITE = "AES_CM_128_HMAC_SHA1_80"
PATIENCE_S = 15.0
_cookies = itertools.count(1)


def bencode(value: Any) -> bytes:
    """As the ng protocol has it: dictionaries in the order of their keys."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        return b"%d:%s" % (len(value.encode()), value.encode())
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"


def bdecode(data: bytes) -> Any:
    return _item(data, 0)[0]


def _item(data: bytes, at: int) -> tuple[Any, int]:
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        at += 1
        items = []
        while data[at : at + 1] != b"e":
            item, at = _item(data, at)
            items.append(item)
        return (items if kind == b"l" else dict(zip(items[::2], items[1::2], strict=True))), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1 : end].decode("utf-8", "replace"), end


@dataclass
class RtpEngine:
    """One rtpengine, started as its rendered file says."""

    config: Path
    control: tuple[str, int]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["rtpengine", "--config-file", str(self.config), "--foreground", "--log-stderr"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert self.process.poll() is None, f"rtpengine ended:\n{self.log.read_text()}"
            with contextlib.suppress(OSError):
                if self.ask(command="ping")["result"] == "pong":
                    return
            assert time.monotonic() < deadline, f"rtpengine does not answer:\n{self.log.read_text()}"
            time.sleep(0.02)

    @property
    def running(self) -> bool:
        return self.process is not None

    def kill(self) -> None:
        """Its machine goes on, and says that the port is closed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def hang(self) -> None:
        """It hears nothing more, and nobody says so."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def ask(self, **command: Any) -> Any:
        """One command of the ng protocol. Raises OSError where no answer comes."""
        cookie = b"%d_%d" % (os.getpid(), next(_cookies))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(1)
            asking.connect(self.control)
            asking.send(cookie + b" " + bencode(command))
            return bdecode(asking.recv(65536).partition(b" ")[2])

    @property
    def calls(self) -> list[str]:
        """Call-IDs that it has ports open for."""
        return list(self.ask(command="list")["calls"])


def install(folder: Path, pool: dict[str, Any]) -> dict[str, RtpEngine]:
    """The rtpengines of ``pool`` (settings.rtpengine), whose files were rendered to ``folder``; skips where there is none."""
    if pool and not shutil.which("rtpengine"):
        missing("rtpengine is not installed (Debian: rtpengine-daemon)")
    engines = {}
    for name, engine in pool.items():
        host, _, port = engine.control.rpartition(":")
        engines[name] = RtpEngine(folder / f"{name}.conf", (host, int(port)), folder / f"{name}.log")
    return engines


@dataclass(frozen=True)
class Media:
    """The first stream of a session description."""

    address: str
    port: int
    profile: str
    key: str
    """Of its one crypto attribute with the suite, base64; empty where there is none."""
    suites: tuple[str, ...]

    @classmethod
    def of(cls, sdp: bytes | str) -> Self:
        text = sdp.decode("utf-8", "replace") if isinstance(sdp, bytes) else sdp
        address = re.findall(r"^c=IN IP4 (\S+)", text, re.MULTILINE)
        line = re.search(r"^m=audio (\d+) (\S+)", text, re.MULTILINE)
        assert line and address, f"no audio stream in {text!r}"
        crypto = re.findall(r"^a=crypto:\d+ (\S+) inline:(\S+)\s*$", text, re.MULTILINE)
        key = next((key for suite, key in crypto if suite == SUITE), "")
        return cls(address[-1], int(line[1]), line[2], key, tuple(suite for suite, _ in crypto))


@dataclass
class Voice:
    """One end's RTP, on a port of its own; with ``srtp`` encrypted by keys of SDES."""

    address: str
    srtp: bool = False
    key: bytes = field(default_factory=lambda: os.urandom(30))
    far: Media | None = None
    _sequence: int = 0

    def __post_init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.address, 0))
        self._socket.settimeout(PATIENCE_S)
        self._outbound: pylibsrtp.Session | None = None
        self._inbound: pylibsrtp.Session | None = None
        self._ssrc = os.urandom(4)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def sdp(self) -> str:
        """What it offers or answers."""
        crypto = f"a=crypto:1 {SUITE} inline:{base64.b64encode(self.key).decode()}\r\n" if self.srtp else ""
        return (
            f"v=0\r\no=- 1 1 IN IP4 {self.address}\r\ns=-\r\nc=IN IP4 {self.address}\r\nt=0 0\r\n"
            f"m=audio {self.port} RTP/{'SAVP' if self.srtp else 'AVP'} 0 101\r\n"
            f"a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n{crypto}a=ptime:20\r\n"
        )

    def connect(self, sdp: bytes | str) -> Media:
        """Talk to whoever made that session description."""
        self.far = Media.of(sdp)
        if self.srtp:
            assert self.far.key, f"no key for {SUITE}"
            self._outbound = self._session(self.key, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
            self._inbound = self._session(base64.b64decode(self.far.key), pylibsrtp.Policy.SSRC_ANY_INBOUND)
        return self.far

    @staticmethod
    def _session(key: bytes, kind: int) -> pylibsrtp.Session:
        return pylibsrtp.Session(
            pylibsrtp.Policy(key=key, ssrc_type=kind, srtp_profile=pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80)
        )

    def say(self, payload: bytes) -> None:
        """One packet of PCMU."""
        assert self.far is not None
        self._sequence += 1
        head = struct.pack(">BBHI4s", 0x80, 0, self._sequence, self._sequence * 160, self._ssrc)
        packet = head + payload
        if self._outbound is not None:
            packet = self._outbound.protect(packet)
        self._socket.sendto(packet, (self.far.address, self.far.port))

    def hear(self) -> bytes:
        """The payload of the next packet. Raises TimeoutError, or pylibsrtp.Error where it is not as agreed."""
        packet = self._socket.recv(2048)
        if self._inbound is not None:
            packet = self._inbound.unprotect(packet)
        return packet[12:]

    def close(self) -> None:
        self._socket.close()


def frames(count: int, seed: int) -> list[bytes]:
    """So many different frames of 20 ms."""
    return [bytes((seed + frame * 31 + sample * 7) % 256 for sample in range(160)) for frame in range(count)]
