"""The command line says one clear thing and ends with the code that scripts rely on."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lab.voice import VoiceError
from tandem import settings
from tandem.cli import app
from tandem.database import newest_revision
from tandem.outcome import Outcome
from tandem.records import Recorder
from tests.tandem.recording import call_row, timing_row, tool_call_row, transfer_row, turn_row
from tests.tandem.site_files import write_site


def tandem(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A database with one long story and two short ones."""
    url = f"sqlite:///{tmp_path}/tandem.db"
    recorder = Recorder(settings.Records(url=url, spool=tmp_path / "spool"), worker="worker-1")
    begin = time.time() - 3600
    call = call_row(
        "call-1", started_at=begin, answered_at=begin + 0.4, ended_at=begin + 62, outcome=Outcome.TRANSFERRED,
        transferred_to="sales", sip_status=200,
    )  # fmt: skip
    said = "Thank you for [bold]calling[/nope] \x1b[2J us"
    turns = [
        turn_row("1", started_at=begin + 1, duration_ms=9000, heard_ms=3000, interrupted=True, text=said),
        turn_row("2", started_at=begin + 4, who="caller", duration_ms=2000, text="opening hours"),
    ]
    refused = call_row("call-2", started_at=begin + 70, outcome=Outcome.REFUSED, cause="at_capacity", worker="worker-2")
    old = call_row("call-3", started_at=begin - 86400)
    for row in (call, *turns, tool_call_row(), transfer_row(), timing_row(), refused, old):
        recorder.put(row)
    assert recorder.close(30)
    return url


def test_help_lists_the_commands_and_starts_quickly():
    script = "import sys; from tandem.cli import app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sqlalchemy", "pydantic", "alembic", "gevent", "numpy", "aiohttp", "lab"} & set(loaded)
    listed = tandem("--help").output
    for command in (
        "check",
        "render",
        "reload",
        "workers",
        "drain",
        "undrain",
        "route-test",
        "dial-test",
        "calls",
        "call",
        "db",
        "demo",
    ):
        assert f"  {command}" in listed


def test_every_problem_of_the_configuration_is_one_line_and_the_code_is_1(tmp_path):
    path = write_site(tmp_path, {"edge/childern": 4, "trunks/carrier/sources": ["x"]})
    result = tandem("check", "--config", path)
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.split(": ")[0].rsplit(":", 1)[0] for line in lines] == [str(path)] * 2
    assert [line.split(": ")[1] for line in lines] == ["edge.childern", "trunks.carrier.sources[0]"]


def test_a_valid_configuration_is_told_and_the_code_is_0(tmp_path):
    result = tandem("check", "--config-only", "--config", write_site(tmp_path))
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path}/tandem.yaml: ok\n")


def test_the_configuration_may_be_named_by_the_environment(tmp_path):
    runner = CliRunner(env={"TANDEM_CONFIG": str(write_site(tmp_path))})
    assert runner.invoke(app, ["check", "--config-only"]).stdout == f"{tmp_path}/tandem.yaml: ok\n"


def test_render_writes_the_site_files(tmp_path):
    result = tandem("render", "--config", write_site(tmp_path), "--out", tmp_path / "site")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (tmp_path / "site/kamailio/kamailio.cfg").exists()
    assert (tmp_path / "site/freeswitch/worker-1").is_dir()


def test_render_where_it_cannot_write_is_one_line(tmp_path):
    (tmp_path / "site").write_text("a file")
    result = tandem("render", "--config", write_site(tmp_path), "--out", tmp_path / "site")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("tandem: ")


def test_route_test_tells_what_would_happen(tmp_path):
    config = write_site(tmp_path)

    def route(to: str, source: str) -> str:
        arguments = ("--from", "+12025550147", "--to", to, "--source", source, "--config", config)
        return tandem("route-test", *arguments).stdout.splitlines()[-1]

    assert route("+12025550100", "127.0.0.21") == "agent"
    assert route("911", "127.0.0.31") == "emergency"
    assert route("+12025550100", "203.0.113.9") == "refused: unknown_source"


RULE = {
    "name": "uk", "prefixes": ["+44"], "opens": ["international"], "times": ["daily 08:00-18:00"], "max_calls": 2,
}  # fmt: skip


def test_route_test_judges_what_a_worker_dials_by_the_rules_at_a_time(tmp_path):
    config = write_site(tmp_path, {"policy": {"rules": [RULE]}})
    call = ("--from", "+12025550100", "--to", "+442079460000", "--source", "127.0.0.11", "--over", "carrier")

    def route(at: str) -> list[str]:
        return tandem("route-test", *call, "--at", at, "--config", config).stdout.splitlines()

    assert "rule 'uk' allows +442079460000, 2 at one time" in route("2026-06-03T12:00+00:00")
    assert route("2026-06-03T12:00+00:00")[-1] == "trunk"
    assert route("2026-06-03T19:00+00:00")[-1] == "refused: international_number"


def test_dial_test_tells_whether_a_number_may_be_called_and_by_which_rule(tmp_path):
    config = write_site(tmp_path, {"policy": {"rules": [RULE]}})

    def dial(number: str, *options: str) -> tuple[int, str]:
        result = tandem("dial-test", number, "--at", "2026-06-03T12:00+00:00", "--config", config, *options)
        return result.exit_code, result.stdout.splitlines()[0]

    assert dial("011 44 20 7946 0000") == (0, "allowed: +442079460000 over carrier, by rule uk")
    assert dial("+12025550160") == (0, "allowed: +12025550160 over carrier, no rule says otherwise")
    assert dial("+442079460000", "--agent", "reception")[1].startswith("refused: free_number: ")
    assert dial("+19005550199") == (1, "refused: premium_number: premium numbers are not allowed")


@pytest.mark.parametrize("at", ["noon", "2026-13-01", ""])
def test_a_time_that_is_none_is_one_line(tmp_path, at):
    result = tandem("dial-test", "911", "--at", at, "--config", write_site(tmp_path))
    assert result.exit_code == 1
    assert result.stderr == f"tandem: --at {at!r} is no time; expected e.g. 2026-06-03T08:00-04:00\n"


def test_route_test_as_json(tmp_path):
    config = write_site(tmp_path)
    arguments = ("--from", "2001", "--to", "911", "--source", "127.0.0.31", "--json", "--config", config)
    decision = json.loads(tandem("route-test", *arguments).stdout)
    assert (decision["action"], decision["targets"]) == ("emergency", ["sip:127.0.0.21:5060"])


def test_route_test_with_a_source_that_is_no_address_is_one_line(tmp_path):
    arguments = ("--from", "1", "--to", "2", "--source", "carrier", "--config", write_site(tmp_path))
    result = tandem("route-test", *arguments)
    assert result.exit_code == 1
    assert result.stderr == (
        "tandem: --source: 'carrier' does not appear to be an IPv4 or IPv6 address; expected e.g. 203.0.113.10\n"
    )


def test_calls_are_listed_newest_first(database):
    listed = tandem("calls", "--database", database).stdout
    assert [line.split()[0] for line in listed.splitlines() if "call-" in line] == ["call-2", "call-1", "call-3"]
    assert "at_capacity" in listed


def test_calls_can_be_filtered_and_read_by_programs(database):
    def ids(*arguments: str) -> list[str]:
        output = tandem("calls", "--json", "--database", database, *arguments).stdout
        return [json.loads(line)["id"] for line in output.splitlines()]

    assert ids() == ["call-2", "call-1", "call-3"]
    assert ids("--limit", "1") == ["call-2"]
    assert ids("--since", "2h") == ["call-2", "call-1"]
    assert ids("--live") == ["call-3"]
    assert ids("--outcome", "refused") == ids("--worker", "worker-2") == ["call-2"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--since", "yesterday"), "--since 'yesterday' cannot be used; expected a number and s, m, h or d, e.g. 12h"),
        (("--outcome", "good"), "no outcome 'good'; expected one of: caller_hung_up, agent_hung_up, transferred, "),
        (("--database", "sqlite:////none.db"), "sqlite:////none.db: no such file yet; it appears with the first call"),
        (("--database", "nonsense"), "records.url cannot be used: "),
    ],
    ids=["since", "outcome", "no file", "no URL"],
)
def test_what_calls_cannot_use_is_one_line(database, arguments, expected):
    result = tandem("calls", "--database", database, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"tandem: {expected}")
    assert result.stderr.count("\n") == 1


def test_the_story_of_a_call_has_every_part(database):
    shown = tandem("call", "show", "call-1", "--database", database).stdout
    for part in ("transferred", "reception", "opening hours", "[cut at 3.0 of", "to sales: busy", "Tool calls",
                 '{"destination":"sales"}', "Transfers", "486", "Timings", "420 ms"):  # fmt: skip
        assert part in shown


def test_what_was_said_is_shown_as_it_is_and_moves_no_cursor(database):
    shown = tandem("call", "show", "call-1", "--database", database).stdout
    assert "[bold]calling[/nope] ·[2J us" in shown
    assert "\x1b[2J" not in shown


def test_the_waterfall_shows_what_was_heard_and_what_was_cut(database):
    shown = tandem("call", "show", "call-1", "--database", database).stdout
    (agent,) = (line for line in shown.splitlines() if "░" in line)
    heard, cut = agent.count("█"), agent.count("░")
    assert heard == pytest.approx((heard + cut) / 3, abs=1)


def test_a_call_can_be_read_by_programs(database):
    story = json.loads(tandem("call", "show", "call-1", "--json", "--database", database).stdout)
    assert (story["call"]["id"], len(story["turns"])) == ("call-1", 2)


def test_a_call_that_is_not_there_is_one_line(database):
    result = tandem("call", "show", "call-9", "--database", database)
    assert (result.exit_code, result.stderr) == (1, "tandem: no call 'call-9'; `tandem calls` lists them\n")


def test_a_call_without_turns_can_be_shown(database):
    assert "at_capacity" in tandem("call", "show", "call-2", "--database", database).stdout


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("lab", "needs the lab, which only a checkout of Tandem has; run it there"),
        ("soxr", "needs soxr; in the checkout, run: make setup"),
    ],
)
@pytest.mark.parametrize("command", ["demo", "call place --to +12025550100"], ids=["demo", "call place"])
def test_the_lab_that_is_not_there_is_one_line(command, missing, expected):
    script = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from tandem.cli import app\n"
        "app()\n"
    )
    result = subprocess.run([sys.executable, "-c", script, *command.split()], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == f"tandem: `tandem {command.split(' --')[0]}` {expected}\n"


def test_a_voice_that_cannot_speak_is_one_line(tmp_path, monkeypatch):
    def no_voice(*_: object) -> None:
        raise VoiceError("espeak-ng is not installed")

    monkeypatch.setattr("lab.place.speak", no_voice)
    config = write_site(tmp_path)
    result = tandem("call", "place", "--to", "+12025550100", "--say", "Hello.", "--config", config)
    assert (result.exit_code, result.stderr) == (1, "tandem: espeak-ng is not installed\n")


def test_db_upgrade_makes_the_tables_and_may_be_repeated(tmp_path):
    path = write_site(tmp_path, {"records/url": "sqlite:///run/tandem.db"})
    for _ in range(2):
        result = tandem("db", "upgrade", "--config", path)
        assert (result.exit_code, result.stdout) == (
            0,
            f"sqlite:///{tmp_path}/run/tandem.db: schema {newest_revision()}\n",
        )
    assert tandem("calls", "--config", path).exit_code == 0


def test_db_upgrade_of_a_database_that_is_away_is_one_line():
    result = tandem("db", "upgrade", "--database", "postgresql+psycopg://tandem:s3cret@127.0.0.1:1/tandem")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("tandem: the database cannot be upgraded: ")
    assert "s3cret" not in result.stderr
