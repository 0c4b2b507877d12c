"""A scenario: what the lab's model understands, says and does, from one YAML file.

Phrases are written with alternatives and options, ``(what | when) are your opening (hours | times) [please]``, in lower
case words. ``after`` holds what follows a function call's output: the first branch whose ``when`` fits its JSON.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.ears import pronunciations
from tandem import yamlfile
from tandem.yamlfile import Document, Location, Problem

MAX_PHRASES: Final = 5000
"""Of a scenario, all alternatives written out."""

_TOKEN: Final = re.compile(r"\s*([()\[\]|]|[a-z']+|\S)")
_NOT_IN_WORDS: Final = re.compile(r"[^a-z' ]+")
_DTMF: Final = re.compile(r"^\[DTMF\]\s*([0-9*#A-D]+)\s*$")


class ScenarioError(ValueError):
    """The scenario cannot be used. ``problems`` has every one found, in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class FunctionCall(Part):
    """A tool that the model calls. Its arguments are as written, whatever the tool's parameters say."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    arguments: dict[str, Any] = {}


class Reply(Part):
    """One response: words, function calls, or both, in this order."""

    say: str = ""
    calls: list[FunctionCall] = []
    after: "list[Branch]" = []
    """What to reply to the output of one of ``calls``."""

    def after_output(self, output: str) -> "Reply | None":
        """The reply to this function_call_output; None where no branch fits."""
        try:
            result = orjson.loads(output)
        except orjson.JSONDecodeError:
            result = output
        return next((branch for branch in self.after if branch.fits(result)), None)


class Branch(Reply):
    when: dict[str, Any] = {}
    """Key of the output's JSON (dots lead deeper) → the value that it must have, or a list of such. Empty: any output."""

    def fits(self, result: Any) -> bool:
        return all(_at(result, key) in _listed(expected) for key, expected in self.when.items())


class Intent(Reply):
    heard: list[str] = []
    """Phrases, spoken or typed."""
    dtmf: list[Annotated[str, Field(pattern=r"^[0-9*#A-D]+$")]] = []
    """Keys pressed, as a user message ``[DTMF] 5`` tells them."""


class Pace(Part):
    """How the model sends what it says, unless a fault says otherwise."""

    factor: Annotated[float, Field(ge=0, le=1000)] = 4.0
    """Times faster than real time; 0: all at once."""
    chunk_ms: Annotated[int, Field(ge=10, le=5000)] = 100
    """Audio in a delta."""
    think_ms: Annotated[int, Field(ge=0, le=60000)] = 150
    """From response.created, or the caller understood, to the first output."""


class Scenario(Part):
    greeting: str = "Hello. How may I help you?"
    """Said when the conversation has nothing in it and the instructions quote nothing."""
    fallback: str = "Sorry, I did not catch that."
    prompt: str = "Is there anything else that I can do for you?"
    """Said when a response is asked for and there is nothing to respond to."""
    idle: str = "Are you still there?"
    """Said on idle_timeout_ms."""
    unable: str = "I am sorry, I cannot do that."
    """Said in place of a function call whose tool the session does not have."""
    pace: Pace = Pace()
    before: list[str] = []
    after: list[str] = []
    """Single words that may come before and after any phrase."""
    words: dict[str, str] = {}
    """Pronunciation in ARPAbet of words that the CMU dictionary lacks: ``tandem: "T AE N D AH M"``."""
    intents: dict[str, Intent] = {}

    def phrases(self) -> dict[str, str]:
        """Every phrase written out → the name of its intent."""
        return {
            phrase: name
            for name, intent in self.intents.items()
            for pattern in intent.heard
            for phrase in expand(pattern)
        }


Reply.model_rebuild()
Branch.model_rebuild()
Intent.model_rebuild()
Scenario.model_rebuild()


class Understanding:
    """What a scenario makes of words."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._phrases = scenario.phrases()
        self._keys = {keys: intent for intent in scenario.intents.values() for keys in intent.dtmf}

    @property
    def phrases(self) -> list[str]:
        return sorted(self._phrases)

    def calling(self, name: str, arguments: str) -> Reply | None:
        """The first intent that makes this function call, ``arguments`` being JSON."""
        try:
            given = orjson.loads(arguments or "{}")
        except orjson.JSONDecodeError:
            return None
        for intent in self._scenario.intents.values():
            for call in intent.calls:
                if call.name == name and call.arguments == given:
                    return intent
        return None

    def of(self, text: str) -> Intent | None:
        """The intent of a phrase, or of a user message in writing; None where it is none of them."""
        if keys := _DTMF.match(text):
            return self._keys.get(keys[1])
        words = _NOT_IN_WORDS.sub(" ", text.lower()).split()
        courtesies = set(self._scenario.before)
        for first in range(len(words)):
            for last in range(len(words), first, -1):
                name = self._phrases.get(" ".join(words[first:last]))
                if name is not None and set(self._scenario.after).issuperset(words[last:]):
                    return self._scenario.intents[name]
            if words[first] not in courtesies:
                break
        return None


def load(path: Path) -> Scenario:
    """Read a scenario. Raises ScenarioError with every problem of the file."""
    document = yamlfile.load(path, {})
    problems = list(document.problems)
    scenario: Scenario | None = None
    if not problems:
        try:
            scenario = Scenario.model_validate(document.data)
        except ValidationError as error:
            problems += [_problem(document, detail["loc"], detail["msg"]) for detail in error.errors(include_url=False)]
    if scenario is not None:
        problems += _cross_checks(document, scenario)
    if problems or scenario is None:
        raise ScenarioError(problems)
    return scenario


def expand(pattern: str) -> list[str]:
    """All phrases of a pattern, each once. Raises ValueError naming what is wrong with it."""
    tokens = _TOKEN.findall(pattern)
    phrases, used = _alternatives(tokens, 0)
    if used != len(tokens):
        raise ValueError(f"{tokens[used]!r} closes nothing")
    written = dict.fromkeys(" ".join(words) for words in phrases)
    if "" in written:
        raise ValueError("may be said by saying nothing; at least one word must be needed")
    return list(written)


_CLOSING: Final = {"(": ")", "[": "]"}


def _alternatives(tokens: list[str], at: int) -> tuple[list[tuple[str, ...]], int]:
    """Phrases up to a closing bracket or the end, and where that is."""
    found: list[tuple[str, ...]] = []
    sequence: list[tuple[str, ...]] = [()]
    while at < len(tokens) and tokens[at] not in (")", "]"):
        token = tokens[at]
        at += 1
        if token == "|":
            found += sequence
            sequence = [()]
            continue
        if token in _CLOSING:
            choices, at = _alternatives(tokens, at)
            if at == len(tokens) or tokens[at] != _CLOSING[token]:
                raise ValueError(f"{token!r} is not closed by {_CLOSING[token]!r}")
            at += 1
            if token == "[":
                choices = [(), *choices]
        elif re.fullmatch(r"[a-z']+", token):
            choices = [(token,)]
        else:
            raise ValueError(f"{token!r} is no word; expected lower-case letters, numbers written as words")
        sequence = [(*start, *choice) for start in sequence for choice in choices]
        if len(sequence) + len(found) > MAX_PHRASES:
            raise ValueError(f"has more than {MAX_PHRASES} alternatives")
    return found + sequence, at


def _cross_checks(document: Document, scenario: Scenario) -> Iterable[Problem]:
    owner: dict[str, str] = {}
    vocabulary: dict[str, Location] = {}
    keys: dict[str, str] = {}
    for which, words in (("before", scenario.before), ("after", scenario.after)):
        vocabulary |= {word: (which, index) for index, word in enumerate(words)}
    for name, intent in scenario.intents.items():
        for index, pattern in enumerate(intent.heard):
            where = ("intents", name, "heard", index)
            try:
                phrases = expand(pattern)
            except ValueError as error:
                yield _problem(document, where, f"{pattern!r}: {error}")
                continue
            for phrase in phrases:
                vocabulary |= dict.fromkeys(phrase.split(), where)
                if owner.setdefault(phrase, name) != name:
                    yield _problem(document, where, f"{phrase!r} is also heard as {owner[phrase]}")
        for index, pressed in enumerate(intent.dtmf):
            if keys.setdefault(pressed, name) != name:
                yield _problem(document, ("intents", name, "dtmf", index), f"also belongs to {keys[pressed]}")
    if len(owner) > MAX_PHRASES:
        yield _problem(document, ("intents",), f"{len(owner)} phrases; at most {MAX_PHRASES} are recognised well")
    for word, ways in pronunciations(vocabulary, scenario.words).items():
        if not ways:
            yield _problem(document, vocabulary[word], f"no pronunciation of {word!r}; give it in words, in ARPAbet")


def _problem(document: Document, where: Location, message: str) -> Problem:
    return document.problem(tuple(where), message.removeprefix("Value error, "))


def _at(result: Any, key: str) -> Any:
    for part in key.split("."):
        result = result.get(part) if isinstance(result, Mapping) else None
    return result


def _listed(expected: Any) -> list[Any]:
    return expected if isinstance(expected, list) else [expected]
