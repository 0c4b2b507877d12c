"""One playing of a scenario's steps: its calls, what arrived, and what names in a step stand for."""

import re
import time
from dataclasses import dataclass

from tests.edge import scenario as form
from tests.edge.endpoints import SDP, Calling, Dialog, Endpoint
from tests.edge.message import Headers, Message
from tests.edge.stage import Stage

_TAKERS = ("worker", "second worker", "third worker", "fourth worker")


class Unmet(Exception):
    """An expectation that is not met (yet)."""


@dataclass
class Call:
    """A call by its label."""

    call_id: str
    calling: Calling | None = None
    near: Dialog | None = None
    far: Dialog | None = None


def kind(message: Message) -> form.Entry:
    """What ``seen`` has of a message: method or status."""
    return message.method if message.is_request else message.status


class Row:
    """What belongs to one row of ``cases``. Begins when it is made."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.calls: dict[str, Call] = {}
        self.labelled: dict[str, tuple[str, Message]] = {}
        """Messages received ``as`` a label, with the party that has them."""
        self.takers: list[str] = []
        """Workers in the order in which they took a call as ``any worker``."""
        self._taken: set[int] = set()
        self._begin = {name: len(endpoint.seen) for name, endpoint in stage.parties.items()}
        self.began = time.monotonic()
        self.log_begin = len(stage.edge.log)

    def error(self, text: str) -> form.ScenarioError:
        return form.ScenarioError(f"{self.stage.scenario.file}: {text}")

    # What the steps name

    def name(self, name: str) -> str:
        """A party's own name: ``worker`` is the one that took a call first."""
        if name in _TAKERS:
            index = _TAKERS.index(name)
            if index >= len(self.takers):
                raise Unmet(f"no {name} has taken a call")
            return self.takers[index]
        if name not in self.stage.parties:
            raise self.error(f"{name}: there is no such party, only {sorted(self.stage.parties)}")
        return name

    def party(self, name: str) -> Endpoint:
        return self.stage.parties[self.name(name)]

    def name_of(self, endpoint: Endpoint) -> str:
        return next(name for name, party in self.stage.parties.items() if party is endpoint)

    def message(self, label: str) -> tuple[str, Message]:
        """A labelled message, and the party that has it."""
        if label not in self.labelled:
            raise self.error(f"{label}: no message was received as that")
        return self.labelled[label]

    def call(self, label: str) -> Call:
        if label not in self.calls:
            raise self.error(f"call {label}: nobody placed it")
        return self.calls[label]

    def dialog(self, label: str) -> tuple[Dialog, Dialog]:
        """Both sides of an answered call, the caller's first."""
        call = self.call(label)
        if call.near is None or call.far is None:
            raise self.error(f"call {label}: nobody answered it")
        return call.near, call.far

    def _value(self, name: str) -> str:
        if name in self.stage.values:
            return self.stage.values[name]
        if name in self.stage.parties or name in _TAKERS:
            return self.party(name).host
        label, colon, header = name.partition(":")
        if colon and label in self.labelled:
            return self.labelled[label][1][header]
        raise self.error(f"${{{name}}}: there is no such value")

    def text(self, text: str) -> str:
        return form.substitute(text, self._value)

    def pattern(self, text: str) -> str:
        """A regular expression, in which values stand for themselves."""
        return form.substitute(text, lambda name: re.escape(self._value(name)))

    def headers(self, lines: list[str]) -> Headers:
        pairs = [self.text(line).partition(":") for line in lines]
        return [(name.strip(), value.strip()) for name, _, value in pairs]

    def body(self, body: form.Body) -> tuple[bytes, str]:
        """Bytes and Content-Type."""
        if isinstance(body, form.Content):
            if body.file is not None:
                content = (self.stage.scenario.folder / body.file).read_bytes()
            else:
                content = self.text(body.text or "").encode("utf-8", "surrogateescape")
            return content * body.repeat, body.type or ""
        return (SDP.encode(), "application/sdp") if body == "sdp" else (b"", "")

    # What arrived

    def arrived(self, name: str) -> list[Message]:
        """What the party received in this row; what came twice byte by byte was sent again, and counts once."""
        seen = list(self.stage.parties[name].seen)
        before = {message.raw for message in seen[: self._begin[name]]}
        messages = []
        for message in seen[self._begin[name] :]:
            if message.raw not in before:
                before.add(message.raw)
                messages.append(message)
        return messages

    def take(self, name: str, wanted: form.Entry, call_id: str | None, method: str | None = None) -> Message:
        """The party's first message of that kind that no step took yet. Raises Unmet."""
        for message in self.arrived(name):
            fits = kind(message) == wanted and call_id in (None, message.call_id) and method in (None, message.method)
            if fits and id(message) not in self._taken:
                self._taken.add(id(message))
                return message
        raise Unmet(f"{name} did not receive {wanted}")
