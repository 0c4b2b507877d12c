"""The statements of Kamailio's configuration, and what becomes of it when one of them is missing or decides otherwise."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_ROUTE = re.compile(r"^(?:(?:request|reply)_route|(?:\w+_)?route\[([^\]]+)\])\s*\{", re.MULTILINE)
_PARAMETER = re.compile(r"^(?:modparam\(.*\)|[a-z][a-z0-9_]*=.*)$", re.MULTILINE)
_SKIPPED = re.compile(r"(?:\s+|#!\w[^\n]*\n|#[^\n]*\n|//[^\n]*\n|/\*.*?\*/)+", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_TRUE, _FALSE = "(1 == 1)", "(1 == 0)"


class NotUnderstood(ValueError):
    """Text that this does not read as Kamailio does; the message names the place."""


@dataclass
class Statement:
    """A statement with its place in the text; an ``if`` or ``while`` has a condition, and no end of its own."""

    start: int
    end: int
    condition: tuple[int, int] | None = None
    """Where the condition stands, parentheses included."""
    loops: bool = False
    alone: bool = False
    """It is all that its ``if`` leads to, without braces."""
    inner: list["Statement"] = field(default_factory=list)

    def all(self) -> Iterator["Statement"]:
        yield self
        for statement in self.inner:
            yield from statement.all()


@dataclass(frozen=True)
class Mutant:
    file: str
    line: int
    """Of the statement, from 1."""
    route: str
    what: str
    """What was done, and to what."""
    text: str
    """The file with it done."""


def routes(text: str) -> dict[str, list[Statement]]:
    """Statements of each route by its name. Raises NotUnderstood."""
    found = {}
    for match in _ROUTE.finditer(text):
        statements, _ = _block(text, match.end())
        found[match[1] or match[0].partition("{")[0].strip()] = statements
    return found


def mutants(path: Path, *, parameters: bool = False) -> Iterator[Mutant]:
    """Every mutant of a file; with ``parameters`` of its modparams and core parameters, else of its routes."""
    text = path.read_text(encoding="utf-8")
    if parameters:
        for match in _PARAMETER.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Mutant(path.name, line, "", f"without {match[0]}", text[: match.start()] + text[match.end() :])
        return
    for route, statements in routes(text).items():
        for statement in (inner for outer in statements for inner in outer.all()):
            line = text.count("\n", 0, statement.start) + 1
            for what, changed in _changes(text, statement):
                yield Mutant(path.name, line, route, what, changed)


def marked(path: Path) -> str:
    """The text with a line of the log before each statement: ``AT FILE:LINE``."""
    text = path.read_text(encoding="utf-8")
    places = [
        statement.start
        for statements in routes(text).values()
        for outer in statements
        for statement in outer.all()
        if not statement.alone
    ]
    parts, end = [], 0
    for start in sorted(places):
        line = text.count("\n", 0, start) + 1
        parts += [text[end:start], f'xlog("L_NOTICE", "AT {path.name}:{line}\\n"); ']
        end = start
    return "".join([*parts, text[end:]])


def _changes(text: str, statement: Statement) -> Iterator[tuple[str, str]]:
    def put(start: int, end: int, new: str) -> str:
        return text[:start] + new + "\n" * text.count("\n", start, end) + text[end:]

    if statement.condition is None:
        code = text[statement.start : statement.end]
        # The counters that there are from the start have a test of their own; alone, it is what its `if` decides.
        if not statement.alone and not code.startswith("prom_counter_reset"):
            yield f"without {_short(code)}", put(statement.start, statement.end, "")
        return
    start, end = statement.condition
    shown = _short(text[start:end])
    if not statement.loops:
        yield f"always {shown}", put(start, end, _TRUE)
    yield f"never {shown}", put(start, end, _FALSE)
    for part_start, part_end, cut_start, cut_end in _parts(text, start + 1, end - 1):
        yield f"without {_short(text[part_start:part_end])} in {shown}", put(cut_start, cut_end, "")


def _short(code: str) -> str:
    words = " ".join(code.split())
    return words if len(words) <= 100 else words[:97] + "..."


def _parts(text: str, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Parts of a condition that is one && or || chain: where each stands, and what to cut to be rid of it."""
    bounds, operators, depth, at = [start], [], 0, start
    while at < end:
        if text[at] == '"':
            at = _after_string(text, at)
            continue
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0 and text[at : at + 2] in ("&&", "||"):
            operators.append(text[at : at + 2])
            bounds += [at, at + 2]
            at += 1
        at += 1
    bounds.append(end)
    if not operators or len(set(operators)) > 1:
        return
    for index in range(0, len(bounds), 2):
        part = bounds[index], bounds[index + 1]
        cut = (part[0], bounds[index + 2]) if index == 0 else (bounds[index - 1], part[1])
        yield *part, *cut


def _skip(text: str, at: int) -> int:
    match = _SKIPPED.match(text, at)
    return match.end() if match else at


def _after_string(text: str, at: int) -> int:
    match = _STRING.match(text, at)
    if not match:
        raise NotUnderstood(f"a string without an end at line {text.count(chr(10), 0, at) + 1}")
    return match.end()


def _block(text: str, at: int) -> tuple[list[Statement], int]:
    """Statements from behind ``{``, and the place behind its ``}``."""
    statements: list[Statement] = []
    while True:
        at = _skip(text, at)
        if at >= len(text):
            raise NotUnderstood("a block without an end")
        if text[at] == "}":
            return statements, at + 1
        statement, at = _statement(text, at)
        statements.append(statement)


def _statement(text: str, at: int) -> tuple[Statement, int]:
    match = re.compile(r"(if|while)\s*(?=\()").match(text, at)
    if not match:
        end = _until(text, at, ";") + 1
        return Statement(at, end), end
    condition = match.end(), _until(text, match.end() + 1, ")") + 1
    inner, end = _body(text, condition[1])
    statement = Statement(at, end, condition, match[1] == "while", inner=inner)
    after = _skip(text, end)
    if match[1] == "if" and re.compile(r"else\b").match(text, after):
        more, end = _body(text, after + len("else"))
        statement.inner += more
        statement.end = end
    return statement, end


def _body(text: str, at: int) -> tuple[list[Statement], int]:
    at = _skip(text, at)
    if text[at] == "{":
        return _block(text, at + 1)
    statement, end = _statement(text, at)
    statement.alone = True
    return [statement], end


def _until(text: str, at: int, mark: str) -> int:
    """The place of ``mark`` outside strings and parentheses."""
    depth = 0
    while at < len(text):
        if text[at] == '"':
            at = _after_string(text, at)
            continue
        if text[at] == mark and depth == 0:
            return at
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    raise NotUnderstood(f"no {mark} to the end of the file")
