"""The record of a call that an esl_app before this one had: as it left it, else as the channel tells it."""

from collections.abc import Mapping

import gevent
from gevent import get_hub

from esl_app.arrival import Arrival
from esl_app.line import Services
from tandem.outcome import TransferOutcome
from tandem.records import CallStory, Records, RecordsError
from tandem.rows import CallRecord

WITHIN_S = 2.0
"""For the rows that a killed esl_app left on disk to reach the database."""
EVERY_S = 0.25
LOST = "the transfer was lost with its controller"


def recall(services: Services, arrival: Arrival, channel: Mapping[str, str]) -> CallRecord:
    """The call's record, to be gone on with. Transfers that were under way are on record as failed from now on: media_fork
    asks for them again, under the same ids.
    """
    answered_at = _seconds(channel, "Caller-Channel-Answered-Time") or services.now()
    story = _left(services.settings.records.url, arrival.call)
    if story is None or story.call.outcome is not None or story.call.sip_call_id != arrival.sip_call_id:
        started_at = _seconds(channel, "Caller-Channel-Created-Time") or answered_at
        return arrival.record(services.worker, started_at).model_copy(update={"answered_at": answered_at})
    for transfer in story.transfers:
        if transfer.outcome is None:
            over = {"outcome": TransferOutcome.FAILED, "detail": LOST, "ended_at": services.now()}
            services.recorder.put(transfer.model_copy(update=over))
    return story.call.model_copy(update={"answered_at": story.call.answered_at or answered_at})


def _left(url: str, call: str) -> CallStory | None:
    """What the database has of a call, once it has it; None where it does not come to have it."""
    for _ in range(round(WITHIN_S / EVERY_S)):
        story: CallStory | None = get_hub().threadpool.apply(_read, (url, call))
        if story is not None:
            return story
        gevent.sleep(EVERY_S)
    return None


def _read(url: str, call: str) -> CallStory | None:
    try:
        with Records(url) as records:
            return records.call(call)
    except RecordsError:
        return None


def _seconds(channel: Mapping[str, str], header: str) -> float | None:
    """Unix seconds of a time that FreeSWITCH gives in microseconds; None where it has none."""
    text = channel.get(header, "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) else None
