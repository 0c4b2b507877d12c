"""FreeSWITCH's text rules: how arguments are split, how header values are escaped, what counts as true.

Text that came as bytes is decoded as UTF-8 with ``surrogateescape``, so that every byte survives the way through.
"""

from functools import lru_cache

_ESCAPE = "\\"
_UNESCAPED = {"n": "\n", "r": "\r", "t": "\t", "s": " "}
_URL_UNSAFE = frozenset(b'\r\n #%&+:;<=>?@[\\]^`{|}"')
_HEX = frozenset(b"0123456789ABCDEF")
_TRUE = frozenset(("yes", "on", "true", "t", "enabled", "active", "allow"))


def decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def is_true(value: str | None) -> bool:
    """``switch_true``: yes, on, true, t, enabled, active, allow, or a number that is not 0."""
    if not value:
        return False
    return value.lower() in _TRUE or (value.lstrip("-").isdecimal() and int(value) != 0)


def to_int(text: str | None) -> int:
    """C's ``atoi``: the number at the start, 0 where there is none."""
    text = (text or "").lstrip(" \t\n\r\f\v")
    sign = -1 if text.startswith("-") else 1
    digits = text[1:] if text[:1] in ("-", "+") and text else text
    end = 0
    while end < len(digits) and digits[end] in "0123456789":
        end += 1
    return sign * int(digits[:end]) if end else 0


@lru_cache(maxsize=8192)
def url_encode(value: str) -> str:
    """A header value as events carry it. A ``%`` that two upper-case hex digits follow is left as it is."""
    data = encode(value)
    out = bytearray()
    for index, byte in enumerate(data):
        following = data[index + 1 : index + 3]
        escaped_already = byte == 0x25 and len(following) == 2 and _HEX.issuperset(following)
        if not escaped_already and (byte < 0x20 or byte > 0x7E or byte in _URL_UNSAFE):
            out += b"%%%02X" % byte
        else:
            out.append(byte)
    return out.decode("ascii")


def separate(text: str, limit: int, delimiter: str = " ") -> list[str]:
    """``switch_separate_string``: at most ``limit`` arguments, the last one taking the rest.

    Single quotes hold an argument together and vanish, a backslash escapes quotes, itself and n, r, t, s. ``^^;`` at the start
    changes the delimiter to the character after it.
    """
    if text.startswith("^^") and len(text) > 3:
        delimiter, text = text[2], text[3:]
    if delimiter == " ":
        return [_clean(part, "") for part in _split_on_blanks(text, limit)]
    return [_clean(part, delimiter) for part in _split_on(text, limit, delimiter)]


def _split_on_blanks(text: str, limit: int) -> list[str]:
    parts: list[str] = []
    position = 0
    while position < len(text) and len(parts) < limit:
        start = position
        if len(parts) + 1 == limit:
            parts.append(text[start:])
            break
        while position < len(text) and text[position] == " ":
            position += 1
        quoted = False
        while position < len(text):
            character = text[position]
            if character == _ESCAPE:
                position += 1
            elif character == "'":
                quoted = not quoted
            elif character == " " and not quoted:
                break
            position += 1
        parts.append(text[start:position])
        while position < len(text) and text[position] == " ":
            position += 1
    return parts


def _split_on(text: str, limit: int, delimiter: str) -> list[str]:
    parts: list[str] = []
    position = 0
    while position < len(text) and len(parts) < limit:
        start = position
        if len(parts) + 1 == limit:
            parts.append(text[start:])
            break
        quoted = False
        while position < len(text):
            character = text[position]
            if character == _ESCAPE:
                position += 1
            elif character == "'" and (quoted or "'" in text[position + 1 :]):
                quoted = not quoted
            elif character == delimiter and not quoted:
                break
            position += 1
        parts.append(text[start:position])
        position += 1
    return parts


def _clean(part: str, delimiter: str) -> str:
    """Take quotes and escapes out of one argument, and the blanks around it."""
    part = part.lstrip(" ")
    out: list[str] = []
    end: int | None = None
    quoted = False
    position = 0
    while position < len(part):
        character = part[position]
        if character == _ESCAPE and position + 1 < len(part):
            following = part[position + 1]
            if following in ("'", '"', _ESCAPE) or following == delimiter:
                out.append(following)
            elif following in _UNESCAPED:
                out.append(_UNESCAPED[following])
            else:
                out.append(character)
                end = len(out)
                position += 1
                continue
            end = len(out)
            position += 2
            continue
        if character == "'" and (quoted or "'" in part[position + 1 :]):
            quoted = not quoted
            if quoted:
                end = len(out)
        else:
            out.append(character)
            if character != " " or quoted:
                end = len(out)
        position += 1
    return "".join(out if end is None else out[:end])
