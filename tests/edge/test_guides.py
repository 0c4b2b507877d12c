"""The guides: every example is a configuration that Kamailio takes, every snippet is part of a tested file, and every call that
is tried goes somewhere.
"""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lab import asterisk
from tandem import names
from tandem.cli import app
from tandem.edge import PRIVATE_MEMORY, host_of, is_address
from tandem.render import render
from tandem.settings import Settings, load
from tests.edge.world import AGENT, KAMAILIO

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.yaml"))
GUIDES = {
    "trunks-twilio.md": DOCS / "examples/twilio.yaml",
    "trunks-bandwidth.md": DOCS / "examples/bandwidth.yaml",
    "pbx.md": DOCS / "examples/pbx.yaml",
    "emergency.md": DOCS / "examples/emergency.yaml",
}
"""What each is about."""
TRIED = {**GUIDES, "edge.md": DOCS.parent / "config/tandem.yaml", "../README.md": DOCS.parent / "config/tandem.yaml"}
"""Pages with calls to try, and the site where they are tried."""
SECRETS = ("TANDEM_EVENT_SOCKET_PASSWORD", "TWILIO_PASSWORD", "TANDEM_NOTIFY_SECRET", "OPENAI_API_KEY")
ENVIRONMENT = dict.fromkeys(SECRETS, "example-of-a-secret")


def loaded(example: Path, folder: Path) -> Settings:
    (folder / "agents").mkdir()
    (folder / "agents/reception.yaml").write_text(yaml.safe_dump(AGENT), encoding="utf-8")
    (folder / "secrets").mkdir()
    (folder / "secrets/home-office").write_text("example", encoding="utf-8")
    path = folder / "tandem.yaml"
    path.write_text(example.read_text(encoding="utf-8"), encoding="utf-8")
    return load(path, ENVIRONMENT)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_a_configuration_that_kamailio_takes(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = loaded(example, tmp_path)
    uris = [uri for trunk in settings.trunks.values() for uri in trunk.gateways]
    named = {
        uri: (f"sip:192.0.2.{number}:5060{''.join(uri.partition(';')[1:])}",)
        for number, uri in enumerate(uris)
        if not is_address(host_of(uri))
    }
    monkeypatch.setattr(names, "look_up", lambda _: named)
    render(settings, tmp_path / "site")
    check = subprocess.run(
        [*KAMAILIO, *PRIVATE_MEMORY, "-c", "-f", str(tmp_path / "site/kamailio/kamailio.cfg")],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert check.returncode == 0, check.stderr


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def snippets_of(guide: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page(guide), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("guide", TRIED)
def test_every_call_that_a_guide_tries_goes_somewhere(guide: str, tmp_path: Path):
    commands = re.findall(r"tandem (route-test [^`\n]*)", page(guide))
    assert commands
    if guide in GUIDES:
        loaded(GUIDES[guide], tmp_path)
        config = tmp_path / "tandem.yaml"
    else:
        config = TRIED[guide]
    for command in commands:
        run = CliRunner().invoke(app, [*shlex.split(command), "--json", "--config", str(config)], env=ENVIRONMENT)
        assert run.exit_code == 0, run.output
        decision = json.loads(run.output)
        assert decision["action"] != "refused" and decision["targets"], (command, decision["path"])


@pytest.mark.parametrize("guide", GUIDES)
def test_every_guide_ends_in_an_edge_that_runs(guide: str):
    started = re.findall(r"^    kamailio -f .*\n.*\n", page("edge.md"), re.MULTILINE)
    assert len(started) == 1
    if guide == "emergency.md":
        assert "`tandem render`, start Kamailio" in page(guide)
    else:
        assert started[0] in page(guide)
        assert " ".join(PRIVATE_MEMORY) in started[0]
        assert "(emergency.md)" in page(guide)


def test_every_snippet_of_the_pbxs_side_is_what_asterisk_was_tested_with():
    folder, phones = Path("/etc/asterisk/edge"), ("10.0.0.41", 5060)
    by_udp = asterisk.configuration("10.0.0.31", ("10.0.0.10", 5060), phones, folder, tls=False)
    by_tls = asterisk.configuration("198.51.100.31", ("sip.example.com", 5061), phones, folder, tls=True)
    snippets = snippets_of("pbx.md", "ini")
    assert len(snippets) == 3
    for snippet, text in zip(
        snippets, (by_udp["pjsip.conf"], by_udp["extensions.conf"], by_tls["pjsip.conf"]), strict=True
    ):
        assert snippet in text


@pytest.mark.parametrize("guide", GUIDES)
def test_every_snippet_is_part_of_an_example(guide: str):
    snippets = snippets_of(guide, "yaml")
    assert snippets
    examples = [example.read_text(encoding="utf-8") for example in EXAMPLES]
    for snippet in snippets:
        assert any(snippet in example for example in examples), snippet


@pytest.mark.parametrize("guide", GUIDES)
def test_every_example_and_page_that_a_guide_names_is_there(guide: str):
    for target in re.findall(r"\]\(([^)#]+)", (DOCS / guide).read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (DOCS / target).exists(), target
