"""FreeSWITCH's rules of text: splitting and quoting of arguments, escaping of header values, lenient JSON."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.switch import cjson
from lab.switch.fork_command import _name_and_text
from lab.switch.originate import OriginateFailed, parse_dial_string
from lab.switch.text import decode, encode, is_true, separate, to_int, url_encode

# Argument, what arrived at the WebSocket: seen with FreeSWITCH 1.10.12.
SENT = [
    (r"""{"t":"a\tb"}""", '{"t":"a\tb"}'),
    (r"""{"s":"a\sb"}""", '{"s":"a b"}'),
    (r"""{"p":"C:\\x"}""", r'{"p":"C:\x"}'),
    (r"""{"sl":"a\/b"}""", r'{"sl":"a\/b"}'),
    ("""'{"sp":"with space"}'""", '{"sp":"with space"}'),
    (r"""'{"sp":"it\'s a"}'""", '{"sp":"it\'s a"}'),
    ("""{"a":"it's","b":"don't"}""", '{"a":"its","b":"dont"}'),
    ("""{"a":"x'y z'w"}""", '{"a":"xy zw"}'),
    ("""audio_fork '{"sp":"with space"}'""", '{"sp":"with space"}'),
    ("""{"e":"é😀"}""", '{"e":"é😀"}'),
]


@pytest.mark.parametrize(("argument", "text"), SENT)
def test_send_text_arrives_as_with_freeswitch(argument, text):
    assert _name_and_text(separate(f"UUID send_text {argument}", 10)) == ("audio_fork", text)


def test_json_with_a_bare_space_is_two_words_and_the_first_of_them_a_name():
    name, _ = _name_and_text(separate(r"""UUID send_text {"q":"say \"hi\""}""", 10))
    assert name == '{"q":"say'


def quoted(text: str) -> str:
    """The exact inverse of the splitting."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@given(st.lists(st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1), max_size=9))
def test_what_is_quoted_comes_through(words):
    assert separate(" ".join(["uuid", *map(quoted, words)]), 10) == ["uuid", *words]


@pytest.mark.parametrize(
    ("text", "limit", "delimiter", "parts"),
    [
        ("a  b c", 10, " ", ["a", "b", "c"]),
        ("a b c d", 3, " ", ["a", "b", "c d"]),
        ("", 10, " ", []),
        ("a=1;b=x\\;y;c=", 64, ";", ["a=1", "b=x;y", "c="]),
        ("^^:a=1:b=2", 64, ";", ["a=1", "b=2"]),
        ("a,'b,c',d", 64, ",", ["a", "b,c", "d"]),
        ("'open quote", 10, " ", ["'open quote"]),
    ],
)
def test_splitting(text, limit, delimiter, parts):
    assert separate(text, limit, delimiter) == parts


@given(st.binary())
def test_every_byte_survives_a_header(data):
    text = decode(data)
    assert encode(text) == data
    value = url_encode(text)
    assert value.isascii() and not re.search(r"[\r\n :]", value)
    if not re.search(rb"%[0-9A-F]{2}", data):
        assert unquote(value, errors="surrogateescape") == text


def test_what_looks_escaped_is_left_alone():
    assert url_encode("50% off%20 %zz") == "50%25%20off%20%20%25zz"


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), (" -7x", -7), ("+3", 3), ("x", 0), ("", 0), (None, 0), ("-", 0)]
)
def test_atoi(text, number):
    assert to_int(text) == number


@pytest.mark.parametrize(
    ("text", "true"), [("true", 1), ("YES", 1), ("1", 1), ("0", 0), ("", 0), (None, 0), ("nope", 0)]
)
def test_truth(text, true):
    assert is_true(text) == bool(true)


# JSON of the fork


@pytest.mark.parametrize(
    ("read", "written"),
    [
        ('{ "a" : [1, 2.5, -0.0, 1e3], "b":null }', '{"a":[1,2.5,0,1000],"b":null}'),
        ('{"type":"json"} and more', '{"type":"json"}'),
        ('"x\\u00e9"', '"xé"'),
        ('["x\\u0000y", "\\u0000"]', '["x",""]'),
        ('{"twice":1,"twice":true}', '{"twice":1,"twice":true}'),
        ("1e999", "null"),
        ("0.1", "0.1"),
    ],
)
def test_json_is_read_and_written_as_cjson_does(read, written):
    assert cjson.write(cjson.parse(read)) == written


@pytest.mark.parametrize("text", ["", "nope", "{", "NaN", "[" * 100_000])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError):
        cjson.parse(text)


def test_members_are_found_in_any_case():
    assert cjson.member(cjson.parse('{"Type":"transfer"}'), "type") == "transfer"
    assert cjson.member([1], "type") is None


# Dial strings


def test_a_dial_string_has_variables_and_an_endpoint():
    dial = parse_dial_string("{a=1,b='x,y',sip_h_X-A=z}[c=2]sofia/tandem/sip:2001@127.0.0.1:5060;transport=udp")
    assert dial.variables == {"a": "1", "b": "x,y", "sip_h_X-A": "z", "c": "2"}
    assert dial.endpoint == "sofia/tandem/sip:2001@127.0.0.1:5060;transport=udp"
    assert parse_dial_string("{^^:a=1,2:b=3}error/x").variables == {"a": "1,2", "b": "3"}


@pytest.mark.parametrize("text", ["{a=1", "<a=1", "{a='1}sofia/x"])
def test_open_brackets_are_refused(text):
    with pytest.raises(OriginateFailed):
        parse_dial_string(text)


def test_the_recorded_scenes_are_those_that_are_played():
    from tests.freeswitch.scenes import RECORDED, SCENES

    assert {path.stem for path in Path(RECORDED).glob("*.txt")} == set(SCENES)
