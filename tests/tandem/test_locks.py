"""The lock files go with pyproject.toml and with each other (`make lock` writes both anew), and the images get what they copy."""

import re
import tomllib
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

ROOT = Path(__file__).parents[2]


def pins(lock: str) -> set[str]:
    """Each ``name==version``."""
    return set(re.findall(r"^[a-z0-9][^ ]*==[^ ]+", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE))


def names(requirements: set[str] | list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return names(project["dependencies"] + [need for extra in extras for need in optional[extra]])


def test_the_images_get_what_production_needs_and_nothing_of_the_lab_s():
    locked = names(pins("production.lock"))
    assert declared() <= locked
    assert (declared("lab") - declared()) & locked <= {"typing-extensions"}, "which pydantic needs too"


def test_tests_and_images_run_the_same_versions():
    assert pins("production.lock") <= pins("requirements.lock")
    assert declared("lab", "dev") <= names(pins("requirements.lock"))


@pytest.fixture(scope="module")
def context() -> set[str]:
    """The files that Docker is given to build with."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return exclude_paths(str(ROOT), ignored)


def copied() -> list[str]:
    """Everything that the Dockerfile copies from its context."""
    lines = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    return [source for line in lines for source in line.split()]


def packaged() -> list[str]:
    """Folders whose files an installation has."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    return sorted(
        {pattern.rpartition("/")[0] for patterns in setuptools["data-files"].values() for pattern in patterns}
    )


@pytest.mark.parametrize("source", copied() + packaged())
def test_what_the_images_are_made_of_is_in_their_context(context, source):
    assert any(path == source or path.startswith(f"{source}/") for path in context if (ROOT / path).is_file())
