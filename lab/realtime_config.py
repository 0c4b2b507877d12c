"""A session's configuration on the server's side: defaults, updates, and what they mean for audio."""

import copy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lab.realtime_schema import RequestError, models
from media_fork import g711

Pcm = npt.NDArray[np.int16]

RETIRED: Final = ("gpt-4o-", "gpt-audio-")
"""Beginnings of models that the types still name but a session cannot have: shut down, or of another API."""
REASONING: Final = "gpt-realtime-2"
"""Beginning of the models that take ``reasoning`` and ``parallel_tool_calls``."""
SHUTDOWN: Final = "2027-01-20"
DEPRECATED: Final = frozenset(
    {"gpt-realtime", "gpt-realtime-2025-08-28", "gpt-realtime-mini", "gpt-realtime-mini-2025-12-15"}
)

SERVER_VAD: Final[dict[str, Any]] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
SEMANTIC_VAD: Final[dict[str, Any]] = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}
SEMANTIC_SILENCE_MS: Final = {"low": 1000, "medium": 600, "auto": 600, "high": 300}
"""The lab's semantic_vad does not understand whether a sentence is complete: it waits for this much silence."""
PCM_24K: Final = {"type": "audio/pcm", "rate": 24000}


def offered_models() -> tuple[str, ...]:
    return tuple(model for model in models() if not model.startswith(RETIRED))


@dataclass(frozen=True)
class AudioFormat:
    """``audio/pcm`` at 24 kHz, ``audio/pcmu`` or ``audio/pcma`` at 8 kHz, mono."""

    type: str

    @property
    def rate(self) -> int:
        return 24000 if self.type == "audio/pcm" else 8000

    @property
    def bytes_a_sample(self) -> int:
        return 2 if self.type == "audio/pcm" else 1

    def milliseconds(self, size: int) -> int:
        """Duration of ``size`` bytes, rounded down."""
        return size * 1000 // (self.rate * self.bytes_a_sample)

    def decode(self, audio: bytes) -> Pcm:
        """int16; half a sample at the end is left out."""
        match self.type:
            case "audio/pcmu":
                return g711.ulaw_decode(audio)
            case "audio/pcma":
                return g711.alaw_decode(audio)
        return np.frombuffer(audio[: len(audio) // 2 * 2], dtype="<i2").astype(np.int16)

    def encode(self, pcm: Pcm) -> bytes:
        match self.type:
            case "audio/pcmu":
                return g711.ulaw_encode(pcm)
            case "audio/pcma":
                return g711.alaw_encode(pcm)
        return pcm.astype("<i2").tobytes()


class SessionConfig:
    """The session object as session.created and session.updated show it. Never changed; ``updated`` gives a new one."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    @classmethod
    def default(cls, model: str) -> "SessionConfig":
        return cls(
            {
                "type": "realtime",
                "model": model,
                "output_modalities": ["audio"],
                "instructions": "You are a helpful, witty, and friendly AI of the lab.",
                "tools": [],
                "tool_choice": "auto",
                "max_output_tokens": "inf",
                "tracing": None,
                "truncation": "auto",
                "prompt": None,
                "audio": {
                    "input": {
                        "format": PCM_24K,
                        "transcription": None,
                        "noise_reduction": None,
                        "turn_detection": SERVER_VAD,
                    },
                    "output": {"format": PCM_24K, "voice": "alloy", "speed": 1.0},
                },
            }
        )

    def updated(self, change: dict[str, Any], has_spoken: bool) -> "SessionConfig":
        """With the fields of a session.update, already checked for form. Raises RequestError, and nothing changed."""
        self._refuse(change, has_spoken)
        fields = copy.deepcopy(self._fields)
        audio = change.get("audio", {})
        fields |= {name: value for name, value in change.items() if name != "audio"}
        for side in ("input", "output"):
            fields["audio"][side] |= {name: _complete(name, value) for name, value in audio.get(side, {}).items()}
        noise = audio.get("input", {}).get("noise_reduction")
        if noise is not None:
            before = self._fields["audio"]["input"]["noise_reduction"] or {"strength": 1.0}
            fields["audio"]["input"]["noise_reduction"] = {**before, **noise}
        return SessionConfig(fields)

    def _refuse(self, change: dict[str, Any], has_spoken: bool) -> None:
        if change["type"] != "realtime":
            raise RequestError(
                "invalid_value",
                "Passing a transcription session update event to a realtime session is not allowed.",
                "session.type",
            )
        model = self._fields["model"]
        if change.get("model", model) != model:
            raise RequestError(
                "invalid_value", f"The model of a session cannot be changed from '{model}'.", "session.model"
            )
        check_modalities(change.get("output_modalities"), "session.output_modalities")
        for name in ("reasoning", "parallel_tool_calls"):
            if name in change and not model.startswith(REASONING):
                raise RequestError(
                    "unsupported_parameter",
                    f"'session.{name}' is not supported with the '{model}' model.",
                    f"session.{name}",
                )
        voice = change.get("audio", {}).get("output", {}).get("voice", self.voice)
        if has_spoken and voice != self.voice:
            raise RequestError(
                "cannot_update_voice", "Cannot update a conversation's voice if assistant audio is present."
            )

    def public(self, session_id: str, expires_at: int) -> dict[str, Any]:
        return {"object": "realtime.session", "id": session_id, **self._fields, "expires_at": expires_at}

    @property
    def instructions(self) -> str:
        return str(self._fields["instructions"])

    @property
    def model(self) -> str:
        return str(self._fields["model"])

    @property
    def output_modalities(self) -> list[str]:
        return list(self._fields["output_modalities"])

    @property
    def tools(self) -> list[dict[str, Any]]:
        return list(self._fields["tools"])

    @property
    def tool_choice(self) -> Any:
        return self._fields["tool_choice"]

    @property
    def max_output_tokens(self) -> int | str:
        tokens: int | str = self._fields["max_output_tokens"]
        return tokens

    @property
    def input_format(self) -> AudioFormat:
        return AudioFormat(self._fields["audio"]["input"]["format"]["type"])

    @property
    def transcription(self) -> dict[str, Any] | None:
        transcription: dict[str, Any] | None = self._fields["audio"]["input"]["transcription"]
        return transcription

    @property
    def turn_detection(self) -> dict[str, Any] | None:
        turn_detection: dict[str, Any] | None = self._fields["audio"]["input"]["turn_detection"]
        return turn_detection

    @property
    def output_format(self) -> dict[str, Any]:
        output_format: dict[str, Any] = self._fields["audio"]["output"]["format"]
        return output_format

    @property
    def voice(self) -> Any:
        """A name, or ``{"id": ...}`` of a custom voice."""
        return self._fields["audio"]["output"]["voice"]

    @property
    def speed(self) -> float:
        return float(self._fields["audio"]["output"]["speed"])


def check_modalities(modalities: list[str] | None, path: str) -> None:
    """Raises RequestError for any but ["audio"] and ["text"]."""
    if modalities is not None and modalities not in (["audio"], ["text"]):
        raise RequestError(
            "invalid_value",
            f"Invalid modalities: {modalities}. Supported combinations are: ['text'] and ['audio'].",
            path,
        )


def silence_ms(turn_detection: dict[str, Any]) -> int:
    """How much silence ends a turn."""
    if turn_detection["type"] == "semantic_vad":
        return SEMANTIC_SILENCE_MS[turn_detection["eagerness"]]
    return int(turn_detection["silence_duration_ms"])


def _complete(name: str, value: Any) -> Any:
    """A turn detection or format with the defaults of what was left out."""
    if name == "turn_detection" and value is not None:
        return {**(SERVER_VAD if value["type"] == "server_vad" else SEMANTIC_VAD), **value}
    if name == "format" and value.get("type", "audio/pcm") == "audio/pcm":
        return PCM_24K
    return value
