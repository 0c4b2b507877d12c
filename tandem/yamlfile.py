"""YAML that remembers its lines: every value's place in the file, for errors that name file and line.

YAML 1.2 core scalars only, so that ``+15551230100``, ``0911``, ``12:30`` and ``no`` stay the text the operator wrote.
``${NAME}`` and ``${NAME:-default}`` in any string are taken from the environment; ``$${`` is a plain ``${``.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Location = tuple[str | int, ...]

MAX_VALUES = 100_000
"""Values in one file. An alias counts again wherever it stands, so that a few lines cannot become gigabytes."""

_ENVIRONMENT = re.compile(r"(\$\$\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with the configuration: where, what, and what was expected."""

    file: str
    line: int
    """1-based; 0 where the file as a whole is meant."""
    where: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.where}: {self.message}" if self.where else f"{place}: {self.message}"


@dataclass
class Document:
    """A parsed file: ``data``, the line of every place in it, and what was wrong with it as YAML."""

    file: str
    data: Any
    problems: list[Problem] = field(default_factory=list)
    lines: dict[Location, int] = field(default_factory=dict)
    unset: set[Location] = field(default_factory=set)
    """Places that wanted an environment variable which is not set: their values mean nothing."""
    readable: bool = True
    """False where the file is no YAML at all, so that ``data`` means nothing."""

    def line(self, where: Location) -> int:
        """Line of ``where``, or of its nearest ancestor in the file."""
        while where not in self.lines and where:
            where = where[:-1]
        return self.lines.get(where, 1)

    def problem(self, where: Location, message: str) -> Problem:
        return Problem(self.file, self.line(where), dotted(where), message)


def dotted(where: Location) -> str:
    """``("numbers", "+1555", 0)`` → ``numbers.+1555[0]``."""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 core scalars instead of 1.1's."""


_SCALARS: dict[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    "bool": (re.compile(r"true|false"), lambda text: text == "true"),
    "null": (re.compile(r"~|null|"), lambda _: None),
    "int": (re.compile(r"-?(?:0|[1-9][0-9]{0,17})"), int),
    "float": (re.compile(r"-?[0-9]+\.[0-9]+"), float),
}
"""What is not text, by tag: how it is written, and its value."""
_CoreLoader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _) in _SCALARS.items():
    _CoreLoader.add_implicit_resolver(_TAG + _tag, re.compile(f"(?:{_pattern.pattern})$"), None)
_CoreLoader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"<<$"), ["<"])


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Document:
    """Read one YAML file. Syntax errors, duplicate keys and missing environment variables become problems, never raise.

    A file that is missing or no YAML has one problem, an empty mapping as ``data``, and is not ``readable``.
    """
    document = Document(str(path), {})

    def unreadable(line: int, message: str) -> Document:
        document.data, document.readable, document.problems = {}, False, [Problem(str(path), line, "", message)]
        return document

    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        return unreadable(0, f"cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        return unreadable(0, f"is not UTF-8 text: {error.reason} at byte {error.start}")
    try:
        loader = _CoreLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        if node is not None:
            document.data = _Builder(document, environment).build(node, ())
    except yaml.reader.ReaderError as error:
        character = f"character U+{ord(text[error.position]):04X} is not allowed"
        return unreadable(text.count("\n", 0, error.position) + 1, f"not YAML: {character}")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return unreadable(mark.line + 1 if mark else 0, f"not YAML: {error.problem or error.context}")
    except RecursionError:
        return unreadable(0, "is nested too deeply")
    except _TooLarge:
        return unreadable(0, f"has more than {MAX_VALUES} values")
    return document


class _TooLarge(Exception):
    pass


class _Builder:
    """Turns nodes into data and notes where each value stands."""

    def __init__(self, document: Document, environment: Mapping[str, str]) -> None:
        self._document = document
        self._environment = environment
        self._values = 0

    def build(self, node: yaml.Node, where: Location) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooLarge
        self._document.lines.setdefault(where, _line(node))
        tag = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return [self.build(child, (*where, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            if tag in ("str", "merge"):
                return self._interpolated(node.value, where)
            if tag in _SCALARS and _SCALARS[tag][0].fullmatch(node.value):
                return _SCALARS[tag][1](node.value)
        self._problem(_line(node), where, f"tag {node.tag!r} cannot be used here; leave it out")
        return None

    def _mapping(self, node: yaml.MappingNode, where: Location) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                self._merge(merged, value_node, where)
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(_line(key_node), where, "has a key that is not plain text")
                continue
            place = (*where, key_node.value)
            if key_node.value in own:
                self._problem(_line(key_node), place, "is given twice; keep one")
            self._document.lines[place] = _line(key_node)
            own[key_node.value] = self.build(value_node, place)
        return merged | own

    def _merge(self, merged: dict[str, Any], node: yaml.Node, where: Location) -> None:
        """``<<: *anchor`` or ``<<: [*one, *other]``; the first to have a key wins."""
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode):
                for key, value in self._mapping(source, where).items():
                    merged.setdefault(key, value)
            else:
                self._problem(_line(source), where, "merges (<<) what is not a mapping")

    def _interpolated(self, text: str, where: Location) -> str:
        def replace(match: re.Match[str]) -> str:
            escaped, name, default = match.groups()
            if escaped:
                return "${"
            if name not in self._environment and default is None:
                self._document.unset.add(where)
                advice = f"set it or write ${{{name}:-default}}"
                self._problem(self._document.line(where), where, f"environment variable {name} is not set; {advice}")
            return self._environment.get(name, default or "")

        return _ENVIRONMENT.sub(replace, text)

    def _problem(self, line: int, where: Location, message: str) -> None:
        self._document.problems.append(Problem(self._document.file, line, dotted(where), message))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
