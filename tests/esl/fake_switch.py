"""A scripted peer for esl_app: as much of FreeSWITCH's event sockets as a call uses, on gevent, in the test's own process."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import gevent
import orjson
from gevent import socket
from gevent.event import Event as Flag
from gevent.server import StreamServer

PATIENCE_S = 10.0
PASSWORD = "fake"


def until(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Wait for ``condition``, and return what it gave."""
    with gevent.Timeout(timeout_s, AssertionError(f"waited {timeout_s:g} s for {what}")):
        while not (found := condition()):
            gevent.sleep(0.002)
    return found


def serialise(headers: dict[str, str], body: str = "") -> bytes:
    """An event as switch_event_serialize writes it: values percent-encoded, names as they are."""
    lines = [f"{name}: {quote(value, safe='') or '_undef_'}" for name, value in headers.items()]
    text = "\n".join(lines) + "\n"
    text += f"Content-Length: {len(body.encode())}\n\n{body}" if body else "\n"
    return text.encode()


class Connection:
    """One event socket, seen from FreeSWITCH's side."""

    def __init__(self, sock: socket.socket, switch: "FakeSwitch") -> None:
        self.sock = sock
        self.switch = switch
        self.commands: list[str] = []
        self.closed = Flag()
        self.silent = False
        """Read commands, answer none."""
        self.filters: set[tuple[str, str]] = set()

    def serve(self) -> None:
        buffer = b""
        try:
            while data := self.sock.recv(65536):
                buffer += data
                while b"\n\n" in buffer:
                    block, _, buffer = buffer.partition(b"\n\n")
                    self._command(block.decode().lstrip("\n"))
        except OSError:
            pass
        self.closed.set()

    def _command(self, block: str) -> None:
        self.commands.append(block)
        if self.silent:
            return
        line, *rest = block.split("\n")
        headers = dict(header.split(": ", 1) for header in rest)
        word, _, arguments = line.partition(" ")
        match word:
            case "api":
                text = self.switch.api(arguments) + "\n"
                self.raw(f"Content-Type: api/response\nContent-Length: {len(text.encode())}\n\n{text}".encode())
            case "filter":
                delete, _, rest_of = arguments.partition(" ")
                name, _, value = (rest_of if delete == "delete" else arguments).partition(" ")
                (self.filters.discard if delete == "delete" else self.filters.add)((name, value))
                self.reply("+OK filter")
            case "bgapi":
                self.reply(f"+OK Job-UUID: {headers.get('Job-UUID', '')}")
                self.switch.background(arguments, headers.get("Job-UUID", ""))
            case _:
                self.other(word, arguments, headers)

    def other(self, word: str, arguments: str, headers: dict[str, str]) -> None:
        raise NotImplementedError

    def reply(self, text: str) -> None:
        self.raw(f"Content-Type: command/reply\nReply-Text: {text}\n\n".encode())

    def event(self, headers: dict[str, str], body: str = "") -> None:
        content = serialise(headers, body)
        self.raw(f"Content-Length: {len(content)}\nContent-Type: text/event-plain\n\n".encode() + content)

    def raw(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            self.closed.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class FakeCall(Connection):
    """An unanswered call that FreeSWITCH hands to esl_app over an outbound socket of its own."""

    def __init__(self, sock: socket.socket, switch: "FakeSwitch", headers: dict[str, str]) -> None:
        super().__init__(sock, switch)
        self.uuid = headers["Unique-ID"]
        self.headers = headers
        self.variables: dict[str, str] = {}
        self.answers = True
        self.answered = Flag()
        self.hangup_cause: str | None = None
        self.texts: list[dict[str, Any]] = []
        """What send_text and stop carried to media_fork."""
        self.fork: list[str] | None = None
        self.executed: list[tuple[str, str]] = []

    def other(self, word: str, arguments: str, headers: dict[str, str]) -> None:
        match word:
            case "connect":
                self.raw(serialise({**self.headers, "Content-Type": "command/reply", "Reply-Text": "+OK\n"}))
            case "sendmsg":
                self.reply("+OK")
                self._execute(headers)
            case "exit":
                self.reply("+OK bye")
                self.close()
            case _:
                self.reply("+OK")

    def _execute(self, headers: dict[str, str]) -> None:
        application = headers["execute-app-name"]
        self.executed.append((application, headers.get("execute-app-arg", "")))
        if application == "answer":
            if not self.answers:
                return
            self.answered.set()
            self.happens("CHANNEL_ANSWER")
        if application == "record" and self.switch.records:
            self.happens("RECORD_START")
        gevent.spawn(self._complete, application, headers.get("Event-UUID", ""))

    def _complete(self, application: str, identity: str) -> None:
        self.switch.plays.wait()
        response = self.switch.responses.get(application, "")
        headers = {"Application": application, "Application-UUID": identity, "Application-Response": response}
        self.happens("CHANNEL_EXECUTE_COMPLETE", headers)

    def happens(self, name: str, headers: dict[str, str] | None = None, body: str = "") -> None:
        self.switch.fire(self.uuid, name, headers or {}, body)

    def decides(self, data: dict[str, Any]) -> None:
        """media_fork sends a command frame."""
        self.custom("mod_audio_fork::json", orjson.dumps({"type": "json", "data": data}).decode())

    def custom(self, subclass: str, body: str = "") -> None:
        self.happens("CUSTOM", {"Event-Subclass": subclass}, body)

    def hang_up(self, cause: str = "NORMAL_CLEARING") -> None:
        if self.hangup_cause is None:
            self.hangup_cause = cause
            self.switch.channels.pop(self.uuid, None)
            self.raw(b"Content-Type: text/disconnect-notice\nContent-Disposition: linger\nContent-Length: 0\n\n")
            self.happens("CHANNEL_HANGUP", {"Hangup-Cause": cause})

    kill = hang_up


class FakeLeg:
    """A leg that esl_app had dialled."""

    def __init__(self, switch: "FakeSwitch", channel: str, dial_string: str) -> None:
        self.switch = switch
        self.uuid = channel
        self.dial_string = dial_string
        self.hangup_cause: str | None = None
        self.answered = False
        variables = dial_string.partition("{")[2].partition("}")[0].split(",")
        self.variables = dict(variable.split("=", 1) for variable in variables)
        self.state = "CS_CONSUME_MEDIA"

    def ring(self) -> None:
        self.switch.fire(self.uuid, "CHANNEL_PROGRESS")

    def answer(self) -> None:
        self.answered = True
        self.switch.fire(self.uuid, "CHANNEL_ANSWER")
        self.switch.fire(self.uuid, "CHANNEL_PARK")
        self.switch.job_done(self.uuid, f"+OK {self.uuid}")

    def fail(self, cause: str, sip_status: int | None = None, refused: str = "") -> None:
        """``refused``: the edge's X-Tandem-Refused."""
        headers = {"variable_sip_term_status": str(sip_status)} if sip_status else {}
        self._end(cause, headers | ({"variable_sip_rh_X-Tandem-Refused": refused} if refused else {}))

    def kill(self, cause: str) -> None:
        self._end(cause, {})

    def _end(self, cause: str, headers: dict[str, str]) -> None:
        if self.hangup_cause is None:
            self.hangup_cause = cause
            self.switch.channels.pop(self.uuid, None)
            self.switch.fire(self.uuid, "CHANNEL_HANGUP", {"Hangup-Cause": cause, **headers})
            if not self.answered:
                self.switch.job_done(self.uuid, f"-ERR {cause}")


class _InboundConnection(Connection):
    def other(self, word: str, arguments: str, headers: dict[str, str]) -> None:
        if word == "auth" and arguments != PASSWORD:
            self.reply("-ERR invalid")
        elif word == "exit":
            self.reply("+OK bye")
            self.close()
        else:
            self.reply("+OK")


class FakeSwitch:
    """``on_dial`` is given each dialled leg, in a greenlet. ``fork`` says what becomes of a fork: connect, fail, silence."""

    def __init__(self, host: str, event_socket_port: int, app_port: int) -> None:
        self.host = host
        self.app_port = app_port
        self.channels: dict[str, FakeCall | FakeLeg] = {}
        self.calls: list[FakeCall] = []
        self.legs: list[FakeLeg] = []
        self.on_dial: Callable[[FakeLeg], None] = lambda leg: None
        self.make_legs = True
        """False: originate is accepted, and no channel comes of it until :meth:`make_leg`."""
        self.fork = "connect"
        self.bridges = True
        self.refuse_api: set[str] = set()
        """First words that are answered with -ERR."""
        self.apis: list[str] = []
        self.present = True
        """media_fork answers an esl_app that has taken a call over."""
        self.repeated: list[dict[str, Any]] = []
        """The commands that it repeats then."""
        self.paused = False
        self.plays = Flag()
        """Applications complete while it is set."""
        self.plays.set()
        self.records = True
        self.responses: dict[str, str] = {}
        """Application-Response of applications, where it is not empty."""
        """Whether recordings can be written."""
        self.variables: dict[str, str] = {}
        """Of the legs dialled."""
        self.survivors: list[tuple[str, str]] = []
        """(channel, call) of calls from before."""
        self.jobs: dict[str, str] = {}
        self.inbound: list[_InboundConnection] = []
        self._event_socket_port = event_socket_port
        self._server: StreamServer

    def start(self) -> None:
        self._server = StreamServer((self.host, self._event_socket_port), self._accept)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(timeout=0)
        for connection in [*self.inbound, *self.calls]:
            connection.close()

    def drop_inbound(self) -> None:
        for connection in self.inbound:
            connection.close()

    def _accept(self, sock: socket.socket, address: Any) -> None:
        connection = _InboundConnection(sock, self)
        self.inbound.append(connection)
        connection.raw(b"Content-Type: auth/request\n\n")
        connection.serve()
        self.inbound.remove(connection)

    def call(self, start: bool = True, **headers: str) -> FakeCall:
        """A new call; ``headers`` are those of the connect reply, ``X_Tandem_Call="..."`` for variables of the edge's."""
        channel = str(uuid.uuid4())
        given = {
            "Event-Name": "CHANNEL_DATA",
            "Unique-ID": channel,
            "variable_rtp_use_codec_name": "PCMU",
            "variable_sip_call_id": f"sip-{channel}",
        }
        tandem = {
            "Call": f"call-{channel[:8]}",
            "Trunk": "carrier",
            "Agent": "reception",
            "Number": "+12025550100",
            "Caller": "+12025550147",
        }
        for name, value in headers.items():
            if name.startswith("X_Tandem_"):
                tandem[name.removeprefix("X_Tandem_")] = value
            else:
                given[name] = value
        given |= {f"variable_sip_h_X-Tandem-{name}": value for name, value in tandem.items() if value}
        sock = socket.create_connection((self.host, self.app_port))
        call = FakeCall(sock, self, given)
        self.channels[call.uuid] = call
        self.calls.append(call)
        if start:
            gevent.spawn(call.serve)
        return call

    def leave_adrift(self, call: FakeCall) -> None:
        """Its event socket is gone, and FreeSWITCH keeps it for the next esl_app."""
        call.close()
        self.calls.remove(call)
        call.variables["tandem_adrift"] = "true"

    def _take_back(self, left: FakeCall) -> None:
        back = FakeCall(
            socket.create_connection((self.host, self.app_port)),
            self,
            left.headers | {"variable_tandem_answered": "true"},
        )
        back.fork = left.fork
        self.channels[back.uuid] = back
        self.calls.append(back)
        back.serve()

    def fire(self, channel: str, name: str, headers: dict[str, str] | None = None, body: str = "") -> None:
        event = {"Event-Name": name, "Unique-ID": channel, **(headers or {})}
        for call in self.calls:
            if ("Unique-ID", channel) in call.filters:
                call.event(event, body)

    def notify(self, channel: str, status: int, state: str) -> None:
        """A NOTIFY of a REFER on ``channel``."""
        headers = {
            "Event-Name": "CUSTOM",
            "Event-Subclass": "sofia::notify_refer",
            "content-type": "message/sipfrag",
            "UniqueID": channel,
            "subscription-substate": state,
        }
        for connection in self.inbound:
            connection.event(headers, f"SIP/2.0 {status} Whatever\r\n")

    # Commands

    def api(self, arguments: str) -> str:
        self.apis.append(arguments)
        word, *rest = arguments.split(" ")
        if word in self.refuse_api:
            return "-ERR refused by the test"
        channel = self.channels.get(rest[0]) if rest else None
        match word:
            case "uuid_kill":
                if channel is None:
                    return "-ERR No such channel!"
                channel.kill(rest[1])
            case "uuid_transfer" if isinstance(channel, FakeCall):
                channel.variables.pop("tandem_adrift", None)
                gevent.spawn(self._take_back, channel)
            case "fsctl" if rest[0] == "pause_check":
                return "true" if self.paused else "false"
            case "fsctl":
                self.paused = rest[0] == "pause"
            case "uuid_setvar_multi" if isinstance(channel, FakeCall):
                pairs = " ".join(rest[1:]).replace("\\;", "\0").split(";")
                channel.variables |= dict(pair.replace("\0", ";").split("=", 1) for pair in pairs)
            case "uuid_getvar":
                survivors = dict(self.survivors)
                if rest[0] in survivors:
                    return survivors[rest[0]]
                if isinstance(channel, FakeLeg):
                    return self.variables.get(rest[1]) or channel.variables.get(rest[1], "_undef_")
                if channel is None:
                    return "-ERR No such channel!"
                arrived = channel.headers.get(f"variable_{rest[1]}")
                return channel.variables.get(rest[1]) or arrived or "_undef_"
            case "uuid_audio_fork" if isinstance(channel, FakeCall):
                return self._audio_fork(channel, " ".join(rest[1:]))
            case "uuid_bridge":
                if channel is None or rest[1] not in self.channels:
                    return "-ERR Invalid uuid"
                if self.bridges:
                    self.fire(rest[0], "CHANNEL_BRIDGE")
            case "uuid_exists":
                return "true" if rest[0] in self.channels or rest[0] in dict(self.survivors) else "false"
            case "show":
                rows = [{"uuid": found, "direction": "inbound", "created_epoch": "1"} for found, _ in self.survivors]
                for found in self.channels.values():
                    direction = "inbound" if isinstance(found, FakeCall) else "outbound"
                    row = {"uuid": found.uuid, "direction": direction, "created_epoch": str(int(time.time()) + 1)}
                    rows.append(row | {"state": getattr(found, "state", "CS_EXECUTE")})
                return orjson.dumps({"row_count": len(rows), "rows": rows}).decode()
        return "+OK"

    def _audio_fork(self, call: FakeCall, arguments: str) -> str:
        words = arguments.split(" ", 2)
        if words[0] == "start":
            if call.fork is not None:
                return "-ERR Operation Failed"
            call.fork = arguments.split(" ")
            if self.fork == "connect":
                call.custom("mod_audio_fork::connect")
            elif self.fork == "fail":
                call.custom("mod_audio_fork::connect_failed", '{"reason":"conn fail: 111\n"}')
            return "+OK Success"
        if call.fork is None:
            return "-ERR Operation Failed"
        if words[0] in ("pause", "resume"):
            return "+OK Success"
        call.texts.append(orjson.loads(words[2][1:-1].replace("\\'", "'").replace("\\\\", "\\")))
        if words[0] == "stop":
            call.fork = None
        if call.texts[-1].get("notice") == "resumed" and self.present:
            for command in ({"command": "present"}, *self.repeated):
                call.decides(command)
        return "+OK Success"

    def background(self, arguments: str, job: str) -> None:
        word, rest = arguments.split(" ", 1)
        if word == "originate":
            self.jobs[job] = rest
            if self.make_legs:
                gevent.spawn(lambda: self.on_dial(self.make_leg(job)))

    def make_leg(self, job: str) -> FakeLeg:
        leg = FakeLeg(self, job, self.jobs[job])
        self.channels[job] = leg
        self.legs.append(leg)
        return leg

    def job_done(self, job: str, result: str) -> None:
        self.jobs.pop(job, None)
        for connection in self.inbound:
            connection.event({"Event-Name": "BACKGROUND_JOB", "Job-UUID": job}, result + "\n")


@contextmanager
def running(switch: FakeSwitch) -> Iterator[FakeSwitch]:
    switch.start()
    try:
        yield switch
    finally:
        switch.stop()
