"""SIP on the wire while it happens: tshark writes a pcapng file and hands over each message."""

import asyncio
import contextlib
import ipaddress
import shutil
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.ladder import WireMessage

SIP_PORTS = (5060, 5080)
READY_S = 10.0
STOP_S = 5.0
FLUSH_S = 3.0
"""How long stop() waits for what is still on its way through tshark."""
MAX_MESSAGES = 20_000
"""Messages kept; the file has them all."""
_POLL_S = 0.02
_MAX_LINE = 1 << 20
_MAX_ERRORS = 64 * 1024
_FIELDS = ("frame.time_epoch", "ip.src", "udp.srcport", "ip.dst", "udp.dstport", "udp.payload")


class CaptureUnavailable(RuntimeError):
    """There can be no capture here; the message says, in one line, what to do about it."""


class Capture:
    """tshark on one interface, limited to the SIP of some addresses. Use start() and stop(), or ``async with``."""

    def __init__(
        self,
        file: Path,
        *,
        network: str,
        ports: Sequence[int] = SIP_PORTS,
        names: Mapping[str, str] | None = None,
        on_message: Callable[[WireMessage], None] | None = None,
        interface: str = "lo",
    ) -> None:
        """``network``: CIDR whose UDP on ``ports`` is captured into ``file``. ``names``: what to call an address.

        Raises ValueError where ``network`` is no CIDR.
        """
        self.file = file
        self.messages: list[WireMessage] = []
        self.unread = 0
        """Packets that could not be read, and messages beyond MAX_MESSAGES."""
        addresses = ipaddress.ip_network(network)
        sip = " or ".join(f"port {int(port)}" for port in ports)
        self._filter = f"udp and net {addresses} and ({sip})"
        self._last = (str(addresses[-2] if addresses.num_addresses > 2 else addresses[0]), int(ports[0]))
        """Where the keepalive goes whose passing shows that all before it has passed."""
        self._marker_port: int | None = None
        self._marked = asyncio.Event()
        self._names = dict(names or {})
        self._on_message = on_message
        self._interface = interface
        self._child: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._errors = b""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns once packets are being captured. Raises CaptureUnavailable."""
        for program, package in (("tshark", "tshark"), ("setpriv", "util-linux")):
            if shutil.which(program) is None:
                raise CaptureUnavailable(f"no SIP capture: {program} is not installed; run apt-get install {package}")
        self.file.unlink(missing_ok=True)
        fields = [argument for field in _FIELDS for argument in ("-e", field)]
        command = ["tshark", "-i", self._interface, "-f", self._filter, "-w", str(self.file), "-n", "-l", "-P"]
        # tshark would outlive a lab that was killed, for it waits on packets and not on its parent.
        self._child = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", *command, "-T", "fields", *fields),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_MAX_LINE,
        )
        assert self._child.stdout is not None and self._child.stderr is not None
        self._reading = asyncio.ensure_future(self._read(self._child.stdout))
        self._telling = asyncio.ensure_future(self._collect_errors(self._child.stderr))
        try:
            async with asyncio.timeout(READY_S):
                await self._until_capturing()
        except TimeoutError:
            await self.stop()
            raise CaptureUnavailable(f"no SIP capture: tshark did not begin within {READY_S:g} s") from None

    async def _until_capturing(self) -> None:
        """dumpcap opens the file once the interface is open and the filter set."""
        assert self._child is not None
        while not (self.file.exists() and self.file.stat().st_size):
            if self._child.returncode is not None:
                await self.stop()
                raise CaptureUnavailable(self._reason())
            await asyncio.sleep(_POLL_S)

    def _reason(self) -> str:
        told = self._errors.decode(errors="replace")
        if "permission" in told.lower():
            return (
                f"no SIP capture: no right to capture on {self._interface}; run as root, or run "
                "setcap cap_net_raw,cap_net_admin+eip /usr/bin/dumpcap"
            )
        lines = [line.strip() for line in told.splitlines() if line.strip() and "could be dangerous" not in line]
        return f"no SIP capture: tshark ended at once: {' '.join(lines) or 'without a word'}"

    async def stop(self) -> None:
        """End the capture; every message captured so far has been handed over when this returns."""
        child = self._child
        if child is None or self._reading is None or self._telling is None:
            return
        if child.returncode is None:
            await self._flush()
        if child.returncode is None:
            child.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(child.wait(), STOP_S)
        except TimeoutError:
            child.kill()
            await child.wait()
        self._child = None
        await asyncio.gather(self._reading, self._telling)

    async def _flush(self) -> None:
        """At the end tshark drops what the kernel still holds: send a keepalive (RFC 5626) and wait to see it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marker, contextlib.suppress(OSError, TimeoutError):
            marker.bind((self._last[0], 0))
            self._marker_port = marker.getsockname()[1]
            marker.sendto(b"\r\n\r\n", self._last)
            await asyncio.wait_for(self._marked.wait(), FLUSH_S)

    async def _collect_errors(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self._errors = (self._errors + line)[-_MAX_ERRORS:]

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self._take(line.decode("ascii", "replace").rstrip("\n"))

    def _take(self, line: str) -> None:
        try:
            time, source, port, target, _, payload = line.split("\t")
            message = WireMessage(float(time), self._name(source), self._name(target), bytes.fromhex(payload))
        except ValueError:
            self.unread += 1
            return
        if not message.data.strip(b"\r\n\0 "):
            if source == self._last[0] and port == str(self._marker_port):
                self._marked.set()
            return
        if len(self.messages) < MAX_MESSAGES:
            self.messages.append(message)
        else:
            self.unread += 1
        if self._on_message is not None:
            self._on_message(message)

    def _name(self, address: str) -> str:
        return self._names.get(address, address)
