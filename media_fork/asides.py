"""Asides: times in which the model does not hear the caller, because they wait or key in what is not for it; and keys sent."""

import re
from collections.abc import Callable
from typing import Any, Final

from media_fork import tools
from media_fork.actions import Actions
from media_fork.clock import Clock
from media_fork.collector import Collector, Deliver
from media_fork.floor import Floor
from media_fork.hold import UNLESS_SAID_S, Hold
from media_fork.keypad import Keypad
from media_fork.tools import Result
from tandem.seam import Command, Private, SendDtmf
from tandem.seam import Hold as HoldCommand
from tandem.settings import Agent

_DIGITS: Final = re.compile(r"[0-9*#A-DwW]{1,64}")
Tool = Callable[[str, dict[str, Any]], None]
Settle = Callable[[str, Result, bool], None]


class Asides:
    """One conversation's. ``tools`` are those that the agent has, by name, each given call_id and arguments."""

    def __init__(
        self,
        clock: Clock,
        agent: Agent,
        heard_within_ms: int,
        *,
        is_playing: Callable[[], bool],
        keypad: Keypad,
        floor: Floor,
        actions: Actions,
        command: Callable[[Command], None],
        hush: Callable[[], None],
        deliver: Deliver,
        settle: Settle,
    ) -> None:
        self._keypad = keypad
        self._floor = floor
        self._actions = actions
        self._command = command
        self._settle = settle
        self._private: Private | None = None
        self._on_hold: HoldCommand | None = None
        self.is_deaf = False
        """The model is to be sent silence in the caller's place."""
        self._collector = Collector(
            clock, agent.collect, shield=self._shield, hush=hush, deliver=deliver, settle=settle
        )
        self._hold = Hold(clock, heard_within_ms, is_playing, self._wait, settle)
        secrets = {collection.sink is not None for collection in agent.collect}
        self.tools: dict[str, Tool] = {}
        if False in secrets:
            self.tools[tools.COLLECT_DIGITS] = lambda id, arguments: self._collect(id, arguments, secret=False)
        if True in secrets:
            self.tools[tools.COLLECT_SECRET] = lambda id, arguments: self._collect(id, arguments, secret=True)
        if agent.sends_digits:
            self.tools[tools.SEND_DTMF] = self._send_dtmf
        if agent.holds:
            self.tools[tools.HOLD] = self._begin_hold

    @property
    def is_open(self) -> bool:
        return self._collector.is_open or self._hold.is_open

    @property
    def masks_keys(self) -> bool:
        """Keys are not to be told to anybody."""
        return self._collector.masks

    def press(self, digit: str) -> None:
        """The caller has pressed a key."""
        if not self._collector.press(digit):
            self._keypad.press(digit)

    def heard(self) -> None:
        """An utterance has been heard to its end."""
        self._hold.heard()

    def interrupted(self) -> None:
        """The caller speaks while the agent was to be heard out."""
        self._hold.interrupted()

    def answered(self) -> None:
        """The model begins to say something."""
        self._hold.wanted()

    def repeat(self) -> None:
        """Another esl_app is to do what is being done."""
        for command in (self._private, self._on_hold):
            if command is not None:
                self._command(command)

    def close(self) -> None:
        """The call or the model is gone."""
        self._collector.close()
        self._hold.close()

    # Tools

    def _collect(self, call_id: str, arguments: dict[str, Any], secret: bool) -> None:
        self._collector.begin(call_id, str(arguments.get("name", "")), secret, self._keypad.take())

    def _send_dtmf(self, call_id: str, arguments: dict[str, Any]) -> None:
        digits = arguments.get("digits")
        if isinstance(digits, str) and _DIGITS.fullmatch(digits):
            self._actions.carry_out(SendDtmf(id=call_id, digits=digits))
        else:
            self._settle(
                call_id, tools.failure("bad_arguments", "digits: expected 0 to 9, *, #, A to D, w and W"), True
            )

    def _begin_hold(self, call_id: str, arguments: dict[str, Any]) -> None:
        seconds = arguments.get("seconds")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            seconds = UNLESS_SAID_S
        self._hold.begin(call_id, seconds, arguments.get("music") is not False)

    # What they do

    def _shield(self, call_id: str, on: bool) -> None:
        private = Private(id=call_id, on=on)
        self._private = private if on else None
        self._be_deaf(private)

    def _wait(self, call_id: str, on: bool, music: bool) -> None:
        hold = HoldCommand(id=call_id, on=on, music=music)
        self._on_hold = hold if on else None
        self._floor.on_wanted = self._hold.wanted if on else None
        self._be_deaf(hold)

    def _be_deaf(self, command: Command) -> None:
        self.is_deaf = self._private is not None or self._on_hold is not None
        self._command(command)
