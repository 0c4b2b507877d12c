"""The screen-pop of who takes a transferred call: what the caller wants and what was said, for the key that the call carried."""

import logging
import re
import time
from collections.abc import Callable, Sequence

import gevent
from gevent import get_hub
from gevent.threadpool import ThreadPool
from pydantic import BaseModel, ConfigDict

from esl_app import context
from esl_app.api import ApiError, Reply, Request
from tandem.outcome import TransferOutcome
from tandem.records import CallStory, Records, RecordsError
from tandem.rows import TransferRecord

ROUTE = "/v1/context/{key}"
PATIENCE_S = 2.0
"""A phone may show the key before its row has reached the database: more than the recorder gathers rows for."""
POLL_S = 0.25
READERS = 2
"""Threads that ask the database."""
MAX_TURNS = 500
"""The newest of a conversation."""

_KEY = re.compile(r"[A-Za-z0-9_-]{16}")
_log = logging.getLogger(__name__)


class Turn(BaseModel):
    model_config = ConfigDict(frozen=True)

    at: float
    who: str
    text: str


class Told(BaseModel):
    """What a key shows. Times are Unix seconds."""

    model_config = ConfigDict(frozen=True)

    call: str
    tenant: str
    agent: str
    caller: str
    number: str
    verified: str
    destination: str
    answered_by: str | None
    outcome: TransferOutcome | None
    reason: str
    summary: str
    started_at: float
    expires_at: float
    transcript: Sequence[Turn]


class ScreenPop:
    """Answers ``GET /v1/context/KEY`` from the records of all workers."""

    def __init__(self, records_url: str, now: Callable[[], float] = time.time) -> None:
        self._records_url = records_url
        self._now = now
        self._readers = ThreadPool(READERS, hub=get_hub())

    def answer(self, request: Request) -> Reply:
        """Raises ApiError: 404 for a key that is none, or is none any more; 503 where the records cannot be read."""
        key = request.parameters["key"]
        deadline = time.monotonic() + PATIENCE_S
        while _KEY.fullmatch(key):
            try:
                found = self._readers.apply(self._read, (context.digest(key),))
            except RecordsError as error:
                _log.error("a screen-pop cannot be shown: %s", error)
                raise ApiError(503, "records_away", "the records cannot be read now") from error
            if found is not None:
                return Reply(200, _told(*found))
            if time.monotonic() >= deadline:
                break
            gevent.sleep(POLL_S)
        raise ApiError(404, "unknown_key", "there is no such key, or it has expired")

    def _read(self, key_digest: str) -> tuple[TransferRecord, CallStory] | None:
        with Records(self._records_url) as records:
            return records.of_key(key_digest, self._now())


def _told(transfer: TransferRecord, story: CallStory) -> Told:
    turns = [Turn(at=turn.started_at, who=turn.who, text=turn.text) for turn in story.turns if turn.text]
    return Told(
        **story.call.model_dump(include={"tenant", "agent", "caller", "number", "verified"}),
        **transfer.model_dump(
            include={"call", "destination", "answered_by", "outcome", "reason", "summary", "started_at"}
        ),
        expires_at=transfer.key_expires_at or 0.0,
        transcript=turns[-MAX_TURNS:],
    )
