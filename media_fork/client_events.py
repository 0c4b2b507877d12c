"""The events that are sent to the model, with the fields of the GA Realtime specification and no others.

A server of the GA protocol refuses a session.update whole that has an unknown field, or one of the beta's.
"""

from typing import Any

from media_fork.carriage import Carriage
from tandem.settings import Agent


def session_update(
    agent: Agent,
    carriage: Carriage,
    instructions: str,
    tools: list[dict[str, Any]],
    transcription: str | None = None,
) -> dict[str, Any]:
    """The session as ``agent`` has it: VAD on the server, which answers by itself and is interrupted by speech.

    ``transcription``: the endpoint's own name for the model of that, where it has one.
    """
    audio_input: dict[str, Any] = {
        "format": carriage.model_format,
        "turn_detection": {
            **agent.turn_detection.model_dump(),
            "create_response": True,
            "interrupt_response": True,
        },
    }
    if agent.transcription is not None:
        audio_input["transcription"] = {"model": transcription or agent.transcription, "language": agent.language}
    if agent.noise_reduction is not None:
        audio_input["noise_reduction"] = {"type": agent.noise_reduction}
    session = {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": instructions,
        "audio": {
            "input": audio_input,
            "output": {"format": carriage.model_format, "voice": agent.voice},
        },
        "tools": tools,
        "tool_choice": "auto",
    }
    return {"type": "session.update", "session": session}


def session_change(**fields: Any) -> dict[str, Any]:
    """Some fields of the session are others from now on."""
    return {"type": "session.update", "session": {"type": "realtime", **fields}}


def item_create(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": item}


def function_call_output(item_id: str, call_id: str, output: str) -> dict[str, Any]:
    return item_create({"id": item_id, "type": "function_call_output", "call_id": call_id, "output": output})


def function_call(item_id: str, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    call = {"call_id": call_id, "name": name, "arguments": arguments}
    return item_create({"id": item_id, "type": "function_call", **call})


def user_message(item_id: str, text: str) -> dict[str, Any]:
    return _message(item_id, "user", "input_text", text)


def assistant_message(item_id: str, text: str) -> dict[str, Any]:
    return _message(item_id, "assistant", "output_text", text)


def system_message(item_id: str, text: str) -> dict[str, Any]:
    return _message(item_id, "system", "input_text", text)


def _message(item_id: str, role: str, kind: str, text: str) -> dict[str, Any]:
    content = [{"type": kind, "text": text}]
    return item_create({"id": item_id, "type": "message", "role": role, "content": content})


def item_delete(item_id: str) -> dict[str, Any]:
    return {"type": "conversation.item.delete", "item_id": item_id}


def response_create(event_id: str, instructions: str | None) -> dict[str, Any]:
    event: dict[str, Any] = {"type": "response.create", "event_id": event_id}
    if instructions is not None:
        event["response"] = {"instructions": instructions}
    return event


def truncate(item_id: str, content_index: int, audio_end_ms: int) -> dict[str, Any]:
    return {
        "type": "conversation.item.truncate",
        "item_id": item_id,
        "content_index": content_index,
        "audio_end_ms": audio_end_ms,
    }
