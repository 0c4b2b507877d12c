"""The demonstration's judgement: each thing that did not happen is found out."""

import numpy as np
import pytest

from lab import demo_checks, hearing
from lab.demo_checks import Check
from lab.hearing import Pcm
from lab.voice import speak
from tandem.outcome import Outcome, TransferOutcome
from tandem.records import CallRecord, CallStory, TransferRecord, TurnRecord

INTERRUPTED, ASKED, REQUESTED = 4.0, 5.4, 9.0
RNG = np.random.default_rng(7)


def line(*stretches: tuple[float, float], seconds: float = 12.0) -> Pcm:
    """A line with sound from the one moment to the other."""
    pcm = np.zeros(round(seconds * hearing.RATE), np.int16)
    for start, end in stretches:
        part = slice(round(start * hearing.RATE), round(end * hearing.RATE))
        pcm[part] = RNG.normal(0, 3000, part.stop - part.start).astype(np.int16)
    return pcm


def failed(checks: list[Check]) -> list[str]:
    return [check.what for check in checks if not check.ok]


def test_an_agent_that_stops_at_once_passes() -> None:
    heard = line((0.3, 4.1), (6.2, 8.0))
    assert failed(demo_checks.judge_barge_in(heard, INTERRUPTED, ASKED)) == []
    assert demo_checks.silent_after(heard, INTERRUPTED, ASKED) == pytest.approx(0.1, abs=0.02)
    assert failed(demo_checks.judge_answer(heard, ASKED, REQUESTED)) == []


@pytest.mark.parametrize("until", [4.9, 5.4, 6.0, 11.0])
def test_an_agent_that_talks_on_is_found_out(until: float) -> None:
    checks = demo_checks.judge_barge_in(line((0.3, until)), INTERRUPTED, ASKED)
    assert failed(checks) == ["the agent stopped when the caller interrupted"]


def test_an_agent_that_stops_and_starts_again_is_found_out() -> None:
    checks = demo_checks.judge_barge_in(line((0.3, 4.1), (4.9, 5.2)), INTERRUPTED, ASKED)
    assert failed(checks) == ["the agent stopped when the caller interrupted"]


def test_silence_is_neither_a_greeting_nor_an_answer() -> None:
    assert "the agent greeted" in failed(demo_checks.judge_barge_in(line(), INTERRUPTED, ASKED))
    assert failed(demo_checks.judge_answer(line((0.3, 4.1)), ASKED, REQUESTED)) == ["the agent answered"]


def test_ringing_is_no_announcement() -> None:
    heard = line((10.5, 12.0))
    assert failed(demo_checks.judge_announcement(heard, REQUESTED, 10.4)) != []
    assert failed(demo_checks.judge_announcement(line((9.1, 10.3)), REQUESTED, 10.4)) == []


def test_only_the_very_voices_count() -> None:
    sales, order, other = (
        speak(text, "sales") for text in ("Sales, hello to you.", "Two widgets please.", "Nobody here.")
    )
    quiet = np.zeros(8000, np.int16)
    on_line = np.concatenate([quiet, sales, quiet]), np.concatenate([quiet, order, quiet])
    assert failed(demo_checks.judge_talk(*on_line, sales, order)) == []
    swapped = np.concatenate([quiet, other, quiet])
    assert failed(demo_checks.judge_talk(swapped, on_line[1], sales, order)) == ["the caller hears sales"]
    assert failed(demo_checks.judge_talk(on_line[0], np.concatenate([quiet, quiet]), sales, order)) == [
        "sales hears the caller"
    ]


@pytest.mark.parametrize("addresses", [[], ["127.0.0.11", None], ["127.0.0.11", "127.0.0.99"]])
def test_every_leg_must_be_with_a_worker(addresses: list[str | None]) -> None:
    assert failed(demo_checks.judge_media(addresses, ["127.0.0.11", "127.0.0.12"])) != []


def turn(item: str, who: str, text: str, at: float, heard_ms: int = 1000, interrupted: bool = False) -> TurnRecord:
    return TurnRecord.model_validate(
        {
            "call": "c", "item": item, "who": who, "text": text, "started_at": at, "ended_at": at + 1,
            "duration_ms": 1000 if not interrupted else 9000, "heard_ms": heard_ms, "interrupted": interrupted,
        }
    )  # fmt: skip


def story(**changes: object) -> CallStory:
    parts: dict[str, object] = {
        "call": CallRecord.model_validate(
            {"id": "c", "worker": "worker-1", "trunk": "carrier", "tenant": "default", "caller": "+12025550147",
             "number": "+12025550100", "agent": "reception", "verified": "", "codec": "PCMU", "sip_call_id": "x",
             "started_at": 1.0, "answered_at": 1.5, "ended_at": 30.0, "outcome": Outcome.TRANSFERRED, "cause": "",
             "sip_status": None, "transferred_to": "sales"}
        ),
        "turns": [
            turn("a", "agent", "Hello, and thank you", 2, 4000, interrupted=True),
            turn("b", "caller", "What are your opening hours.", 6),
            turn("c", "agent", "Monday to Friday, nine to five.", 8),
            turn("d", "caller", "Put me through to sales.", 12),
        ],
        "transfers": [
            TransferRecord.model_validate(
                {"call": "c", "id": "t", "destination": "sales", "method": "bridge", "outcome": TransferOutcome.ANSWERED,
                 "detail": "", "sip_status": 200, "started_at": 14.0, "ended_at": 16.0}
            )
        ],
        "tool_calls": [],
        "timings": [],
    }  # fmt: skip
    return CallStory.model_validate(parts | changes)


def test_the_record_of_the_whole_call_passes() -> None:
    assert failed(demo_checks.judge_record(story())) == []


def test_a_record_without_the_cut_the_answer_the_words_or_the_transfer_is_found_out() -> None:
    turns = list(story().turns)
    without_cut = [turn("a", "agent", "Hello", 2), *turns[1:]]
    wrong_answer = [*turns[:2], turn("c", "agent", "Sorry, I did not catch that.", 8), turns[3]]
    assert "the record has the cut-off greeting" in failed(demo_checks.judge_record(story(turns=without_cut)))
    assert failed(demo_checks.judge_record(story(turns=wrong_answer))) == [
        "the record has the answer, with the opening hours"
    ]
    assert len(failed(demo_checks.judge_record(story(turns=turns[:1])))) == 3
    assert failed(demo_checks.judge_record(story(transfers=[]))) == ["the record has the transfer to sales, answered"]
