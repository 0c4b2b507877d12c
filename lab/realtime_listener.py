"""A session's ears: what the caller said becomes items, is recognised beside everything else, and is written down."""

import asyncio
import copy
import logging
from collections.abc import Coroutine
from typing import Any, Final, Protocol, TypeVar

from lab.ears import EarsError
from lab.realtime_config import AudioFormat, Pcm
from lab.realtime_conversation import Conversation, Item, text_tokens
from lab.realtime_input import Segment
from lab.realtime_wire import Wire

UNINTELLIGIBLE: Final = "(unintelligible)"
"""Transcript of speech that is none of the scenario's phrases."""

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class Ears(Protocol):
    """What recognises speech; see lab.ears.Ears."""

    async def hear(self, pcm: Pcm, rate: int) -> str | None: ...


class Listener:
    """One session's."""

    def __init__(self, ears: Ears, conversation: Conversation, wire: Wire) -> None:
        self._ears = ears
        self._conversation = conversation
        self._wire = wire
        self._tasks: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def hear(self, pcm: Pcm, rate: int) -> "asyncio.Task[str | None]":
        """Recognise speech; None is what nobody could hear a phrase in."""
        return self._start(self._hear(pcm, rate))

    def commit(self, item_id: str, segment: Segment, audio_format: AudioFormat, *, transcribe: bool) -> Item:
        """The segment as an item of the caller's, with the events that say so."""
        fields: dict[str, Any] = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        audio = audio_format.encode(segment.pcm)
        heard = self.hear(segment.pcm, segment.rate)
        item = Item(fields, audio_format, audio, segment.end_ms - segment.start_ms, heard)
        previous = self._conversation.add(item)
        shown = copy.deepcopy(fields)
        self._wire.emit({"type": "input_audio_buffer.committed", "previous_item_id": previous, "item_id": item_id})
        self._wire.emit({"type": "conversation.item.added", "previous_item_id": previous, "item": shown})
        self._wire.emit({"type": "conversation.item.done", "previous_item_id": previous, "item": shown})
        if transcribe:
            self._start(self._transcribe(item, heard))
        return item

    async def _hear(self, pcm: Pcm, rate: int) -> str | None:
        try:
            return await self._ears.hear(pcm, rate)
        except EarsError as error:
            _log.error("speech not recognised: %s", error)
            self._wire.log.note(f"ears: {error}")
            return None

    async def _transcribe(self, item: Item, heard: "asyncio.Task[str | None]") -> None:
        phrase = await heard
        transcript = UNINTELLIGIBLE if phrase is None else f"{phrase[:1].upper()}{phrase[1:]}."
        item.fields["content"][0]["transcript"] = transcript
        which = {"item_id": item.id, "content_index": 0}
        for index, word in enumerate(transcript.split(" ")):
            delta = f" {word}" if index else word
            self._wire.emit({"type": "conversation.item.input_audio_transcription.delta", **which, "delta": delta})
        output_tokens = text_tokens(transcript)
        usage = {
            "type": "tokens",
            "total_tokens": item.audio_tokens + output_tokens,
            "input_tokens": item.audio_tokens,
            "input_token_details": {"text_tokens": 0, "audio_tokens": item.audio_tokens},
            "output_tokens": output_tokens,
        }
        completed = {"type": "conversation.item.input_audio_transcription.completed", **which}
        self._wire.emit({**completed, "transcript": transcript, "usage": usage})

    def _start(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
