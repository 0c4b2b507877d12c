"""How transfers ended, told to the operator's webhooks."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import aiohttp
from prometheus_client import REGISTRY
from pydantic import BaseModel, ConfigDict

from esl_app.arrival import Arrival
from esl_app.outbox import Outbox
from tandem.notify.channels import attempt, post
from tandem.notify.courier import Metrics
from tandem.outcome import TransferOutcome
from tandem.rows import TransferRecord
from tandem.webhooks import Transfers, TransferWebhook

VERSION = 1
METRICS = Metrics("tandem_transfer_webhook", REGISTRY)


class Event(StrEnum):
    TRANSFER = "transfer"


class TransferNotice(BaseModel):
    """The body of a webhook. Times are ISO 8601, UTC; ``time`` is the transfer's end."""

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    id: str
    """The same each time that this notice is sent."""
    event: Event = Event.TRANSFER
    time: datetime
    started: datetime
    worker: str
    tenant: str
    call: str
    sip_call_id: str
    trunk: str
    agent: str
    caller: str
    number: str
    destination: str
    answered_by: str | None
    method: str
    outcome: TransferOutcome
    detail: str
    status: int | None
    """SIP status, where there was one."""
    heard: bool
    reason: str
    summary: str


def notice_of(row: TransferRecord, arrival: Arrival, worker: str) -> TransferNotice:
    """Of a transfer that has ended."""
    assert row.outcome is not None and row.ended_at is not None
    return TransferNotice(
        id=f"{row.call}-{row.id}",
        time=datetime.fromtimestamp(row.ended_at, UTC),
        started=datetime.fromtimestamp(row.started_at, UTC),
        worker=worker,
        tenant=arrival.tenant,
        call=row.call,
        sip_call_id=arrival.sip_call_id,
        trunk=arrival.trunk,
        agent=arrival.agent,
        caller=arrival.caller,
        number=arrival.number,
        destination=row.destination,
        answered_by=row.answered_by,
        method=row.method,
        outcome=row.outcome,
        detail=row.detail,
        status=row.sip_status,
        heard=row.heard,
        reason=row.reason,
        summary=row.summary,
    )


class Webhooks(Outbox[TransferNotice, TransferWebhook]):
    """One process's. ``journal`` is a folder of this worker's own."""

    def __init__(self, settings: Transfers, journal: Path, now: Callable[[], float] = time.time) -> None:
        super().__init__(
            "transfer-webhooks",
            journal,
            TransferNotice.model_validate_json,
            settings.webhooks,
            lambda hook, notice: notice.outcome in hook.outcomes,
            self._post,
            METRICS,
            keep_days=settings.keep_days,
            give_up_hours=settings.give_up_hours,
            now=now,
        )

    async def _post(self, hook: TransferWebhook, notice: TransferNotice, http: aiohttp.ClientSession) -> None:
        async with attempt():
            await post(hook, notice, http, self._now)
