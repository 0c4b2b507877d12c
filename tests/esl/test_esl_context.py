"""Keys, headers and the screen-pop: nothing but what is meant gets out, and nothing without an unexpired key."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_app import context, screen_pop
from esl_app.api import ApiError, Request
from esl_app.context import Carried
from esl_app.dialling import dial_string
from esl_app.refer import refer_to
from esl_app.screen_pop import ScreenPop, Told
from tandem import settings as tandem_settings
from tandem.records import Recorder
from tandem.webhooks import Context
from tests.tandem.recording import call_row, transfer_row, turn_row

KEY = "AbCdEfGh_-123456"
HOSTILE = "a,b}{x=y}sofia/evil/'\"\r\nX: 1 ${x} [^^:] | & ; é 漢 \x00"


def carried(text: str = HOSTILE) -> Carried:
    return Carried(KEY, "call-1", "reception", text, text)


def test_a_key_is_short_random_and_plain() -> None:
    keys = {context.new_key() for _ in range(100)}
    assert len(keys) == 100 and all(re.fullmatch(r"[A-Za-z0-9_-]{16}", key) for key in keys)


def test_who_is_told_nothing_gets_no_header() -> None:
    assert carried().headers(Context.NONE) == {} and carried().refer_to(Context.NONE) == ""
    assert set(carried().headers(Context.KEY)) == {"User-to-User"}


@given(st.text(max_size=3000))
def test_no_text_of_a_model_breaks_a_dial_string_or_a_refer_to(text: str) -> None:
    headers = carried(text).headers(Context.FULL)
    settings = tandem_settings.Edge.model_validate({"listen": [{"address": "127.0.0.1"}]})
    string = dial_string(
        settings, channel="0" * 8 + "-0000" * 3 + "-" + "0" * 12, number="2001", trunk="pbx", tenant="default",
        call="call-1", caller_id="", ring_seconds=5, headers=headers,
    )  # fmt: skip
    inside, _, rest = string[1:].partition("}")
    assert rest == "sofia/tandem/sip:2001@127.0.0.1:5060;transport=udp"
    assert len(inside.split(",")) == len([pair for pair in inside.split(",") if pair.count("=") >= 1])
    assert sum(pair.startswith("sip_h_X-Context-") for pair in inside.split(",")) == len(headers) - 1
    assert max(map(len, headers.values())) <= context.MAX_HEADER


def test_a_refer_to_has_the_key_escaped() -> None:
    uri = refer_to("2001", "pbx.example", carried().refer_to(Context.KEY))
    assert uri == f"sip:2001@pbx.example?User-to-User=04{KEY.encode().hex()}%3Bencoding%3Dhex"


@pytest.mark.parametrize("headers", ["Route=x;y", "a b", "x>y", "User-to-User=" + "a" * 600])
def test_a_refer_to_takes_no_other_text(headers: str) -> None:
    with pytest.raises(ValueError, match="cannot be a Refer-To"):
        refer_to("2001", "pbx.example", headers)


@pytest.fixture
def pop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScreenPop:
    """The records have one transfer whose key expires at 2000."""
    monkeypatch.setattr(screen_pop, "PATIENCE_S", 0.0)
    url = f"sqlite:///{tmp_path}/records.db"
    recorder = Recorder(tandem_settings.Records(url=url, spool=tmp_path / "spool"), "worker-1")
    recorder.put(call_row())
    recorder.put(turn_row("1"))
    row = transfer_row().model_copy(
        update={"key_digest": context.digest(KEY), "key_expires_at": 2000.0, "summary": "Ann wants prices."}
    )
    recorder.put(row)
    assert recorder.close(20)
    return ScreenPop(url, now=lambda: 1999.0)


def ask(pop: ScreenPop, key: str) -> Told:
    reply = pop.answer(Request("GET", {"key": key}, {}, b""))
    assert reply.status == 200 and isinstance(reply.body, Told)
    return reply.body


def test_a_key_shows_what_was_said(pop: ScreenPop) -> None:
    told = ask(pop, KEY)
    assert (told.destination, told.summary, told.expires_at) == ("sales", "Ann wants prices.", 2000.0)
    assert [turn.text for turn in told.transcript]


@pytest.mark.parametrize("key", [KEY[:-1], KEY[:-1] + "7", KEY + "0", "", "../../etc", KEY.lower(), "%" * 16])
def test_another_key_shows_nothing(pop: ScreenPop, key: str) -> None:
    with pytest.raises(ApiError) as caught:
        ask(pop, key)
    assert caught.value.status == 404


def test_an_expired_key_shows_nothing(pop: ScreenPop) -> None:
    pop._now = lambda: 2000.0
    with pytest.raises(ApiError) as caught:
        ask(pop, KEY)
    assert (caught.value.status, caught.value.cause) == (404, "unknown_key")


def test_records_that_are_away_are_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(ApiError) as caught:
        ask(ScreenPop(f"sqlite:///{tmp_path}/none.db"), KEY)
    assert caught.value.status == 503
