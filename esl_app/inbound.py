"""The process's own event socket to FreeSWITCH: dialling legs and ending them, NOTIFYs of REFERs, pausing. Reconnects.

A leg dialled here lives whatever becomes of the call's own socket, and so does the duty to end it.
"""

import logging
import random
import re
import secrets
from collections.abc import Callable, Iterable

import gevent
from gevent import socket
from gevent.event import AsyncResult
from gevent.event import Event as Flag
from gevent.pool import Group
from greenswitch.esl import InboundESL, NotConnectedError, OutboundSessionHasGoneAway

from esl_app.happenings import Dialled, Happening, ReferNotice, read
from esl_app.metrics import DROPPED, DUTY_ERRORS, STRAY_LEGS, SWITCH_UP
from esl_app.protocol import COMMAND_FAILURES, CommandFailed, CommandTimeout, Event, Hardened

CHANNEL_EVENTS = ("CHANNEL_PROGRESS", "CHANNEL_PROGRESS_MEDIA", "CHANNEL_ANSWER", "CHANNEL_HANGUP")
"""Of channels that are watched."""
EVENTS = f"BACKGROUND_JOB {' '.join(CHANNEL_EVENTS)} CUSTOM sofia::notify_refer"
_FILTERS = ("Event-Name BACKGROUND_JOB", "Event-Subclass sofia::notify_refer")
"""An event passes that matches any filter: these, and one for each channel that is watched."""
CONNECT_S = 3.0
RETRY_S = (0.25, 1.0)
"""First and longest pause between attempts to connect; doubled each time, spread by a fifth."""
PATIENCE_S = 2.0
"""How long a command waits for a connection that is being made again: longer than a pause, so that the first call of a
FreeSWITCH that has just started is not refused.
"""
END_LEG_S = 30.0
END_LEG_EVERY_S = 0.2

Put = Callable[[Happening], None]

_SIPFRAG = re.compile(r"SIP/2\.0 ([1-6][0-9]{2})(?![0-9])")
_log = logging.getLogger(__name__)


class SwitchAway(Exception):
    """There is no connection to FreeSWITCH's event socket."""


class _Connection(Hardened, InboundESL):  # type: ignore[misc]
    def __init__(
        self, host: str, port: int, password: str, on_drop: Callable[[str], None], watched: Iterable[str]
    ) -> None:
        super().__init__(host, port, password)
        self._watched = watched
        self._harden(on_drop)
        self.sock = socket.socket()

    def connect(self) -> None:
        """Raises OSError, CommandFailed (a wrong password), CommandTimeout, NotConnectedError."""
        self.sock = socket.create_connection((self.host, self.port), CONNECT_S)
        self.sock.settimeout(None)
        self.connected = True
        self.start_event_handlers()
        if not self._auth_request_event.wait(CONNECT_S):
            raise CommandTimeout(f"no request for authentication in {CONNECT_S:g} s")
        filters = [f"filter {text}" for text in _FILTERS] + [f"filter Unique-ID {channel}" for channel in self._watched]
        for command in (f"auth {self.password}", *filters, f"event plain {EVENTS}"):
            reply = self.command(command)
            if not reply.data.startswith("+OK"):
                raise CommandFailed(f"{command.split()[0]}: {reply.data}")

    def _auth_requested(self) -> None:
        self._auth_request_event.set()


class Dialling:
    """A leg being dialled by ``Inbound.dial`` for ``call``. ``over`` is set when the job is done: answered, or gone."""

    def __init__(self, channel: str, call: str) -> None:
        self.channel = channel
        self.call = call
        self.over = Flag()


class Inbound:
    """Start it once. ``on_first_connect`` is called when FreeSWITCH is there for the first time, in its own greenlet; where
    it raises, again on the next connection.
    """

    def __init__(self, host: str, port: int, password: str, on_first_connect: Callable[[], None] | None = None) -> None:
        self._host = host
        self._port = port
        self._password = password
        self._on_first_connect = on_first_connect
        self.identity = secrets.token_hex(8)
        """On every leg dialled here, as tandem_controller: a leg with another one has nobody who will end it."""
        self._connection: _Connection | None = None
        self._up = Flag()
        self._diallings: dict[str, tuple[Dialling, Put]] = {}
        self._referring: dict[str, Put] = {}
        self._watching: dict[str, Put] = {}
        self._duties = Group()
        self._keeper: gevent.Greenlet[..., None] | None = None
        self._greeter: gevent.Greenlet[..., None] | None = None

    @property
    def up(self) -> bool:
        return self._up.is_set()

    def start(self) -> None:
        self._keeper = gevent.spawn(self._keep_connected)

    def stop(self, within_s: float = 5.0) -> None:
        """Let the ends of legs be done with, then close."""
        self._duties.join(within_s)
        gevent.killall([greenlet for greenlet in (self._keeper, self._greeter) if greenlet is not None])
        if self._connection is not None:
            self._connection.stop()

    # What calls ask for

    def require(self) -> None:
        """Raises SwitchAway where there is no connection, even after a moment of patience."""
        self._connected()

    def api(self, *words: str) -> str:
        """Raises SwitchAway, CommandFailed, CommandTimeout, CommandRefused."""
        connection = self._connected()
        try:
            return connection.api(*words)
        except (NotConnectedError, OutboundSessionHasGoneAway) as error:
            raise SwitchAway("the event socket to FreeSWITCH was lost") from error

    def dial(self, channel: str, call: str, dial_string: str, put: Put, then: str = "&park()") -> Dialling:
        """Originate ``dial_string`` as ``channel`` (a UUID of one's own making); once answered it does ``then``.

        ``put`` is given a Dialled when the job is over. Whoever calls this owes an ``end`` unless it bridged the leg.
        Raises SwitchAway, CommandFailed, CommandTimeout; then nothing is owed.
        """
        connection = self._connected()
        dial_string = dial_string.replace("{", f"{{tandem_controller={self.identity},", 1)
        dialling = Dialling(channel, call)
        self._diallings[channel] = (dialling, put)
        try:
            reply = connection.command(f"bgapi originate {dial_string} {then}", [("Job-UUID", channel)])
            if not reply.data.startswith("+OK"):
                raise CommandFailed(f"originate: {reply.data}")
        except BaseException as error:
            self._diallings.pop(channel, None)
            dialling.over.set()
            self.end(dialling)
            if isinstance(error, NotConnectedError | OutboundSessionHasGoneAway):
                raise SwitchAway("the event socket to FreeSWITCH was lost") from error
            raise
        return dialling

    def end(self, dialling: Dialling, cause: str = "NORMAL_CLEARING") -> None:
        """See to it that the leg ends, in whatever state it is, and do not wait for it."""
        self._duties.spawn(self._end, dialling, cause)

    def end_channel(self, channel: str, call: str) -> None:
        """The same for a caller's leg that is not to live on without its event socket."""
        caller = Dialling(channel, call)
        caller.over.set()
        self.end(caller)

    def hear_notices(self, channel: str, put: Put) -> None:
        """Give ``put`` a ReferNotice for each NOTIFY on ``channel``, until ``forget_notices``."""
        self._referring[channel] = put

    def forget_notices(self, channel: str) -> None:
        self._referring.pop(channel, None)

    def watch(self, channel: str, put: Put) -> None:
        """Give ``put`` what happens to ``channel`` until ``unwatch``: it rings, is answered, hangs up.

        Raises SwitchAway, CommandFailed, CommandTimeout.
        """
        connection = self._connected()
        self._watching[channel] = put
        try:
            reply = connection.command(f"filter Unique-ID {channel}")
            if not reply.data.startswith("+OK"):
                raise CommandFailed(f"filter: {reply.data}")
        except BaseException as error:
            self._watching.pop(channel, None)
            if isinstance(error, NotConnectedError | OutboundSessionHasGoneAway):
                raise SwitchAway("the event socket to FreeSWITCH was lost") from error
            raise

    def unwatch(self, channel: str) -> None:
        """Never raises: with the connection the filter is gone as well."""
        if self._watching.pop(channel, None) is None or self._connection is None:
            return
        try:
            self._connection.command(f"filter delete Unique-ID {channel}")
        except COMMAND_FAILURES as error:
            _log.warning("events of a leg that is over will keep coming: %s", error)

    # Duties

    def _end(self, dialling: Dialling, cause: str) -> None:
        """Until FreeSWITCH says that there is no such channel, and that none is being made any more."""
        try:
            with gevent.Timeout(END_LEG_S):
                while True:
                    over = dialling.over.is_set()
                    try:
                        self.api("uuid_kill", dialling.channel, cause)
                    except CommandFailed:
                        if over:
                            return
                    except (SwitchAway, CommandTimeout) as error:
                        _log.warning(
                            "leg %s is yet to be ended: %s", dialling.channel, error, extra={"call": dialling.call}
                        )
                    dialling.over.wait(END_LEG_EVERY_S)
                    gevent.sleep(END_LEG_EVERY_S if over else 0)
        except gevent.Timeout:
            # Without a FreeSWITCH there is no leg.
            STRAY_LEGS.inc(self.up)
            _log.error("leg %s could not be ended", dialling.channel, extra={"call": dialling.call})
        finally:
            self._diallings.pop(dialling.channel, None)

    def _connected(self) -> _Connection:
        if not self._up.wait(PATIENCE_S) or self._connection is None:
            raise SwitchAway(f"no event socket to FreeSWITCH at {self._host}:{self._port}")
        return self._connection

    # The connection

    def _keep_connected(self) -> None:
        pause = RETRY_S[0]
        why_not = ""
        while True:
            dropped: AsyncResult[str] = AsyncResult()
            connection = _Connection(self._host, self._port, self._password, dropped.set, tuple(self._watching))
            connection.register_handle("BACKGROUND_JOB", self._on_job)
            connection.register_handle("sofia::notify_refer", self._on_notice)
            for name in CHANNEL_EVENTS:
                connection.register_handle(name, self._on_channel_event)
            try:
                connection.connect()
            except (OSError, *COMMAND_FAILURES) as error:
                connection.give_up()
                if str(error) != why_not:
                    why_not = str(error)
                    _log.warning("no event socket to FreeSWITCH at %s:%d: %s", self._host, self._port, error)
                gevent.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, RETRY_S[1])
                continue
            pause, why_not = RETRY_S[0], ""
            self._connection = connection
            self._up.set()
            SWITCH_UP.set(1)
            _log.info("event socket to FreeSWITCH is open")
            self._greet()
            cause = dropped.get()
            self._up.clear()
            self._forget_diallings()
            SWITCH_UP.set(0)
            DROPPED.labels(str(cause)).inc()
            _log.warning("event socket to FreeSWITCH is gone: %s", cause)

    def _forget_diallings(self) -> None:
        """Their results went with the connection; whoever ends such a leg need not wait for one."""
        for dialling, _ in self._diallings.values():
            dialling.over.set()
        self._diallings.clear()

    def _greet(self) -> None:
        greeting, self._on_first_connect = self._on_first_connect, None
        if greeting is not None:
            self._greeter = gevent.spawn(self._guarded, greeting)

    def _guarded(self, greeting: Callable[[], None]) -> None:
        try:
            greeting()
        except Exception:  # noqa: BLE001 - counted and logged
            DUTY_ERRORS.labels("inbound").inc()
            _log.exception("what was to be done on connecting to FreeSWITCH failed")
            self._on_first_connect = greeting

    def _on_job(self, event: Event) -> None:
        found = self._diallings.pop(event.get("Job-UUID"), None)
        if found is None:
            return
        dialling, put = found
        result = event.data.strip()
        dialling.over.set()
        put(Dialled(dialling.channel, "" if result.startswith("+OK") else result.removeprefix("-ERR").strip()))

    def _on_channel_event(self, event: Event) -> None:
        put = self._watching.get(event.get("Unique-ID"))
        happening = read(event)
        if put is not None and happening is not None:
            put(happening)

    def _on_notice(self, event: Event) -> None:
        put = self._referring.get(event.get("UniqueID"))
        status = _SIPFRAG.match(event.data)
        if put is not None and status is not None:
            terminated = event.get("subscription-substate").lower() == "terminated"
            put(ReferNotice(event.get("UniqueID"), int(status[1]), terminated))
