"""What the model makes of what it heard and read: the words and function calls of its next response."""

import asyncio
import logging
import re
from typing import Final

from lab.realtime_conversation import Conversation, Item
from lab.realtime_response import Setting
from lab.realtime_wire import Wire
from lab.scenario import Reply, Scenario, Understanding

QUOTED: Final = re.compile(r"[\"“](.+)[\"”]", re.DOTALL)
"""Words that instructions quote, from the first quotation mark to the last."""
SPEECHLESS: Final = ("none", "required")
"""Values of tool_choice with which a call that cannot be made is not apologised for."""

_log = logging.getLogger(__name__)


class Mind:
    """One session's. ``reply`` may wait until the caller's speech is recognised."""

    def __init__(self, scenario: Scenario, conversation: Conversation, wire: Wire) -> None:
        self._scenario = scenario
        self._understanding = Understanding(scenario)
        self._conversation = conversation
        self._wire = wire
        self._calls: dict[str, Reply] = {}

    def remember_call(self, call_id: str, made_by: Reply) -> None:
        """So that the output of the call is answered as ``made_by`` has it."""
        self._calls[call_id] = made_by

    def recall(self, call: Item) -> None:
        """A function call of the client's making, as of a conversation that began elsewhere."""
        made_by = self._understanding.calling(call.fields["name"], call.fields["arguments"])
        if made_by is not None:
            self.remember_call(call.fields["call_id"], made_by)

    async def reply(self, setting: Setting, instructions: str, inputs: list[Item]) -> Reply:
        """Words that the instructions of this response quote, else what the newest understood input calls for."""
        if quoted := QUOTED.search(instructions):
            return Reply(say=quoted[1].strip())
        for item in reversed(inputs):
            if (reply := await self._reply_to(item)) is not None:
                return self._within_tools(reply, setting)
        if any(item.is_user for item in inputs):
            return Reply(say=self._scenario.fallback)
        has_spoken = any(item.fields.get("role") == "assistant" for item in self._conversation)
        return Reply(say=self._scenario.prompt if has_spoken else self._scenario.greeting)

    async def _reply_to(self, item: Item) -> Reply | None:
        if item.fields["type"] == "function_call_output":
            made_by = self._calls.get(item.fields["call_id"])
            return None if made_by is None else made_by.after_output(item.fields["output"])
        text = item.text if item.heard is None else await asyncio.shield(item.heard)
        return self._understanding.of(text) if text else None

    def _within_tools(self, reply: Reply, setting: Setting) -> Reply:
        """``reply`` with the calls that the session's tools and tool_choice allow."""
        calls = [] if setting.tool_choice == "none" else [call for call in reply.calls if call.name in setting.tools]
        if missing := {call.name for call in reply.calls} - setting.tools:
            _log.warning("scenario calls what the session has no tool for: %s", ", ".join(sorted(missing)))
            self._wire.log.note(f"no tool: {', '.join(sorted(missing))}")
        if reply.calls and not calls and setting.tool_choice not in SPEECHLESS:
            return Reply(say=self._scenario.unable)
        return reply.model_copy(update={"calls": calls})
