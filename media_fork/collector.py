"""Keys that an agent asks for by name: gathered, and given to the agent, or to a sink that the model never hears of.

While something masked is keyed in, the model is sent silence and the recording is masked: neither has the tones of a phone
that sends them in its audio. A shield goes up with the request and comes down SHIELD_S after the last key.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from media_fork.clock import Clock, Timer
from media_fork.tools import Result, failure
from tandem.keying import Collection
from tandem.settings import HttpTool

TERMINATOR: Final = "#"
CLEAR: Final = "*"
"""What was entered so far is forgotten."""
PAUSE_S: Final = 4.0
"""After this long without another key it is complete, where there are enough."""
AFTERWARDS_S: Final = 3.0
"""A terminator that comes this soon after the last digit is part of it, be there enough or not."""
SHIELD_S: Final = 0.4
"""A tone may outlast its key, and audio is on its way."""
Deliver = Callable[[HttpTool, dict[str, Any]], Awaitable[Result]]


@dataclass
class _Open:
    call_id: str
    collection: Collection
    digits: str = ""
    timers: list[Timer] = field(default_factory=list, repr=False)


class Collector:
    """One conversation's; one collection at a time.

    ``shield``: have model and recording hear nothing, or hear again. ``hush``: the agent is not heard out. ``deliver``
    carries out an HTTP tool. ``settle`` is told what the model is to be told.
    """

    def __init__(
        self,
        clock: Clock,
        collections: Sequence[Collection],
        *,
        shield: Callable[[str, bool], None],
        hush: Callable[[], None],
        deliver: Deliver,
        settle: Callable[[str, Result, bool], None],
    ) -> None:
        self._clock = clock
        self._collections = {collection.name: collection for collection in collections}
        self._shield = shield
        self._hush = hush
        self._deliver = deliver
        self._settle = settle
        self._open: _Open | None = None
        self._shielded: str | None = None
        """Id of the collection that the shield is up for."""
        self._lower: Timer | None = None
        self._complete_at = -AFTERWARDS_S
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Keys are waited for, or a sink's reply."""
        return self._open is not None or bool(self._tasks)

    @property
    def masks(self) -> bool:
        """Keys are nobody's business now."""
        return self._shielded is not None

    def begin(self, call_id: str, name: str, secret: bool, typed: str) -> None:
        """The agent has asked the caller. ``secret``: by which of the two tools; ``typed``: keys that came before."""
        collection = self._collections.get(name)
        if collection is None or (collection.sink is not None) is not secret:
            self._settle(
                call_id, failure("bad_arguments", f"there is nothing named {name[:64]!r} to be keyed in"), True
            )
            return
        if self._open is not None:
            self._settle(call_id, failure("refused", "something else is being keyed in"), True)
            return
        if collection.masked:
            self._raise(call_id)
        opened = self._open = _Open(call_id, collection)
        opened.timers = [self._clock.call_at(self._clock.now() + collection.seconds, self._expired)]
        for digit in typed:
            self.press(digit)

    def press(self, digit: str) -> bool:
        """A key. False where none is wanted."""
        opened = self._open
        if opened is None:
            ends = digit == TERMINATOR and self._clock.now() < self._complete_at + AFTERWARDS_S
            return ends or self.masks
        if not opened.digits:
            self._hush()
        if digit == CLEAR:
            opened.digits = ""
        elif digit != TERMINATOR:
            opened.digits += digit
        enough = len(opened.digits) >= opened.collection.min_digits
        if len(opened.digits) == opened.collection.max_digits or (digit == TERMINATOR and enough):
            self._complete(opened)
        elif digit == TERMINATOR:
            self._end(opened, "incomplete", f"only {len(opened.digits)} digits were keyed in")
        else:
            self._await_another(opened, enough)
        return True

    def close(self) -> None:
        """The call or the model is gone."""
        if self._open is not None:
            _cancel(self._open)
            self._open = None
        for task in self._tasks:
            task.cancel()
        self._down()

    def _await_another(self, opened: _Open, enough: bool) -> None:
        for timer in opened.timers[1:]:
            timer.cancel()
        del opened.timers[1:]
        if enough:
            done_at = self._clock.now() + PAUSE_S
            opened.timers.append(self._clock.call_at(done_at, lambda: self._complete(opened)))

    def _expired(self) -> None:
        opened = self._open
        assert opened is not None
        if len(opened.digits) >= opened.collection.min_digits:
            self._complete(opened)
        else:
            what = f"only {len(opened.digits)} digits" if opened.digits else "nothing"
            self._end(opened, "incomplete", f"{what} came in {opened.collection.seconds} s")

    def _complete(self, opened: _Open) -> None:
        self._over(opened)
        self._complete_at = self._clock.now()
        collection, digits = opened.collection, opened.digits
        if collection.sink is None:
            output = {"outcome": "collected", "digits": digits}
            masked = output | {"digits": "*" * len(digits)} if collection.masked else output
            self._settle(opened.call_id, Result("collected", _json(output), on_record=_json(masked)), True)
            return
        task = asyncio.get_running_loop().create_task(self._hand_over(opened.call_id, collection, digits))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_over(self, call_id: str, collection: Collection, digits: str) -> None:
        """Give a secret to its sink. What comes back is told without the digits, should they be in it."""
        assert collection.sink is not None
        tool = HttpTool(
            name=collection.name,
            description=collection.description,
            url=collection.sink.url,
            headers=collection.sink.headers,
            timeout_ms=collection.sink.timeout_ms,
        )
        result = await self._deliver(tool, {"name": collection.name, "digits": digits})
        told = result.output.replace(digits, "*" * len(digits))
        outcome = "accepted" if result.status == "ok" else "failed"
        output = {"outcome": outcome, "entered": f"{len(digits)} digits", "reply": told}
        self._settle(call_id, Result(outcome, _json(output)), True)

    def _end(self, opened: _Open, outcome: str, detail: str) -> None:
        self._over(opened)
        self._settle(opened.call_id, Result(outcome, _json({"outcome": outcome, "detail": detail})), True)

    def _over(self, opened: _Open) -> None:
        _cancel(opened)
        self._open = None
        if self._shielded is not None:
            self._lower = self._clock.call_at(self._clock.now() + SHIELD_S, self._down)

    def _raise(self, call_id: str) -> None:
        if self._lower is not None:
            self._lower.cancel()
            self._lower = None
        if self._shielded is None:
            self._shield(call_id, True)
        self._shielded = call_id

    def _down(self) -> None:
        if self._lower is not None:
            self._lower.cancel()
            self._lower = None
        if self._shielded is not None:
            call_id, self._shielded = self._shielded, None
            self._shield(call_id, False)


def _cancel(opened: _Open) -> None:
    for timer in opened.timers:
        timer.cancel()


def _json(value: dict[str, str]) -> str:
    return orjson.dumps(value).decode()
