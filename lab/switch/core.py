"""The switch itself: its channels, its sockets, its limits."""

import asyncio
import ipaddress
import itertools
import logging
import re
import uuid
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from lab import message as sip_message
from lab import sdp
from lab.pacer import Pacer
from lab.sip import Endpoint
from lab.switch.applications import APPLICATIONS
from lab.switch.bridge import Bridges
from lab.switch.cause import Cause, reason_header
from lab.switch.channel import Channel
from lab.switch.commands import Commands
from lab.switch.event import Event, EventBus
from lab.switch.event_socket import EventSocketServer
from lab.switch.leg import Leg
from lab.switch.media import Media
from lab.switch.profile import CallerProfile, Direction
from lab.switch.session import Extension, Session
from lab.transaction import ServerTransaction
from lab.uas import Uas
from tandem.settings import Settings

CONTEXT = "tandem"
BUSY_PHRASE = "Maximum Calls In Progress"
RETRY_AFTER_S = 300
STOP_S = 3.0
"""How long the end of all channels is waited for."""

PAUSES_S = {"w": 0.5, "W": 1.0}
"""Among the digits that are sent."""

_log = logging.getLogger(__name__)


class Switch:
    """The switch of one worker, as the configuration describes it.

    ``double_frame_every``: each so-many-th frame of a fork is sent together with the next one; 0 for never.
    """

    def __init__(self, settings: Settings, worker_name: str, *, double_frame_every: int = 0) -> None:
        worker = settings.workers[worker_name]
        self.name = worker_name
        self.address = worker.address
        self.sip_port = worker.sip_port
        self.password = settings.freeswitch.password.get_secret_value()
        self.rtp_ports = range(worker.rtp.first, worker.rtp.last + 1)
        self.max_sessions = 2 * worker.max_calls
        """Legs; as in the rendered configuration, for a call that is being transferred has two."""
        self.double_frame_every = double_frame_every
        self.paused: set[Direction] = set()
        """``fsctl pause``: ways in which no new calls go."""
        self.applications = APPLICATIONS
        self.bus = EventBus(switchname=worker_name, address=worker.address)
        self.commands = Commands(self)
        self.bridges = Bridges(self)
        self.pacer = Pacer()
        self.sessions: dict[str, Session] = {}
        self.total_sessions = 0
        self.peak_sessions = 0
        self.started = self.bus.clock()
        self.counters: Counter[str] = Counter()
        """session_errors, api_errors, events_lost, unauthenticated_clients, refused_by_acl, refused_at_limit,
        refused_offer, digits_unsent, task_errors."""
        self.globals = {
            "hostname": worker_name,
            "local_ip_v4": worker.address,
            "switchname": worker_name,
            "core_uuid": self.bus.core_uuid,
        }
        self.endpoint = Endpoint(worker.address, worker.sip_port, user_agent="FreeSWITCH (lab)")
        self.endpoint.on_invite = self._on_invite
        self.endpoint.on_request = self._on_request
        self._edge = [ipaddress.ip_address(socket.address) for socket in settings.edge.listen]
        self._controller = f"{worker.loopback}:{settings.esl_app.port} async full"
        self._adrift_s = settings.esl_app.adrift_seconds
        self._event_socket = EventSocketServer(self, worker.loopback, settings.freeswitch.event_socket_port)
        self._session_ids = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()

    # Life

    async def start(self) -> None:
        """Bind SIP and the event socket. Raises OSError naming what could not be bound."""
        await self.endpoint.start()
        await self._event_socket.start()

    async def stop(self) -> None:
        """Hang up every call (SYSTEM_SHUTDOWN), tell the listeners, close the sockets."""
        self.paused.update(("inbound", "outbound"))
        self.bus.fire(Event("SHUTDOWN"))
        sessions = list(self.sessions.values())
        for session in sessions:
            session.channel.hangup(Cause.SYSTEM_SHUTDOWN)
        ended = [asyncio.ensure_future(session.reported.wait()) for session in sessions]
        if ended:
            _, late = await asyncio.wait(ended, timeout=STOP_S)
            for waiter in late:
                waiter.cancel()
        await self._event_socket.stop()
        await self.endpoint.stop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run ``work`` beside everything else; an error is logged and counted."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)
        return task

    def _spawned_ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.counters["task_errors"] += 1
            _log.error("a task of the switch failed", exc_info=task.exception())

    # Sessions

    def next_session_id(self) -> int:
        return next(self._session_ids)

    def add(self, session: Session) -> None:
        self.sessions[session.channel.uuid] = session
        self.total_sessions += 1
        self.peak_sessions = max(self.peak_sessions, len(self.sessions))

    def forget(self, session: Session) -> None:
        self.sessions.pop(session.channel.uuid, None)

    def locate(self, identity: str | None) -> Session | None:
        """The session of a channel that is not hung up."""
        session = self.sessions.get(identity or "")
        return None if session is None or session.channel.down else session

    def extension(self, channel: Channel) -> Extension:
        """What the dialplan of ``tandem render`` does with a channel: its controller; where that is lost, 503 or a wait."""
        if channel.profile.destination_number == "alone":
            if channel.get("tandem_answered") != "true":
                return [("respond", "503")]
            return [
                ("set", "tandem_adrift=true"),
                ("set", f"park_timeout={self._adrift_s}:NORMAL_TEMPORARY_FAILURE"),
                ("park", ""),
            ]
        return [
            ("set", "sip_copy_custom_headers=false"),
            ("set", "media_timeout=300000"),
            ("set", "media_hold_timeout=1800000"),
            ("set", "execute_on_answer=set tandem_answered=true"),
            ("unset", "tandem_adrift"),
            ("set", "socket_resume=true"),
            ("socket", self._controller),
            ("transfer", "alone XML tandem"),
        ]

    def inline_extension(self, text: str) -> Extension:
        """The ``inline`` dialplan: ``APP:ARGUMENT,APP:ARGUMENT``, another delimiter after ``m:^:``."""
        delimiter = ","
        if text.startswith("m:") and len(text) > 4 and text[3] == ":":
            delimiter, text = text[2], text[4:]
        parts = (part.partition(":") for part in text.split(delimiter) if part)
        return [(name.strip(), argument) for name, _, argument in parts]

    def send_digits(self, session: Session, digits: str, duration_ms: int = 250) -> None:
        """Send RFC 4733 events on a channel, one after the other; ``w`` and ``W`` are pauses."""
        remote = session.leg.remote
        if not digits or session.media is None or remote is None or remote.telephone_event is None:
            self.counters["digits_unsent"] += len(digits)
            return
        self.spawn(_send_digits(session.media, digits, duration_ms))

    # SIP from the edge

    @property
    def full(self) -> bool:
        """No call is taken: 503."""
        return "inbound" in self.paused or len(self.sessions) >= self.max_sessions

    async def _on_request(self, transaction: ServerTransaction) -> None:
        if self.full:
            self._refuse_at_limit(transaction)

    def _refuse_at_limit(self, transaction: "ServerTransaction | Uas") -> None:
        self.counters["refused_at_limit"] += 1
        transaction.respond(503, BUSY_PHRASE, headers=[("Retry-After", str(RETRY_AFTER_S))])

    async def _on_invite(self, dialog: Uas) -> None:
        source = dialog.messages[0].peer
        if self.full:
            self._refuse_at_limit(dialog)
            return
        if ipaddress.ip_address(source[0]) not in self._edge:
            self.counters["refused_by_acl"] += 1
            _log.warning("INVITE from %s:%d refused: it is not the edge", *source)
            dialog.respond(403)
            return
        channel = Channel(self.bus, self._profile(dialog, source), self.next_session_id(), clock=self.bus.clock)
        leg = Leg(self, channel)
        if not dialog.invite.body:
            self.counters["refused_offer"] += 1
            dialog.respond(480, headers=[("Reason", reason_header(Cause.MANDATORY_IE_MISSING))])
            return
        try:
            leg.receive(dialog, source)
        except sdp.BadSdp as error:
            self.counters["refused_offer"] += 1
            _log.warning("INVITE of %s refused: %s", dialog.call_id, error)
            dialog.respond(400, "Bad Session Description")
            return
        session = Session(self, channel, leg, self.extension(channel))
        self.add(session)
        session.start()

    def _profile(self, dialog: Uas, source: tuple[str, int]) -> CallerProfile:
        caller = sip_message.name_addr(dialog.invite.headers["From"])
        uri = sip_message.sip_uri(caller.uri) or sip_message.SipUri("", caller.uri, None)
        called = sip_message.sip_uri(str(dialog.invite.uri)) or sip_message.SipUri("", "", None)
        host = f"{uri.host}:{uri.port}" if uri.port else uri.host
        return CallerProfile(
            direction="inbound",
            uuid=str(uuid.uuid4()),
            channel_name=f"sofia/tandem/{uri.user}@{host}",
            destination_number=called.user,
            caller_id_name=caller.display or uri.user,
            caller_id_number=uri.user,
            username=uri.user,
            dialplan="XML",
            network_address=source[0],
            ani=uri.user,
            context=CONTEXT,
        )


async def _send_digits(media: Media, digits: str, duration_ms: int) -> None:
    for part in re.findall(r"[wW]|[^wW]+", digits):
        if part in PAUSES_S:
            await asyncio.sleep(PAUSES_S[part])
        else:
            await media.stream.send_digits(part, duration_ms=duration_ms)
