"""SIP addresses that answer by a rule and say when what arrived: for times, not for load."""

import asyncio
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Arrived:
    """A message, and time.monotonic() of its arrival."""

    at: float
    text: str
    peer: tuple[str, int]

    def __getitem__(self, name: str) -> str:
        found = re.search(rf"^{name}:[ \t]*(.*?)\r$", self.text, re.MULTILINE | re.IGNORECASE)
        return found[1] if found else ""

    @property
    def method(self) -> str:
        """Of a request; empty for a reply."""
        return "" if self.text.startswith("SIP/2.0") else self.text.split(" ", 1)[0]

    @property
    def status(self) -> int:
        return int(self.text.split(" ", 2)[1]) if self.text.startswith("SIP/2.0") else 0

    def reply(self, status: int, contact: str = "") -> bytes:
        to = self["To"] if status == 100 or ";tag=" in self["To"] else f"{self['To']};tag=p"
        copied = [line for line in self.text.split("\r\n") if line.startswith(("Via:", "Record-Route:"))]
        lines = [
            f"SIP/2.0 {status} Because",
            *copied,
            f"From: {self['From']}",
            f"To: {to}",
            f"Call-ID: {self['Call-ID']}",
            f"CSeq: {self['CSeq']}",
            *([f"Contact: <sip:{contact}>"] if contact else []),
            "Content-Length: 0",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


Rule = Callable[[Arrived], list[int]]
"""Statuses to answer a request with, at once and in order."""


def answers(*statuses: int) -> Rule:
    """INVITE as given, everything else but ACK with 200."""
    return lambda arrived: list(statuses) if arrived.method == "INVITE" else [200] * (arrived.method != "ACK")


@dataclass
class Party(asyncio.DatagramProtocol):
    """One UDP address."""

    address: str
    port: int
    rule: Rule = field(default_factory=lambda: answers(200))
    seen: list[Arrived] = field(default_factory=list)
    """Everything but OPTIONS."""

    async def start(self) -> None:
        self._came = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.address, self.port))

    def stop(self) -> None:
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        arrived = Arrived(time.monotonic(), data.decode("utf-8", "replace"), addr)
        if arrived.method == "OPTIONS":
            self._transport.sendto(arrived.reply(200), addr)
            return
        self.seen.append(arrived)
        self._came.set()
        if arrived.method:
            for status in self.rule(arrived):
                self._transport.sendto(arrived.reply(status, f"{self.address}:{self.port}"), addr)

    async def wait(self, match: Callable[[Arrived], bool], timeout_s: float) -> Arrived | None:
        """The first that matches; None where none comes."""
        deadline = time.monotonic() + timeout_s
        while True:
            if found := next((arrived for arrived in self.seen if match(arrived)), None):
                return found
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return None

    def invite(self, edge: tuple[str, int], number: str, caller: str = "+12025550147") -> tuple[str, float]:
        """Send an INVITE; its Call-ID, and time.monotonic() of its leaving."""
        call_id = f"{next(_numbers)}-{time.monotonic_ns()}@{self.address}"
        lines = [
            f"INVITE sip:{number}@{edge[0]}:{edge[1]} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.address}:{self.port};branch=z9hG4bK{call_id}",
            "Max-Forwards: 70",
            f"From: <sip:{caller}@{self.address}>;tag=t",
            f"To: <sip:{number}@{edge[0]}>",
            f"Call-ID: {call_id}",
            "CSeq: 1 INVITE",
            f"Contact: <sip:c@{self.address}:{self.port}>",
            "Content-Type: application/sdp",
            f"Content-Length: {len(SDP)}",
        ]
        sent = time.monotonic()
        self._transport.sendto(("\r\n".join(lines) + "\r\n\r\n" + SDP).encode(), edge)
        return call_id, sent

    def acknowledge(self, edge: tuple[str, int], final: Arrived) -> None:
        """ACK a final reply: of a refusal hop by hop, of a 2xx along the route."""
        refused = final.status >= 300
        branch = re.search(r"branch=([^;\r]+)", final["Via"])
        routes = [] if refused else _routes(final)[::-1]
        target = re.search(r"<([^>]+)>", final["Contact"] if not refused else final["To"])
        lines = [
            f"ACK {target[1] if target else 'sip:x'} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.address}:{self.port};branch={branch[1] if refused and branch else f'z9hG4bKa{next(_numbers)}'}",
            *(f"Route: {route}" for route in routes),
            "Max-Forwards: 70",
            f"From: {final['From']}",
            f"To: {final['To']}",
            f"Call-ID: {final['Call-ID']}",
            "CSeq: 1 ACK",
            "Content-Length: 0",
        ]
        self._transport.sendto(("\r\n".join(lines) + "\r\n\r\n").encode(), edge)
        if not refused:
            lines[0] = lines[0].replace("ACK", "BYE", 1)
            lines[1] = f"Via: SIP/2.0/UDP {self.address}:{self.port};branch=z9hG4bKb{next(_numbers)}"
            lines[-2] = "CSeq: 2 BYE"
            self._transport.sendto(("\r\n".join(lines) + "\r\n\r\n").encode(), edge)


def _routes(final: Arrived) -> list[str]:
    values = re.findall(r"^Record-Route:[ \t]*(.*?)\r$", final.text, re.MULTILINE | re.IGNORECASE)
    return [entry.strip() for value in values for entry in value.split(",")]
