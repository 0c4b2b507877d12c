"""Logging for every process: one JSON object a line on stderr, with the component, and the call where there is one.

    _log.warning("fork refused: %s", cause, extra={"call": call_id})

gives ``{"time":"2026-01-31T12:00:00.123Z","level":"warning","component":"esl_app","logger":"esl_app.call",
"call":"9f3c…","message":"fork refused: …"}``. Other keys of ``extra`` become keys of the line. Values of secrets are
never written.
"""

import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import orjson
from prometheus_client import Counter
from pydantic import BaseModel, SecretStr
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from tandem.settings import Settings

LEVEL_VARIABLE = "TANDEM_LOG_LEVEL"
LEVELS = ("debug", "info", "warning", "error")
MAX_MESSAGE = 8192
"""Characters of a message or a traceback; the rest is cut."""
MAX_SOURCES = 1000
"""Places in the code whose rate is watched at a time."""
MIN_SECRET = 4
"""Shorter secrets are not looked for: they would turn ordinary text into noise."""

SUPPRESSED = Counter(
    "tandem_log_suppressed_total", "Log records not written because their place in the code repeats itself."
)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "suppressed", "call"}


class UnknownLevelError(ValueError):
    """TANDEM_LOG_LEVEL is none of LEVELS."""


class Flood(logging.Filter):
    """Lets each place in the code log ``burst`` records at once and ``per_second`` after that.

    The next record that passes says how many were suppressed. Warnings and worse have ``burst`` and ``per_second`` as
    given, lesser levels ten times as much: they are written for every call.
    """

    def __init__(self, burst: float = 20, per_second: float = 1, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._guard = threading.Lock()
        self._places: OrderedDict[tuple[str, int, int], tuple[float, float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        factor = 1 if record.levelno >= logging.WARNING else 10
        place = (record.pathname, record.lineno, record.levelno)
        now = self._clock()
        with self._guard:
            tokens, since, suppressed = self._places.pop(place, (self._burst * factor, now, 0))
            tokens = min(self._burst * factor, tokens + (now - since) * self._per_second * factor)
            passes = tokens >= 1
            self._places[place] = (tokens - 1, now, 0) if passes else (tokens, now, suppressed + 1)
            if len(self._places) > MAX_SOURCES:
                self._places.popitem(last=False)
        if passes:
            record.suppressed = suppressed
        else:
            SUPPRESSED.inc()
        return passes


class JsonLines(logging.Formatter):
    """One record, one line of JSON; ``secrets`` are replaced wherever they would appear."""

    def __init__(self, component: str, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._component = component
        self._secrets = sorted({secret for secret in secrets if len(secret) >= MIN_SECRET}, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
            "level": record.levelname.lower(),
            "component": self._component,
            "logger": record.name,
        }
        if call := getattr(record, "call", None):
            line["call"] = self._clean(str(call))
        line["message"] = self._clean(record.getMessage())
        for key, value in vars(record).items():
            if key not in _STANDARD:
                line[key] = value if isinstance(value, int | float | bool | None) else self._clean(str(value))
        if suppressed := getattr(record, "suppressed", 0):
            line["suppressed"] = suppressed
        if record.exc_info:
            line["error"] = self._clean(self.formatException(record.exc_info), from_end=True)
        return orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS).decode()

    def _clean(self, text: str, from_end: bool = False) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        text = text[-MAX_MESSAGE:] if from_end else text[:MAX_MESSAGE]
        return text.encode("utf-8", "replace").decode()


def configure(
    component: str,
    settings: Settings | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    stream: TextIO | None = None,
) -> None:
    """Set this process's logging up: level from TANDEM_LOG_LEVEL (info), to stderr. ``settings`` names the secrets.

    To be called first thing, and again once the settings are loaded. Uncaught exceptions are logged too.
    Raises UnknownLevelError.
    """
    level = environment.get(LEVEL_VARIABLE, "info").lower()
    if level not in LEVELS:
        raise UnknownLevelError(f"{LEVEL_VARIABLE} is {level!r}; expected one of: {', '.join(LEVELS)}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(component, secrets_of(settings) if settings else ()))
    handler.addFilter(Flood())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("alembic", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda failure: _log_uncaught(
        failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback
    )


def secrets_of(settings: Settings) -> Iterator[str]:
    """Every secret value in ``settings``, the database's password included."""
    try:
        if password := make_url(settings.records.url).password:
            yield password
    except ArgumentError:
        yield settings.records.url
    yield from _secrets_in(settings)


def _secrets_in(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for _, part in value:
            yield from _secrets_in(part)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _secrets_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _secrets_in(part)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("tandem").critical("uncaught %s: %s", kind.__name__, error, exc_info=(kind, error, trace))
