"""One call's outbound event socket: greenswitch's OutboundSession on the hardened protocol, and what a call asks of it."""

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping

import gevent
from gevent import socket
from gevent.event import AsyncResult
from greenswitch.esl import OutboundSession, OutboundSessionHasGoneAway

from esl_app.protocol import CommandFailed, CommandTimeout, Event, Hardened, one_line, result_of, written

LINGER_S = 5
"""How long FreeSWITCH keeps the socket open after hangup, for the last events."""
EVENTS = (
    "CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_ANSWER CHANNEL_PARK CHANNEL_BRIDGE CHANNEL_HANGUP"
    " CHANNEL_EXECUTE_COMPLETE RECORD_START DTMF CUSTOM mod_audio_fork::connect mod_audio_fork::connect_failed"
    " mod_audio_fork::disconnect mod_audio_fork::json"
)


class Session(Hardened, OutboundSession):  # type: ignore[misc]
    """The socket that FreeSWITCH opened for a call. Commands raise what Hardened.command does, and CommandFailed."""

    _outbound_connected: bool

    def __init__(
        self, client_address: tuple[str, int], sock: socket.socket, on_drop: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(client_address, sock)
        self._harden(on_drop)
        self._completions: dict[str, AsyncResult[Event]] = {}
        self.register_handle("CHANNEL_EXECUTE_COMPLETE", self._on_execute_complete)

    def connect(self) -> Mapping[str, str]:
        """The channel's headers and variables (``variable_NAME``)."""
        if not self._outbound_connected:
            reply = super().send("connect")
            if "Unique-ID" not in reply.headers:
                raise CommandFailed(f"connect: {reply.data[:200]}")
            self.session_data = reply.headers
            self._outbound_connected = True
        return self.session_data

    @property
    def uuid(self) -> str:
        """The channel's Unique-ID."""
        return str(self.session_data["Unique-ID"])

    def subscribe(self, *then: str) -> None:
        """Have this channel's events sent, and keep the socket a moment beyond hangup; all in one go with the sound
        commands ``then`` (see protocol.written), each of which must be answered with +OK as well. Raises CommandFailed.
        """
        first = (f"filter Unique-ID {self.uuid}", f"linger {LINGER_S}", f"event plain {EVENTS}")
        several = [*map(written, first), *then]
        for command, reply in zip(several, self.commands(several), strict=True):
            _must(command, reply)

    def watch(self, channel: str) -> None:
        """Have another channel's events sent here as well."""
        self._must(f"filter Unique-ID {channel}")

    def unwatch(self, channel: str) -> None:
        self._must(f"filter delete Unique-ID {channel}")

    def _must(self, command: str) -> None:
        _must(command, self.command(command))

    def set(self, **variables: str) -> None:
        """Set channel variables at once, without waiting for the channel to execute anything."""
        result_of("uuid_setvar_multi", self.commands([self.setting(**variables)])[0])

    def setting(self, **variables: str) -> str:
        """The command that sets them."""
        for value in variables.values():
            one_line(value)
        # uuid_setvar_multi splits at semicolons; a backslash keeps one.
        pairs = (f"{name}={value.replace(';', chr(92) + ';')}" for name, value in variables.items())
        return written(f"api uuid_setvar_multi {self.uuid} {';'.join(pairs)}")

    def variable(self, name: str, channel: str = "") -> str:
        """A variable's value now, of the call's channel or another; empty where it is not set."""
        value = self.api("uuid_getvar", channel or self.uuid, name)
        return "" if value == "_undef_" else value

    def execute(self, application: str, arguments: str = "", identity: str = "") -> Event:
        """Have the channel execute an application; its CHANNEL_EXECUTE_COMPLETE has ``identity`` as Application-UUID.

        FreeSWITCH expands ``${...}`` in the arguments: nothing that a caller or a model said belongs there.
        """
        if self._lingering:
            raise OutboundSessionHasGoneAway("the channel has hung up")
        reply = self.commands([self.execution(application, arguments, identity)])[0]
        _must(application, reply)
        return reply

    def execution(self, application: str, arguments: str = "", identity: str = "") -> str:
        """The command of :meth:`execute`."""
        headers = [("call-command", "execute"), ("execute-app-name", application)]
        if arguments:
            headers.append(("execute-app-arg", arguments))
        if identity:
            headers.append(("Event-UUID", identity))
        return written("sendmsg", headers)

    def call_command(
        self, app_name: str, app_args: str | None = None, block: bool = False, response_timeout: float | None = None
    ) -> Event | None:
        """greenswitch's way to :meth:`execute`: ``block`` waits for the end, ``response_timeout`` seconds at most."""
        identity = str(uuid.uuid4())
        with self._completion(identity) as completed:
            reply = self.execute(app_name, app_args or "", identity)
            if not block:
                return reply
            with gevent.Timeout(response_timeout, CommandTimeout(f"{app_name} took longer than {response_timeout} s")):
                return completed.get()

    @contextlib.contextmanager
    def _completion(self, identity: str) -> "Iterator[AsyncResult[Event]]":
        self._completions[identity] = AsyncResult()
        try:
            yield self._completions[identity]
        finally:
            del self._completions[identity]

    def _on_execute_complete(self, event: Event) -> None:
        completed = self._completions.get(event.get("Application-UUID"))
        if completed is not None:
            completed.set(event)
        self.on_event(event)

    def on_disconnect(self, event: Event) -> None:
        """The channel has hung up; during ``linger`` only commands to FreeSWITCH itself are still of use."""
        self._outbound_connected = False
        gone = OutboundSessionHasGoneAway("the channel has hung up")
        for completed in self._completions.values():
            completed.set_exception(gone)
        for waiting in self.expected_events.values():
            for _, _, result in waiting:
                result.set_exception(gone)

    def on_hangup(self, event: Event) -> None:
        if event.get("Unique-ID") == self.uuid:
            self._outbound_connected = False


def _must(command: str, reply: Event) -> None:
    if not reply.data.startswith("+OK"):
        raise CommandFailed(f"{command.splitlines()[0]}: {reply.data}")
