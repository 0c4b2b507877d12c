"""Errands: the function calls of one conversation, carried out and answered.

The calls of a response are carried out when it is complete, never when it was cancelled: the caller who interrupted has
not heard what was to be done. Transfers and hang-ups become decisions; HTTP tools of one response run side by side, and
the model responds once it has all their results. Audio never waits for any of it.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
import orjson

from media_fork import tools
from media_fork.actions import Actions
from media_fork.chronicle import Chronicle
from media_fork.decisions import INTERRUPTED, Decisions
from media_fork.floor import Floor
from media_fork.memory import Memory
from media_fork.metrics import Counts
from media_fork.tools import Result
from media_fork.toolservers import ToolServers
from tandem.rows import ToolCallRecord
from tandem.seam import MAX_ID, Record
from tandem.settings import Agent, HttpTool

MAX_RUNNING: Final = 8
"""HTTP tools of one call at a time."""
MAX_REMEMBERED: Final = 64
"""Function calls whose records are kept at hand; an id among them is not carried out again."""


class Errands:
    """One conversation's. ``answer`` gives the model the output of a function call; ``reports`` are the tools by which the agent
    only says something, and hears what comes of it, if anything, as a message; ``others`` are those that are carried out
    elsewhere, which owe a ``settle``."""

    def __init__(
        self,
        agent: Agent,
        http: aiohttp.ClientSession,
        servers: ToolServers,
        decisions: Decisions,
        actions: Actions,
        floor: Floor,
        chronicle: Chronicle,
        counts: Counts,
        memory: Memory,
        answer: Callable[[str, str], None],
        reports: Mapping[str, Callable[[str], None]],
        others: Mapping[str, Callable[[str, dict[str, Any]], None]],
    ) -> None:
        self._http_tools = {tool.name: tool for tool in agent.tools}
        self._recording_actions = {action.value: action for action in tools.recording_actions(agent.recording)}
        self._http = http
        self._servers = servers
        self._decisions = decisions
        self._actions = actions
        self._floor = floor
        self._chronicle = chronicle
        self._counts = counts
        self._memory = memory
        self._answer = answer
        self._reports = reports
        self._others = others
        self._noted: dict[str, dict[str, Any]] = {}
        """Function calls of the response under way, by call_id."""
        self._records: dict[str, ToolCallRecord] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        self._closed = False

    @property
    def is_running(self) -> bool:
        return bool(self._tasks)

    def note(self, item: dict[str, Any]) -> None:
        """An output item of the response under way, whatever its type."""
        if item.get("type") != "function_call" or item.get("status", "completed") != "completed":
            return
        call_id = item.get("call_id")
        if isinstance(call_id, str) and 0 < len(call_id) <= MAX_ID:
            self._noted[call_id] = item
        else:
            self._counts.add("model_events_ignored", "malformed")

    def forget(self) -> None:
        """A new response begins, or the one under way was cancelled."""
        self._noted.clear()

    def carry_out(self, interrupted: bool) -> None:
        """The response is complete. ``interrupted`` where the caller spoke before it was."""
        noted, self._noted = self._noted, {}
        beside: list[tuple[str, HttpTool, dict[str, Any]]] = []
        for call_id, item in noted.items():
            if call_id in self._records:
                continue
            name, text = str(item.get("name", "")), item.get("arguments")
            self._begin(call_id, name, text if isinstance(text, str) else "")
            if interrupted:
                self.settle(call_id, INTERRUPTED, respond=False)
                continue
            arguments = _arguments(text)
            if arguments is None:
                self.settle(call_id, tools.failure("bad_arguments", "the arguments are not a JSON object"))
            elif name == tools.TRANSFER:
                self._decisions.transfer(
                    call_id,
                    _words(arguments, "destination"),
                    _words(arguments, "reason"),
                    _words(arguments, "number"),
                    _words(arguments, "summary"),
                )
            elif name == tools.HANG_UP:
                self._decisions.hang_up(call_id, _words(arguments, "reason"))
            elif name == tools.RECORDING and self._recording_actions:
                self._record(call_id, _words(arguments, "action"))
            elif name in self._reports:
                self._reports[name](call_id)
                self.settle(call_id, tools.NOTED, respond=False)
            elif name in self._others:
                self._others[name](call_id, arguments)
            elif name not in self._http_tools:
                self.settle(call_id, tools.failure("unknown_tool", f"there is no tool named {name[:64]!r}"))
            elif self._running + len(beside) >= MAX_RUNNING:
                self.settle(call_id, tools.failure("too_many", "too many tools are running; try again later"))
            else:
                beside.append((call_id, self._http_tools[name], arguments))
        if beside:
            task = asyncio.get_running_loop().create_task(self._run(beside))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _record(self, call_id: str, action: str) -> None:
        if action in self._recording_actions:
            self._actions.carry_out(Record(id=call_id, action=self._recording_actions[action]))
        else:
            self.settle(call_id, tools.failure("bad_arguments", f"there is no action {action[:64]!r}"))

    def settle(self, call_id: str, result: Result, respond: bool = True) -> None:
        """Give the model the result of a call, record it, and have the model respond to it or not."""
        self._end(call_id, result)
        if not self._closed:
            self._memory.came_of(call_id, result.output)
            self._answer(call_id, result.output)
            if respond:
                self._floor.request()

    def close(self) -> None:
        """The call or the model is gone."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for call_id, record in list(self._records.items()):
            if record.ended_at is None:
                self._end(call_id, Result("call_ended", ""))

    async def _run(self, calls: list[tuple[str, HttpTool, dict[str, Any]]]) -> None:
        async def run(call_id: str, tool: HttpTool, arguments: dict[str, Any]) -> None:
            result = await self._servers.request(self._http, tool, arguments, self._chronicle.call)
            self.settle(call_id, result, respond=False)

        self._running += len(calls)
        try:
            await asyncio.gather(*(run(*call) for call in calls))
        finally:
            self._running -= len(calls)
        self._floor.request()

    def _begin(self, call_id: str, name: str, arguments: str) -> None:
        self._records[call_id] = self._chronicle.tool_call(call_id, name, arguments)
        self._memory.called(call_id, name, arguments)
        while len(self._records) > MAX_REMEMBERED:
            del self._records[next(iter(self._records))]

    def _end(self, call_id: str, result: Result) -> None:
        self._counts.add("tool_calls", result.status)
        record = self._records.get(call_id)
        if record is not None:
            self._records[call_id] = self._chronicle.tool_result(
                record, result.status, result.output if result.on_record is None else result.on_record
            )


def _words(arguments: dict[str, Any], key: str) -> str:
    value = arguments.get(key)
    return value if isinstance(value, str) else ""


def _arguments(text: Any) -> dict[str, Any] | None:
    if not isinstance(text, str):
        return None
    try:
        arguments = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return None
    return arguments if isinstance(arguments, dict) else None
