"""What a client may send: the client events of the GA Realtime API, read off the types of the ``openai`` package.

The API refuses an event as a whole for one field that it does not know, and names the field. ``check`` does the same, with
the codes and the wording of the API.
"""

import types
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final, Literal, NotRequired, Required, Union, get_args, get_origin

from openai.types.realtime.realtime_client_event_param import RealtimeClientEventParam
from openai.types.realtime.realtime_session_create_request_param import RealtimeSessionCreateRequestParam
from openai.types.realtime.response_create_event_with_references_param import ResponseCreateEventWithReferencesParam
from typing_extensions import get_type_hints, is_typeddict

INVALID_REQUEST: Final = "invalid_request_error"
MAX_EVENT_ID: Final = 512
MAX_ITEM_ID: Final = 32

NULLABLE: Final = frozenset(
    {
        "session.audio.input.noise_reduction",
        "session.audio.input.transcription",
        "previous_item_id",
    }
)
"""Fields that the reference documents as clearable by null, although the types do not say so."""

Range = tuple[float | None, float | None]
RANGES: Final[Mapping[str, Range]] = {
    "session.audio.output.speed": (0.25, 1.5),
    "session.audio.input.noise_reduction.strength": (0.0, None),
    "session.audio.input.turn_detection.threshold": (0.0, 1.0),
    "session.audio.input.turn_detection.prefix_padding_ms": (0, None),
    "session.audio.input.turn_detection.silence_duration_ms": (0, None),
    "session.audio.input.turn_detection.idle_timeout_ms": (5000, 30000),
    "session.max_output_tokens": (1, 4096),
    "session.truncation.retention_ratio": (0.0, 1.0),
    "session.truncation.token_limits.post_instructions": (0, None),
    "response.max_output_tokens": (1, 4096),
    "audio_end_ms": (0, None),
    "content_index": (0, None),
}
CLOSED: Final = frozenset(
    {"session.audio.output.voice", "response.audio.output.voice", "session.audio.input.transcription.model"}
)
"""Strings that the types leave open, but of which the API takes only those they list."""
LENGTHS: Final[Mapping[str, int]] = {
    "event_id": MAX_EVENT_ID,
    "item.id": MAX_ITEM_ID,
    "previous_item_id": MAX_EVENT_ID,
}


class RequestError(Exception):
    """A client event refused. ``code`` and ``param`` as in the API's error event."""

    def __init__(self, code: str | None, message: str, param: str | None = None, kind: str = INVALID_REQUEST) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind


def client_event_types() -> dict[str, Any]:
    """Type of a client event → its TypedDict; response.create with the item references that its input may have."""
    found = {_type_of(event): event for event in get_args(RealtimeClientEventParam)}
    found["response.create"] = ResponseCreateEventWithReferencesParam
    return found


def models() -> tuple[str, ...]:
    """Every model that the types name for a session."""
    return _literals(_fields(RealtimeSessionCreateRequestParam)["model"].hint)


def check(event: object) -> dict[str, Any]:
    """The event, if the API would take it as it stands. Raises RequestError."""
    if not isinstance(event, dict):
        raise RequestError("invalid_type", f"Invalid event: expected an object, but got {_a(event)} instead.")
    kind = event.get("type")
    if kind is None:
        raise RequestError("invalid_event", "The 'type' field is missing.", "type")
    event_type = _EVENTS.get(kind) if isinstance(kind, str) else None
    if event_type is None:
        raise _not_among("type", kind, _EVENTS)
    _check(event_type, event, "")
    return event


class _Field:
    __slots__ = ("hint", "required")

    def __init__(self, hint: Any, required: bool) -> None:
        self.hint = hint
        self.required = required


@cache
def _fields(typed_dict: Any) -> dict[str, _Field]:
    """Fields of a TypedDict. Its own __required_keys__ does not see Required in postponed annotations."""
    fields = {}
    for name, hint in get_type_hints(typed_dict, include_extras=True).items():
        origin: Any = get_origin(hint)
        if origin in (Required, NotRequired):
            hint = get_args(hint)[0]
        fields[name] = _Field(hint, origin is Required)
    return fields


def _check(hint: Any, value: Any, path: str) -> None:
    origin = get_origin(hint)
    if value is None and _plain(path) in NULLABLE:
        return
    if is_typeddict(hint):
        _check_object(hint, value, path)
    elif origin in (Union, types.UnionType):
        _check_union(get_args(hint), value, path)
    elif origin is Literal:
        if value not in get_args(hint) or isinstance(value, bool):
            raise _not_among(path, value, get_args(hint))
    elif origin in (dict, Mapping) or hint is dict:
        if not isinstance(value, dict):
            raise _wrong_type(path, "an object", value)
        for key, part in value.items():
            _check(get_args(hint)[1] if get_args(hint) else object, part, f"{path}.{key}")
    elif _is_list(origin):
        if not isinstance(value, list):
            raise _wrong_type(path, "an array", value)
        for index, part in enumerate(value):
            _check(get_args(hint)[0], part, f"{path}[{index}]")
    elif hint in _SCALARS:
        expected, fits = _SCALARS[hint]
        if not fits(value):
            raise _wrong_type(path, expected, value)
        _check_bounds(path, value)


def _check_object(typed_dict: Any, value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise _wrong_type(path, "an object", value)
    fields = _fields(typed_dict)
    prefix = f"{path}." if path else ""
    for name, field in fields.items():
        if field.required and name not in value:
            raise RequestError(
                "missing_required_parameter", f"Missing required parameter: '{prefix}{name}'.", f"{prefix}{name}"
            )
    for name, part in value.items():
        if name not in fields:
            raise RequestError("unknown_parameter", f"Unknown parameter: '{prefix}{name}'.", f"{prefix}{name}")
        _check(fields[name].hint, part, f"{prefix}{name}")


def _check_union(options: tuple[Any, ...], value: Any, path: str) -> None:
    if value is None and type(None) in options:
        return
    objects = [option for option in _flat(options) if is_typeddict(option)]
    if isinstance(value, dict) and objects:
        _check(_variant(objects, value, path), value, path)
        return
    others = [option for option in options if not is_typeddict(option) and option is not type(None)]
    if isinstance(value, str):
        literals = _literals(*others)
        if str in others and not (literals and _plain(path) in CLOSED):
            _check_bounds(path, value)
            return
        if literals:
            if value not in literals:
                raise _not_among(path, value, literals)
            return
    for option in others:
        if option in _SCALARS and option is not str and _SCALARS[option][1](value):
            _check_bounds(path, value)
            return
        container = get_origin(option)
        if (_is_list(container) and isinstance(value, list)) or (container is dict and isinstance(value, dict)):
            _check(option, value, path)
            return
    raise _wrong_type(path, " or ".join(dict.fromkeys(_expected(option) for option in _flat(options))), value)


def _expected(hint: Any) -> str:
    if hint in _SCALARS:
        return _SCALARS[hint][0]
    return "null" if hint is type(None) else "a string" if get_origin(hint) is Literal else "an object"


def _variant(objects: list[Any], value: dict[str, Any], path: str) -> Any:
    """The one of several objects that ``type``, and for messages ``role``, says is meant."""
    for key in ("type", "role"):
        with_key = [option for option in objects if key in _fields(option)]
        if len(objects) == 1 or not with_key:
            continue
        if key not in value:
            if len(with_key) < len(objects):
                objects = [option for option in objects if option not in with_key]
                continue
            raise RequestError(
                "missing_required_parameter", f"Missing required parameter: '{path}.{key}'.", f"{path}.{key}"
            )
        choices = [choice for option in with_key for choice in _literals(_fields(option)[key].hint)]
        matching = [option for option in with_key if value[key] in _literals(_fields(option)[key].hint)]
        if not matching:
            raise _not_among(f"{path}.{key}", value[key], dict.fromkeys(choices))
        objects = matching
    return objects[0]


def _check_bounds(path: str, value: Any) -> None:
    plain = _plain(path)
    if isinstance(value, str):
        longest = LENGTHS.get(plain)
        if longest is not None and len(value) > longest:
            raise RequestError(
                "string_above_max_length",
                f"Invalid '{path}': string too long. Expected a string with maximum length {longest},"
                f" but got a string with length {len(value)} instead.",
                path,
            )
        return
    lowest, highest = RANGES.get(plain, (None, None))
    number = "decimal" if isinstance(value, float) or float in (type(lowest), type(highest)) else "integer"
    if lowest is not None and value < lowest:
        raise RequestError(
            f"{number}_below_min_value",
            f"Invalid '{path}': {number} below minimum value. Expected a value >= {lowest}, but got {value} instead.",
            path,
        )
    if highest is not None and value > highest:
        raise RequestError(
            f"{number}_above_max_value",
            f"Invalid '{path}': {number} above maximum value. Expected a value <= {highest}, but got {value} instead.",
            path,
        )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_SCALARS: Final[Mapping[Any, tuple[str, Callable[[Any], bool]]]] = {
    str: ("a string", lambda value: isinstance(value, str)),
    int: ("an integer", _is_integer),
    float: ("a decimal", lambda value: isinstance(value, float) or _is_integer(value)),
    bool: ("a boolean", lambda value: isinstance(value, bool)),
}


def _is_list(origin: Any) -> bool:
    return isinstance(origin, type) and origin not in (dict, Mapping) and issubclass(origin, Iterable)


def _flat(options: Iterable[Any]) -> list[Any]:
    """Options of a union, those of unions within it too."""
    flat = []
    for option in options:
        flat += _flat(get_args(option)) if get_origin(option) in (Union, types.UnionType) else [option]
    return flat


def _literals(*hints: Any) -> tuple[Any, ...]:
    return tuple(value for option in _flat(hints) if get_origin(option) is Literal for value in get_args(option))


def _type_of(typed_dict: Any) -> str:
    return str(_literals(_fields(typed_dict)["type"].hint)[0])


def _plain(path: str) -> str:
    return "".join(part.partition("]")[2] if index else part for index, part in enumerate(path.split("[")))


def _not_among(path: str, value: Any, choices: Iterable[Any]) -> RequestError:
    quoted = [f"'{choice}'" for choice in choices]
    listed = " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))
    if len(quoted) > 2:
        listed = listed.replace(" and ", ", and ")
    supported = f"Supported values are: {listed}." if len(quoted) > 1 else f"Value must be {listed}."
    return RequestError("invalid_value", f"Invalid value: '{value}'. {supported}", path)


def _wrong_type(path: str, expected: str, value: Any) -> RequestError:
    return RequestError(
        "invalid_type", f"Invalid type for '{path}': expected {expected}, but got {_a(value)} instead.", path
    )


def _a(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}
    return names.get(type(value), "an object")


_EVENTS: Final = client_event_types()
