"""Reading Kamailio's configuration for the hunt for needless lines."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tandem.render import render
from tandem.shipped import shipped
from tests.edge.mutants import NotUnderstood, marked, mutants, routes
from tests.edge.world import KAMAILIO, load_site

TEXT = """# route[COMMENT] { no(); }
modparam("tm", "fr_timer", 2000)
tcp_children=1
route[ONE] {
	first("; } \\" {", "2");	# not(this);
	if (a() && !b("&&")) return;
	while ($var(i) < 3) {
		$var(i) = $var(i) + 1;
	}
#!ifdef WITH
	if ($x == 1) {
		x();
	} else {
		y();
	}
#!endif
}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "one.cfg"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_every_statement_is_removed_and_every_condition_decided(file: Path):
    assert [(mutant.line, mutant.what) for mutant in mutants(file)] == [
        (5, 'without first("; } \\" {", "2");'),
        (6, 'always (a() && !b("&&"))'),
        (6, 'never (a() && !b("&&"))'),
        (6, 'without a() in (a() && !b("&&"))'),
        (6, 'without !b("&&") in (a() && !b("&&"))'),
        (7, "never ($var(i) < 3)"),
        (8, "without $var(i) = $var(i) + 1;"),
        (11, "always ($x == 1)"),
        (11, "never ($x == 1)"),
        (12, "without x();"),
        (14, "without y();"),
    ]


def test_mutant_differs_in_nothing_else(file: Path):
    texts = {mutant.what: mutant.text for mutant in mutants(file)}
    assert texts["without x();"] == TEXT.replace("x();", "")
    assert texts["never ($x == 1)"] == TEXT.replace("($x == 1)", "(1 == 0)")
    assert texts['without a() in (a() && !b("&&"))'] == TEXT.replace("a() &&", "")
    assert texts['without !b("&&") in (a() && !b("&&"))'] == TEXT.replace('&& !b("&&")', "")
    module, core = mutants(file, parameters=True)
    assert module.text == TEXT.replace('modparam("tm", "fr_timer", 2000)', "")
    assert core.text == TEXT.replace("tcp_children=1", "")


def test_lines_stay_where_they_are(file: Path):
    assert all(mutant.text.count("\n") == TEXT.count("\n") for mutant in mutants(file))
    assert marked(file).count("\n") == TEXT.count("\n")


@pytest.mark.parametrize("text", ["route[A] {\n\tx()\n}\n", 'route[A] {\n\tx("\n}\n', "route[A] {\n\tx();\n"])
def test_text_that_is_not_understood_is_an_error(tmp_path: Path, text: str):
    path = tmp_path / "bad.cfg"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NotUnderstood):
        list(mutants(path))


@pytest.mark.skipif(not shutil.which(KAMAILIO[0]), reason="kamailio is not installed")
def test_kamailio_accepts_the_whole_configuration_marked(tmp_path: Path):
    render(load_site("127.99.96", tmp_path), tmp_path / "site")
    for path in shipped("kamailio").glob("*.cfg"):
        assert routes(path.read_text(encoding="utf-8"))
        (tmp_path / "site/kamailio" / path.name).write_text(marked(path), encoding="utf-8")
    # More private memory than it has by itself: it is twice as long as what is shipped.
    command = [*KAMAILIO, "-M", "32", "-c", "-f", str(tmp_path / "site/kamailio/kamailio.cfg")]
    check = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert check.returncode == 0, check.stderr
