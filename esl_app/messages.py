"""Callers' messages on their way to those who are to have them, by mail and webhook, with the recording."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client import REGISTRY

from esl_app.message import Message, Recording, body, concerns, letter
from esl_app.outbox import Outbox
from tandem.notify.channels import attempt, mail, post
from tandem.notify.courier import Metrics
from tandem.voicemail import Mail, Recipient, Voicemail

SETTLED_S: Final = 1.5
"""A recording is complete when nothing was written to it for so long."""
MIN_S: Final = 1.0
"""Of a recording; a shorter one has nothing in it."""
PATIENCE_S: Final = 60.0
"""For one attempt: recordings are large."""
METRICS = Metrics("tandem_message", REGISTRY)

_log = logging.getLogger(__name__)


class Messages(Outbox[Message, Recipient]):
    """One process's. ``journal`` is a folder of this worker's own."""

    def __init__(self, settings: Voicemail, journal: Path, now: Callable[[], float] = time.time) -> None:
        super().__init__(
            "messages",
            journal,
            Message.model_validate_json,
            settings.recipients,
            concerns,
            self._send,
            METRICS,
            keep_days=settings.keep_days,
            give_up_hours=settings.give_up_hours,
            now=now,
        )

    async def _send(self, recipient: Recipient, message: Message, http: aiohttp.ClientSession) -> None:
        recording = await _recording(message.file)
        if recording.seconds < MIN_S:
            _log.info("nothing was said in %s", message.file, extra={"call": message.call})
            return
        async with attempt(PATIENCE_S):
            if isinstance(recipient, Mail):
                await mail(recipient, letter(recipient, message, recording))
            else:
                await post(recipient, body(recipient, message, recording), http, self._now)


async def _recording(file: Path) -> Recording:
    """Once FreeSWITCH has closed it. Raises DeliveryError."""
    while file.exists() and (unsettled_s := SETTLED_S - (time.time() - file.stat().st_mtime)) > 0:
        await asyncio.sleep(min(unsettled_s, SETTLED_S))
    return await asyncio.to_thread(Recording, file)
