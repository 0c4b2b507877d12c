"""A model lost in mid-call: another one takes over, knows what was said, and hears what was not yet understood."""

import base64

import pytest

from media_fork import lifesign, succession
from media_fork.g711 import ulaw_to_l16
from tandem.realtime import Endpoint
from tandem.rows import ToolCallRecord, TurnRecord
from tandem.seam import LiveEventKind
from tests.media.fork_client import QUIET
from tests.media.scripted_model import ModelSession, ScriptedModel, function_call
from tests.media.test_conversation import SPEECH, loud


async def asks(session: ModelSession, item: str, text: str) -> None:
    """The caller's turn, written down."""
    await session.speech_started(item)
    await session.speech_stopped(item)
    await session.committed(item)
    await session.send(
        "conversation.item.input_audio_transcription.completed",
        item_id=item,
        content_index=0,
        transcript=text,
        usage={"type": "duration", "seconds": 1},
    )


def told(session: ModelSession) -> list[tuple[str, str]]:
    """Roles and texts of the messages that a session was told."""
    items = [event["item"] for event in session.of("conversation.item.create")]
    return [(item["role"], item["content"][0]["text"]) for item in items if item["type"] == "message"]


async def test_the_one_that_takes_over_knows_what_was_said_and_asks_nothing_when_nothing_is_owed(plane, model):
    fork, session = await plane.call()
    await asks(session, "item_1", "Where is my order?")
    await session.say("resp_1", "item_2", SPEECH[:1600], "On its way.")
    await plane.until(lambda: any(turn.item == "item_2" for turn in plane.of(TurnRecord)), "the answer's record")
    await session.close(1011, "internal")
    following = await model.session(2)
    await following.event("conversation.item.create", 2)
    assert told(following) == [("user", "Where is my order?"), ("assistant", "On its way.")]
    assert [event["type"] for event in following.events][:3] == ["session.update", *2 * ["conversation.item.create"]]
    await following.say("resp_2", "item_3", SPEECH[:800], "Still there.")
    await fork.until(lambda: loud(fork.audio) == 3200 + 1600, "what the second model says")
    assert following.of("response.create") == []
    assert [text for _, text in fork.texts] == []
    assert plane.counts.labelled("models_resumed") == {"reconnected": 1}
    await fork.close()


async def test_what_the_lost_model_had_said_already_is_heard_and_the_rest_asked_of_the_next(plane, model):
    fork, session = await plane.call()
    await session.created("resp_1")
    await session.audio_delta("resp_1", "item_1", SPEECH[:4000])
    await session.transcript("resp_1", "item_1", "We are open")
    await session.close(1011, "internal")
    following = await model.session(2)
    create = await following.event("response.create")
    assert "cut off" in create["response"]["instructions"]
    assert told(following) == [("assistant", "We are open")]
    await fork.until(lambda: loud(fork.audio) == 8000, "all that had come")
    assert fork.kills == 0
    await following.say("resp_2", "item_2", SPEECH[:1600], "from nine to five.")
    await fork.until(lambda: loud(fork.audio) == 8000 + 3200, "the rest")
    await plane.until(lambda: any(turn.item == "item_1" for turn in plane.of(TurnRecord)), "the record")
    (first,) = [turn for turn in plane.of(TurnRecord) if turn.item == "item_1"]
    assert (first.text, first.heard_ms, first.interrupted) == ("We are open", 500, False)
    await fork.close()


async def test_the_greeting_that_was_cut_off_is_asked_for_again_in_its_words(plane, model):
    reply = await plane.reserve()
    session = await model.session()
    fork = await plane.fork(reply)
    first = await session.event("response.create")
    await session.created("resp_1")
    await session.audio_delta("resp_1", "item_1", SPEECH[:800])
    session.connection.transport.abort()
    following = await model.session(2)
    again = await following.event("response.create")
    assert again["response"] == first["response"]
    await fork.close()


async def test_a_question_that_the_lost_model_did_not_understand_is_heard_by_the_next(plane, model):
    fork, session = await plane.call()
    question = bytes([0x10]) * 160
    await session.speech_started("item_1")
    await plane.until(lambda: any(s.conversation._recent.held for s in plane.sessions._by_id.values()), "speech")
    for _ in range(50):
        await fork.send(ulaw_to_l16(question))
    await session.until(lambda: session.audio.count(0x10) == 50 * 160, "the question")
    await session.speech_stopped("item_1")
    await session.committed("item_1")
    await plane.until(lambda: any(turn.who == "caller" for turn in plane.of(TurnRecord)), "the turn")
    await session.close(1011, "internal")
    following = await model.session(2)
    await fork.send(ulaw_to_l16(bytes([0x11]) * 160))
    await following.until(lambda: 0x11 in following.audio, "what came since")
    assert following.audio.count(0x10) == 50 * 160
    assert told(following) == []
    await following.speech_started("item_2", 100)
    await following.speech_stopped("item_2", 1100)
    await following.committed("item_2")
    await following.say("resp_1", "item_3", SPEECH[:800], "Yes.")
    await fork.until(lambda: loud(fork.audio) == 1600, "the answer")
    assert following.of("response.create") == []
    await fork.close()


async def test_a_turn_that_was_understood_but_not_answered_is_answered_by_the_next(plane, model):
    fork, session = await plane.call()
    await asks(session, "item_1", "Where is my order?")
    await plane.until(lambda: any(turn.text for turn in plane.of(TurnRecord)), "the transcript")
    await session.close(1011, "internal")
    following = await model.session(2)
    await following.event("response.create")
    assert told(following) == [("user", "Where is my order?")]
    await fork.close()


async def test_an_interruption_of_what_the_lost_model_said_is_told_to_the_next_in_words(plane, model):
    fork, session = await plane.call()
    await session.created("resp_1")
    await session.audio_delta("resp_1", "item_1", SPEECH * 4)
    await session.transcript("resp_1", "item_1", "one two three four five six seven eight nine ten")
    await session.audio_done("resp_1", "item_1")
    await session.done("resp_1")
    await fork.until(lambda: loud(fork.audio) > 16000, "a second of it")
    await session.close(1011, "internal")
    following = await model.session(2)
    kept = (await following.event("conversation.item.create"))["item"]
    await following.speech_started("item_2")
    deleted = await following.event("conversation.item.delete")
    assert deleted["item_id"] == kept["id"]
    amended = await following.event("conversation.item.create", 2)
    assert amended["previous_item_id"] == "root"
    words = amended["item"]["content"][0]["text"]
    assert words.startswith("one two") and "ten" not in words
    await fork.until(lambda: fork.kills == 1, "killAudio")
    assert following.of("conversation.item.truncate") == []
    await fork.close()


async def test_the_result_of_a_transfer_that_outlived_its_model_is_told_to_the_next(plane, model):
    fork, session = await plane.call()
    await session.call("resp_1", "call_1", "transfer", {"destination": "sales", "reason": "x"})
    assert (await fork.command())["command"] == "transfer"
    await session.close(1011, "internal")
    following = await model.session(2)
    call = (await following.event("conversation.item.create"))["item"]
    assert (call["type"], call["call_id"], call["name"]) == ("function_call", "call_1", "transfer")
    assert following.of("response.create") == []
    await fork.notice(notice="transfer", id="call_1", outcome="busy", detail="the line is busy")
    output = (await following.event("conversation.item.create", 2))["item"]
    assert (output["type"], output["call_id"]) == ("function_call_output", "call_1")
    await following.acknowledge(output)
    await following.event("response.create")
    await fork.close()


async def test_a_result_that_comes_while_there_is_no_model_is_told_with_the_rest(plane, model):
    fork, session = await plane.call()
    await session.call("resp_1", "call_1", "transfer", {"destination": "sales", "reason": "x"})
    await fork.command()
    model.status = 503
    await session.close(1011, "internal")
    await plane.until(lambda: len(model.requests) > 1, "an attempt to reconnect")
    await fork.notice(notice="transfer", id="call_1", outcome="busy", detail="the line is busy")
    await plane.until(lambda: any(row.status == "busy" for row in plane.of(ToolCallRecord)), "the result")
    model.status = None
    following = await model.session(2)
    await following.event("response.create")
    kinds = [event["item"]["type"] for event in following.of("conversation.item.create")]
    assert kinds == ["function_call", "function_call_output"]
    await fork.close()


async def test_a_caller_who_waits_hears_a_sound_of_life_that_no_record_and_no_model_knows(plane, model, monkeypatch):
    monkeypatch.setattr(lifesign, "AFTER_S", 0.05)
    fork, session = await plane.call()
    model.status = 503
    await session.close(1011, "internal")
    await fork.until(lambda: loud(fork.audio) > 1000, "the tone")
    model.status = None
    following = await model.session(2)
    await plane.until(lambda: plane.counts.labelled("models_resumed") == {"reconnected": 1}, "it to take over")
    await following.speech_started("item_1")
    await following.say("resp_1", "item_2", SPEECH[:800], "Yes?")
    await plane.until(lambda: any(turn.item == "item_2" for turn in plane.of(TurnRecord)), "the next turn")
    assert [turn.item for turn in plane.of(TurnRecord)] == ["item_2"]
    assert following.of("conversation.item.truncate") == []
    assert plane.counts.barge_ins == 0
    await fork.close()


async def test_a_session_that_nears_its_end_is_handed_over_at_a_quiet_moment(unstarted, model, monkeypatch):
    monkeypatch.setattr(succession, "SESSION_S", 4.0)
    await unstarted.start()
    fork, session = await unstarted.call()
    await asks(session, "item_1", "Hello?")
    await session.created("resp_1")
    following = await model.session(2)
    monkeypatch.setattr(succession, "SESSION_S", 3600.0)
    await following.event("session.update")
    assert following.of("conversation.item.create") == []
    assert not session.closed
    await session.audio_delta("resp_1", "item_2", SPEECH[:800])
    await session.transcript("resp_1", "item_2", "Good day.")
    await session.audio_done("resp_1", "item_2")
    await session.done("resp_1")
    await session.until(lambda: session.closed, "the hand-over")
    await following.event("conversation.item.create", 2)
    assert told(following) == [("user", "Hello?"), ("assistant", "Good day.")]
    assert following.of("response.create") == []
    assert [text for _, text in fork.texts] == []
    assert loud(fork.audio) == 1600
    assert unstarted.counts.labelled("model_lost") == {}
    assert unstarted.counts.labelled("models_resumed") == {"handed_over": 1}
    await fork.close()
    await unstarted.stop()


async def test_a_session_without_a_quiet_moment_is_handed_over_before_its_end(unstarted, model, monkeypatch):
    monkeypatch.setattr(succession, "SESSION_S", 2.0)
    await unstarted.start()
    fork, session = await unstarted.call()
    await session.created("resp_1")
    await session.audio_delta("resp_1", "item_1", SPEECH)
    following = await model.session(2)
    monkeypatch.setattr(succession, "SESSION_S", 3600.0)
    await session.until(lambda: session.closed, "the hand-over")
    create = await following.event("response.create")
    assert "cut off" in create["response"]["instructions"]
    assert unstarted.counts.labelled("model_lost") == {}
    await fork.close()
    await unstarted.stop()


async def test_a_session_that_expires_is_replaced(plane, model):
    with plane.events.subscribe() as watched:
        fork, session = await plane.call()
        await session.error("session_expired")
        await session.until(lambda: session.closed, "the end")
        await model.session(2)
        await plane.until(lambda: plane.counts.labelled("models_resumed") == {"reconnected": 1}, "the next one")
        kinds = [watched.get_nowait().event for _ in range(watched.qsize())]
    assert kinds[-2:] == [LiveEventKind.MODEL_LOST, LiveEventKind.MODEL_RESUMED]
    assert plane.counts.labelled("endpoint_failures") == {}
    await fork.close()


async def test_models_that_are_lost_before_they_say_a_word_are_given_up_in_the_end(plane, model):
    fork, session = await plane.call()
    for number in range(1, succession.MAX_FRUITLESS + 2):
        session = await model.session(number)
        resumed = {"reconnected": number - 1} if number > 1 else {}
        await plane.until(lambda resumed=resumed: plane.counts.labelled("models_resumed") == resumed, "it to take over")
        await session.close(1011, "internal")
    assert await fork.command() == {"command": "model_lost", "cause": "closed"}
    assert len(model.sessions) == succession.MAX_FRUITLESS + 1
    await fork.close()


class TestEndpoints:
    """Two endpoints: the scripted model, and another one after it."""

    @pytest.fixture
    async def other(self):
        other = ScriptedModel()
        await other.start()
        yield other
        await other.stop()

    @pytest.fixture
    async def two(self, unstarted, other):
        alternative = Endpoint(url=other.url, name="other-model", key="secret", key_header="api-key", transcription="d")
        unstarted.configure(model={"alternatives": [alternative], "next_after_ms": 1500, "ready_within_ms": 15_000})
        await unstarted.start()
        yield unstarted
        await unstarted.stop()

    async def test_another_endpoint_has_the_call_where_the_first_refuses_and_the_first_is_passed_over(
        self, two, model, other
    ):
        model.status = 503
        await two.reserve()
        assert len(model.requests) == 1
        request = other.requests[0]
        assert request.path == "/v1/realtime?model=other-model"
        assert request.headers["api-key"] == "secret"
        assert "Authorization" not in request.headers
        update = await (await other.session()).event("session.update")
        assert update["session"]["audio"]["input"]["transcription"]["model"] == "d"
        model.status = None
        await two.reserve(call="call-2")
        assert (len(model.requests), len(other.sessions)) == (1, 2)

    async def test_an_endpoint_that_hangs_is_not_waited_for_and_then_passed_over(self, two, model, other):
        model.greet = False
        await two.reserve()
        hanging = await model.session()
        await hanging.until(lambda: hanging.closed, "the end of the attempt")
        await two.reserve(call="call-2")
        assert (len(model.requests), len(other.sessions)) == (1, 2)

    async def test_an_endpoint_that_has_rested_is_tried_by_one_call_and_relied_on_when_that_went_well(
        self, two, model, other
    ):
        model.status = 503
        await two.reserve()
        breaker = two.sessions._endpoints._places[0].breaker
        breaker._until = two.sessions._world.clock.now()
        model.status = None
        await two.reserve(call="call-2")
        assert (len(model.sessions), len(other.sessions)) == (1, 1)
        assert not breaker.is_open

    async def test_resting_endpoints_are_asked_where_no_other_is_left(self, two, model, other):
        model.status = other.status = 503
        status, refusal = await two.post()
        assert (status, refusal["cause"]) == (503, "model_unavailable")
        model.status = other.status = None
        await two.reserve()

    async def test_a_call_that_loses_its_model_goes_on_at_another_endpoint(self, two, model, other):
        fork, session = await two.call()
        await asks(session, "item_1", "Where is my order?")
        await two.until(lambda: any(turn.text for turn in two.of(TurnRecord)), "the transcript")
        await session.close(1011, "internal")
        following = await other.session()
        await following.event("response.create")
        assert told(following) == [("user", "Where is my order?")]
        assert two.counts.labelled("models_opened") == {model.url: 1, other.url: 1}
        assert two.counts.labelled("endpoint_failures") == {model.url: 1}
        await fork.close()


async def test_tool_calls_are_told_with_their_results(plane, model):
    fork, session = await plane.call()
    await session.created("resp_1")
    await session.done("resp_1", calls=(function_call("call_1", "look_up", {"order": 7}),))
    await session.event("conversation.item.create")
    await session.close(1011, "internal")
    following = await model.session(2)
    items = [(await following.event("conversation.item.create", number))["item"] for number in (1, 2)]
    assert [item["type"] for item in items] == ["function_call", "function_call_output"]
    assert items[0]["arguments"] == '{"order": 7}'
    await following.event("response.create")
    await fork.send(QUIET)
    await following.event("input_audio_buffer.append")
    assert base64.b64decode(following.of("input_audio_buffer.append")[0]["audio"])
    await fork.close()


async def test_a_model_that_is_slow_to_answer_and_a_slow_tool_leave_nobody_in_silence(plane, monkeypatch):
    monkeypatch.setattr(lifesign, "SLOW_S", 0.1)
    fork, session = await plane.call()
    await session.speech_started("item_1")
    await session.speech_stopped("item_1")
    await session.committed("item_1")
    await fork.until(lambda: loud(fork.audio) > 1000, "the tone")
    await session.say("resp_1", "item_2", SPEECH[:1600], "Yes.")
    await plane.until(lambda: any(turn.item == "item_2" for turn in plane.of(TurnRecord)), "the answer")
    heard = loud(fork.audio)
    await fork.send(QUIET)
    await session.event("input_audio_buffer.append", 2)
    assert loud(fork.audio) == heard, "nobody waits any more"
    assert [turn.item for turn in plane.of(TurnRecord) if turn.who == "agent"] == ["item_2"]
    await fork.close()
