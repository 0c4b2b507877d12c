"""Which routes a message entered, from the log of Kamailio's debugger module (cfgtrace).

A main file of its own includes kamailio.cfg and then loads the debugger, so that what is tested stays as it is but for one
mark in strangers.cfg. Every message received and sent is marked in the log with the MD5 of its bytes, by the process that
deals with it: so the flow of a message needs no name for it that a malformed one might lack.
"""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

MAIN = "traced.cfg"
_TEXT = """include_file "kamailio.cfg"

loadmodule "debugger.so"
modparam("debugger", "cfgtrace", 1)
modparam("debugger", "log_level", 2)

onsend_route_reply=yes

onsend_route {
	xlog("L_NOTICE", "TRACE sent $(snd(buf){s.md5})\\n");
}
"""
_HEARD = "event_route[core:msg-received] {"
_MARK = ' xlog("L_NOTICE", "TRACE received $(rcv(buf){s.md5})\\n");'
_LINE = re.compile(r"^ *\d+\((?P<process>\d+)\) (?:.*cfgtrace:dbg_cfg_trace\(\): (?P<kind>\w+)=\[(?P<route>[^\]]*)\] c=\[(?P<file>[^\]]*)\] l=(?P<line>\d+) .* n=(?P<action>\S+)|.*<script>: TRACE (?P<mark>received|sent) (?P<digest>[0-9a-f]{32}))")  # fmt: skip
_UNNAMED = {"core:msg-received", "DEFAULT_ROUTE", "DEFAULT_ONREPLY", "DEFAULT_SEND"}
_ENTRANCE = re.compile(r"^(?:failure|branch|onreply|event)_route\[([^\]]+)\]", re.MULTILINE)


def write_main(folder: Path) -> None:
    """Write the main file beside kamailio.cfg, and begin the one route for all that is received, there is but one, with the mark."""
    (folder / MAIN).write_text(_TEXT, encoding="utf-8")
    part = folder / "strangers.cfg"
    text = part.read_text(encoding="utf-8").replace(_MARK, "").replace(_HEARD, _HEARD + _MARK)
    part.write_text(text, encoding="utf-8")


def is_trace(line: str) -> bool:
    return "cfgtrace:dbg_cfg_trace()" in line or "<script>: TRACE " in line


@dataclass
class _Process:
    """What one process of Kamailio is at."""

    entered: list[str] = field(default_factory=list)
    """The routes entered since it last received a message."""
    called: bool = False
    """The last action was a call of a route."""
    serves: bool = False
    """It receives messages; one that does not runs timers, and each failure route begins a flow."""


@dataclass(frozen=True)
class Flows:
    """The routes entered for each message, by the MD5 of its bytes."""

    sent: dict[str, list[str]]
    """For what the edge relayed: the routes entered from the message that led to it until it was sent."""
    received: dict[str, list[str]]
    """For what the edge received: all the routes entered for it."""

    def that_sent(self, raw: bytes) -> list[str] | None:
        return self.sent.get(hashlib.md5(raw).hexdigest())

    def that_received(self, raw: bytes) -> list[str] | None:
        return self.received.get(hashlib.md5(raw).hexdigest())


def flows(log: str, folder: Path) -> Flows:
    """Read the log of an edge whose configuration lies in ``folder``."""
    entrances = {name for part in folder.glob("*.cfg") for name in _ENTRANCE.findall(part.read_text(encoding="utf-8"))}
    result = Flows({}, {})
    processes: dict[str, _Process] = {}
    first_action: dict[str, str] = {}
    for line in log.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        process = processes.setdefault(match["process"], _Process())
        if match["mark"] == "received":
            process.entered, process.called, process.serves = [], False, True
            result.received[match["digest"]] = process.entered
        elif match["mark"] == "sent":
            result.sent.setdefault(match["digest"], list(process.entered))
        elif match["file"] and not match["file"].endswith(MAIN):
            route = match["route"]
            action = match["line"] + match["action"]
            begins = first_action.setdefault(route, action) == action and route in entrances
            if begins and match["kind"] == "failure_route" and not process.serves:
                process.entered = []
            if (begins or process.called) and route not in _UNNAMED:
                process.entered.append(route)
            process.called = match["action"] == "route"
    return result
