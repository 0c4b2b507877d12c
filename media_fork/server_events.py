"""Fields of the model's events, read with care: what is missing or of another type is empty. Only an id must be one."""

from typing import Any, Final

from tandem.seam import MAX_ID

MAX_NUMBER: Final = 2**40


class MalformedError(ValueError):
    """A server event without something that it must have."""


def text_of(of: dict[str, Any], key: str) -> str:
    """A text, else an empty one."""
    value = of.get(key)
    return value if isinstance(value, str) else ""


def id_of(of: dict[str, Any], key: str) -> str:
    """An id of 1 to MAX_ID characters. Raises MalformedError."""
    value = of.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise MalformedError(f"{key} is not an id")
    return value


def number_of(of: dict[str, Any], key: str) -> float:
    """A number from 0 to MAX_NUMBER, else 0."""
    value = of.get(key)
    return float(value) if isinstance(value, int | float) and 0 <= value <= MAX_NUMBER else 0.0


def object_of(of: dict[str, Any], key: str) -> dict[str, Any]:
    """An object, else an empty one."""
    value = of.get(key)
    return value if isinstance(value, dict) else {}
