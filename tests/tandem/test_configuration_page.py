"""docs/configuration.md names every key with its default, and no key that is not there."""

import re
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from tandem.settings import Agent, Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/configuration.md").read_text()
KEY_NAMES = {"numbers": "NUMBER"}
"""What stands for a section's own key where it is not a NAME."""


def models_in(annotation: Any) -> list[tuple[str, type[BaseModel]]]:
    """Sections that a field may hold: the suffix of their place, and their model."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [("", annotation)]
    if get_origin(annotation) is list:
        return [(f"[]{suffix}", model) for suffix, model in models_in(get_args(annotation)[0])]
    if get_origin(annotation) is dict:
        return [(f".KEY{suffix}", model) for suffix, model in models_in(get_args(annotation)[1])]
    members = [member for member in get_args(annotation) if member is not NoneType]
    return [found for member in members for found in models_in(member)]


def sections(model: type[BaseModel], place: str) -> dict[str, type[BaseModel]]:
    """Every section by its heading."""
    found = {f"`{place}`": model}
    prefix = "" if place.endswith(".yaml") else f"{place}."
    for name, field in model.model_fields.items():
        if model is Settings and name == "agents":
            continue
        inner = models_in(field.annotation)
        for suffix, section in inner:
            where = f"{prefix}{name}{suffix.replace('KEY', KEY_NAMES.get(name, 'NAME'))}"
            tag = f" (`{get_args(section.model_fields['type'].annotation)[0]}`)" if len(inner) > 1 else ""
            found |= {f"{heading}{tag}": part for heading, part in sections(section, where).items()}
    return found


SECTIONS = sections(Settings, "tandem.yaml") | sections(Agent, "agents/NAME.yaml")


def documented() -> dict[str, dict[str, str]]:
    """Heading → key → default as written."""
    parts = re.split(r"^##+ (.+)$", PAGE, flags=re.MULTILINE)[1:]
    tables = {}
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", text, flags=re.MULTILINE)
        assert len(rows) == len({key for key, _ in rows}), f"{heading} has a key twice"
        tables[heading] = dict(rows)
    return tables


def test_every_section_is_documented_and_no_other():
    assert set(documented()) == set(SECTIONS)


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_is_documented_and_no_other(heading):
    model = SECTIONS[heading]
    keys = set(model.model_fields) - ({"agents"} if model is Settings else set())
    assert set(documented()[heading]) == keys


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_default_is_as_documented(heading):
    for key, written in documented()[heading].items():
        field = SECTIONS[heading].model_fields[key]
        default = field.default
        if field.is_required():
            assert written == "required", key
        elif isinstance(default, BaseModel):
            assert written == "see below", key
        elif isinstance(default, Path) and ROOT in default.parents:
            assert written == "the installed prompts", key
        else:
            assert written.startswith("`"), key
            assert yaml.safe_load(written.strip("`")) == plain(default), key


def plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path | str) else value


def test_the_bounds_in_the_page_are_those_of_the_settings():
    rows = re.findall(r"^\| `(\w+)` \| (?:\w+, )?(\d+) to (\d+) \|", PAGE, flags=re.MULTILINE)
    assert len(rows) >= 20
    bounds = set()
    for model in SECTIONS.values():
        for name, field in model.model_fields.items():
            limits = {type(limit).__name__: limit for limit in field.metadata}
            if "Ge" in limits and "Le" in limits:
                bounds.add((name, str(limits["Ge"].ge), str(limits["Le"].le)))
    assert set(rows) <= bounds
