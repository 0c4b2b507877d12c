"""A scenario's phrases, intents and branches, and what is wrong with one that cannot be used."""

from pathlib import Path

import pytest

from lab import scenario
from lab.scenario import Branch, Reply, ScenarioError, Understanding, expand

RECEPTION = Path(scenario.__file__).parent / "scenarios/reception.yaml"


@pytest.mark.parametrize(
    ("pattern", "phrases"),
    [
        ("goodbye", ["goodbye"]),
        ("(open | close) now", ["open now", "close now"]),
        ("sales [please]", ["sales", "sales please"]),
        ("[the] (a | b [c])", ["a", "b", "b c", "the a", "the b", "the b c"]),
        ("a|b", ["a", "b"]),
        ("don't go", ["don't go"]),
    ],
)
def test_a_pattern_is_written_out(pattern: str, phrases: list[str]) -> None:
    assert expand(pattern) == phrases


@pytest.mark.parametrize("pattern", ["(a", "a)", "[a", "a]", "(a]", "[a]", "", "Upper case", "nine 1 1", "a, b"])
def test_a_pattern_that_means_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        expand(pattern)


def test_a_pattern_with_too_many_alternatives_is_refused_and_not_written_out() -> None:
    with pytest.raises(ValueError, match="alternatives"):
        expand("(a | b | c | d) " * 20)


def test_courtesies_around_a_phrase_change_nothing() -> None:
    understanding = Understanding(scenario.load(RECEPTION))
    sales = understanding.of("put me through to sales")
    assert sales is not None
    assert understanding.of("Hello, could you please put me through to sales, thanks!") is sales
    assert understanding.of("penguins put me through to sales") is None
    assert understanding.of("[DTMF] 2") is sales
    assert understanding.of("[DTMF] 2222") is None
    assert understanding.of("") is None


def test_the_first_branch_that_fits_is_taken() -> None:
    reply = Reply(
        after=[
            Branch(when={"outcome": ["busy", "no_answer"]}, say="busy"),
            Branch(when={"order.state": "open"}, say="open"),
            Branch(when={"ok": True}, say="fine"),
        ]
    )
    outputs = {
        '{"outcome": "no_answer"}': "busy",
        '{"order": {"state": "open"}}': "open",
        '{"ok": true, "outcome": "x"}': "fine",
    }
    for output, words in outputs.items():
        branch = reply.after_output(output)
        assert branch is not None and branch.say == words
    for output in ("{}", "[]", "null", "no json", '{"order": "open"}'):
        assert reply.after_output(output) is None


def test_the_reception_knows_every_outcome_of_a_transfer() -> None:
    sales = Understanding(scenario.load(RECEPTION)).of("[DTMF] 2")
    assert sales is not None
    for outcome in ("busy", "no_answer", "rejected", "unreachable", "refused_by_policy", "failed", "whatever"):
        branch = sales.after_output(f'{{"outcome": "{outcome}"}}')
        assert branch is not None and branch.say
    answered = sales.after_output('{"outcome": "answered"}')
    assert answered is not None and not answered.say


def test_all_that_is_wrong_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "intents:\n"
        "  one:\n"
        "    heard: ['what (is', 'xyzzyx', 'goodbye']\n"
        "  two:\n"
        "    heard: ['goodbye']\n"
        "    dtmf: ['5']\n"
        "  three:\n"
        "    dtmf: ['5']\n"
    )
    with pytest.raises(ScenarioError) as refused:
        scenario.load(file)
    text = str(refused.value)
    assert f"{file}:3: intents.one.heard[0]: 'what (is'" in text
    assert "no pronunciation of 'xyzzyx'" in text
    assert f"{file}:5: intents.two.heard[0]: 'goodbye' is also heard as one" in text
    assert f"{file}:8: intents.three.dtmf[0]: also belongs to two" in text


@pytest.mark.parametrize(
    "text", ["greting: x", "intents: [1]", "intents: {a: {calls: [{name: 'no spaces'}]}}", "a: [", "- 1"]
)
def test_a_file_that_is_no_scenario_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ScenarioError, match=r"bad\.yaml"):
        scenario.load(file)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        scenario.load(tmp_path / "none.yaml")


def test_pronunciations_may_be_given(tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text("words: {xyzzyx: 'Z IH Z IH K S'}\nintents: {a: {heard: ['xyzzyx'], say: magic}}\n")
    assert Understanding(scenario.load(file)).phrases == ["xyzzyx"]
