"""Keys asked for by name: when they are complete, who is given them, and that nobody else is."""

import asyncio
import json
from typing import Any

import pytest

from media_fork.collector import AFTERWARDS_S, PAUSE_S, SHIELD_S, Collector
from media_fork.tools import Result
from tandem.keying import Collection
from tandem.settings import HttpTool
from tests.media.simulated import SimulatedClock

CARD = "4111222233334444"
COLLECTIONS = [
    Collection(name="customer", description="their number", min_digits=4, max_digits=6, seconds=20),
    Collection(name="open", description="no secret", max_digits=2, masked=False),
    Collection.model_validate(
        {
            "name": "card", "description": "their card", "min_digits": 12, "max_digits": 16,
            "sink": {"url": "http://127.0.0.1:1/card"},
        }
    ),
]  # fmt: skip


class Keys:
    """A collector with everything around it written down."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.shield: list[bool] = []
        self.hushed = 0
        self.told: list[tuple[str, Result, bool]] = []
        self.delivered: list[dict[str, Any]] = []
        self.reply = Result("ok", '{"token": "t-1"}')
        self.collector = Collector(
            self.clock,
            COLLECTIONS,
            shield=lambda id, on: self.shield.append(on),
            hush=self._hush,
            deliver=self._deliver,
            settle=lambda *told: self.told.append(told),
        )

    def _hush(self) -> None:
        self.hushed += 1

    async def _deliver(self, tool: HttpTool, arguments: dict[str, Any]) -> Result:
        self.delivered.append(arguments)
        return self.reply

    def begin(self, name: str, *, secret: bool = False, typed: str = "", call_id: str = "fc_1") -> None:
        self.collector.begin(call_id, name, secret, typed)

    def press(self, digits: str, every_s: float = 0.3) -> list[bool]:
        taken = []
        for digit in digits:
            taken.append(self.collector.press(digit))
            self.clock.run_for(every_s)
        return taken

    @property
    def outputs(self) -> list[dict[str, Any]]:
        return [json.loads(result.output) for _, result, _ in self.told]


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.mark.parametrize(
    ("pressed", "waits_s", "digits"),
    [("123456", 0, "123456"), ("1234#", 0, "1234"), ("12345", PAUSE_S, "12345"), ("9*1234#", 0, "1234")],
    ids=["as many as may be", "terminator", "pause", "cleared"],
)
def test_it_is_complete(keys: Keys, pressed: str, waits_s: float, digits: str) -> None:
    keys.begin("customer")
    assert all(keys.press(pressed))
    keys.clock.run_for(waits_s)
    assert keys.outputs == [{"outcome": "collected", "digits": digits}]
    [(call_id, result, responds)] = keys.told
    assert (call_id, responds) == ("fc_1", True)
    assert json.loads(str(result.on_record)) == {"outcome": "collected", "digits": "*" * len(digits)}


@pytest.mark.parametrize(
    ("pressed", "waits_s", "detail"),
    [
        ("12#", 1, "only 2 digits were keyed in"),
        ("12", 30, "only 2 digits came in 20 s"),
        ("", 30, "nothing came in 20 s"),
    ],
)
def test_too_little_is_said_to_be_too_little_and_not_what_it_was(
    keys: Keys, pressed: str, waits_s: float, detail: str
) -> None:
    keys.begin("customer")
    keys.press(pressed)
    keys.clock.run_for(waits_s)
    assert keys.outputs == [{"outcome": "incomplete", "detail": detail}]
    assert keys.shield == [True, False]


def test_enough_when_the_time_is_over_is_enough(keys: Keys) -> None:
    keys.begin("customer")
    keys.clock.run_for(19)
    keys.press("1234", every_s=0.2)
    keys.clock.run_for(1)
    assert keys.outputs == [{"outcome": "collected", "digits": "1234"}]


def test_the_first_key_silences_the_agent_and_keys_typed_ahead_count(keys: Keys) -> None:
    keys.begin("customer", typed="12")
    keys.press("34#")
    assert keys.hushed == 1
    assert keys.outputs == [{"outcome": "collected", "digits": "1234"}]


def test_the_shield_is_up_from_the_request_until_the_last_tone_is_over(keys: Keys) -> None:
    keys.begin("customer")
    assert keys.shield == [True]
    keys.press("12345", every_s=0.1)
    keys.collector.press("6")
    keys.clock.run_for(SHIELD_S - 0.01)
    assert keys.shield == [True] and keys.collector.masks
    assert keys.collector.press("7"), "a key too many is nobody's"
    keys.clock.run_for(0.02)
    assert keys.shield == [True, False] and not keys.collector.masks


def test_a_terminator_after_the_last_digit_is_swallowed_and_later_keys_are_not(keys: Keys) -> None:
    keys.begin("open")
    assert keys.press("12#", every_s=0.5) == [True, True, True]
    keys.clock.run_for(AFTERWARDS_S)
    assert keys.press("#5") == [False, False]
    assert keys.shield == []
    assert keys.told[0][1].on_record == keys.told[0][1].output


async def test_a_secret_goes_to_its_sink_and_the_model_is_told_the_reply_alone(keys: Keys) -> None:
    keys.reply = Result("ok", json.dumps({"token": "t-1", "echo": f"card {CARD}"}))
    keys.begin("card", secret=True)
    keys.press(CARD)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert keys.delivered == [{"name": "card", "digits": CARD}]
    [told] = keys.outputs
    assert (told["outcome"], told["entered"]) == ("accepted", "16 digits")
    assert json.loads(told["reply"]) == {"token": "t-1", "echo": "card ****************"}
    assert CARD not in repr(keys.told)


async def test_a_sink_that_fails_is_told_as_such(keys: Keys) -> None:
    keys.reply = Result("http_error", f'{{"error":"refused {CARD}"}}')
    keys.begin("card", secret=True)
    keys.press(CARD)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert keys.outputs[0]["outcome"] == "failed"
    assert CARD not in repr(keys.told)


@pytest.mark.parametrize(("name", "secret"), [("nothing", False), ("card", False), ("customer", True)])
def test_what_is_not_to_be_had_by_this_tool_is_refused(keys: Keys, name: str, secret: bool) -> None:
    keys.begin(name, secret=secret)
    assert keys.outputs == [{"error": f"there is nothing named {name!r} to be keyed in"}]
    assert keys.shield == [] and keys.press("1") == [False]


def test_one_at_a_time(keys: Keys) -> None:
    keys.begin("customer")
    keys.begin("open", call_id="fc_2")
    assert keys.outputs == [{"error": "something else is being keyed in"}]
    keys.press("1234#")
    assert [call_id for call_id, _, _ in keys.told] == ["fc_2", "fc_1"]


def test_the_next_one_keeps_the_shield_up(keys: Keys) -> None:
    keys.begin("customer")
    keys.press("1234#", every_s=0.01)
    keys.begin("customer", call_id="fc_2")
    keys.clock.run_for(2 * SHIELD_S)
    assert keys.shield == [True]


def test_a_call_that_ends_leaves_no_shield_and_no_timer(keys: Keys) -> None:
    keys.begin("customer")
    keys.press("12")
    keys.collector.close()
    assert keys.shield == [True, False]
    assert keys.clock.idle and keys.told == []
