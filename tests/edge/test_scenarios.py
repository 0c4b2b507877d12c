"""The player of scenarios itself: what is wrong with a scenario is said, and what an edge does wrong is found."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.edge.play import Failed, play
from tests.edge.scenario import ScenarioError, load, merge

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*/*/scenario.yaml"))
PATIENCE_S = 2.0
"""Long enough for what comes, and waited for by every test of what does not."""
CALL = {"send": {"from": "carrier", "method": "INVITE", "uri": "sip:${did}@${edge}"}}
ARRIVES = {"receive": {"at": "any worker", "request": "INVITE", "as": "invite"}}
REFUSE = {"reply": {"to": "invite", "status": 486}}
SEEN = {"worker": ["INVITE", "ACK"], "carrier": [100, 486]}


def write(folder: Path, **parts: Any) -> Path:
    file = folder / "area/rule/scenario.yaml"
    file.parent.mkdir(parents=True)
    whole = {"rule": "A rule of ten letters.", "steps": [CALL, ARRIVES, REFUSE], "seen": SEEN}
    file.write_text(yaml.safe_dump(whole | parts), encoding="utf-8")
    return file


def play_it(folder: Path, **parts: Any) -> None:
    play(load(write(folder, **parts)), folder / "stage", patience_s=PATIENCE_S)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"stepz": []}, r"scenario\.yaml: stepz: there is no such key"),
        ({"steps": [{"sned": {}}]}, r"scenario\.yaml: steps\[0\]\.sned: there is no such key"),
        (
            {"steps": [{"send": {"from": "carrier", "method": "INVITE", "url": "x"}}]},
            r"steps\[0\]\.send\.url: there is",
        ),
        ({"steps": [{"send": {"from": "carrier", "method": "INVITE"}}]}, r"steps\[0\]\.send: .* needs a uri"),
        ({"steps": [CALL | ARRIVES]}, r"steps\[0\]: .*one verb"),
        ({"cases": [{"a": 1}, {"b": 1}]}, r"cases: a row has \['b'\]"),
        ({"seen": {"carrier": [{}]}}, r"seen\.carrier\[0\]"),
    ],
)
def test_what_a_scenario_cannot_say_is_an_error_naming_the_key(tmp_path: Path, parts: dict[str, Any], message: str):
    with pytest.raises(ScenarioError, match=message):
        load(write(tmp_path, **parts))


def test_scenario_that_goes_as_it_says_passes(tmp_path: Path):
    play_it(tmp_path)


def receive(**more: Any) -> list[Any]:
    return [CALL, {"receive": ARRIVES["receive"] | more}, REFUSE]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"seen": {"worker": ["INVITE", "ACK"]}}, r"carrier has seen \[100, 486\], expected \[\]"),
        ({"seen": SEEN | {"pbx": ["INVITE"]}}, r"pbx has seen \[\], expected \['INVITE'\]"),
        ({"steps": receive(has=["X-Tandem-Agent: nobody"])}, "no line matches 'X-Tandem-Agent: nobody'"),
        ({"steps": receive(lacks=["x-tandem-agent"])}, "'X-Tandem-Agent: reception' matches 'x-tandem-agent'"),
        ({"steps": receive(uri="^tel:")}, "does not match"),
        ({"steps": receive(body="none")}, "its body is"),
        ({"steps": receive(over="tls")}, "it came over udp, expected tls"),
        ({"steps": receive(flow=["SOURCE"])}, r"its flow is \['SOURCE', 'HYGIENE'"),
        (
            {"steps": [*receive(), {"receive": {"at": "carrier", "reply": 486, "reason": "x"}}]},
            "the text of its Reason is '', expected 'x'",
        ),
        (
            {"steps": [*receive(), {"metric": {"name": "calls_total", "label": "agent", "is": 7}}]},
            "is 1.0, expected 7.0",
        ),
        ({"steps": [*receive(), {"log": {"lacks": "call to="}}]}, "the log has"),
        ({"steps": [*receive(), {"rpc": {"method": "nobody.knows"}}]}, "nobody.knows failed"),
        ({"steps": [*receive(), {"target": {"worker": "worker-1", "state": "I"}}]}, "expected I of"),
    ],
)
def test_what_goes_otherwise_is_found_and_told(tmp_path: Path, parts: dict[str, Any], message: str):
    with pytest.raises(Failed, match=message) as failure:
        play_it(tmp_path, **parts)
    told = str(failure.value)
    assert told.startswith("rule: A rule of ten letters.\n")
    assert "INVITE sip:+12025550100@" in told


def test_error_that_kamailio_logs_fails_a_scenario_that_does_not_expect_it(tmp_path: Path):
    refused = {"send": {"from": "carrier", "method": "INVITE", "uri": "sip:%zz@${edge}"}}
    with pytest.raises(Failed, match="Kamailio logged errors"):
        play_it(tmp_path, steps=[refused], seen={"carrier": [404]})


@pytest.mark.parametrize(
    ("base", "change", "merged"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({}, {"a": {"b": 1, "c": None}}, {"a": {"b": 1}}),
    ],
)
def test_site_of_a_scenario_is_laid_over_that_of_all(base: Any, change: Any, merged: Any):
    assert merge(base, change) == merged


def test_every_area_has_a_scenario_that_asks_for_the_flow():
    areas = {file.parents[1].name for file in SCENARIOS}
    assert areas
    assert areas == {file.parents[1].name for file in SCENARIOS if load(file).asks_for_flow}


def test_a_folder_a_rule():
    loaded = [load(file) for file in SCENARIOS]
    rules = [scenario.document.rule for scenario in loaded]
    assert len(set(rules)) == len(rules)
    assert all(rule.endswith(".") for rule in rules)
    assert {file.parents[2].name for file in (Path(__file__).parent).rglob("scenario.yaml")} == {"scenarios"}
