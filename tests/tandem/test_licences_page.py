"""docs/licences.md names each direct dependency of pyproject.toml, and each Debian package of lab/install.sh; no others."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/licences.md").read_text(encoding="utf-8")


def rows(heading: str) -> set[str]:
    """First column of the table under this heading."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)[1:]
    table = dict(zip(parts[::2], parts[1::2], strict=True))[heading]
    return set(re.findall(r"^\| (\S+) \|", table, re.MULTILINE)) - {"Package", "---"}


def test_every_direct_dependency_has_its_licence_and_no_other():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = [name for group in project["optional-dependencies"].values() for name in group]

    def names(requirements: list[str]) -> set[str]:
        return {found[0] for text in requirements if (found := re.match(r"[\w.-]+", text))}

    assert rows("Python, in production") == names(project["dependencies"])
    assert rows("Python, lab and development") == names(optional)


def test_every_debian_package_has_its_licence():
    script = (ROOT / "lab/install.sh").read_text(encoding="utf-8")
    packages = {word for found in re.findall(r"packages\+?=\(([^)]*)\)", script) for word in found.split()}
    assert len(packages) >= 10
    assert packages <= set(re.findall(r"`([a-z0-9-]+)`", PAGE))
