"""One conversation's models, one after the other: the first, and those that take over in mid-call.

    ready ──▶ lost ──▶ reconnecting, within reconnect_within_ms ──▶ ready again, or given up
      └─────▶ its session nears its end ──▶ a second one is made ready beside it, and takes over at a quiet moment

Each one that takes over is told what the conversation has come to (see Conversation.attach).
"""

import asyncio
import logging
from typing import Any, Final

from media_fork import client_events
from media_fork.clock import Clock
from media_fork.conversation import Conversation
from media_fork.endpoints import Endpoints, Update
from media_fork.floor import Silence
from media_fork.metrics import Counts
from media_fork.realtime import ModelUnavailableError, Realtime, place

SESSION_S: Final = 3600.0
"""A session's life where the model does not say when it ends."""
BEFORE_S: Final = 300.0
"""So long before its end, at most half its life, the next session is made ready."""
LAST_S: Final = 20.0
"""So long before its end, at most an eighth of its life, no quiet moment is waited for any more."""
LOOK_S: Final = 0.1
"""Between two looks for a quiet moment."""
STANDBY_RETRY_S: Final = 10.0
PAUSES_S: Final = (0.2, 1.0)
"""First and longest pause between attempts to reconnect."""
MAX_FRUITLESS: Final = 2
"""Models in a row that were lost before they said anything, after which none is tried any more."""
MAX_LOSSES: Final = 5
LOSSES_S: Final = 60.0
"""No more than MAX_LOSSES in so long."""

_log = logging.getLogger(__name__)


class _Standby:
    """Listens to a session that waits for its turn."""

    def __init__(self) -> None:
        self.lost = False

    def on_audio(self, response: str, item: str, content_index: int, audio: bytes) -> None: ...

    def on_event(self, event: dict[str, Any]) -> None: ...

    def on_model_full(self, full: bool) -> None: ...

    def on_model_lost(self, cause: str, message: str) -> None:
        self.lost = True


class Succession:
    """``begin`` gives the conversation its first model; from then on it has one, or is given up."""

    def __init__(
        self,
        conversation: Conversation,
        endpoints: Endpoints,
        update: Update,
        reconnect_within_ms: int,
        clock: Clock,
        counts: Counts,
    ) -> None:
        self._conversation = conversation
        self._endpoints = endpoints
        self._update = update
        self._within_s = reconnect_within_ms / 1000
        self._clock = clock
        self._counts = counts
        self._model: Realtime | None = None
        self._task: asyncio.Task[None] | None = None
        """Reconnects, or hands over."""
        self._losses: list[float] = []
        self._fruitless = 0
        self._closed = False
        conversation.on_lost = self._on_lost

    async def begin(self) -> None:
        """Raises ModelUnavailableError."""
        self._take(await self._endpoints.open(self._update))

    def refresh(self) -> None:
        """What the agent is told to be and to have may have changed: the model is told if it has."""
        if self._model is None:
            return
        wanted = self._update(self._model.endpoint)["session"]
        known = self._model.update["session"]
        change = {key: wanted[key] for key in ("instructions", "tools") if wanted[key] != known[key]}
        if change:
            known.update(change)
            self._model.send(client_events.session_change(**change))

    def give_up(self, cause: str, message: str) -> None:
        """The conversation goes on without a model: esl_app takes the caller on."""
        self.close()
        self._conversation.give_up(cause, message)

    def close(self) -> None:
        """The call is over."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        if self._model is not None:
            self._model.close()

    def _take(self, model: Realtime) -> None:
        before, self._model = self._model, model
        self._conversation.attach(model)
        self.refresh()
        model.listen(self._conversation)
        if before is not None:
            before.close()
        life_s = SESSION_S
        if model.expires_at is not None and model.expires_at > self._clock.unix():
            life_s = model.expires_at - self._clock.unix()
        self._task = asyncio.get_running_loop().create_task(self._hand_over(life_s))

    def _on_lost(self, cause: str, message: str) -> None:
        """The conversation's model is gone, or does not answer."""
        assert self._model is not None
        now = self._clock.now()
        if self._task is not None:
            self._task.cancel()
        if cause != "session_expired":
            self._endpoints.failed(self._model.endpoint, cause, message)
        self._losses = [at for at in self._losses if now - at < LOSSES_S] + [now]
        self._fruitless = 0 if self._conversation.has_answered else self._fruitless + 1
        silent = cause == Silence.NO_RESPONSE.value and self._fruitless > 0
        if self._closed or silent or self._fruitless >= MAX_FRUITLESS or len(self._losses) > MAX_LOSSES:
            self.give_up(cause, message)
        else:
            self._task = asyncio.get_running_loop().create_task(self._reconnect(cause, message))

    async def _reconnect(self, cause: str, message: str) -> None:
        ends = self._clock.now() + self._within_s
        pause, longest = PAUSES_S
        while True:
            try:
                model = await self._endpoints.open(self._update, ends - self._clock.now())
            except ModelUnavailableError as error:
                left = ends - self._clock.now()
                if left <= pause:
                    self._conversation.give_up(cause, f"{message}; not to be had again: {error}")
                    return
            else:
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
        self._counts.add("models_resumed", "reconnected")
        extra = {"call": self._conversation.call}
        _log.info("model resumed at %s after %s", place(model.endpoint), cause, extra=extra)
        self._take(model)

    async def _hand_over(self, life_s: float) -> None:
        """Have another session take over before this one ends. Where it does not come to that, it is lost at its end."""
        latest = self._clock.now() + life_s - min(LAST_S, life_s / 8)
        await asyncio.sleep(life_s - min(BEFORE_S, life_s / 2))
        while (left := latest - self._clock.now()) > 0:
            try:
                model = await self._endpoints.open(self._update)
            except ModelUnavailableError:
                await asyncio.sleep(min(STANDBY_RETRY_S, left))
                continue
            standby = _Standby()
            model.listen(standby)
            try:
                while not (standby.lost or self._conversation.is_quiet or self._clock.now() >= latest):
                    await asyncio.sleep(LOOK_S)
            except asyncio.CancelledError:
                model.close()
                raise
            if not standby.lost:
                self._counts.add("models_resumed", "handed_over")
                _log.info("handed over to a new session", extra={"call": self._conversation.call})
                self._take(model)
                return
