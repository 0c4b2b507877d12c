"""Messages of real peers are read leniently and echoed verbatim; nothing that arrives can do more than be refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipmessage import Request

from lab import message as sip_message
from lab.message import MalformedMessage

INVITE = (
    b"INVITE sip:+12025550100@127.0.0.1:5060;user=phone SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 127.0.0.9:5090;branch=z9hG4bK1;rport, SIP/2.0/TCP edge_1.lab:5061;branch=z9hG4bK0\r\n"
    b'From: "A \\"quoted\\" <sip:x@y>;tag=no" <sip:a!b@127.0.0.9>;x=y;tag=T*a!%g\r\n'
    b"To: sip:+12025550100@127.0.0.1;user=phone\r\n"
    b"Call-ID: c@1\r\n"
    b"CSeq: 1 INVITE\r\n"
    b"Content-Length: 3\r\n"
    b"\r\nabcdef"
)


def read(data: bytes) -> Request:
    message = sip_message.parse(data)
    assert isinstance(message, Request)
    return message


def changed(old: bytes, new: bytes) -> bytes:
    assert old in INVITE
    return INVITE.replace(old, new)


def test_header_text_is_kept_verbatim() -> None:
    request = read(INVITE)
    assert str(request.uri) == "sip:+12025550100@127.0.0.1:5060;user=phone"
    again = read(sip_message.serialise(request))
    assert [again.headers[name] for name in ("From", "To", "Via")] == [
        request.headers[name] for name in ("From", "To", "Via")
    ]


def test_a_display_name_cannot_pass_for_uri_or_tag() -> None:
    caller = sip_message.name_addr(read(INVITE).headers["From"])
    assert caller.display == 'A "quoted" <sip:x@y>;tag=no'
    assert caller.uri == "sip:a!b@127.0.0.9"
    assert caller.tag == "T*a!%g"


def test_only_the_tag_is_taken_from_a_from_header() -> None:
    value = sip_message.without_tag(read(INVITE).headers["From"])
    assert value == '"A \\"quoted\\" <sip:x@y>;tag=no" <sip:a!b@127.0.0.9>;x=y'


@pytest.mark.parametrize("value", ["<sip:a@b;tag=1", "sip:a@b>;tag=1", '"x <sip:a@b>;tag=1', ";tag=1", "<", ""])
def test_a_damaged_address_is_read_as_far_as_it_goes(value: str) -> None:
    assert "tag" not in sip_message.without_tag(value) or sip_message.name_addr(value).tag == ""


def test_parameters_of_a_bare_uri_belong_to_the_header() -> None:
    to = sip_message.name_addr(read(INVITE).headers["To"])
    assert to.uri == "sip:+12025550100@127.0.0.1" and to.parameters == {"user": "phone"}


def test_an_invalid_utf8_display_name_returns_byte_for_byte() -> None:
    data = changed(b'\\"quoted\\"', b"M\xfcller \xe2\x82\xac")
    request = read(data)
    assert b'"A M\xfcller \xe2\x82\xac <sip' in sip_message.serialise(request)
    response = sip_message.response_to(request, ("127.0.0.9", 5090), 486, tag="us")
    assert b'"A M\xfcller \xe2\x82\xac <sip' in sip_message.serialise(response)


def test_a_urn_is_a_request_uri() -> None:
    request = read(changed(b"sip:+12025550100@127.0.0.1:5060;user=phone", b"urn:service:sos"))
    assert str(request.uri) == "urn:service:sos"
    assert sip_message.serialise(request).startswith(b"INVITE urn:service:sos SIP/2.0\r\n")


def test_compact_names_folded_lines_and_space_before_the_colon() -> None:
    request = read(
        b"OPTIONS sip:a SIP/2.0\r\nv : SIP/2.0/UDP h;branch=z9hG4bK1\r\nf:<sip:a@b>\r\n ;tag=1\r\nt: <sip:c>\r\n"
        b"i: 1\r\nCSeq: 7   OPTIONS\r\n\r\n"
    )
    assert sip_message.from_tag(request) == "1"
    assert sip_message.top_via(request).host == "h"
    assert sip_message.call_id(request) == "1"


def test_the_body_ends_where_content_length_says() -> None:
    assert read(INVITE).body == b"abc"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Content-Length: 3", b"Content-Length: 99"),
        (b"Content-Length: 3", b"Content-Length: -1"),
        (b"CSeq: 1 INVITE", b"CSeq: 1 BYE"),
        (b"CSeq: 1 INVITE", b"CSeq: 99999999999 INVITE"),
        (b"CSeq: 1 INVITE\r\n", b""),
        (b"Via: SIP/2.0/UDP 127.0.0.9:5090", b"Via: nonsense"),
        (b"Call-ID: c@1", b"Call-ID c@1"),
        (b" SIP/2.0\r\nVia", b" SIP/7.0\r\nVia"),
        (b"\r\n\r\nabcdef", b"\r\n"),
        (b"INVITE sip:", b"INVITE  sip:"),
    ],
)
def test_what_is_no_message_is_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(MalformedMessage):
        sip_message.parse(changed(old, new))


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        sip_message.parse(data)


@given(st.integers(0, len(INVITE) - 1), st.binary(max_size=4), st.integers(0, 6))
def test_a_damaged_invite_is_read_or_refused(place: int, junk: bytes, cut: int) -> None:
    try:
        message = sip_message.parse(INVITE[:place] + junk + INVITE[place + cut :])
    except MalformedMessage:
        return
    assert sip_message.parse(sip_message.serialise(message)).headers["Via"] == message.headers["Via"]


def test_received_and_rport_tell_the_true_source() -> None:
    response = sip_message.response_to(read(INVITE), ("127.0.0.77", 40000), 200, tag="us")
    first, second = sip_message.values(response, "Via")
    assert first == "SIP/2.0/UDP 127.0.0.9:5090;branch=z9hG4bK1;rport=40000;received=127.0.0.77"
    assert second == "SIP/2.0/TCP edge_1.lab:5061;branch=z9hG4bK0"


def test_lists_are_split_outside_quotes_and_brackets() -> None:
    request = read(changed(b"Call-ID: c@1", b'Call-ID: c@1\r\nRoute: "a, b" <sip:x,y@h;lr>, <sip:z>\r\nRoute: <sip:w>'))
    assert sip_message.values(request, "Route") == ['"a, b" <sip:x,y@h;lr>', "<sip:z>", "<sip:w>"]


@given(st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])))
def test_any_display_name_survives(display: str) -> None:
    assert sip_message.name_addr(sip_message.format_name_addr("sip:a@b", display)).display == display


def test_a_line_break_in_a_display_name_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        sip_message.format_name_addr("sip:a@b", "x\r\nX-Forged: yes")
