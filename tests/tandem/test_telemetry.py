"""Every process logs one JSON object a line, with the call, without secrets, and no flood fills a disk."""

import io
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tandem.settings import load
from tandem.telemetry import MAX_MESSAGE, MAX_SOURCES, Flood, configure
from tests.tandem.recording import counted
from tests.tandem.site_files import write_site

log = logging.getLogger("media_fork.session")


@pytest.fixture
def stream(logging_restored: None) -> io.StringIO:
    """Where records go."""
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_line_with_component_level_and_call(stream):
    configure("media_fork", environment={}, stream=stream)
    log.warning("fork refused:\n%s", "no token", extra={"call": "7f3a9c", "worker": "worker-1", "after_ms": 12.5})
    (line,) = lines(stream)
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "warning",
        "component": "media_fork",
        "logger": "media_fork.session",
        "call": "7f3a9c",
        "message": "fork refused:\nno token",
        "worker": "worker-1",
        "after_ms": 12.5,
    }


def test_an_exception_is_part_of_the_line(stream):
    configure("media_fork", environment={}, stream=stream)
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("session lost")
    (line,) = lines(stream)
    assert line["message"] == "session lost"
    assert str(line["error"]).endswith("ValueError: broken")


def test_the_level_comes_from_the_environment(stream):
    configure("media_fork", environment={"TANDEM_LOG_LEVEL": "warning"}, stream=stream)
    log.info("not written")
    log.warning("written")
    assert [line["message"] for line in lines(stream)] == ["written"]
    with pytest.raises(ValueError, match="TANDEM_LOG_LEVEL is 'loud'; expected one of: debug, info, warning, error"):
        configure("media_fork", environment={"TANDEM_LOG_LEVEL": "loud"}, stream=stream)


def test_no_secret_of_the_settings_is_written_anywhere(stream, tmp_path):
    tool = {"name": "look_up", "description": "x", "url": "http://127.0.0.1/", "headers": {"X-Key": "s3cret-4"}}
    path = write_site(
        tmp_path,
        {
            "freeswitch/password": "s3cret-1",
            "model": {"key": "s3cret-2"},
            "records/url": "postgresql+psycopg://tandem:s3cret-3@db.example/tandem",
        },
        {"tools": [tool]},
    )
    configure("media_fork", load(path, {}), environment={}, stream=stream)
    secrets = "s3cret-1 s3cret-2 s3cret-3 s3cret-4"
    log.error("auth %s", secrets, extra={"header": secrets, "call": secrets})
    try:
        raise ValueError(secrets)
    except ValueError:
        log.exception("failed")
    assert len(lines(stream)) == 2
    assert "s3cret" not in stream.getvalue()
    assert lines(stream)[0]["message"] == "auth " + " ".join(["[secret]"] * 4)


def test_a_long_message_is_cut_and_odd_text_is_written(stream):
    configure("media_fork", environment={}, stream=stream)
    log.info("x" * 10**6)
    log.info("lone \ud800, NUL \x00, object %s", object, extra={"odd": {"a": {1}}})
    first, second = lines(stream)
    assert len(str(first["message"])) == MAX_MESSAGE
    assert str(second["message"]).startswith("lone ?, NUL \x00, object <class")


def test_a_flood_of_one_warning_is_bounded_and_counted(stream):
    clock = iter([*[0.0] * 500, 30.0])
    configure("media_fork", environment={}, stream=stream)
    handler = logging.getLogger().handlers[0]
    handler.filters[:] = [Flood(burst=20, per_second=1, clock=lambda: next(clock))]
    before = counted("tandem_log_suppressed_total")
    for number in range(501):
        log.warning("late packet %d", number)
    written = lines(stream)
    assert [line["message"] for line in written] == [f"late packet {number}" for number in [*range(20), 500]]
    assert written[-1]["suppressed"] == 480
    assert counted("tandem_log_suppressed_total") - before == 480


def test_a_flood_does_not_silence_other_places(stream):
    configure("media_fork", environment={}, stream=stream)
    for _ in range(500):
        log.warning("flood")
    log.warning("something else")
    assert lines(stream)[-1]["message"] == "something else"


def test_the_places_watched_are_bounded():
    flood = Flood(clock=lambda: 0.0)
    for line in range(MAX_SOURCES * 2):
        flood.filter(logging.LogRecord("x", logging.WARNING, "x.py", line, "x", None, None))
    assert len(flood._places) == MAX_SOURCES


def test_warnings_of_libraries_are_records_too(stream):
    configure("media_fork", environment={}, stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old" in str(lines(stream)[0]["message"])


@pytest.mark.parametrize(
    "crash", ["raise RuntimeError('x')", "import threading; threading.Thread(target=lambda: 1 / 0).start()"]
)
def test_a_crash_is_a_record_too(crash):
    script = f"from tandem.telemetry import configure; configure('esl_app'); {crash}"
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    line = json.loads(result.stderr)
    assert (line["level"], line["component"]) == ("critical", "esl_app")
    assert str(line["message"]).startswith("uncaught ")


def test_secrets_too_short_to_hide_are_left(stream, tmp_path: Path):
    configure("x", load(write_site(tmp_path, {"freeswitch/password": "a"}), {}), environment={}, stream=stream)
    log.info("a call")
    assert lines(stream)[0]["message"] == "a call"
