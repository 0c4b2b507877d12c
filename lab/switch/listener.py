"""One event socket connection, inbound or outbound: commands in, replies and events out (mod_event_socket).

As in FreeSWITCH events leave in ticks of 20 ms, and right after each command's reply.
"""

import asyncio
import logging
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING

from lab.switch.channel import ChannelState, PrivateEvent
from lab.switch.event import Event
from lab.switch.park import unpark
from lab.switch.subscription import Subscription
from lab.switch.text import decode, encode, to_int

if TYPE_CHECKING:
    from lab.switch.core import Switch
    from lab.switch.session import Session

POLL_S = 0.02
MAX_QUEUE = 100_000
"""Events that wait for a reader that does not read."""
MAX_UNSENT = 16 * 1024 * 1024
"""Bytes written for such a reader; then events wait in the queue."""
MAX_LINE = 1 << 20
MAX_BODY = 10 * 1024 * 1024
AUTH_TIMEOUT_S = 25.0
GOODBYE = "Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
_log = logging.getLogger(__name__)


class Command:
    """What a client sent: the command line, headers (lower-case names), and a body."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.headers: dict[str, str] = {}
        self.body = ""


class Listener:
    """Serves one connection. ``session``: the channel it controls, where FreeSWITCH dialled out for one."""

    def __init__(
        self,
        switch: "Switch",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        session: "Session | None" = None,
    ) -> None:
        self.switch = switch
        self.session = session
        self.connected = asyncio.Event()
        """The client of an outbound socket has sent its first command."""
        self._reader = reader
        self._writer = writer
        self._authorised = self._controls = session is not None
        self._running = True
        self._closed = False
        self._events: deque[Event] = deque()
        self._subscription = Subscription()
        self._lingers = False
        self._linger_s = -1
        self._told_hangup = False
        self._busy = False
        self._poll: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._last_wake = 0.0
        self._unsubscribe = switch.bus.subscribe(self._on_event)
        if session is not None:
            session.channel.on_hangup.append(self._schedule)

    # Life

    async def run(self) -> None:
        """Serve until the client leaves, says exit, or has lingered long enough."""
        try:
            if self._authorised:
                await self._first_command()
            else:
                await self._authenticate()
            while self._running:
                command = await self._read()
                if command is None:
                    break
                await self._obey(command)
        except (ConnectionError, asyncio.IncompleteReadError, ValueError) as error:
            _log.debug("event socket connection ended: %s", error)
        finally:
            self.stop()

    async def _authenticate(self) -> None:
        self._write("Content-Type: auth/request\n\n")
        async with asyncio.timeout(AUTH_TIMEOUT_S):
            command = await self._read()
        if command is None:
            self._running = False
            return
        await self._obey(command)

    async def _first_command(self) -> None:
        try:
            async with asyncio.timeout(AUTH_TIMEOUT_S):
                command = await self._read()
        except TimeoutError:
            command = None
        if command is None:
            self._running = False
            return
        await self._obey(command)

    def stop(self) -> None:
        """Take leave and close the connection; everything else follows from there."""
        if self._closed:
            return
        self._closed = True
        self._running = False
        self._unsubscribe()
        for timer in (self._poll, self._expiry):
            if timer is not None:
                timer.cancel()
        if not self._writer.is_closing():
            lines = ["Content-Type: text/disconnect-notice"]
            if self.session is not None:
                lines.append(f"Controlled-Session-UUID: {self.session.channel.uuid}")
                lines.append("Content-Disposition: disconnect")
            lines.append(f"Content-Length: {len(GOODBYE)}")
            self._write("\n".join(lines) + "\n\n" + GOODBYE)
            self._writer.close()
        if self.session is not None:
            if self._schedule in self.session.channel.on_hangup:
                self.session.channel.on_hangup.remove(self._schedule)
            if self._controls:
                unpark(self.session)
            self.session.release(self)
        self.connected.set()

    # Reading

    async def _read(self) -> Command | None:
        """The next command; None at the end of the stream. Empty lines in front of it are skipped."""
        line = ""
        while not line:
            data = await self._reader.readline()
            if not data:
                return None
            line = decode(data).rstrip("\r\n")
        command = Command(line)
        while True:
            data = await self._reader.readline()
            if not data:
                return None
            text = decode(data).rstrip("\r\n")
            if not text:
                return await self._with_body(command)
            name, colon, value = text.partition(":")
            if colon:
                command.headers[name.lower()] = value.lstrip(" ")

    async def _with_body(self, command: Command) -> Command:
        length = to_int(command.headers.get("content-length"))
        if length > MAX_BODY:
            raise ValueError(f"body of {length} bytes")
        if length > 0:
            command.body = decode(await self._reader.readexactly(length))
        return command

    # Commands

    async def _obey(self, command: Command) -> None:
        self._busy = True
        try:
            reply = await self._dispatch(command)
        finally:
            self._busy = False
        if reply is not None:
            self._write(f"Content-Type: command/reply\nReply-Text: {reply}\n\n")
        self._wake()

    async def _dispatch(self, command: Command) -> str | None:
        """The reply's text, or None where the reply is written already."""
        line = command.line
        verb = line.lower()
        if verb.startswith(("exit", "...")):
            self._running = False
            return "+OK bye"
        if not self._authorised:
            return self._authorise(line)
        if verb.startswith("filter "):
            return self._subscription.filter(line[7:])
        if self.session is not None:
            if verb.startswith("connect"):
                self._connect()
                return None
            if verb.startswith("getvar "):
                return self.session.channel.get(line[7:].strip()) or ""
        if verb.startswith("myevents"):
            return self._enable_myevents(line)
        if verb.startswith("sendmsg"):
            return self._sendmsg(line[7:].strip(), command)
        if verb.startswith("api "):
            await self._api(line[4:])
            return None
        if verb.startswith("bgapi "):
            self._bgapi(line[6:], command)
            return None
        if verb.startswith("linger"):
            return self._linger(line)
        if verb.startswith("nolinger"):
            self._lingers = False
            return "-ERR not controlling a session" if self.session is None else "+OK will not linger"
        if verb.startswith("event"):
            return self._subscription.event(line)
        if verb.startswith("nixevent"):
            return self._subscription.nixevent(line)
        if verb.startswith("noevents"):
            self._events.clear()
            return self._subscription.noevents()
        return "-ERR command not found"

    def _authorise(self, line: str) -> str:
        if not line.lower().startswith("auth "):
            return "-ERR command not found"
        if line[5:] == self.switch.password:
            self._authorised = True
            return "+OK accepted"
        self._running = False
        return "-ERR invalid"

    def _connect(self) -> None:
        assert self.session is not None
        channel = self.session.channel
        self.connected.set()
        event = Event("CHANNEL_DATA")
        self.switch.bus.stamp(event)
        event.extend(channel.profile.headers("Channel"))
        event.extend(channel.headers(variables=True))
        event.add("Content-Type", "command/reply")
        event.add("Reply-Text", "+OK\n")
        event.add("Socket-Mode", "async")
        event.add("Control", "full")
        self._writer.write(event.serialize())

    def _enable_myevents(self, line: str) -> str:
        if self._subscription.own is not None:
            return "-ERR aready enabled."
        if self.session is None:
            wanted = line[8:].split()
            session = self.switch.locate(wanted[0]) if wanted else None
            if session is None:
                return "-ERR invalid uuid"
            self.session = session
            session.hold(self)
            session.channel.on_hangup.append(self._schedule)
        self._subscription.myevents(self.session.channel.uuid, json="json" in line.lower())
        return "+OK Events Enabled"

    def _sendmsg(self, target: str, command: Command) -> str:
        target = target or command.headers.get("session-id", "")
        session = self.session
        if target and (session is None or target != session.channel.uuid):
            session = self.switch.locate(target)
        if session is None:
            return f"-ERR invalid session id [{target}]"
        headers = {"Command": "sendmsg", **command.headers}
        private = PrivateEvent(headers, command.body)
        return "+OK" if session.channel.queue_private_event(private) else "-ERR memory error"

    async def _api(self, line: str) -> None:
        reply = await self.switch.commands.execute(line) or "-ERR no reply\n"
        data = encode(reply)
        self._writer.write(b"Content-Type: api/response\nContent-Length: %d\n\n" % len(data) + data)

    def _bgapi(self, line: str, command: Command) -> None:
        job = command.headers.get("job-uuid") or str(uuid.uuid4())
        owner = self.session.channel.uuid if self.session is not None else ""
        self.switch.commands.execute_in_background(line, job, owner)
        self._write(f"Content-Type: command/reply\nReply-Text: +OK Job-UUID: {job}\nJob-UUID: {job}\n\n")

    def _linger(self, line: str) -> str:
        if self.session is None:
            return "-ERR not controlling a session"
        self._lingers = True
        seconds = line[6:].strip()
        self._linger_s = to_int(seconds) if seconds else -1
        return f"+OK will linger {self._linger_s} seconds" if seconds else "+OK will linger"

    # Events out

    def _on_event(self, event: Event) -> None:
        if not self._running or not self._subscription.wants(event):
            return
        if len(self._events) >= MAX_QUEUE:
            self.switch.counters["events_lost"] += 1
            return
        self._events.append(event)
        self._schedule()

    def _schedule(self) -> None:
        """Look at what there is to tell at the next tick."""
        if self._poll is None and not self._busy and self._running:
            loop = asyncio.get_running_loop()
            ticks = int((loop.time() - self._last_wake) / POLL_S) + 1
            self._poll = loop.call_at(self._last_wake + ticks * POLL_S, self._wake)

    def _wake(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        if self._writer.is_closing():
            return
        self._last_wake = asyncio.get_running_loop().time()
        while self._events and self._writer.transport.get_write_buffer_size() < MAX_UNSENT:
            event = self._events.popleft()
            data = event.serialize() if self._subscription.format == "plain" else event.serialize_json()
            self._writer.write(
                b"Content-Length: %d\nContent-Type: text/event-%s\n\n" % (len(data), encode(self._subscription.format))
            )
            self._writer.write(data)
        session = self.session
        if session is not None and session.channel.state >= ChannelState.HANGUP and not self._told_hangup:
            self._told_hangup = True
            if self._lingers:
                self._begin_to_linger(session)
            else:
                self.stop()

    def _begin_to_linger(self, session: "Session") -> None:
        channel = session.channel
        self._write(
            "Content-Type: text/disconnect-notice\n"
            f"Controlled-Session-UUID: {channel.uuid}\n"
            "Content-Disposition: linger\n"
            f"Channel-Name: {channel.name}\n"
            f"Linger-Time: {self._linger_s}\n"
            "Content-Length: 0\n\n"
        )
        if self._linger_s >= 0:
            # Whole seconds of the wall clock, exceeded: between N and N+1 seconds.
            now = time.time()
            delay = int(now) + self._linger_s + 1 - now
            self._expiry = asyncio.get_running_loop().call_later(delay, self.stop)

    def _write(self, text: str) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode(text))
