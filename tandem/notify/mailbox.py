"""Kamailio's side: the notices that wait in its memory, fetched over JSON-RPC on loopback (kamailio/notice.cfg)."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

KEPT = 1000
"""NOTICES_KEPT of kamailio.cfg: as many notices wait there."""
PATIENCE_S = 3.0

_log = logging.getLogger(__name__)


class MailboxError(Exception):
    """Kamailio cannot be asked; the message says why."""


class Mailbox:
    """The table of notices. Each has a number; those of a Kamailio that was restarted begin at 1 again."""

    def __init__(self, http: aiohttp.ClientSession, rpc: str) -> None:
        self._http = http
        self._url = f"http://{rpc}/rpc"
        self._seen: int | None = None
        """The last number that was looked at; None: all that may wait must be looked at."""

    async def fetch(self) -> AsyncIterator[tuple[int, str]]:
        """What waits, oldest first: number and text. It stays there until :meth:`done`. Raises MailboxError."""
        try:
            last = int(await self._get("notices_last", "last") or 0)
            if self._seen is None or last < self._seen:
                self._seen = max(0, last - KEPT)
            for number in range(self._seen + 1, last + 1):
                text = await self._get("notices", str(number))
                if text is not None:
                    yield number, text
                self._seen = number
        except MailboxError:
            self._seen = None
            raise

    async def done(self, number: int) -> None:
        """It is written down here. Raises MailboxError."""
        await self._ask("htable.delete", "notices", str(number))

    async def _get(self, table: str, key: str) -> str | None:
        result = await self._ask("htable.get", table, key)
        return None if result is None else str(result["item"]["value"])

    async def _ask(self, method: str, *params: str) -> Any:
        """The result; None where there is no such key."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            async with self._http.post(
                self._url, json=request, timeout=aiohttp.ClientTimeout(total=PATIENCE_S)
            ) as reply:
                answer = await reply.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise MailboxError(f"{self._url}: {error!r}") from error
        if "error" not in answer:
            return answer["result"]
        if "exist" in str(answer["error"].get("message")):
            return None
        raise MailboxError(f"{self._url}: {method}: {answer['error']}")
