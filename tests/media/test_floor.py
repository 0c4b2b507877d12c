"""The floor in simulated time: silence is noticed, patience has bounds, keys are gathered."""

from media_fork.floor import Floor, Silence
from media_fork.keypad import Keypad
from tests.media.simulated import SimulatedClock


class Rig:
    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.asked: list[str | None] = []
        self.given_up: list[Silence] = []
        self.floor = Floor(self.clock, self.asked.append, self.given_up.append)


def test_a_caller_whose_speech_never_ends_delays_us_only_so_long():
    rig = Rig()
    rig.floor.caller_started()
    rig.floor.request()
    rig.clock.run_for(9.9)
    assert rig.asked == []
    rig.clock.run_for(0.2)
    assert rig.asked == [None]


def test_when_the_model_does_not_answer_the_caller_by_itself_it_is_asked_soon_after():
    rig = Rig()
    rig.floor.caller_started()
    rig.floor.request()
    rig.floor.caller_stopped()
    rig.clock.run_for(1.4)
    assert rig.asked == []
    rig.clock.run_for(0.2)
    assert rig.asked == [None]


def test_a_turn_that_is_not_answered_is_asked_for_once_then_the_model_is_given_up():
    rig = Rig()
    rig.floor.caller_committed()
    rig.clock.run_for(9.9)
    assert rig.asked == []
    rig.clock.run_for(0.2)
    assert rig.asked == [None]
    rig.clock.run_for(9.8)
    assert rig.given_up == []
    rig.clock.run_for(0.3)
    assert rig.given_up == [Silence.NO_RESPONSE]


def test_a_response_that_stops_in_the_middle_is_given_up():
    rig = Rig()
    rig.floor.request("greet")
    rig.floor.created("resp_1")
    for _ in range(10):
        rig.clock.run_for(5)
        rig.floor.output()
    assert rig.given_up == []
    rig.clock.run_for(19.9)
    assert rig.given_up == []
    rig.clock.run_for(0.2)
    assert rig.given_up == [Silence.NO_RESPONSE]


def test_a_conversation_in_which_nobody_speaks_is_no_silence_of_the_model():
    rig = Rig()
    rig.floor.request("greet")
    rig.floor.created("resp_1")
    rig.floor.done(failed=False)
    rig.clock.run_for(600)
    assert rig.given_up == []
    assert rig.asked == ["greet"]


def test_a_failed_greeting_is_asked_for_again_in_its_words():
    rig = Rig()
    rig.floor.request("greet")
    rig.floor.created("resp_1")
    rig.floor.done(failed=True)
    assert rig.asked == ["greet"]
    rig.clock.run_for(0.6)
    assert rig.asked == ["greet", "greet"]
    rig.floor.created("resp_2")
    rig.floor.done(failed=False)
    rig.floor.request()
    rig.floor.created("resp_3")
    rig.floor.done(failed=True)
    assert rig.given_up == []


def test_an_item_not_yet_in_the_conversation_is_not_covered_by_a_response_made_before():
    rig = Rig()
    rig.floor.caller_started()
    rig.floor.item_sent("ours")
    rig.floor.request()
    rig.floor.caller_stopped()
    rig.floor.created("resp_1")
    rig.floor.item_added("ours")
    rig.floor.done(failed=False)
    assert rig.asked == [None]


def test_a_closed_floor_asks_for_nothing_and_gives_nothing_up():
    rig = Rig()
    rig.floor.caller_committed()
    rig.floor.caller_started()
    rig.floor.request()
    rig.floor.close()
    rig.clock.run_for(100)
    assert rig.asked == []
    assert rig.given_up == []
    assert rig.clock.idle


def test_keys_are_gathered_until_a_pause_or_the_hash_key():
    clock = SimulatedClock()
    entered: list[str] = []
    keypad = Keypad(clock, entered.append)
    for digit in "12":
        keypad.press(digit)
        clock.run_for(1.4)
    assert entered == []
    clock.run_for(0.2)
    assert entered == ["12"]
    for digit in "*9#":
        keypad.press(digit)
    assert entered == ["12", "*9"]
    keypad.press("#")
    assert entered == ["12", "*9", "#"]
    for _ in range(33):
        keypad.press("5")
    assert entered[3] == "5" * 32
    keypad.close()
    clock.run_for(10)
    assert len(entered) == 4
