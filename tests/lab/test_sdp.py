"""Offer and answer of one audio stream (RFC 3264)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import sdp
from lab.sdp import BadSdp, Direction, Session

TWILIO = b"""v=0
o=root 110 2 IN IP4 203.0.113.1
s=Twilio Media Gateway
c=IN IP4 203.0.113.9
t=0 0
m=audio 19016 RTP/AVP 8 0 96 100
a=rtpmap:8 PCMA/8000
a=rtpmap:96 telephone-event/48000
a=rtpmap:100 telephone-event/8000
a=fmtp:100 0-16
a=ptime:20
a=maxptime:150
a=sendrecv
"""


def test_the_answer_takes_the_offers_first_codec_and_its_event_number() -> None:
    answer = sdp.answer(sdp.parse(TWILIO), "127.0.0.1", 4000)
    assert [(entry.payload_type, entry.name) for entry in answer.formats] == [(8, "PCMA"), (100, "telephone-event")]
    assert sdp.parse(answer.encode()).formats == answer.formats


def test_codecs_may_be_narrowed() -> None:
    answer = sdp.answer(sdp.parse(TWILIO), "127.0.0.1", 4000, codecs=("PCMU",))
    chosen = answer.codec()
    assert chosen is not None and chosen.name == "PCMU"
    with pytest.raises(sdp.NoCommonCodec, match="offered PCMA"):
        sdp.answer(sdp.parse(TWILIO), "127.0.0.1", 4000, codecs=())


@pytest.mark.parametrize(
    ("offered", "ours", "answered"),
    [
        ("sendrecv", "sendrecv", "sendrecv"),
        ("sendonly", "sendrecv", "recvonly"),
        ("recvonly", "sendrecv", "sendonly"),
        ("inactive", "sendrecv", "inactive"),
        ("sendrecv", "sendonly", "sendonly"),
        ("sendonly", "sendonly", "inactive"),
    ],
)
def test_the_direction_is_mirrored_and_narrowed(offered: Direction, ours: Direction, answered: Direction) -> None:
    offer = sdp.offer("127.0.0.1", 4000, direction=offered)
    assert sdp.answer(offer, "127.0.0.1", 5000, direction=ours).direction == answered


def test_the_old_form_of_hold_is_known() -> None:
    held = sdp.parse(TWILIO.replace(b"c=IN IP4 203.0.113.9", b"c=IN IP4 0.0.0.0"))
    assert not held.receives and sdp.answer(held, "127.0.0.1", 4000).direction == "recvonly"


def test_a_refused_stream_neither_sends_nor_receives() -> None:
    refused = sdp.parse(TWILIO.replace(b"m=audio 19016", b"m=audio 0"))
    assert not refused.sends and not refused.receives
    assert sdp.answer(refused, "127.0.0.1", 4000).port == 0


def test_an_unknown_codec_of_ours_is_named() -> None:
    with pytest.raises(ValueError, match="no codec G729 here"):
        sdp.offer("127.0.0.1", 4000, codecs=("G729",))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_session_or_refused(body: bytes) -> None:
    with contextlib.suppress(BadSdp):
        assert isinstance(sdp.parse(body), Session)


@given(st.integers(0, len(TWILIO) - 1), st.binary(max_size=3), st.integers(0, 5))
def test_a_damaged_session_is_read_or_refused(place: int, junk: bytes, cut: int) -> None:
    try:
        session = sdp.parse(TWILIO[:place] + junk + TWILIO[place + cut :])
        sdp.answer(session, "127.0.0.1", 4000).encode()
    except (BadSdp, sdp.NoCommonCodec):
        pass
