"""A session: the task that takes one channel through its states and runs the applications of its extension."""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.switch import cdr
from lab.switch.cause import Cause
from lab.switch.channel import CallState, Channel, ChannelState, PrivateEvent
from lab.switch.event import Event
from lab.switch.leg import Leg
from lab.switch.media import Media
from lab.switch.text import is_true, to_int

if TYPE_CHECKING:
    from lab.switch.core import Switch

Extension = list[tuple[str, str]]
"""Applications with their arguments, in order."""

MAX_STACK = 16
"""Applications that may interrupt each other on one channel (SWITCH_MAX_STACKS)."""
_SHORT_LOOP_S = 0.5
"""An application that ends faster than this is not looped."""

_log = logging.getLogger(__name__)


class Session:
    """One channel's life. ``extension`` is what it has to do; applications use the methods below."""

    def __init__(self, switch: "Switch", channel: Channel, leg: Leg, extension: Extension) -> None:
        self.switch = switch
        self.channel = channel
        self.leg = leg
        self.extension = deque(extension)
        self.bridge_peer: Session | None = None
        self.reported = asyncio.Event()
        """Hung up, the peer told, CHANNEL_HANGUP_COMPLETE fired."""
        self._holders: set[object] = set()
        self._released = asyncio.Event()
        self._stack = 0
        self._callstate: CallState | None = None
        """What the call state was before a transfer, while the call is routed anew."""
        self._task: asyncio.Task[None] | None = None

    @property
    def media(self) -> Media | None:
        """The channel's media, once it is there (183 or 200)."""
        return self.leg.media

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"session {self.channel.uuid}")

    def hold(self, holder: object) -> None:
        """Keep the channel from being destroyed after its hangup until ``release``."""
        self._holders.add(holder)

    def release(self, holder: object) -> None:
        self._holders.discard(holder)
        self._released.set()

    # States

    async def _run(self) -> None:
        channel = self.channel
        try:
            if channel.profile.direction == "inbound":
                self._begin_inbound()
            else:
                self._begin_outbound()
            while not channel.down:
                await self._state()
        except Exception:  # noqa: BLE001 - whatever went wrong, this call ends in order and the others go on
            _log.exception("session %s failed", channel.uuid)
            self.switch.counters["session_errors"] += 1
            channel.hangup(Cause.CRASH)
        await self._end()

    def _begin_inbound(self) -> None:
        channel = self.channel
        channel.run_state(ChannelState.NEW)
        channel.state = ChannelState.INIT
        channel.run_state(ChannelState.INIT)
        channel.state = ChannelState.ROUTING
        channel.fire("CHANNEL_CREATE")
        channel.running_state = ChannelState.ROUTING
        channel.set_callstate(CallState.RINGING)
        channel.run_state(ChannelState.ROUTING)
        channel.set("call_uuid", channel.uuid)
        channel.state = ChannelState.EXECUTE

    def _begin_outbound(self) -> None:
        channel = self.channel
        channel.running_state = ChannelState.NONE
        channel.state = ChannelState.INIT
        channel.fire("CHANNEL_OUTGOING")
        channel.run_state(ChannelState.INIT)
        channel.state = ChannelState.ROUTING
        channel.fire("CHANNEL_CREATE")
        channel.fire("CHANNEL_ORIGINATE")
        channel.run_state(ChannelState.ROUTING)
        channel.state = ChannelState.CONSUME_MEDIA

    async def _state(self) -> None:
        """Enter the channel's state, do what it asks for, and wait until there is another."""
        channel = self.channel
        state = channel.state
        if channel.running_state is not state:
            channel.transfer = channel.redirect = False
            channel.running_state = state
            if state is ChannelState.ROUTING:
                self._callstate = channel.callstate
                channel.set_callstate(CallState.RINGING)
            elif self._callstate is not None:
                channel.set_callstate(self._callstate)
                self._callstate = None
            channel.run_state(state)
        match state:
            case ChannelState.ROUTING:
                channel.state = ChannelState.EXECUTE
            case ChannelState.EXECUTE:
                await self._execute_extension()
            case ChannelState.PARK:
                await self.switch.applications["park"].run(self, "")
                if channel.state is ChannelState.PARK:
                    channel.hangup(Cause.NORMAL_CLEARING)
            case ChannelState.HIBERNATE:
                channel.state = ChannelState.RESET
            case ChannelState.RESET if channel.uuid_bridge_originator:
                channel.state = ChannelState.SOFT_EXECUTE
            case ChannelState.SOFT_EXECUTE if channel.uuid_bridge_originator:
                await self.switch.bridges.soft_execute(self)
            case ChannelState.EXCHANGE_MEDIA:
                await self.switch.bridges.exchange_media(self)
        while channel.state is state and not channel.down and state is not ChannelState.EXECUTE:
            await self.woken()

    async def _execute_extension(self) -> None:
        channel = self.channel
        while self.extension and channel.ready and channel.state is ChannelState.EXECUTE:
            application, argument = self.extension.popleft()
            await self.execute(application, argument)
        if channel.ready and channel.state is ChannelState.EXECUTE:
            channel.hangup(Cause.NORMAL_CLEARING)

    async def _end(self) -> None:
        channel = self.channel
        channel.run_state(ChannelState.HANGUP)
        media = self.media
        if media is not None:
            for bug in reversed(tuple(media.bugs)):
                media.remove_bug(bug)
        assert channel.hangup_cause is not None
        self.leg.hang_up(channel.hangup_cause)
        if media is not None:
            media.close()
        channel.set_callstate(CallState.HANGUP)
        channel.state = ChannelState.REPORTING
        channel.run_state(ChannelState.REPORTING)
        cdr.report(channel, media)
        channel.fire("CHANNEL_HANGUP_COMPLETE")
        self.reported.set()
        while self._holders:
            self._released.clear()
            await self._released.wait()
        channel.state = ChannelState.DESTROY
        channel.fire("CHANNEL_DESTROY")
        channel.run_state(ChannelState.DESTROY)
        self.switch.forget(self)

    # Applications

    async def execute(self, name: str, argument: str) -> bool:
        """Run one application. False where there is none of that name (the channel is hung up), or the channel is down."""
        channel = self.channel
        if channel.down:
            return False
        application = self.switch.applications.get(name)
        if application is None:
            channel.hangup(Cause.DESTINATION_OUT_OF_ORDER)
            return False
        if application.needs_media and not await self.ensure_media():
            return False
        argument = channel.expand(argument)
        application_uuid = channel.variables.pop("app_uuid", None) or str(uuid.uuid4())
        about = (
            ("Application", name),
            ("Application-Data", argument),
            ("Application-UUID", application_uuid),
        )
        channel.set("current_application", name)
        channel.set("current_application_data", argument)
        channel.set("current_application_response", None)
        channel.fire("CHANNEL_EXECUTE", *about)
        channel.break_flag = False
        await application.run(self, argument)
        response = channel.get("current_application_response") or "_none_"
        channel.fire("CHANNEL_EXECUTE_COMPLETE", *about, ("Application-Response", response))
        return True

    async def ensure_media(self) -> bool:
        """Media must be there for what comes: an unanswered inbound call is pre-answered."""
        if self.media is None and self.channel.profile.direction == "inbound":
            await self.leg.pre_answer()
        return self.media is not None

    async def interact(
        self,
        done: Callable[[], bool],
        *,
        timeout_s: float | None = None,
        on_dtmf: Callable[[str], bool] | None = None,
        stays_over_break: bool = False,
    ) -> None:
        """What every application does between frames: commands that came meanwhile are run, here and now.

        Returns when ``done()``, when the time is over, when the channel is wanted elsewhere, on ``uuid_break`` (the flag
        stays set for the caller to see, unless ``stays_over_break``), or when ``on_dtmf(digit)`` says so.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while self.channel.ready and not done():
            if self.channel.break_flag and not stays_over_break:
                return
            while self.channel.dtmf and self.channel.ready:
                digit, _ = self.channel.dtmf.popleft()
                if on_dtmf is not None and on_dtmf(digit):
                    return
            if deadline is not None and loop.time() >= deadline:
                return
            if not self.has_commands:
                await self.woken(None if deadline is None else deadline - loop.time())
            await self.parse_all_events()

    async def woken(self, timeout_s: float | None = None) -> None:
        """Something happened on the channel, or the time is over."""
        wake = self.channel.wake
        try:
            await asyncio.wait_for(wake.wait(), timeout_s)
        except TimeoutError:
            return
        wake.clear()

    # Commands (sendmsg) for this channel

    @property
    def has_commands(self) -> bool:
        """Commands wait, and nothing that runs holds them off."""
        return bool(self.channel.private_events) and not self.channel.event_lock and self._stack <= MAX_STACK

    async def parse_all_events(self) -> None:
        """Run the commands that wait, unless one holds the lock."""
        if self._stack > MAX_STACK:
            return
        self._stack += 1
        try:
            while self.has_commands:
                command = self.channel.private_events.popleft()
                await self.parse_event(command)
                event = Event("PRIVATE_COMMAND", body=command.body)
                event.extend(command.headers.items())
                event.extend(self.channel.headers(variables=False))
                self.channel.bus.fire(event)
                if self.channel.break_flag:
                    return
        finally:
            self._stack -= 1

    async def parse_event(self, command: PrivateEvent) -> None:
        """Run one command."""
        headers = command.headers
        locked = is_true(headers.get("event-lock"))
        self.channel.event_lock += locked
        try:
            match headers.get("call-command", "").lower():
                case "execute":
                    await self._parse_execute(command)
                case "hangup":
                    self.channel.hangup_text(headers.get("hangup-cause"))
                case unknown:
                    self.channel.counters["bad_call_command"] += 1
                    _log.warning("channel %s: call-command %r is none", self.channel.uuid, unknown)
        finally:
            self.channel.event_lock -= locked

    async def _parse_execute(self, command: PrivateEvent) -> None:
        channel, headers = self.channel, command.headers
        application = headers.get("execute-app-name", "")
        argument = headers.get("execute-app-arg", "")
        if not argument and headers.get("content-type", "").lower() == "text/plain":
            argument = command.body
        if not application:
            return
        loops = to_int(headers["loops"]) if "loops" in headers else 1
        channel.stop_broadcast_flag = False
        inner = channel.broadcast
        channel.broadcast = True
        loop = asyncio.get_running_loop()
        number = 0
        while loops < 0 or number < loops:
            number += 1
            started = loop.time()
            channel.set("app_uuid", headers.get("event-uuid"))
            channel.set("current_loop", number)
            channel.set("total_loops", loops)
            if not await self.execute(application, argument):
                break
            if not channel.ready or channel.stop_broadcast_flag or loop.time() - started < _SHORT_LOOP_S:
                break
        channel.set("current_loop", None)
        channel.set("total_loops", None)
        if not inner:
            channel.broadcast = False
        if channel.stop_broadcast_flag:
            channel.broadcast = False
            channel.break_flag = True

    def transfer_to(self, extension: Extension) -> None:
        """Leave what is being done and begin anew with another extension."""
        channel = self.channel
        self.extension = deque(extension)
        channel.private_events.clear()
        channel.stop_broadcast()
        channel.other_profile = None
        channel.profile.times.transferred = channel.now()
        channel.transfer = True
        channel.state = ChannelState.ROUTING
        channel.wake.set()
