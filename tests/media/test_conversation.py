"""The conversation: what is said is played, what is interrupted is cut and truncated, and the model is asked rightly."""

import time

from media_fork import realtime
from media_fork.g711 import ulaw_from_l16, ulaw_to_l16
from tandem.rows import TimingRecord, TurnRecord
from tandem.seam import LiveEventKind
from tests.media.fork_client import QUIET

SPEECH = bytes([0x10]) * 8000
"""One second of µ-law that is not silence."""


def loud(l16: bytes) -> int:
    """Bytes of L16 that are not silence."""
    return sum(2 for index in range(0, len(l16), 2) if l16[index : index + 2] != b"\0\0")


async def test_what_the_model_says_is_played_bit_exact_and_recorded(plane):
    fork, session = await plane.call()
    audio = bytes(range(256)) * 10
    await session.say("resp_1", "item_1", audio, "Good morning.")
    await plane.until(lambda: any(turn.item == "item_1" for turn in plane.of(TurnRecord)), "the turn's record")
    assert fork.audio[: 2 * len(audio)] == ulaw_to_l16(audio)
    (turn,) = plane.of(TurnRecord)
    assert (turn.who, turn.text, turn.duration_ms, turn.heard_ms) == ("agent", "Good morning.", 320, 320)
    assert not turn.interrupted
    await fork.close()


async def test_priming_silence_comes_first_and_every_message_is_a_whole_chunk(plane):
    fork, session = await plane.call()
    await session.say("resp_1", "item_1", SPEECH[:5000])
    await plane.until(lambda: loud(fork.audio) == 10000, "all audio")
    sizes = [len(message) for _, message in fork.messages]
    assert set(sizes) == {1280}
    assert not any(fork.messages[0][1])
    assert not any(fork.messages[1][1])
    await fork.close()


async def test_barge_in_kills_at_once_and_truncates_at_what_was_heard(plane):
    fork, session = await plane.call()
    await session.created("resp_1")
    for _ in range(5):
        await session.audio_delta("resp_1", "item_1", SPEECH)
    await fork.until(lambda: loud(fork.audio) >= 16000, "a second of audio")
    began = time.monotonic()
    await session.speech_started("item_caller")
    truncated = await session.event("conversation.item.truncate")
    await fork.until(lambda: fork.kills == 1, "killAudio")
    spent_ms = 1000 * (time.monotonic() - began)
    sent_ms = loud(fork.audio) / 16
    assert truncated["item_id"] == "item_1"
    assert truncated["content_index"] == 0
    assert sent_ms - 300 <= truncated["audio_end_ms"] <= sent_ms
    silenced = loud(fork.audio)
    await session.audio_delta("resp_1", "item_1", SPEECH)
    await session.done("resp_1", "cancelled")
    await session.speech_stopped("item_caller")
    await session.committed("item_caller")
    await session.say("resp_2", "item_2", SPEECH[:1600], "Yes?")
    await plane.until(lambda: any(turn.item == "item_2" for turn in plane.of(TurnRecord)), "the next turn")
    assert loud(fork.audio) == silenced + 3200
    assert plane.counts.late_deltas == 1
    assert fork.kills == 1
    assert session.of("response.cancel") == []
    first = next(turn for turn in plane.of(TurnRecord) if turn.item == "item_1")
    assert first.interrupted
    assert first.heard_ms == truncated["audio_end_ms"]
    assert first.duration_ms == 5000
    (cut,) = [timing for timing in plane.of(TimingRecord) if timing.kind == "barge_in"]
    assert (cut.item, cut.heard_ms) == ("item_1", truncated["audio_end_ms"])
    assert 0 <= cut.cut_ms <= spent_ms
    await fork.close()


async def test_barge_in_after_the_response_was_complete_still_cuts_what_is_playing(plane):
    fork, session = await plane.call()
    await session.say("resp_1", "item_1", SPEECH * 3)
    await fork.until(lambda: loud(fork.audio) >= 8000, "half a second of audio")
    await session.speech_started("item_caller")
    truncated = await session.event("conversation.item.truncate")
    assert 1 <= truncated["audio_end_ms"] < 15000
    await fork.until(lambda: fork.kills == 1, "killAudio")
    await fork.close()


async def test_speech_while_nothing_plays_kills_and_truncates_nothing(plane):
    fork, session = await plane.call()
    await session.speech_started("item_1")
    await session.speech_stopped("item_1")
    await session.committed("item_1")
    await session.say("resp_1", "item_2", SPEECH[:1600])
    await plane.until(lambda: any(turn.item == "item_2" for turn in plane.of(TurnRecord)), "the answer")
    await session.speech_started("item_3")
    await fork.send(QUIET)
    await session.event("input_audio_buffer.append", 2)
    assert fork.kills == 0
    assert session.of("conversation.item.truncate") == []
    await fork.close()


async def test_speech_before_a_response_has_audio_drops_it_without_a_kill(plane):
    fork, session = await plane.call()
    await session.created("resp_1")
    await session.speech_started("item_1")
    await session.audio_delta("resp_1", "item_2", SPEECH)
    await session.done("resp_1", "cancelled")
    await plane.until(lambda: plane.counts.late_deltas == 1, "the late delta")
    assert fork.audio == b""
    assert fork.kills == 0
    assert session.of("conversation.item.truncate") == []
    await fork.close()


async def test_what_waits_behind_the_utterance_that_was_cut_is_truncated_to_the_least(plane):
    fork, session = await plane.call()
    await session.created("resp_1")
    await session.audio_delta("resp_1", "item_1", SPEECH)
    await session.audio_done("resp_1", "item_1")
    await session.audio_delta("resp_1", "item_2", SPEECH)
    await session.audio_done("resp_1", "item_2")
    await session.done("resp_1")
    await fork.until(lambda: loud(fork.audio) > 0, "audio")
    await session.speech_started("item_3")
    first = await session.event("conversation.item.truncate")
    second = await session.event("conversation.item.truncate", 2)
    assert (first["item_id"], second["item_id"], second["audio_end_ms"]) == ("item_1", "item_2", 1)
    await plane.until(lambda: any(turn.item == "item_2" for turn in plane.of(TurnRecord)), "the second turn's record")
    assert next(turn for turn in plane.of(TurnRecord) if turn.item == "item_2").heard_ms == 0
    await fork.close()


async def test_a_turn_is_timed_from_the_end_of_speech_to_the_first_audio_out(plane):
    fork, session = await plane.call()
    for _ in range(100):
        await fork.send(QUIET)
    await session.until(lambda: len(session.audio) == 101 * 160, "the caller's audio")
    await session.speech_started("item_1", 500)
    await session.speech_stopped("item_1", 1500)
    await session.committed("item_1")
    await session.send(
        "conversation.item.input_audio_transcription.completed",
        item_id="item_1",
        content_index=0,
        transcript=" What are your hours? ",
        usage={"type": "duration", "seconds": 1},
    )
    await session.say("resp_1", "item_2", SPEECH[:800])
    await plane.until(lambda: any(timing.kind == "turn" for timing in plane.of(TimingRecord)), "the timing")
    (timing,) = plane.of(TimingRecord)
    assert timing.item == "item_1"
    assert timing.speech_ended_at <= timing.committed_at <= timing.first_model_audio_at <= timing.first_audio_out_at
    # Of 2020 ms sent, speech ended at 1500 - 500 ms of VAD silence: 1020 ms before the last frame.
    assert 1000 <= timing.response_ms <= 1020 + 2000
    await plane.until(
        lambda: any(turn.who == "caller" and turn.text for turn in plane.of(TurnRecord)), "the caller's turn"
    )
    caller = next(turn for turn in plane.of(TurnRecord) if turn.who == "caller")
    assert caller.text == "What are your hours?"
    # 500 ms, and the time between the two events.
    assert 450 <= caller.duration_ms <= 550 + 2000
    await fork.close()


async def test_caller_audio_is_cut_anywhere_and_arrives_whole(plane):
    fork, session = await plane.call()
    l16 = bytes(range(256)) * 25
    sizes = [1, 319, 321, 0, 2, 5, 1000, 999, 3, 640]
    start = 0
    for size in sizes:
        await fork.send(l16[start : start + size])
        start += size
    await fork.send(l16[start:])
    await session.until(lambda: len(session.audio) == 160 + len(l16) // 2, "all the audio")
    assert session.audio[160:] == ulaw_from_l16(l16)
    await fork.close()


async def test_alaw_and_wideband_calls_have_their_formats_and_rates(plane):
    for number, (codec, kind, rate, model_bytes) in enumerate(
        [("PCMA", "audio/pcma", 8000, 160), ("L16", "audio/pcm", 16000, 960)], start=1
    ):
        reply = await plane.reserve(codec=codec, call=f"call-{number}")
        session = await plane.model.session(number)
        assert reply["rate"] == rate
        audio = (await session.event("session.update"))["session"]["audio"]
        assert audio["input"]["format"]["type"] == audio["output"]["format"]["type"] == kind
        fork = await plane.fork(reply, f"call-{number}")
        await session.until(lambda: bool(session.audio), "audio")  # noqa: B023
        if codec == "PCMA":
            assert len(session.audio) == model_bytes
        else:
            await fork.send(bytes(640) * 9 + bytes(320))
            await session.until(lambda: len(session.audio) == 10 * model_bytes, "ten frames")  # noqa: B023
        await session.event("response.create")
        await session.say("resp_1", "item_1", b"\x10" * (model_bytes * 20))
        await fork.until(lambda: len(fork.audio) >= rate // 50 * 2 * 20, "400 ms of audio")  # noqa: B023
        await fork.close()


async def test_one_response_at_a_time_what_we_want_said_waits(plane):
    fork, session = await plane.call()
    await session.created("resp_1")
    for digit in "12#":
        await fork.notice(notice="dtmf", digit=digit, duration_ms=100)
    item = (await session.event("conversation.item.create"))["item"]
    assert item["content"] == [{"type": "input_text", "text": "[DTMF] 12"}]
    assert item["role"] == "user"
    await session.acknowledge(item)
    assert len(session.of("response.create")) == 1
    await session.done("resp_1")
    await session.event("response.create", 2)
    await fork.close()


async def test_an_answer_to_the_callers_turn_covers_what_we_wanted_said(plane):
    fork, session = await plane.call()
    await session.speech_started("item_1")
    await fork.notice(notice="dtmf", digit="#", duration_ms=100)
    item = (await session.event("conversation.item.create"))["item"]
    await session.acknowledge(item)
    await session.speech_stopped("item_1")
    await session.committed("item_1")
    await session.created("resp_1")
    await session.done("resp_1")
    await fork.notice(notice="dtmf", digit="5", duration_ms=100)
    await session.event("conversation.item.create", 2)
    await session.event("response.create", 2)
    assert len(session.of("response.create")) == 2
    await fork.close()


async def test_a_response_already_active_is_waited_for(plane):
    fork, session = await plane.call()
    await fork.notice(notice="dtmf", digit="#", duration_ms=100)
    create = await session.event("response.create", 2)
    await session.error("conversation_already_has_active_response", create["event_id"])
    await session.created("resp_other")
    await session.done("resp_other")
    await session.event("response.create", 3)
    await fork.close()


async def test_a_failed_response_is_asked_for_once_more_then_the_model_is_lost(hasty, model):
    fork, session = await hasty.call()
    model.status = 503
    await session.speech_started("item_1")
    await session.speech_stopped("item_1")
    await session.committed("item_1")
    await session.created("resp_1")
    await session.done("resp_1", "failed")
    await session.event("response.create", 2)
    await session.created("resp_2")
    await session.done("resp_2", "failed")
    assert await fork.command() == {"command": "model_lost", "cause": "failed_responses"}
    await session.until(lambda: session.closed, "close of the model's session")
    await fork.close()


async def test_a_model_that_answers_no_ping_is_lost(hasty, model, monkeypatch):
    monkeypatch.setattr(realtime, "PING_S", 0.2)
    fork, session = await hasty.call()
    model.status = 503
    session.connection.transport.pause_reading()
    assert await fork.command() == {"command": "model_lost", "cause": "no_pong"}
    session.connection.transport.resume_reading()
    await fork.close()


async def test_a_model_that_is_not_to_be_had_again_is_given_up_and_the_caller_hears_silence_at_once(hasty, model):
    fork, session = await hasty.call()
    await session.created("resp_1")
    await session.audio_delta("resp_1", "item_1", SPEECH * 4)
    await fork.until(lambda: loud(fork.audio) > 0, "audio")
    model.status = 503
    await session.close(1011, "internal")
    assert await fork.command() == {"command": "model_lost", "cause": "closed"}
    assert fork.kills == 1
    stopped = loud(fork.audio)
    assert stopped < 4 * 16000
    await fork.send(QUIET)
    await hasty.until(lambda: hasty.counts.caller_frames_dropped == 1, "the frame")
    assert loud(fork.audio) == stopped
    assert len(hasty.sessions) == 1
    assert hasty.counts.labelled("model_lost") == {"closed": 1}
    await fork.close()
    await hasty.until(lambda: len(hasty.sessions) == 0, "end of the session")


async def test_a_model_lost_for_good_before_the_fork_came_is_told_when_it_comes(hasty, model):
    reply = await hasty.reserve()
    session = await model.session()
    model.status = 503
    await session.close()
    await hasty.until(lambda: len(model.requests) > 2, "attempts to reconnect")
    fork = await hasty.fork(reply)
    assert (await fork.command())["command"] == "model_lost"
    await fork.close()


async def test_errors_of_the_model_are_survived(plane):
    fork, session = await plane.call()
    for code in ("invalid_value", "response_cancel_not_active", "something_new"):
        await session.error(code)
    await session.say("resp_1", "item_1", SPEECH[:800])
    await fork.until(lambda: loud(fork.audio) == 1600, "audio")
    assert plane.counts.labelled("model_errors") == {
        "invalid_value": 1,
        "response_cancel_not_active": 1,
        "other": 1,
    }
    await fork.close()


async def test_what_the_model_sends_malformed_is_counted_and_the_rest_is_heard(plane):
    fork, session = await plane.call()
    for raw in (
        "not json",
        "[]",
        "{}",
        '{"type":7}',
        '{"type":"response.output_audio.delta"}',
        '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"A"}',
        '{"type":"response.output_audio.delta","response_id":1,"item_id":"i","delta":""}',
        '{"type":"response.done"}',
        '{"type":"response.done","response":[]}',
        '{"type":"input_audio_buffer.committed"}',
        '{"type":"input_audio_buffer.speech_stopped","item_id":5,"audio_end_ms":"x"}',
        '{"type":"input_audio_buffer.speech_started","item_id":"u","audio_start_ms":-1e999}',
        '{"type":"input_audio_buffer.speech_stopped","item_id":"u","audio_end_ms":1e999}',
        '{"type":"input_audio_buffer.committed","item_id":"u"}',
        '{"type":"conversation.item.added","item":null}',
        '{"type":"response.output_item.done","item":{"type":"function_call","call_id":"' + "x" * 500 + '"}}',
        '{"type":"an.event.of.next.year","data":{}}',
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ):
        await session.send_raw(raw)
    await session.send_raw(b"binary")
    await session.say("resp_1", "item_1", SPEECH[:800])
    await fork.until(lambda: loud(fork.audio) == 1600, "audio")
    assert sum(plane.counts.labelled("model_events_ignored").values()) >= 8
    await fork.close()


async def test_deltas_written_in_another_way_are_heard_too(plane):
    fork, session = await plane.call()
    await session.created("resp_1")
    for text in (
        (
            '{ "delta": "EBAQEBAQEBA=", "content_index": 0, "item_id": "item_1", "response_id": "resp_1",'
            ' "output_index": 0, "event_id": "e", "type": "response.output_audio.delta" }'
        ),
        (
            '{"type":"response.output_audio.delta","event_id":"e","response_id":"resp_1","item_id":"item_1",'
            '"output_index":0,"content_index":0,"delta":"EBAQEBAQEBA="}'
        ),
        (
            '{"type":"response.output_audio.delta","delta":"EBAQEBAQEBA=","event_id":"e","response_id":"resp_1",'
            '"item_id":"item_1","output_index":0,"content_index":0}'
        ),
    ):
        await session.send_raw(text)
    await session.audio_done("resp_1", "item_1")
    await session.done("resp_1")
    await fork.until(lambda: loud(fork.audio) == 3 * 8 * 2, "three times eight samples")
    await fork.close()


async def test_a_message_in_fragments_is_one_message(plane):
    fork, session = await plane.call()
    whole = '{"type":"error","error":{"type":"x","code":"invalid_value","message":"m"}}'
    await session.connection.send(iter([whole[:10], whole[10:30], whole[30:]]))
    await plane.until(lambda: plane.counts.labelled("model_errors") == {"invalid_value": 1}, "the error")
    await fork.close()


async def test_those_who_watch_see_the_conversation_go_by(plane):
    with plane.events.subscribe("call-1") as watched, plane.events.subscribe("call-2") as other:
        fork, session = await plane.call()
        await session.say("resp_1", "item_1", SPEECH[:800], "Hello.")
        await plane.until(lambda: bool(plane.of(TurnRecord)), "the agent's turn")
        await session.speech_started("item_2")
        await session.speech_stopped("item_2")
        await session.committed("item_2")
        await fork.notice(notice="dtmf", digit="1", duration_ms=100)
        await plane.until(lambda: watched.qsize() >= 6, "events")
        await fork.close()
        await plane.until(lambda: len(plane.sessions) == 0, "end of the session")
        kinds = [watched.get_nowait().event for _ in range(watched.qsize())]
        assert other.empty()
    assert kinds[:2] == [LiveEventKind.SESSION_READY, LiveEventKind.FORK_CONNECTED]
    assert kinds[-1] == LiveEventKind.SESSION_ENDED
    for kind in (
        LiveEventKind.AGENT_SPEAKING,
        LiveEventKind.AGENT_SAID,
        LiveEventKind.CALLER_SPEAKING,
        LiveEventKind.DTMF,
    ):
        assert kind in kinds
