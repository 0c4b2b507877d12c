"""The API commands (``api`` and ``bgapi``) of event socket clients."""

import logging
from typing import TYPE_CHECKING

from lab.switch import channel_commands, switch_commands
from lab.switch.event import Event

if TYPE_CHECKING:
    from lab.switch.core import Switch

HANDLERS = {**channel_commands.HANDLERS, **switch_commands.HANDLERS}

_log = logging.getLogger(__name__)


class Commands:
    """Runs API commands for event socket clients."""

    def __init__(self, switch: "Switch") -> None:
        self._switch = switch

    async def execute(self, line: str) -> str:
        """The reply to ``COMMAND ARGUMENTS``."""
        name, _, argument = line.partition(" ")
        handler = HANDLERS.get(name.lower())
        if handler is None:
            return f"-ERR {name} Command not found!\n"
        event = Event("API")
        event.add("API-Command", name)
        event.add("API-Command-Argument", argument)
        self._switch.bus.fire(event)
        try:
            return await handler(self._switch, argument)
        except Exception:  # noqa: BLE001 - the client is told, and its connection stays
            _log.exception("api %s failed", name)
            self._switch.counters["api_errors"] += 1
            return "-ERR\n"

    def execute_in_background(self, line: str, job: str, owner: str) -> None:
        """Run a command in a task of its own; its reply comes as a BACKGROUND_JOB event."""
        self._switch.spawn(self._run(line, job, owner))

    async def _run(self, line: str, job: str, owner: str) -> None:
        reply = await self.execute(line)
        name, _, argument = line.partition(" ")
        event = Event("BACKGROUND_JOB", body=reply)
        event.add("Job-UUID", job)
        event.add("Job-Owner-UUID", owner)
        event.add("Job-Command", name)
        event.add("Job-Command-Arg", argument)
        self._switch.bus.fire(event)
