"""The lab's model keeps the Realtime protocol: sessions, items, turns, responses, and what it refuses."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio

from lab import scenario
from lab.faults import Faults
from lab.model import LabModel
from lab.voice import speak
from media_fork import g711
from tests.lab.realtime_client import KEY, PCMU, Client, calls, connected, said

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOLS = [{"type": "function", "name": name} for name in ("transfer", "hang_up", "lookup_order")]
STORY = "Once upon a time there was a telephone that rang and rang, and nobody in the whole house would answer it."
TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
    "response.created",
    "rate_limits.updated",
    "conversation.item.input_audio_transcription.delta",
    "conversation.item.input_audio_transcription.completed",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
]
MESSAGE_DONE = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[LabModel]:
    script = scenario.load(Path(__file__).with_name("model_scenario.yaml"))
    async with LabModel(script, "127.0.0.1", 0, ear_processes=1) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(model: LabModel) -> AsyncIterator[Client]:
    async with connected(model) as one:
        yield one


async def greet(client: Client) -> dict[str, Any]:
    await client.send("response.create", response={"instructions": 'Say exactly: "Good day."'})
    return await client.reply()


async def test_session_created_comes_first_and_has_the_defaults(client: Client) -> None:
    session = client.events[0]["session"]
    assert session["model"] == "gpt-realtime-2.1"
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert session["expires_at"] > 0
    assert (await client.next())["type"] == "conversation.created"


async def test_an_update_changes_what_it_names_and_nothing_else(client: Client) -> None:
    before = await client.configure(instructions="one", tools=TOOLS)
    after = await client.configure(audio={"input": {"format": PCMU}})
    assert after["instructions"] == "one"
    assert after["tools"] == TOOLS
    assert after["audio"]["input"]["format"] == PCMU
    assert after["audio"]["output"] == before["audio"]["output"]
    assert (await client.configure(tools=[]))["tools"] == []


async def test_omitted_noise_reduction_strength_keeps_what_it_was(client: Client) -> None:
    noise = (await client.configure(audio={"input": {"noise_reduction": {"type": "far_field"}}}))["audio"]["input"]
    assert noise["noise_reduction"] == {"type": "far_field", "strength": 1.0}
    await client.configure(audio={"input": {"noise_reduction": {"type": "far_field", "strength": 0.5}}})
    noise = (await client.configure(audio={"input": {"noise_reduction": {"type": "near_field"}}}))["audio"]["input"]
    assert noise["noise_reduction"] == {"type": "near_field", "strength": 0.5}
    off = await client.configure(audio={"input": {"noise_reduction": None}})
    assert off["audio"]["input"]["noise_reduction"] is None


async def test_one_unknown_field_rejects_the_whole_update(client: Client) -> None:
    update = {"type": "realtime", "instructions": "changed", "temperature": 0.8}
    await client.send("session.update", session=update, event_id="mine")
    error = await client.error()
    assert (error["code"], error["param"], error["event_id"]) == ("unknown_parameter", "session.temperature", "mine")
    assert (await client.configure())["instructions"] != "changed"


@pytest.mark.parametrize(
    ("session", "code"),
    [
        ({"instructions": "x"}, "missing_required_parameter"),
        ({"type": "transcription"}, "invalid_value"),
        ({"type": "realtime", "model": "gpt-realtime-1.5"}, "invalid_value"),
        ({"type": "realtime", "output_modalities": ["audio", "text"]}, "invalid_value"),
        ({"type": "realtime", "input_audio_format": "g711_ulaw"}, "unknown_parameter"),
    ],
)
async def test_an_update_that_the_api_would_refuse_is_refused(client: Client, session: Any, code: str) -> None:
    await client.send("session.update", session=session)
    assert (await client.error())["code"] == code


async def test_reasoning_is_for_models_that_reason(model: LabModel) -> None:
    async with connected(model, "model=gpt-realtime-1.5") as old, connected(model) as new:
        await old.send("session.update", session={"type": "realtime", "reasoning": {"effort": "low"}})
        assert (await old.error())["code"] == "unsupported_parameter"
        assert (await new.configure(reasoning={"effort": "low"}))["reasoning"] == {"effort": "low"}


async def test_the_voice_cannot_change_once_it_was_heard(client: Client) -> None:
    await client.configure(audio={"output": {"voice": "cedar"}})
    await greet(client)
    await client.send("session.update", session={"type": "realtime", "audio": {"output": {"voice": "marin"}}})
    assert (await client.error())["code"] == "cannot_update_voice"
    await client.configure(audio={"output": {"voice": "cedar"}})


async def test_frames_that_are_no_events_are_errors_and_the_session_goes_on(client: Client) -> None:
    frames: list[tuple[str | bytes, str]] = [
        ("no json", "invalid_json"),
        ("[]", "invalid_type"),
        ("{}", "invalid_event"),
        ('{"type": "response.interpretive_dance"}', "invalid_value"),
        (b"\x00\x01", "invalid_event"),
        ('{"type": "output_audio_buffer.clear"}', "invalid_event"),
        ('{"type": "input_audio_buffer.append", "audio": "%%%"}', "invalid_value"),
    ]
    for frame, code in frames:
        await client.send_raw(frame)
        assert (await client.error())["code"] == code
    assert (await greet(client))["status"] == "completed"


# Who is let in


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}])
async def test_without_a_key_there_is_no_connection(model: LabModel, headers: dict[str, str]) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"{model.url}?model=gpt-realtime-2.1", headers=headers)
    assert refused.value.status == 401


async def test_the_beta_header_is_an_error_and_the_end(model: LabModel) -> None:
    async with connected(model, headers=KEY | {"OpenAI-Beta": "realtime=v1"}, created=False) as client:
        assert (await client.error())["code"] == "beta_api_shape_disabled"
        assert (await client.closed())[0] == 4000


@pytest.mark.parametrize(
    "query", ["model=gpt-live-1", "model=gpt-4o-realtime-preview", "model=", "intent=transcription"]
)
async def test_a_model_that_there_is_not_is_an_error_and_the_end(model: LabModel, query: str) -> None:
    async with connected(model, query, created=False) as client:
        await client.error()
        assert (await client.closed())[0] == 4000
        assert not client.of("session.created")


# Turns


async def test_a_spoken_turn_has_every_event_in_order(client: Client) -> None:
    await client.telephone(tools=TOOLS)
    seen = len(client.events)
    await client.speak(speak("When are you open?", "caller"))
    reply = await client.reply()
    del client.events[:seen]
    types = client.types()
    assert types[: len(TURN)] == TURN
    assert types[-len(MESSAGE_DONE) - 1 :] == [*MESSAGE_DONE, "response.done"]
    spoken = set(types[len(TURN) : -len(MESSAGE_DONE) - 1])
    assert spoken == {"response.output_audio_transcript.delta", "response.output_audio.delta"}
    assert (reply["status"], said(reply)) == ("completed", "We are open Monday to Friday, nine to five.")


async def test_the_ids_of_a_turn_hang_together(client: Client) -> None:
    await client.telephone()
    await client.speak(speak("When are you open?", "caller"))
    reply = await client.reply()
    started, committed = client.of("input_audio_buffer.speech_started")[0], client.of("input_audio_buffer.committed")[0]
    added = client.of("conversation.item.added")
    assert started["item_id"] == committed["item_id"] == added[0]["item"]["id"]
    assert (committed["previous_item_id"], added[0]["previous_item_id"]) == (None, None)
    assert added[1]["previous_item_id"] == committed["item_id"]
    assert added[1]["item"]["id"] == reply["output"][0]["id"]
    assert client.of("response.created")[0]["response"]["id"] == reply["id"]
    assert {event["response_id"] for event in client.events if "response_id" in event} == {reply["id"]}
    transcript = "".join(event["delta"] for event in client.of("response.output_audio_transcript.delta"))
    assert transcript == said(reply)
    assert len({event["event_id"] for event in client.events}) == len(client.events)


async def test_the_transcript_of_the_caller_is_sent_only_when_asked_for(client: Client) -> None:
    await client.telephone()
    await client.speak(speak("When are you open?", "caller"))
    await client.reply()
    completed = client.of("conversation.item.input_audio_transcription.completed")
    assert [event["transcript"] for event in completed] == ["When are you open."]
    await client.configure(audio={"input": {"transcription": None}})
    await client.speak(speak("When are you open?", "caller"))
    await client.reply()
    assert len(client.of("conversation.item.input_audio_transcription.completed")) == 1


async def test_speech_is_placed_in_the_audio_that_was_appended(client: Client) -> None:
    await client.telephone({"type": "server_vad", "prefix_padding_ms": 200, "silence_duration_ms": 400})
    await client.speak(speak("When are you open?", "caller"), before_s=2.0)
    start = (await client.until("input_audio_buffer.speech_started"))["audio_start_ms"]
    assert 1750 <= start <= 1950
    end = (await client.until("input_audio_buffer.speech_stopped"))["audio_end_ms"]
    duration = len(speak("When are you open?", "caller")) // 8
    assert abs(end - (2000 + duration + 400)) <= 150


async def test_not_understood_is_said(client: Client) -> None:
    await client.telephone()
    await client.speak(speak("My hovercraft is full of eels.", "caller"))
    assert said(await client.reply()) == "Sorry, I did not catch that."


@pytest.mark.parametrize("audio_format", ["audio/pcm", "audio/pcmu", "audio/pcma"])
async def test_each_format_is_heard_and_spoken(client: Client, audio_format: str) -> None:
    either: dict[str, Any] = {"type": audio_format}
    await client.configure(audio={"input": {"format": either}, "output": {"format": either}})
    rate = 24000 if audio_format == "audio/pcm" else 8000
    pcm = np.concatenate([speak("When are you open?", "caller", rate), np.zeros(rate, np.int16)])
    encode = {"audio/pcm": lambda line: line.tobytes(), "audio/pcmu": g711.ulaw_encode, "audio/pcma": g711.alaw_encode}
    await client.send("input_audio_buffer.append", audio=base64.b64encode(encode[audio_format](pcm)).decode())
    reply = await client.reply()
    assert said(reply).startswith("We are open")
    audio = client.audio[reply["output"][0]["id"]]
    expected = encode[audio_format](speak(said(reply), "alloy", rate))
    assert audio == expected


async def test_without_turn_detection_the_client_commits_and_asks(client: Client) -> None:
    await client.telephone(None)
    await client.speak(speak("When are you open?", "caller"))
    await client.send("input_audio_buffer.commit")
    await client.until("conversation.item.done")
    assert not client.of("input_audio_buffer.speech_started")
    assert not client.of("response.created")
    await client.send("response.create")
    assert said(await client.reply()).startswith("We are open")


async def test_an_empty_buffer_cannot_be_committed(client: Client) -> None:
    await client.telephone(None)
    await client.send("input_audio_buffer.commit")
    assert (await client.error())["code"] == "input_audio_buffer_commit_empty"
    await client.speak(speak("When are you open?", "caller"))
    await client.send("input_audio_buffer.clear")
    await client.until("input_audio_buffer.cleared")
    await client.send("input_audio_buffer.commit")
    assert (await client.error())["code"] == "input_audio_buffer_commit_empty"


async def test_create_response_false_leaves_the_answer_to_the_client(client: Client) -> None:
    await client.telephone({"type": "semantic_vad", "eagerness": "high", "create_response": False})
    await client.speak(speak("When are you open?", "caller"))
    await client.until("conversation.item.input_audio_transcription.completed")
    assert not client.of("response.created")
    await client.send("response.create")
    assert said(await client.reply()).startswith("We are open")


async def test_the_idle_timeout_has_the_model_speak_up(model: LabModel) -> None:
    async with connected(model) as client:
        await client.telephone({"type": "server_vad", "idle_timeout_ms": 5000})
        await greet(client)
        await client.speak(np.zeros(8000, np.int16))
        triggered = await client.until("input_audio_buffer.timeout_triggered")
        assert triggered["audio_end_ms"] >= triggered["audio_start_ms"]
        committed = await client.until("input_audio_buffer.committed")
        assert committed["item_id"] == triggered["item_id"]
        assert said(await client.reply()) == "Are you still there?"


# Responses


async def test_quoted_instructions_are_said_to_the_letter(client: Client) -> None:
    greeting = "Hello, “friend”, and thank you for calling. How may I help you today?"
    await client.send("response.create", response={"instructions": f'Say exactly this to the caller: "{greeting}"'})
    assert said(await client.reply()) == greeting


async def test_with_nothing_to_answer_the_model_greets_and_later_prompts(client: Client) -> None:
    await client.send("response.create")
    assert said(await client.reply()) == "Hello, this is the lab."
    await client.send("response.create")
    assert said(await client.reply()) == "Is there anything else that I can do for you?"


async def test_a_function_is_called_in_the_response_that_says_so(client: Client) -> None:
    await client.configure(tools=TOOLS)
    reply = await client.asks("Please put me through to sales.")
    assert [item["type"] for item in reply["output"]] == ["message", "function_call"]
    assert calls(reply) == [("transfer", {"destination": "sales"})]
    done = client.of("response.function_call_arguments.done")[0]
    assert "".join(event["delta"] for event in client.of("response.function_call_arguments.delta")) == done["arguments"]
    assert (done["name"], done["call_id"]) == ("transfer", reply["output"][1]["call_id"])


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ('{"outcome": "busy", "detail": "the line is busy"}', "They are not answering."),
        ('{"outcome": "no_answer"}', "They are not answering."),
        ('{"outcome": "rejected"}', "That did not work."),
        ("no json", "That did not work."),
        ('{"outcome": "answered"}', ""),
    ],
)
async def test_what_follows_a_call_hangs_on_its_output(client: Client, output: str, words: str) -> None:
    await client.configure(tools=TOOLS)
    call = (await client.asks("put me through to sales"))["output"][1]
    item = {"type": "function_call_output", "call_id": call["call_id"], "output": output}
    await client.send("conversation.item.create", item=item)
    await client.send("response.create")
    reply = await client.reply()
    assert (reply["status"], said(reply)) == ("completed", words)


async def test_several_calls_come_in_one_response(client: Client) -> None:
    await client.configure(tools=TOOLS)
    reply = await client.asks("look up my order and hang up")
    assert calls(reply) == [("lookup_order", {"order": "1"}), ("hang_up", {})]
    for item, output in zip(reply["output"], ('{"status": {"code": "shipped"}}', "{}"), strict=True):
        answer = {"type": "function_call_output", "call_id": item["call_id"], "output": output}
        await client.send("conversation.item.create", item=answer)
    await client.send("response.create")
    assert said(await client.reply()) == "It has been shipped."


async def test_a_tool_that_the_session_lacks_is_not_called(client: Client) -> None:
    reply = await client.asks("put me through to sales")
    assert (calls(reply), said(reply)) == ([], "I am sorry, I cannot do that.")


async def test_tool_choice_none_calls_nothing(client: Client) -> None:
    await client.configure(tools=TOOLS, tool_choice="none")
    reply = await client.asks("put me through to sales")
    assert (calls(reply), said(reply)) == ([], "One moment, I will put you through to sales.")


async def test_text_is_written_where_text_is_asked_for(client: Client) -> None:
    await client.configure(output_modalities=["text"])
    reply = await client.asks("when are you open")
    assert said(reply) == "We are open Monday to Friday, nine to five."
    assert reply["output"][0]["content"][0]["type"] == "output_text"
    assert "".join(event["delta"] for event in client.of("response.output_text.delta")) == said(reply)
    assert not client.audio


async def test_keys_are_understood(client: Client) -> None:
    assert said(await client.asks("[DTMF] 5")).startswith("We are open")
    assert said(await client.asks("[DTMF] 777")) == "Sorry, I did not catch that."


async def test_one_response_at_a_time(model: LabModel, client: Client) -> None:
    await client.send("response.create", event_id="first")
    await client.send("response.create", event_id="second")
    error = await client.error()
    assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "second")
    assert (await client.reply())["status"] == "completed"


async def test_a_response_outside_the_conversation_leaves_it_alone(client: Client) -> None:
    await client.send("response.create", response={"conversation": "none", "metadata": {"topic": "aside"}})
    reply = await client.reply()
    assert (reply["conversation_id"], reply["metadata"]) == (None, {"topic": "aside"})
    assert not client.of("conversation.item.added")


async def test_a_response_may_have_its_own_input(client: Client) -> None:
    content = [{"type": "input_text", "text": "when are you open"}]
    item = {"type": "message", "role": "user", "content": content}
    await client.send("response.create", response={"conversation": "none", "input": [item]})
    assert said(await client.reply()).startswith("We are open")
    await client.send("response.create", response={"input": [{"type": "item_reference", "id": "item_none"}]})
    assert (await client.error())["param"] == "response.input[0].id"


async def test_max_output_tokens_ends_a_response(client: Client) -> None:
    await client.configure(max_output_tokens=20)
    reply = await client.asks("tell me a long story")
    assert reply["status"] == "incomplete"
    assert reply["status_details"]["reason"] == "max_output_tokens"
    assert reply["output"][0]["status"] == "incomplete"


async def test_usage_counts_audio_by_its_length(client: Client) -> None:
    await client.telephone()
    await client.speak(speak("When are you open?", "caller"))
    reply = await client.reply()
    spoken_ms = len(client.audio[reply["output"][0]["id"]]) // 8
    usage = reply["usage"]
    assert usage["output_token_details"]["audio_tokens"] == spoken_ms // 50
    assert usage["input_token_details"]["audio_tokens"] > 10
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


# Interruption


async def test_speech_cancels_the_response_and_is_answered(model: LabModel) -> None:
    model.faults.add(Faults(factor=1))
    async with connected(model) as client:
        await client.telephone()
        await client.send("response.create", response={"instructions": f'"{STORY}"'})
        await client.until("response.output_audio.delta")
        await client.speak(speak("When are you open?", "caller"))
        cut = await client.reply()
        assert (cut["status"], cut["status_details"]["reason"]) == ("cancelled", "turn_detected")
        assert cut["output"][0]["status"] == "incomplete"
        assert client.types()[-5:] == [*MESSAGE_DONE[1:], "response.done"]
        assert len(said(cut)) < len(STORY)
        answer = (await client.until("response.output_item.added"))["item"]
        assert answer["id"] != cut["output"][0]["id"]
        after = [event for event in client.of("response.output_audio.delta") if event["response_id"] == cut["id"]]
        assert client.events.index(after[-1]) < client.events.index(client.of("response.done")[0])


async def test_interrupt_response_false_lets_the_response_go_on(model: LabModel) -> None:
    model.faults.add(Faults(factor=4))
    async with connected(model) as client:
        await client.telephone({"type": "server_vad", "interrupt_response": False})
        await client.send("response.create", response={"instructions": f'"{STORY}"'})
        await client.until("response.output_audio.delta")
        await client.speak(speak("When are you open?", "caller"))
        assert (await client.error())["code"] == "conversation_already_has_active_response"
        reply = await client.reply()
        assert (reply["status"], said(reply)) == ("completed", STORY)


async def test_a_question_cut_off_before_the_first_word_of_its_answer_is_still_answered(model: LabModel) -> None:
    model.faults.add(Faults(never="reply"))
    async with connected(model) as client:
        await client.telephone()
        await client.speak(speak("When are you open?", "caller"))
        await client.until("response.created")
        await client.speak(speak("My hovercraft is full of eels.", "caller"))
        assert (await client.reply())["status"] == "cancelled"
        assert said(await client.reply()).startswith("We are open")


async def test_cancel_is_for_a_response_that_is_there(model: LabModel) -> None:
    model.faults.add(Faults(factor=1))
    async with connected(model) as client:
        await client.send("response.cancel")
        assert (await client.error())["code"] == "response_cancel_not_active"
        await client.send("response.create", response={"instructions": f'"{STORY}"'})
        created = await client.until("response.created")
        await client.until("response.output_audio.delta")
        await client.send("response.cancel", response_id="resp_other")
        assert (await client.error())["code"] == "response_cancel_not_active"
        await client.send("response.cancel", response_id=created["response"]["id"])
        cut = await client.reply()
        assert (cut["status"], cut["status_details"]["reason"]) == ("cancelled", "client_cancelled")


async def test_truncate_takes_what_was_there_and_no_more(client: Client) -> None:
    await client.telephone()
    item = (await greet(client))["output"][0]["id"]
    duration = len(client.audio[item]) // 8
    await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=duration + 1)
    error = await client.error()
    assert error["code"] == "invalid_value"
    assert error["message"] == f"Audio content of {duration}ms is already shorter than {duration + 1}ms"
    await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=200)
    truncated = await client.until("conversation.item.truncated")
    assert truncated["audio_end_ms"] == 200
    await client.send("conversation.item.retrieve", item_id=item)
    content = (await client.until("conversation.item.retrieved"))["item"]["content"][0]
    assert base64.b64decode(content["audio"]) == client.audio[item][:1600]
    assert content["transcript"] == ""
    await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=201)
    assert (await client.error())["code"] == "invalid_value"


async def test_only_the_models_audio_can_be_truncated(client: Client) -> None:
    await client.telephone(None)
    await client.speak(speak("When are you open?", "caller"))
    await client.send("input_audio_buffer.commit")
    item = (await client.until("conversation.item.done"))["item"]["id"]
    await client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=10)
    assert (await client.error())["message"] == "Only model output audio messages can be truncated"
    await client.send("conversation.item.truncate", item_id="item_none", content_index=0, audio_end_ms=10)
    assert (await client.error())["code"] == "item_truncate_invalid_item_id"


# Items


async def test_items_of_every_kind_can_be_made(client: Client) -> None:
    audio = base64.b64encode(speak("When are you open?", "caller", 24000).tobytes()).decode()
    items: list[dict[str, Any]] = [
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I was brief."}]},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "image_url": "data:image/png;base64,"}],
        },
        {"type": "function_call", "name": "transfer", "call_id": "call_1", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "{}"},
        {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": audio}]},
    ]
    for item in items:
        await client.send("conversation.item.create", item=item)
        assert (await client.until("conversation.item.done"))["item"]["type"] == item["type"]
    await client.send("response.create")
    assert said(await client.reply()).startswith("We are open")


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"type": "function_call_output", "call_id": "call_none", "output": "{}"}, "invalid_tool_call_id"),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "output_audio", "audio": ""}]},
            "missing_required_parameter",
        ),
        ({"type": "message", "role": "user", "content": [{"text": "x"}]}, "missing_required_parameter"),
        ({"type": "message", "role": "user", "content": [{"type": "text", "text": "x"}]}, "invalid_value"),
        ({"type": "message", "role": "user", "id": "i" * 33, "content": []}, "string_above_max_length"),
    ],
)
async def test_items_that_the_api_would_refuse_are_refused(client: Client, item: Any, code: str) -> None:
    await client.send("conversation.item.create", item=item)
    assert (await client.error())["code"] == code


async def test_items_keep_the_place_they_were_given(client: Client) -> None:
    def message(item_id: str) -> dict[str, Any]:
        return {"id": item_id, "type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}

    for item_id, after, previous in (("b", None, None), ("a", "root", None), ("c", None, "b"), ("aa", "a", "a")):
        await client.send("conversation.item.create", item=message(item_id), previous_item_id=after)
        assert (await client.until("conversation.item.added"))["previous_item_id"] == previous
    await client.send("conversation.item.create", item=message("d"), previous_item_id="none")
    assert (await client.error())["param"] == "previous_item_id"
    await client.send("conversation.item.create", item=message("a"))
    assert (await client.error())["param"] == "item.id"
    await client.send("conversation.item.delete", item_id="c")
    await client.until("conversation.item.deleted")
    await client.send("conversation.item.delete", item_id="c")
    assert (await client.error())["code"] == "item_delete_invalid_item_id"
    await client.send("conversation.item.retrieve", item_id="c")
    assert (await client.error())["code"] == "item_retrieve_invalid_item_id"
