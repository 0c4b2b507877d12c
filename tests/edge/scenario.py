"""The form of a scenario: tests/edge/scenarios/AREA/RULE/scenario.yaml. See README.md beside this file."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Over = Literal["udp", "tcp", "tls"]
Status = Annotated[int, Field(ge=100, le=699)]
Seconds = Annotated[float, Field(gt=0, le=60)]
_VARIABLE = re.compile(r"\$\{([^{}]+)\}")


class ScenarioError(ValueError):
    """A scenario that cannot be played; the message names the file and the key."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Content(Strict):
    """A body from a file beside the scenario, or as text."""

    file: str | None = None
    text: str | None = None
    type: str | None = None
    repeat: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _one(self) -> "Content":
        if (self.file is None) == (self.text is None):
            raise ValueError("needs exactly one of file, text")
        return self


Body = Literal["sdp", "none"] | Content


class Send(Strict):
    """A request, or bytes as they stand, from a party to the edge."""

    from_: Annotated[str, Field(alias="from")]
    method: str | None = None
    uri: str | None = None
    headers: list[str] = []
    without: tuple[str, ...] = ()
    body: Body | None = None
    call: str = "a"
    caller: str = "+12025550147"
    over: Over | None = None
    within: str | None = None
    again: bool = False
    raw: str | None = None
    times: Annotated[int, Field(ge=1, le=1000)] = 1

    @model_validator(mode="after")
    def _kind(self) -> "Send":
        if sum((self.method is not None, self.again, self.raw is not None)) != 1:
            raise ValueError("needs exactly one of method, raw, again")
        known = self.again or self.raw is not None or self.within is not None or self.method in ("CANCEL", "ACK")
        if self.uri is None and not known:
            raise ValueError(f"{self.method} outside a dialog needs a uri")
        return self


class Receive(Strict):
    """A message at a party, and what it must be like."""

    at: str
    request: str | None = None
    reply: Status | None = None
    to: str | None = None
    """Of a reply: the method that it answers."""
    call: str | None = "a"
    as_: Annotated[str | None, Field(alias="as")] = None
    uri: str | None = None
    header: dict[str, str | None] = {}
    """Exact value of the one header of that name; None: there is none."""
    has: list[str] = []
    lacks: list[str] = []
    body: Literal["same"] | Body | None = None
    sdp: list[str] = []
    """Patterns, each of a line of the body."""
    sdp_lacks: list[str] = []
    reason: str | None = None
    over: Over | None = None
    flow: list[str] | None = None
    within: Seconds | None = None
    after: str | None = None

    @model_validator(mode="after")
    def _kind(self) -> "Receive":
        if (self.request is None) == (self.reply is None):
            raise ValueError("needs exactly one of request, reply")
        if (self.within is None) != (self.after is None):
            raise ValueError("within and after go together")
        return self


class Reply(Strict):
    to: str
    status: Status
    phrase: str = ""
    headers: list[str] = []
    body: Body = "none"
    from_: Annotated[str | None, Field(alias="from")] = None
    """Forge it from another party."""


class Answer(Strict):
    to: str
    headers: list[str] = []


class Hangup(Strict):
    from_: Annotated[str, Field(alias="from")]
    call: str = "a"


class Rpc(Strict):
    method: str
    params: list[str | int | float] = []
    has: str | None = None
    lacks: str | None = None
    fails: str | None = None
    """Pattern of the error's text."""


class Metric(Strict):
    name: str
    label: str
    rises: Annotated[int | None, Field(ge=0)] = None
    is_: Annotated[float | None, Field(alias="is")] = None

    @model_validator(mode="after")
    def _one(self) -> "Metric":
        if (self.rises is None) == (self.is_ is None):
            raise ValueError("needs exactly one of rises, is")
        return self


class Log(Strict):
    has: str | None = None
    lacks: str | None = None
    times: Annotated[int | None, Field(ge=1)] = None

    @model_validator(mode="after")
    def _one(self) -> "Log":
        if (self.has is None) == (self.lacks is None):
            raise ValueError("needs exactly one of has, lacks")
        return self


class Target(Strict):
    """An entry of the dispatcher: its state (A active, I inactive, D drained, T trying) and its calls."""

    worker: str
    """A worker's name, or ``all``, where ``load`` is the sum."""
    state: Literal["A", "I", "D", "T"] | None = None
    load: Annotated[int | None, Field(ge=0)] = None


class Media(Strict):
    """Calls that an rtpengine has ports open for; of all of them where none is named."""

    calls: Annotated[int, Field(ge=0)]
    at: str | None = None


class Copies(Strict):
    """How often a message received as that label has come byte by byte: more than once where it was sent again."""

    of: str
    are: Annotated[int, Field(ge=1)]


class Options(Strict):
    of: str
    status: Status | None


class Wait(Strict):
    seconds: Seconds
    why: str


class Until(Strict):
    rpc: Rpc | None = None
    metric: Metric | None = None
    log: Log | None = None
    target: Target | None = None

    @model_validator(mode="after")
    def _one(self) -> "Until":
        if len(self.model_fields_set) != 1:
            raise ValueError("needs exactly one of rpc, metric, log, target")
        return self


class Render(Strict):
    """Write the site's files anew with this merged over the site; the running edge is not told."""

    site: dict[str, Any]


class Step(Strict):
    send: Send | None = None
    receive: Receive | None = None
    reply: Reply | None = None
    answer: Answer | None = None
    hangup: Hangup | None = None
    rpc: Rpc | None = None
    metric: Metric | None = None
    log: Log | None = None
    target: Target | None = None
    copies: Copies | None = None
    open: str | None = None
    close: str | None = None
    options: Options | None = None
    media: Media | None = None
    wait: Wait | None = None
    until: Until | None = None
    render: Render | None = None
    edge: Literal["restart", "stop", "start"] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Step":
        if len(self.model_fields_set) != 1:
            raise ValueError(f"a step has one verb, not {sorted(self.model_fields_set)}")
        return self

    @property
    def verb(self) -> str:
        return next(iter(self.model_fields_set))


Entry = Status | str


class Play(Strict):
    """What is done once a row of ``cases``."""

    steps: Annotated[list[Step], Field(min_length=1)]
    seen: dict[str, list[Entry]]


class Document(Strict):
    """scenario.yaml, with ``steps`` and ``seen`` as they stand before a row is put in."""

    rule: Annotated[str, Field(min_length=10)]
    site: dict[str, Any] = {}
    parties: dict[str, str] = {}
    options: list[str] = []
    errors: list[str] = []
    cases: Annotated[list[dict[str, Any]], Field(min_length=1)] = [{}]
    steps: list[Any]
    seen: dict[str, Any] = {}


@dataclass(frozen=True)
class Scenario:
    file: Path
    document: Document
    plays: list[tuple[dict[str, Any], Play]]
    """Each row of ``cases``, and the steps with the row put in."""

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def asks_for_flow(self) -> bool:
        return any(step.receive and step.receive.flow is not None for _, play in self.plays for step in play.steps)


def load(file: Path) -> Scenario:
    """Read a scenario. Raises ScenarioError naming the file and the key."""
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ScenarioError(f"{file}: {error}") from error
    document = _validated(Document, data, file)
    columns = set(document.cases[0])
    plays = []
    for row in document.cases:
        if set(row) != columns:
            raise ScenarioError(f"{file}: cases: a row has {sorted(row)}, the first has {sorted(columns)}")
        filled = put_in({"steps": document.steps, "seen": document.seen}, row)
        plays.append((row, _validated(Play, filled, file)))
    return Scenario(file, document, plays)


Model = TypeVar("Model", bound=Strict)


def _validated(model: type[Model], data: Any, file: Path) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
            what = "there is no such key" if problem["type"] == "extra_forbidden" else problem["msg"]
            lines.append(f"{file}: {key or 'scenario'}: {what}")
        raise ScenarioError("\n".join(lines)) from error


def put_in(value: Any, row: Mapping[str, Any]) -> Any:
    """``value`` with every ``${column}`` of the row replaced: alone in a string by the very value, else by its text."""
    if isinstance(value, dict):
        return {put_in(key, row): put_in(item, row) for key, item in value.items()}
    if isinstance(value, list):
        return [put_in(item, row) for item in value]
    if not isinstance(value, str):
        return value
    whole = _VARIABLE.fullmatch(value)
    if whole and whole[1] in row:
        return row[whole[1]]
    return _VARIABLE.sub(lambda match: str(row[match[1]]) if match[1] in row else match[0], value)


def substitute(text: str, values: Callable[[str], str]) -> str:
    """``text`` with every ``${name}`` replaced by ``values(name)``."""
    return _VARIABLE.sub(lambda match: values(match[1]), text)


def merge(base: Any, change: Any) -> Any:
    """``change`` laid over ``base``, mapping by mapping; null removes a key."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    merged = dict(base)
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key, {}), value)
    return merged
