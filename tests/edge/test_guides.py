"""The guides to trunks: every example is a configuration that Kamailio takes, and every snippet is part of one."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tandem import names
from tandem.edge import host_of, is_address
from tandem.render import render
from tandem.settings import Settings, load
from tests.edge.world import AGENT, KAMAILIO

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.yaml"))
GUIDES = ["trunks-twilio.md", "trunks-bandwidth.md", "pbx.md"]
ENVIRONMENT = {"TANDEM_EVENT_SOCKET_PASSWORD": "example", "TWILIO_PASSWORD": "example"}


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
        [*KAMAILIO, "-c", "-f", str(tmp_path / "site/kamailio/kamailio.cfg")],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert check.returncode == 0, check.stderr


@pytest.mark.parametrize("guide", GUIDES)
def test_every_snippet_is_part_of_an_example(guide: str):
    snippets = re.findall(r"^```yaml\n(.*?)^```", (DOCS / guide).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert snippets
    examples = [example.read_text(encoding="utf-8") for example in EXAMPLES]
    for snippet in snippets:
        assert any(snippet in example for example in examples), snippet


@pytest.mark.parametrize("guide", GUIDES)
def test_every_example_and_page_that_a_guide_names_is_there(guide: str):
    for target in re.findall(r"\]\(([^)#]+)", (DOCS / guide).read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (DOCS / target).exists(), target
