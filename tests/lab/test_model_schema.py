"""What a client may send is what the API's own types say, to the field; refusals have the API's codes and name the field."""

from typing import Any

import pytest
from openai.types.realtime import RealtimeClientEvent
from pydantic import TypeAdapter

from lab.realtime_config import offered_models
from lab.realtime_schema import RequestError, check, client_event_types

TYPED: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)


def update(**session: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


def audio_input(**fields: Any) -> dict[str, Any]:
    return update(audio={"input": fields})


def create(**item: Any) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": item}


FUNCTION = {"type": "function", "name": "transfer", "description": "d", "parameters": {"type": "object"}}
TEXT = [{"type": "input_text", "text": "hello"}]
GOOD: list[dict[str, Any]] = [
    update(),
    update(instructions="", tools=[], tool_choice="auto", max_output_tokens="inf", output_modalities=["audio"]),
    update(tools=[FUNCTION], tool_choice={"type": "function", "name": "transfer"}, max_output_tokens=4096),
    update(tools=[{"type": "mcp", "server_label": "a", "server_url": "https://a", "require_approval": "never"}]),
    update(tracing="auto", truncation={"type": "retention_ratio", "retention_ratio": 0.8}, reasoning={"effort": "low"}),
    update(tracing=None, prompt=None),
    update(audio={"output": {"format": {"type": "audio/pcma"}, "voice": "cedar", "speed": 1.5}}),
    update(audio={"output": {"voice": {"id": "voice_1"}}}),
    audio_input(format={"type": "audio/pcm", "rate": 24000}),
    audio_input(format={"type": "audio/pcmu"}, turn_detection=None, noise_reduction=None, transcription=None),
    audio_input(turn_detection={"type": "server_vad", "threshold": 1, "idle_timeout_ms": None}),
    audio_input(turn_detection={"type": "semantic_vad", "eagerness": "low"}),
    audio_input(transcription={"model": "gpt-transcribe", "language": "en", "keywords": ["widgets"]}),
    create(type="message", role="user", content=TEXT),
    create(type="message", role="system", id="item_1", content=TEXT),
    create(type="message", role="assistant", content=[{"type": "output_text", "text": "x"}]),
    create(type="function_call", name="f", arguments="{}"),
    create(type="function_call_output", call_id="c", output="{}"),
    {**create(type="message", role="user", content=TEXT), "previous_item_id": "root", "event_id": "mine"},
    {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 1500},
    {"type": "conversation.item.delete", "item_id": "i"},
    {"type": "conversation.item.retrieve", "item_id": "i"},
    {"type": "input_audio_buffer.append", "audio": "AAAA"},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    {"type": "response.create"},
    {"type": "response.create", "response": {"instructions": "x", "conversation": "none", "metadata": {"a": "b"}}},
    {"type": "response.create", "response": {"input": [create(type="message", role="user", content=TEXT)["item"]]}},
    {"type": "response.cancel", "response_id": "r"},
]
BAD: list[tuple[Any, str, str | None]] = [
    ([], "invalid_type", None),
    ({}, "invalid_event", "type"),
    ({"type": 7}, "invalid_value", "type"),
    ({"type": "transcription_session.update", "session": {}}, "invalid_value", "type"),
    ({"type": "session.update"}, "missing_required_parameter", "session"),
    ({"type": "session.update", "session": {"modalities": ["audio"]}}, "missing_required_parameter", "session.type"),
    ({**update(), "extra": 1}, "unknown_parameter", "extra"),
    # Names of the beta
    (update(modalities=["audio"]), "unknown_parameter", "session.modalities"),
    (update(voice="alloy"), "unknown_parameter", "session.voice"),
    (update(input_audio_format="pcm16"), "unknown_parameter", "session.input_audio_format"),
    (update(output_audio_format="g711_ulaw"), "unknown_parameter", "session.output_audio_format"),
    (update(input_audio_transcription={"model": "x"}), "unknown_parameter", "session.input_audio_transcription"),
    (update(turn_detection=None), "unknown_parameter", "session.turn_detection"),
    (update(temperature=0.8), "unknown_parameter", "session.temperature"),
    (update(max_response_output_tokens=1), "unknown_parameter", "session.max_response_output_tokens"),
    ({"type": "response.create", "response": {"modalities": []}}, "unknown_parameter", "response.modalities"),
    (create(type="message", role="user", content=[{"type": "text"}]), "invalid_value", "item.content[0].type"),
    # Audio
    (audio_input(format="g711_ulaw"), "invalid_type", "session.audio.input.format"),
    (audio_input(format={"type": "audio/opus"}), "invalid_value", "session.audio.input.format.type"),
    (audio_input(format={"type": "audio/pcmu", "rate": 8000}), "unknown_parameter", "session.audio.input.format.rate"),
    (audio_input(format={"type": "audio/pcm", "rate": 16000}), "invalid_value", "session.audio.input.format.rate"),
    (
        audio_input(turn_detection={"threshold": 0.5}),
        "missing_required_parameter",
        "session.audio.input.turn_detection.type",
    ),
    (
        audio_input(turn_detection={"type": "semantic_vad", "idle_timeout_ms": 6000}),
        "unknown_parameter",
        "session.audio.input.turn_detection.idle_timeout_ms",
    ),
    (
        audio_input(turn_detection={"type": "server_vad", "threshold": 1.1}),
        "decimal_above_max_value",
        "session.audio.input.turn_detection.threshold",
    ),
    (
        audio_input(turn_detection={"type": "server_vad", "idle_timeout_ms": 4999}),
        "integer_below_min_value",
        "session.audio.input.turn_detection.idle_timeout_ms",
    ),
    (
        audio_input(turn_detection={"type": "server_vad", "create_response": "yes"}),
        "invalid_type",
        "session.audio.input.turn_detection.create_response",
    ),
    (audio_input(transcription={"model": "whisper-9"}), "invalid_value", "session.audio.input.transcription.model"),
    (update(audio={"output": {"voice": "bob"}}), "invalid_value", "session.audio.output.voice"),
    (update(audio={"output": {"speed": 2}}), "decimal_above_max_value", "session.audio.output.speed"),
    (update(audio={"output": {"speed": True}}), "invalid_type", "session.audio.output.speed"),
    # The rest of the session
    (update(instructions=None), "invalid_type", "session.instructions"),
    (update(max_output_tokens=4097), "integer_above_max_value", "session.max_output_tokens"),
    (update(max_output_tokens="all"), "invalid_value", "session.max_output_tokens"),
    (update(tools=[{**FUNCTION, "strict": True}]), "unknown_parameter", "session.tools[0].strict"),
    (update(tools=[{"name": "f"}]), "missing_required_parameter", "session.tools[0].type"),
    (update(tools={}), "invalid_type", "session.tools"),
    (update(tool_choice="maybe"), "invalid_value", "session.tool_choice"),
    # Items, responses, buffers
    (create(type="message", content=[]), "missing_required_parameter", "item.role"),
    (create(type="function_call_output", call_id="c"), "missing_required_parameter", "item.output"),
    (create(type="message", role="user", id="i" * 33, content=[]), "string_above_max_length", "item.id"),
    (
        {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 0.5},
        "invalid_type",
        "audio_end_ms",
    ),
    (
        {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": -1},
        "integer_below_min_value",
        "audio_end_ms",
    ),
    ({"type": "conversation.item.truncate", "item_id": "i"}, "missing_required_parameter", "audio_end_ms"),
    ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio"),
    ({"type": "input_audio_buffer.append", "audio": 7}, "invalid_type", "audio"),
    ({"type": "response.create", "event_id": "e" * 513}, "string_above_max_length", "event_id"),
    (
        {"type": "response.create", "response": {"metadata": {"a": 1}}},
        "invalid_type",
        "response.metadata.a",
    ),
]


@pytest.mark.parametrize("event", GOOD, ids=str)
def test_what_the_api_takes_is_taken(event: dict[str, Any]) -> None:
    assert check(event) is event
    TYPED.validate_python(event)


@pytest.mark.parametrize(("event", "code", "param"), BAD, ids=str)
def test_what_the_api_refuses_is_refused_by_name(event: Any, code: str, param: str | None) -> None:
    with pytest.raises(RequestError) as refused:
        check(event)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert param is None or param in refused.value.message or code in ("invalid_value", "invalid_event")


def test_an_item_may_be_referred_to_in_the_input_of_a_response() -> None:
    check({"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "i"}]}})
    with pytest.raises(RequestError):
        check(create(type="item_reference", id="i"))


def test_every_client_event_of_the_types_is_known() -> None:
    assert {event["type"] for event in GOOD} == set(client_event_types())


def test_retired_models_are_not_offered() -> None:
    assert "gpt-realtime-2.1" in offered_models()
    assert not any(model.startswith(("gpt-4o", "gpt-audio")) for model in offered_models())
