"""Rows come back as they were put; of two rows with one key the right one stays."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem import database, settings
from tandem.outcome import Outcome
from tandem.records import CallRecord, CallStory, LostCalls, Recorder, Records, RecordsError, TurnRecord
from tandem.rows import MAX_TEXT
from tests.tandem.conftest import PostgresServer
from tests.tandem.recording import call_row, recording_row, timing_row, tool_call_row, transfer_row, turn_row


@pytest.fixture
def recorder(records_settings: settings.Records) -> Iterator[Recorder]:
    recorder = Recorder(records_settings, worker="worker-1", component="esl_app")
    yield recorder
    recorder.close(5)


@pytest.fixture
def records(database_url: str) -> Iterator[Records]:
    with Records(database_url) as records:
        yield records


def story(records: Records, id: str = "call-1") -> CallStory:
    found = records.call(id)
    assert found is not None
    return found


def test_a_story_has_every_part_as_it_was_put(recorder, records):
    call = call_row(
        answered_at=1_700_000_000.5, ended_at=1_700_000_060.25, outcome=Outcome.TRANSFERRED, sip_status=200,
        transferred_to="sales",
    )  # fmt: skip
    turns = [turn_row("item-2", started_at=20.5, heard_ms=450, interrupted=True), turn_row("item-1", started_at=10)]
    rows = (tool_call_row(), transfer_row(), timing_row(), recording_row())
    for row in (call, *turns, *rows, call_row("call-2", started_at=5)):
        recorder.put(row)
    assert recorder.flush(30)
    found = story(records)
    assert found.call == call
    assert found.turns == [turns[1], turns[0]]
    assert (found.tool_calls, found.transfers, found.timings) == ([tool_call_row()], [transfer_row()], [timing_row()])
    assert found.recordings == records.recordings(call="call-1") == [recording_row()]


def test_parts_may_come_before_the_call(recorder, records):
    recorder.put(turn_row())
    recorder.flush(30)
    assert records.call("call-1") is None
    recorder.put(call_row())
    recorder.flush(30)
    assert story(records).turns == [turn_row()]


def test_a_later_row_replaces_the_one_with_the_same_key_whole(recorder, records):
    for text, heard in (("Hel", 10), ("Hello", None), ("Hello there", 700)):
        recorder.put(turn_row(text=text, heard_ms=heard))
    assert recorder.flush(30)
    assert [(turn.text, turn.heard_ms) for turn in story_turns(recorder, records)] == [("Hello there", 700)]


def story_turns(recorder: Recorder, records: Records) -> list[TurnRecord]:
    recorder.put(call_row())
    assert recorder.flush(30)
    return list(story(records).turns)


def attempts(first_start: float, second_start: float) -> tuple[list[CallRecord], list[CallRecord]]:
    """Rows of a call that worker-1 refused and worker-2 took, each in the order in which its worker put them."""
    refused = call_row(worker="worker-1", started_at=first_start)
    taken = call_row(worker="worker-2", started_at=second_start)
    answered = taken.model_copy(update={"answered_at": second_start + 1})
    return (
        [refused, refused.model_copy(update={"outcome": Outcome.REFUSED, "cause": "at_capacity", "sip_status": 503})],
        [
            taken,
            answered,
            answered.model_copy(update={"outcome": Outcome.CALLER_HUNG_UP, "ended_at": second_start + 9}),
        ],
    )


@pytest.mark.parametrize("second_start", [100.5, 99.5], ids=["clocks agree", "second worker's clock is behind"])
def test_a_refused_attempt_never_hides_the_worker_that_took_the_call(recorder, records, second_start):
    first, second = attempts(100.0, second_start)
    expected = {}
    for number, order in enumerate(sorted(set(itertools.permutations("11222")))):
        rows = {"1": iter(first), "2": iter(second)}
        for attempt in order:
            recorder.put(next(rows[attempt]).model_copy(update={"id": f"call-{number}"}))
        expected[f"call-{number}"] = ("worker-2", Outcome.CALLER_HUNG_UP)
    assert recorder.flush(30)
    assert {call.id: (call.worker, call.outcome) for call in records.calls()} == expected


def test_of_two_refused_attempts_the_later_stays_whatever_the_order(recorder, records):
    early = call_row(worker="worker-1", started_at=1, outcome=Outcome.REFUSED, cause="draining")
    late = call_row(worker="worker-2", started_at=2, outcome=Outcome.REFUSED, cause="at_capacity")
    for id, order in (("a", (early, late)), ("b", (late, early))):
        for row in order:
            recorder.put(row.model_copy(update={"id": id}))
    assert recorder.flush(30)
    assert {call.id: call.cause for call in records.calls()} == {"a": "at_capacity", "b": "at_capacity"}


def test_an_ended_call_does_not_live_again(recorder, records):
    recorder.put(call_row(outcome=Outcome.AGENT_HUNG_UP, answered_at=1, ended_at=2))
    recorder.put(call_row(answered_at=1))
    assert recorder.flush(30)
    assert story(records).call.outcome == Outcome.AGENT_HUNG_UP


def live(records: Records) -> set[str]:
    return {call.id for call in records.calls(limit=10_000, worker="worker-1", live=True)}


def test_lost_calls_of_one_worker_are_closed_but_not_those_that_live_or_began_later(recorder, records):
    recorder.put(call_row("lost", started_at=10))
    recorder.put(call_row("alive", started_at=10))
    recorder.put(call_row("new", started_at=30))
    recorder.put(call_row("ended", started_at=10, outcome=Outcome.ABANDONED))
    recorder.put(call_row("elsewhere", started_at=10, worker="worker-2"))
    assert recorder.flush(30)
    assert live(records) == {"lost", "alive", "new"}
    recorder.put(LostCalls(worker="worker-1", except_ids=("alive",), now=20))
    assert recorder.flush(30)
    assert live(records) == {"alive", "new"}
    assert (story(records, "lost").call.outcome, story(records, "lost").call.ended_at) == (Outcome.CONTROLLER_LOST, 20)
    assert story(records, "ended").call.outcome == Outcome.ABANDONED
    assert story(records, "elsewhere").call.outcome is None


def test_many_lost_calls_are_closed_at_once(recorder, records):
    for number in range(1200):
        recorder.put(call_row(f"call-{number}"))
    recorder.put(LostCalls(worker="worker-1", except_ids=tuple(f"call-{n}" for n in range(0, 1200, 2)), now=2e9))
    assert recorder.flush(30)
    assert len(live(records)) == 600


def test_the_true_end_of_a_call_replaces_controller_lost(recorder, records):
    recorder.put(call_row())
    recorder.put(LostCalls(worker="worker-1", now=2e9))
    recorder.put(call_row(outcome=Outcome.CALLER_HUNG_UP, ended_at=1_700_000_010))
    assert recorder.flush(30)
    assert story(records).call.outcome == Outcome.CALLER_HUNG_UP


def test_calls_are_listed_newest_first_and_filtered(recorder, records):
    for number in range(5):
        outcome = Outcome.REFUSED if number % 2 else None
        recorder.put(call_row(f"call-{number}", started_at=number, outcome=outcome, worker=f"worker-{number % 2}"))
    recorder.flush(30)

    def ids(**filters):
        return "".join(call.id[-1] for call in records.calls(**filters))

    assert ids() == "43210"
    assert ids(limit=2) == "43"
    assert (ids(since=2), ids(before=2), ids(since=1, before=3)) == ("432", "10", "21")
    assert (ids(outcome=Outcome.REFUSED), ids(worker="worker-0")) == ("31", "420")


def test_what_was_said_is_stored_whatever_it_holds(recorder, records):
    texts = ["NUL \x00 here", "lone \ud800 surrogate", "quote ' \" \\ ; DROP TABLE calls --", "😀 Grüße", "x" * 10**6]
    for number, text in enumerate(texts):
        recorder.put(turn_row(f"item-{number}", text=text, started_at=number))
    stored = [turn.text for turn in story_turns(recorder, records)]
    assert stored == ["NUL \ufffd here", "lone \ufffd surrogate", *texts[2:4], "x" * MAX_TEXT]


def test_a_database_of_no_encoding_holds_utf8(postgres: PostgresServer, tmp_path):
    url = postgres.create_database("SQL_ASCII")
    recorder = Recorder(settings.Records(url=url, spool=tmp_path), worker="worker-1", component="esl_app")
    recorder.put(call_row())
    recorder.put(turn_row("item-1", text="😀 Grüße"))
    recorder.close(5)
    with Records(url) as records:
        assert [turn.text for turn in story(records).turns] == ["😀 Grüße"]


@pytest.mark.parametrize(
    ("given", "stored"),
    [(12.6, 13), (10**12, 2**31 - 1), (-5, -5), (np.int64(7), 7)],
    ids=["rounded", "clamped", "negative", "numpy"],
)
def test_a_duration_is_a_whole_number_of_32_bits(given, stored):
    assert turn_row(duration_ms=given).duration_ms == stored


def test_what_is_no_number_is_refused_when_the_row_is_made():
    for nonsense in ({"started_at": float("nan")}, {"duration_ms": float("inf")}, {"item": ""}):
        with pytest.raises(ValueError, match=next(iter(nonsense))):
            turn_row(**nonsense)


@given(text=st.text(), at=st.floats(0, 4e9), heard=st.none() | st.integers(0, 2**31 - 1))
def test_a_row_survives_the_way_through_json(text, at, heard):
    row = turn_row(text=text, started_at=at, heard_ms=heard)
    assert TurnRecord.model_validate_json(row.model_dump_json()) == row


def test_the_migrations_make_what_the_models_say(database_url):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    engine = database.connect(database_url)
    database.upgrade(engine)
    database.upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), database.Base.metadata) == []
    engine.dispose()


def test_reading_a_database_that_is_not_there_says_what_to_do(tmp_path):
    url = f"sqlite:///{tmp_path}/none.db"
    with Records(url) as records, pytest.raises(RecordsError, match="tandem db upgrade"):
        records.calls()
    assert not (tmp_path / "none.db").exists()


def test_reading_a_database_without_tables_says_what_to_do(database_url, tmp_path):
    (tmp_path / "tandem.db").touch()
    with Records(database_url) as records, pytest.raises(RecordsError, match="run `tandem db upgrade`"):
        records.calls()


def test_reading_a_server_that_is_away_names_it_without_its_password():
    url = "postgresql+psycopg://tandem:s3cret@127.0.0.1:1/tandem"
    with Records(url) as records, pytest.raises(RecordsError, match=r"127\.0\.0\.1:1") as caught:
        records.calls()
    assert "s3cret" not in str(caught.value)
