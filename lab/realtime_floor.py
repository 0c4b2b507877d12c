"""Who may speak: the one response of the conversation, those beside it, and what has not been answered yet."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from lab.faults import Faults
from lab.realtime_config import SessionConfig
from lab.realtime_conversation import Conversation, Item, text_tokens
from lab.realtime_mind import Mind
from lab.realtime_response import Response, Setting
from lab.realtime_schema import RequestError
from lab.realtime_wire import Wire
from lab.scenario import Pace, Reply


class Floor:
    """One session's. ``on_quiet`` is told when the conversation's response is done, with the audio it sent, ms."""

    def __init__(
        self,
        conversation: Conversation,
        wire: Wire,
        mind: Mind,
        pace: Pace,
        faults: Faults,
        on_quiet: Callable[[int], None],
    ) -> None:
        self.has_spoken = False
        """Audio was sent by a response that is done."""
        self._conversation = conversation
        self._wire = wire
        self._mind = mind
        self._faults = faults
        self._on_quiet = on_quiet
        changes = {name: getattr(faults, name) for name in Pace.model_fields}
        self._pace = pace.model_copy(update={name: value for name, value in changes.items() if value is not None})
        self._unanswered: list[Item] = []
        """Of the caller and of tools, since the last response."""
        self._active: Response | None = None
        self._answering: list[Item] = []
        """What the active response answers; unanswered again where it is cut off before its first word."""
        self._aside: set[Response] = set()
        self._responses = 0

    def close(self) -> None:
        for response in self._all():
            response.abandon()

    def ask(self, item: Item) -> None:
        """To be answered by the next response."""
        self._unanswered.append(item)

    def forget(self) -> None:
        """Nothing is to be answered."""
        self._unanswered.clear()

    def respond(
        self,
        config: SessionConfig,
        params: dict[str, Any],
        inputs: list[Item] | None = None,
        *,
        aside: bool = False,
        reply: Reply | None = None,
    ) -> None:
        """Begin a response: to ``inputs`` in place of what is unanswered, or with ``reply`` made already.

        Raises RequestError where the conversation has one; those ``aside`` it may always be.
        """
        if not aside and self._active is not None:
            raise RequestError(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {self._active.id}."
                " Wait until the response is finished before creating a new one.",
            )
        if inputs is None:
            inputs = list(self._unanswered)
            if not aside:
                self._unanswered.clear()
        self._responses += 1
        strikes = self._responses == self._faults.reply
        setting = Setting.of(config, params)
        text, audio = self._conversation.tokens()
        response = Response(
            setting,
            None if aside else self._conversation,
            self._wire,
            self._pace,
            self._faults if strikes else Faults(huge_delta=self._faults.huge_delta),
            self._done,
            self._mind.remember_call,
            (text + text_tokens(params.get("instructions", config.instructions)), audio),
        )
        if aside:
            self._aside.add(response)
        else:
            self._active, self._answering = response, inputs
        wording = self._mind.reply(setting, params.get("instructions", ""), inputs) if reply is None else _made(reply)
        response.start(self._thought(wording))

    def interrupt(self) -> None:
        """The caller speaks."""
        if self._active is not None:
            self._active.cancel("turn_detected")

    def cancel(self, response_id: str | None) -> None:
        """The client's wish. Raises RequestError where there is no such response, or none in the conversation."""
        for response in self._all():
            if response.id == response_id or (response_id is None and response.in_conversation):
                response.cancel("client_cancelled")
                return
        raise RequestError("response_cancel_not_active", "Cancellation failed: no active response found")

    def _all(self) -> list[Response]:
        return [*([] if self._active is None else [self._active]), *self._aside]

    def _done(self, response: Response) -> None:
        self.has_spoken = self.has_spoken or response.spoken_ms > 0
        self._aside.discard(response)
        if response is self._active:
            if response.said_nothing:
                self._unanswered[:0] = self._answering
            self._active, self._answering = None, []
            self._on_quiet(response.spoken_ms)

    async def _thought(self, wording: Awaitable[Reply]) -> Reply:
        reply, _ = await asyncio.gather(wording, asyncio.sleep(self._pace.think_ms / 1000))
        return reply


async def _made(reply: Reply) -> Reply:
    return reply
