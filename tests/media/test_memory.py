"""What is kept of a conversation, and of endpoints and tool servers that failed."""

from media_fork import memory
from media_fork.breaker import MAX_REST_FACTOR, Breaker
from media_fork.memory import Memory
from media_fork.recent import HELD, TAIL, Recent
from tests.media.scripted_model import judge_client_event
from tests.media.simulated import SimulatedClock


def told(kept: Memory) -> list[dict]:
    events = list(kept.retell())
    for event in events:
        judge_client_event(event)
    return [event["item"] for event in events]


def text(item: dict) -> str:
    return item["content"][0]["text"]


def test_items_are_told_in_their_order_with_the_words_that_came_late_and_none_without_words():
    kept = Memory()
    kept.said("u1", "user", "")
    kept.called("call_1", "look_up", "{}")
    kept.said("a1", "assistant", " Let me see. ")
    kept.said("a2", "assistant", "")
    kept.said("u1", "user", "Where is it?")
    kept.came_of("call_1", '{"where":"here"}')
    kept.came_of("call_9", "of no call")
    items = told(kept)
    assert [item["type"] for item in items] == ["message", "function_call", "function_call_output", "message"]
    assert (text(items[0]), text(items[3])) == ("Where is it?", "Let me see.")
    assert items[1]["call_id"] == items[2]["call_id"] == "call_1"


def test_of_a_long_call_the_beginning_is_left_out_and_the_model_told_so():
    kept = Memory()
    for number in range(memory.MAX_ENTRIES + 50):
        kept.said(f"u{number}", "user", f"number {number} ")
    items = told(kept)
    assert len(items) == memory.MAX_ENTRIES + 1
    assert (items[0]["role"], text(items[0])) == ("system", memory.LEFT_OUT)
    assert text(items[1]) == "number 50"
    kept.called("call_1", "look_up", "{}")
    kept.came_of("call_1", "x" * memory.MAX_CHARACTERS)
    assert [item["type"] for item in told(kept)] == ["message", "function_call", "function_call_output"]


def test_words_are_amended_in_their_place():
    kept = Memory()
    kept.said("a1", "assistant", "one two three")
    kept.called("call_1", "look_up", "{}")
    kept.came_of("call_1", "{}")
    kept.said("a2", "assistant", "four five six")
    kept.said("a3", "assistant", "seven")
    assert list(kept.amend("a2")) == []
    ids = [item["id"] for item in told(kept)]
    kept.said("a2", "assistant", "four")
    deleted, created = kept.amend("a2")
    assert deleted == {"type": "conversation.item.delete", "item_id": ids[3]}
    assert (created["previous_item_id"], created["item"]["id"], text(created["item"])) == (ids[2], ids[3], "four")
    judge_client_event(created)
    judge_client_event(deleted)
    kept.said("a2", "assistant", "")
    assert [event["type"] for event in kept.amend("a2")] == ["conversation.item.delete"]
    assert list(kept.amend("a2")) == []
    kept.said("a1", "assistant", "one")
    assert list(kept.amend("a1"))[1]["previous_item_id"] == "root"


def test_recent_audio_is_a_tail_and_more_while_it_is_held():
    recent = Recent()
    for number in range(2 * TAIL):
        recent.add(b"%d" % number)
    assert next(iter(recent)) == b"%d" % TAIL
    recent.hold()
    for number in range(TAIL):
        recent.add(b"%d" % number)
    assert len(list(recent)) == 2 * TAIL
    recent.release()
    assert len(list(recent)) == TAIL
    recent.keep()
    assert not recent.held
    for number in range(2 * HELD):
        recent.add(b"%d" % number)
    assert len(list(recent)) == HELD


def test_a_breaker_opens_after_failures_in_a_row_and_admits_one_trial_after_its_rest():
    clock = SimulatedClock()
    breaker = Breaker(clock, failures=2, rest_s=10)
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.admits() and not breaker.is_open
    breaker.failed()
    assert breaker.is_open and not breaker.admits()
    clock.run_for(9.9)
    assert not breaker.admits()
    clock.run_for(0.2)
    assert breaker.admits()
    assert not breaker.admits()
    breaker.untried()
    assert breaker.admits()
    breaker.failed()
    assert 19 < breaker.rest_s <= 20
    clock.run_for(20.1)
    assert breaker.admits()
    breaker.succeeded()
    assert not breaker.is_open and breaker.admits() and breaker.admits()


def test_the_rest_of_a_breaker_grows_to_a_bound():
    clock = SimulatedClock()
    breaker = Breaker(clock, failures=1, rest_s=10)
    breaker.failed()
    for _ in range(10):
        clock.run_for(breaker.rest_s + 0.1)
        assert breaker.admits()
        breaker.failed()
    assert breaker.rest_s == 10 * MAX_REST_FACTOR
