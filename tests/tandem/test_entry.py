"""What the processes of a worker say and how they end where they are started wrongly."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tandem import entry
from tests.tandem.site_files import write_site

ROOT = Path(__file__).parents[2]
WORKER = "worker-1"
COMPONENTS = ("esl_app", "media_fork", "lab.switch")


pytestmark = pytest.mark.usefixtures("logging_restored")


def begin(config: Path, worker: str = WORKER):
    arguments = entry.command_line("esl_app", "One.").parse_args(["--config", str(config), "--worker", worker])
    return entry.begin("esl_app", arguments)


def refused(capsys, config: Path, worker: str = WORKER) -> list[str]:
    """The lines on stderr of a process that ends with the code for a bad configuration."""
    with pytest.raises(SystemExit) as ended:
        begin(config, worker)
    assert ended.value.code == entry.BAD_CONFIGURATION == 2
    return capsys.readouterr().err.splitlines()


def test_a_good_configuration_is_handed_on(tmp_path):
    assert WORKER in begin(write_site(tmp_path)).workers


def test_every_problem_of_the_configuration_is_on_a_line_of_its_own(tmp_path, capsys):
    lines = refused(capsys, write_site(tmp_path, {"edge/children": 0, "esl_app/port": "many"}))
    assert len(lines) == 2
    assert "edge.children" in lines[0] and "esl_app.port" in lines[1]


def test_a_configuration_that_is_not_there_is_named(tmp_path, capsys):
    assert refused(capsys, tmp_path / "none.yaml") == [
        f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory"
    ]


def test_an_unknown_worker_is_named_with_those_there_are(tmp_path, capsys):
    assert refused(capsys, write_site(tmp_path), "w9") == [f"no worker named 'w9'; expected one of: {WORKER}"]


def test_an_unknown_log_level_is_named_with_those_there_are(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TANDEM_LOG_LEVEL", "loud")
    assert refused(capsys, write_site(tmp_path)) == [
        "TANDEM_LOG_LEVEL is 'loud'; expected one of: debug, info, warning, error"
    ]


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_process_ends_with_2_where_its_worker_is_not_configured(tmp_path, component):
    command = [sys.executable, "-m", component, "--config", str(write_site(tmp_path)), "--worker", "w9"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (2, f"no worker named 'w9'; expected one of: {WORKER}\n")


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(caplog):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
        entry.allow_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 100
        entry.allow_files(50)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 100
        assert not caplog.records
        if before[1] != resource.RLIM_INFINITY:
            entry.allow_files(before[1] + 1)
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
            assert f"limited to {before[1]}" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
