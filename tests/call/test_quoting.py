"""Any JSON goes through FreeSWITCH's splitting of arguments unchanged."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esl_app.quoting import Unquotable, quote

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


def separate(text: str, most: int) -> list[str]:
    """switch_separate_string with a space as its delimiter, as FreeSWITCH 1.10.12 has it."""
    words: list[str] = []
    position = 0
    while position < len(text) and len(words) < most:
        start = position
        while position < len(text) and text[position] == " ":
            position += 1
        inside = False
        while position < len(text) and not (text[position] == " " and not inside):
            if text[position] == "\\":
                position += 1
            elif text[position] == "'":
                inside = not inside
            position += 1
        words.append(cleanup(text[start:position]))
        while position < len(text) and text[position] == " ":
            position += 1
    return words


def cleanup(text: str) -> str:
    """cleanup_separated_string: escapes undone, apostrophes in pairs and spaces around removed."""
    text = text.lstrip(" ")
    escapes = {"'": "'", '"': '"', "\\": "\\", "n": "\n", "r": "\r", "t": "\t", "s": " "}
    out: list[str] = []
    kept = 0
    inside = False
    position = 0
    while position < len(text):
        character = text[position]
        following = text[position + 1] if position + 1 < len(text) else ""
        if character == "\\" and following in escapes and following:
            out.append(escapes[following])
            kept = len(out)
            position += 2
            continue
        if character == "'" and (inside or "'" in text[position + 1 :]):
            inside = not inside
            if inside:
                kept = len(out)
        else:
            out.append(character)
            if character != " " or inside:
                kept = len(out)
        position += 1
    return "".join(out[:kept])


@given(JSON, st.booleans())
@example({"a": "it's", "b": "don't"}, False)
@example({"q": 'say "hi"', "p": "C:\\x\\", "n": "a\nb\tc"}, True)
@example("\\", False)
@example("'", False)
@example(" ' \\' ", False)
def test_json_arrives_unchanged(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    line = f"UUID send_text tandem {quote(text)}"
    assert separate(line, 10) == ["UUID", "send_text", "tandem", text]
    assert json.loads(separate(line, 10)[3]) == value


@given(st.text(st.characters(exclude_characters="\r\n\0")), st.text(st.characters(exclude_characters="\r\n\0")))
def test_any_two_arguments_stay_two(first: str, second: str) -> None:
    assert separate(f"start {quote(first)} mono {quote(second)} true", 10) == ["start", first, "mono", second, "true"]


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b"])
def test_what_would_end_the_command_is_refused(text: str) -> None:
    with pytest.raises(Unquotable):
        quote(text)


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ('{"t":"a\\tb"}', '{"t":"a\tb"}'),
        ('{"s":"a\\sb"}', '{"s":"a b"}'),
        ('{"p":"C:\\\\x"}', '{"p":"C:\\x"}'),
        ('{"sl":"a\\/b"}', '{"sl":"a\\/b"}'),
        ('\'{"sp":"with space"}\'', '{"sp":"with space"}'),
        ('\'{"sp":"it\\\'s a"}\'', '{"sp":"it\'s a"}'),
        ('{"a":"it\'s","b":"don\'t"}', '{"a":"its","b":"dont"}'),
        ('{"e":"é😀"}', '{"e":"é😀"}'),
    ],
)
def test_the_model_of_freeswitchs_splitting_does_what_freeswitch_was_seen_to_do(sent: str, received: str) -> None:
    assert separate(f"UUID send_text {sent}", 10)[2] == received
