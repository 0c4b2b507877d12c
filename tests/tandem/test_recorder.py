"""No record is lost to a database that is away or slow, to a killed process, to a bad row or to a neighbour."""

import json
import logging
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

import tandem.recorder
from tandem import database, settings
from tandem.outcome import Outcome
from tandem.recorder import QUEUE_ROWS
from tandem.records import LostCalls, Recorder, Records
from tandem.spool import SET_ASIDE
from tests.tandem.conftest import PATIENCE_S, PostgresServer, wait_for
from tests.tandem.recording import call_row, counted, turn_row


def new_recorder(records_settings: settings.Records) -> Recorder:
    return Recorder(records_settings, worker="worker-1", component="media_fork")


def items(url: str, call: str = "call-1") -> list[str]:
    """Items of all turns stored, in the order of their times."""
    engine = database.connect(url)
    with engine.connect() as connection:
        query = text("SELECT item FROM turns WHERE call = :call ORDER BY started_at")
        found = [row.item for row in connection.execute(query, {"call": call})]
    engine.dispose()
    return found


def waiting_lines(spool: Path) -> list[str]:
    return [line for path in sorted(spool.rglob("0*.jsonl")) for line in path.read_text().splitlines()]


class Away:
    """A database that cannot be opened until :meth:`back`: a folder is in the place of its file's folder."""

    def __init__(self, folder: Path) -> None:
        self._obstacle = folder / "database"
        self._obstacle.touch()
        self.settings = settings.Records(
            url=f"sqlite:///{self._obstacle}/tandem.db", spool=folder / "spool", spool_mb=1
        )

    def back(self) -> None:
        self._obstacle.unlink()


@pytest.fixture
def away(tmp_path: Path) -> Away:
    return Away(tmp_path)


def test_rows_put_while_the_database_is_away_are_written_in_order_when_it_is_back(away):
    spooled, replayed = counted("tandem_records_spooled_total"), counted("tandem_records_replayed_total")
    recorder = new_recorder(away.settings)
    for number in range(1500):
        recorder.put(turn_row(f"{number:04d}", started_at=number))
        recorder.put(turn_row("same", text=str(number), started_at=9999))
    wait_for(lambda: counted("tandem_records_spooled_total") - spooled == 3000, "all rows are spooled")
    assert counted("tandem_records_database_away") == 1
    away.back()
    assert recorder.flush(PATIENCE_S)
    recorder.put(call_row())
    assert recorder.close(PATIENCE_S)
    assert items(away.settings.url) == [f"{number:04d}" for number in range(1500)] + ["same"]
    with Records(away.settings.url) as records:
        story = records.call("call-1")
    assert story
    assert story.turns[-1].text == "1499"
    assert counted("tandem_records_replayed_total") - replayed == 3000
    assert counted("tandem_records_database_away") == 0


def test_a_postgresql_that_goes_and_comes_back_misses_nothing(postgres: PostgresServer, tmp_path):
    records_settings = settings.Records(url=postgres.create_database(), spool=tmp_path / "spool")
    recorder = new_recorder(records_settings)
    recorder.put(turn_row("1", started_at=1))
    assert recorder.flush(PATIENCE_S)
    postgres.stop()
    recorder.put(turn_row("2", started_at=2))
    wait_for(lambda: counted("tandem_records_database_away") == 1, "the recorder notices")
    recorder.put(turn_row("3", started_at=3))
    postgres.start()
    assert recorder.flush(PATIENCE_S)
    assert recorder.close(PATIENCE_S)
    assert items(records_settings.url) == ["1", "2", "3"]


def test_a_database_that_is_slow_holds_nothing_up_but_itself(database_url, records_settings):
    recorder = new_recorder(records_settings)
    recorder.put(turn_row("1", started_at=1))
    assert recorder.flush(PATIENCE_S)
    engine = database.connect(database_url)
    with engine.begin() as blocker:
        if engine.dialect.name == "postgresql":
            blocker.execute(text("LOCK TABLE turns IN ACCESS EXCLUSIVE MODE"))
        for number in range(2, 100):
            recorder.put(turn_row(str(number), started_at=number))
        wait_for(
            lambda: len(waiting_lines(records_settings.spool)) == 98, "rows are on disk though no row can be written"
        )
    engine.dispose()
    assert recorder.close(PATIENCE_S)
    assert items(database_url) == [str(number) for number in range(1, 100)]
    assert waiting_lines(records_settings.spool) == []


WRITER = textwrap.dedent("""
    import sys, time
    sys.path[:0] = [sys.argv[3]]
    from pathlib import Path
    from tests.tandem.recording import call_row, turn_row
    from tandem import settings
    from tandem.records import Recorder
    recorder = Recorder(settings.Records(url=sys.argv[1], spool=Path(sys.argv[2])), "worker-1", "media_fork")
    recorder.put(call_row(answered_at=1_700_000_001))
    for number in range(200):
        recorder.put(turn_row(f"{number:04d}", started_at=number))
    time.sleep(1)  # the bound, and as much again three times for a busy machine
    print("put", flush=True)
    while True:
        recorder.put(turn_row("later", started_at=10_000))
        time.sleep(0.001)
""")


def killed_writer(url: str, spool: Path) -> None:
    """A process that puts a call and 200 turns, and is killed while it puts more a second later."""
    here = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-c", WRITER, url, str(spool), here], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "put\n"
    finally:
        process.kill()
        process.communicate()


def test_a_killed_process_loses_nothing_put_a_moment_before(database_url, records_settings):
    killed_writer(database_url, records_settings.spool)
    recorder = new_recorder(records_settings)
    assert recorder.close(PATIENCE_S)
    assert items(database_url)[:200] == [f"{number:04d}" for number in range(200)]


def test_a_process_killed_while_the_database_is_away_loses_nothing_put_a_moment_before(away):
    killed_writer(away.settings.url, away.settings.spool)
    away.back()
    recorder = new_recorder(away.settings)
    assert recorder.close(PATIENCE_S)
    assert items(away.settings.url)[:200] == [f"{number:04d}" for number in range(200)]


def test_calls_left_in_the_spool_by_a_killed_process_are_closed_as_lost(away):
    killed_writer(away.settings.url, away.settings.spool)
    recorder = new_recorder(away.settings)
    recorder.put(LostCalls(worker="worker-1", now=2e9))
    away.back()
    assert recorder.close(PATIENCE_S)
    with Records(away.settings.url) as records:
        story = records.call("call-1")
    assert story
    assert (story.call.outcome, story.call.ended_at) == (Outcome.CONTROLLER_LOST, 2e9)


def test_what_close_cannot_write_in_time_the_next_process_writes(away):
    recorder = new_recorder(away.settings)
    recorder.put(turn_row("1", started_at=1))
    assert not recorder.close(2)
    away.back()
    recorder = new_recorder(away.settings)
    recorder.put(turn_row("2", started_at=2))
    assert recorder.close(PATIENCE_S)
    assert items(away.settings.url) == ["1", "2"]


def test_several_processes_start_at_once_on_an_empty_database(database_url, records_settings):
    script = textwrap.dedent("""
        import sys
        sys.path[:0] = [sys.argv[3]]
        from pathlib import Path
        from tests.tandem.recording import turn_row
        from tandem import settings
        from tandem.records import Recorder
        recorder = Recorder(settings.Records(url=sys.argv[1], spool=Path(sys.argv[2])), "worker-1", "media_fork")
        for number in range(100):
            recorder.put(turn_row(f"{number:04d}", call=sys.argv[4], started_at=number))
        sys.exit(not recorder.close(60))
    """)
    here = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", script, database_url, str(records_settings.spool), here]
    processes = [subprocess.Popen([*command, f"call-{number}"]) for number in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    for number in range(3):
        assert len(items(database_url, f"call-{number}")) == 100


def test_a_row_that_the_database_refuses_is_set_aside_and_blocks_no_other(database_url, records_settings, caplog):
    engine = database.connect(database_url)
    database.upgrade(engine)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("ALTER TABLE turns ADD CONSTRAINT no_poison CHECK (item <> 'poison')"))
        else:
            body = "SELECT RAISE(ABORT, 'no_poison') WHERE NEW.item = 'poison'"
            connection.execute(text(f"CREATE TRIGGER refuse BEFORE INSERT ON turns BEGIN {body}; END"))
    engine.dispose()
    before = counted("tandem_records_lost_total", reason="set_aside")
    recorder = new_recorder(records_settings)
    for number in range(300):
        recorder.put(turn_row("poison" if number == 123 else f"{number:04d}", started_at=number, text="confidential"))
    with caplog.at_level(logging.ERROR):
        assert recorder.close(PATIENCE_S)
    assert items(database_url) == [f"{number:04d}" for number in range(300) if number != 123]
    assert counted("tandem_records_lost_total", reason="set_aside") - before == 1
    (kept,) = (records_settings.spool / "worker-1" / "media_fork" / SET_ASIDE).read_text().splitlines()
    assert json.loads(kept)[1]["item"] == "poison"
    assert "no_poison" in caplog.text
    assert "confidential" not in caplog.text


def test_a_torn_or_foreign_line_in_the_spool_is_set_aside_and_the_rest_written(records_settings, database_url):
    left = records_settings.spool / "worker-1" / "media_fork" / "00000000000000000001-77"
    left.mkdir(parents=True)
    lines = [["turns", turn_row(item, started_at=int(item)).model_dump()] for item in "123"]
    lines[1][1]["of_a_later_version"] = 1
    torn = b'["turns", {"call": "call-1", "it'
    (left / "00000001.jsonl").write_bytes(b"\n".join([*(json.dumps(line).encode() for line in lines), b"[]", torn]))
    before = counted("tandem_records_lost_total", reason="set_aside")
    recorder = new_recorder(records_settings)
    assert recorder.close(PATIENCE_S)
    assert items(database_url) == ["1", "3"]
    assert counted("tandem_records_lost_total", reason="set_aside") - before == 3
    assert not left.exists()


def test_a_full_spool_keeps_the_oldest_rows_and_counts_the_rest(away):
    before = counted("tandem_records_lost_total", reason="spool_full")
    recorder = new_recorder(away.settings)
    for number in range(40):
        recorder.put(turn_row(f"{number:04d}", text="x" * 60_000, started_at=number))
    wait_for(lambda: counted("tandem_records_lost_total", reason="spool_full") > before, "the spool is full")
    spooled = threading.Event()
    recorder._queue.put(spooled)
    assert spooled.wait(PATIENCE_S)
    on_disk = sum(path.stat().st_size for path in away.settings.spool.rglob("0*.jsonl"))
    assert on_disk <= away.settings.spool_mb << 20
    away.back()
    assert recorder.close(PATIENCE_S)
    stored = items(away.settings.url)
    assert stored == [f"{number:04d}" for number in range(len(stored))]
    assert len(stored) == 17
    assert counted("tandem_records_lost_total", reason="spool_full") - before == 40 - 17


def test_a_disk_that_takes_nothing_leaves_the_database_to_be_written(database_url, tmp_path, caplog):
    (tmp_path / "spool").write_text("a file where the folder should be")
    recorder = new_recorder(settings.Records(url=database_url, spool=tmp_path / "spool"))
    recorder.put(turn_row("1", started_at=1))
    recorder.put(turn_row("2", started_at=2))
    assert recorder.close(PATIENCE_S)
    assert items(database_url) == ["1", "2"]
    assert "cannot be spooled to disk" in caplog.text


def test_what_a_process_holds_in_memory_alone_when_it_ends_is_counted(away):
    away.settings.spool.write_text("a file where the folder should be")
    before = counted("tandem_records_lost_total", reason="never_spooled")
    recorder = new_recorder(away.settings)
    recorder.put(turn_row())
    assert not recorder.close(1)
    assert counted("tandem_records_lost_total", reason="never_spooled") - before == 1


def test_a_segment_that_cannot_be_read_is_left_for_the_next_process(away, monkeypatch):
    before = counted("tandem_records_lost_total", reason="unreadable")
    recorder = new_recorder(away.settings)
    recorder.put(turn_row("1"))
    assert not recorder.close(1)
    away.back()
    with monkeypatch.context() as broken_disk:
        broken_disk.setattr("tandem.spool.Segment.lines", lambda _: (_ for _ in ()).throw(OSError("I/O error")))
        assert new_recorder(away.settings).close(PATIENCE_S)
    assert counted("tandem_records_lost_total", reason="unreadable") - before == 1
    assert new_recorder(away.settings).close(PATIENCE_S)
    assert items(away.settings.url) == ["1"]


def test_every_metric_and_reason_is_in_the_page_and_no_other():
    page = (Path(__file__).parents[2] / "docs/records.md").read_text()
    source = "".join(path.read_text() for path in Path(tandem.recorder.__file__).parent.glob("*er.py"))
    written = re.findall(r"^\| `(tandem_records_\w+)", page, flags=re.MULTILINE)
    assert set(written) == set(re.findall(r'(?:Counter|Gauge)\("(\w+)"', source))
    (reasons,) = re.findall(r"^\| `tandem_records_lost_total.*", page, flags=re.MULTILINE)
    counted_as = [
        reason for call in re.findall(r"LOST\.labels\((.*?)\)", source) for reason in re.findall(r'"(\w+)"', call)
    ]
    assert set(re.findall(r"`(\w+)`", reasons)) == set(counted_as)


def test_put_does_not_wait_for_a_stalled_disk(away, monkeypatch):
    stalled = threading.Event()
    monkeypatch.setattr("tandem.spool.os.fsync", lambda _: stalled.wait(PATIENCE_S))
    before = counted("tandem_records_lost_total", reason="queue_full")
    recorder = new_recorder(away.settings)
    row = turn_row()
    for _ in range(QUEUE_ROWS + 2000):
        recorder.put(row)
    stalled.set()
    assert 0 < counted("tandem_records_lost_total", reason="queue_full") - before <= 2000


def test_a_row_put_after_close_is_counted_as_lost(records_settings):
    recorder = new_recorder(records_settings)
    assert recorder.close(PATIENCE_S)
    before = counted("tandem_records_lost_total", reason="closed")
    recorder.put(turn_row())
    assert counted("tandem_records_lost_total", reason="closed") - before == 1


def test_a_schema_newer_than_this_version_keeps_rows_in_the_spool(database_url, records_settings, caplog):
    engine = database.connect(database_url)
    database.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    recorder = new_recorder(records_settings)
    recorder.put(turn_row("1"))
    wait_for(lambda: "9999" in caplog.text, "the version is named")
    assert not recorder.close(2)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{database.newest_revision()}'"))
    engine.dispose()
    recorder = new_recorder(records_settings)
    assert recorder.close(PATIENCE_S)
    assert items(database_url) == ["1"]


@pytest.mark.parametrize(
    ("patch", "status"), [("", 0), ("from gevent import monkey; monkey.patch_all()", 1)], ids=["unpatched", "patched"]
)
def test_under_gevent_threads_must_not_be_patched(patch, status, away, tmp_path):
    script = f"""
{patch}
import gevent, sys
from pathlib import Path
from tandem import settings
from tandem.records import LostCalls, Recorder
beats = []
def beat():
    while True:
        beats.append(1); gevent.sleep(0.01)
gevent.spawn(beat)
recorder = Recorder(settings.Records(url=sys.argv[1], spool=Path(sys.argv[2])), "worker-1")
recorder.put(LostCalls(worker="worker-1", now=1))
gevent.sleep(0.5)
assert len(beats) > 5
sys.exit(not recorder.close(30))
"""
    command = [sys.executable, "-c", script, f"sqlite:///{tmp_path}/tandem.db", str(tmp_path / "spool")]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == status, result.stderr
    assert ("native threads" in result.stderr) == bool(status)
