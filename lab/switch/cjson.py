"""JSON as FreeSWITCH's cJSON reads and writes it: lenient on input, numbers through a C double, keys in their order."""

import json
import math
from typing import Any

INT_MAX = 2**31 - 1


class Pairs(list[tuple[str, Any]]):
    """A JSON object: its members in order, twice the same key included."""


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=Pairs, parse_constant=_constant, strict=False)


def parse(text: str) -> Any:
    """The first JSON value in ``text``; what follows it is ignored. Raises ValueError where there is none."""
    try:
        value, _ = _DECODER.raw_decode(text.lstrip(" \t\r\n\ufeff"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def member(value: Any, name: str) -> Any:
    """An object's member, its name in any case; None where there is none."""
    if not isinstance(value, Pairs):
        return None
    return next((item for key, item in value if key.lower() == name.lower()), None)


def write(value: Any) -> str:
    """Compact text; non-ASCII characters stay as they are."""
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{_string(key)}:{write(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _number(float(value) if abs(value) < 1e308 else math.inf)


def _string(text: str) -> str:
    """A string of C's: it ends at a NUL."""
    return json.dumps(text.partition("\0")[0], ensure_ascii=False)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "null"
    if value.is_integer() and abs(value) <= INT_MAX:
        return str(int(value))
    short = f"{value:.15g}"
    return short if float(short) == value else f"{value:.17g}"
