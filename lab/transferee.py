"""What a phone may do with in-dialog requests, ready-made: refuse, report by script, or really carry out a REFER."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from sipmessage import Request

from lab import message as sip_message
from lab.call import Call, CallHandler
from lab.dialog import DialogEnded
from lab.refer import SIPFRAG, notify_headers, sipfrag
from lab.transaction import Address, HeaderList, ServerTransaction

if TYPE_CHECKING:
    from lab.phone import Phone

REFUSED_HEADERS = frozenset(
    {"via", "from", "to", "call-id", "cseq", "route", "record-route", "contact", "content-length"}
)
"""Headers of a Refer-To URI that never go into an INVITE (RFC 3261 section 19.1.5)."""


def answers(status: int, reason: str | None = None, *, headers: HeaderList = ()) -> CallHandler:
    """Answer every such request with ``status``."""

    async def handler(call: Call, transaction: ServerTransaction) -> None:
        transaction.respond(status, reason, headers=headers)

    return handler


def silence() -> CallHandler:
    """Never answer."""

    async def handler(call: Call, transaction: ServerTransaction) -> None:
        transaction.ignore()

    return handler


def reports(*statuses: int, interval_s: float = 0.05, accepted: int = 202, terminates: bool = True) -> CallHandler:
    """Accept a REFER and NOTIFY these statuses, one each ``interval_s``, without placing a call.

    The last one terminates the subscription unless ``terminates`` is False.
    """

    async def handler(call: Call, transaction: ServerTransaction) -> None:
        transaction.respond(accepted)
        for place, status in enumerate(statuses, 1):
            await notify(call, transaction.request, status, terminated=terminates and place == len(statuses))
            await asyncio.sleep(interval_s)

    return handler


async def notify(call: Call, refer: Request, status: int, *, terminated: bool) -> int:
    """Send one NOTIFY of a REFER's subscription: status of its answer."""
    response = await call.dialog.request(
        "NOTIFY",
        headers=notify_headers(refer, terminated=terminated),
        body=sipfrag(status),
        content_type=SIPFRAG,
    )
    return response.code


class Transferee:
    """Carries REFERs out as RFC 3515 asks: 202, NOTIFY 100, the INVITE, NOTIFY of its 18x and of its result.

    Install it as ``phone.handlers["REFER"]``. The new call is in ``calls``; the old one is left for the referring side
    to end.
    """

    def __init__(
        self,
        phone: "Phone",
        *,
        proxy: Address | None = None,
        ring_s: float = 60.0,
        allow: Callable[[str], bool] = lambda uri: True,
    ) -> None:
        """``proxy``: where the INVITE goes; None: where the Refer-To points. ``allow`` False for a URI: 603."""
        self.calls: list[Call] = []
        self._phone = phone
        self._proxy = proxy
        self._ring_s = ring_s
        self._allow = allow

    def __call__(self, call: Call, transaction: ServerTransaction) -> Awaitable[None]:
        return self._carry_out(call, transaction)

    async def _carry_out(self, call: Call, transaction: ServerTransaction) -> None:
        refer = transaction.request
        targets = sip_message.values(refer, "Refer-To")
        if len(targets) != 1:
            transaction.respond(400, "Exactly One Refer-To")
            return
        uri, _, escaped = sip_message.name_addr(targets[0]).uri.partition("?")
        if not self._allow(uri):
            transaction.respond(603)
            return
        transaction.respond(202)
        await notify(call, refer, 100, terminated=False)
        headers = [(name, value) for name, value in _unescaped(escaped) if name.lower() not in REFUSED_HEADERS]
        referred_by = refer.headers.get("Referred-By")
        if referred_by:
            headers.append(("Referred-By", referred_by))
        ours = sip_message.sip_uri(sip_message.name_addr(call.dialog.local_uri).uri)
        try:
            placed = await self._phone.invite(
                uri, proxy=self._proxy, from_number=ours.user if ours is not None else "", headers=headers
            )
        except (ValueError, OSError):
            await notify(call, refer, 503, terminated=True)
            return
        self.calls.append(placed)
        await notify(call, refer, await self._follow(call, refer, placed), terminated=True)

    async def _follow(self, call: Call, refer: Request, placed: Call) -> int:
        """NOTIFY the ringing; the final status."""
        try:
            ringing = await placed.wait_ringing(self._ring_s)
            if ringing.code < 200:
                await notify(call, refer, ringing.code, terminated=False)
            await placed.wait_answered(self._ring_s)
        except TimeoutError:
            await placed.cancel()
            return 408
        except DialogEnded as ended:
            return placed.final_status or ended.end.status or 500
        return placed.final_status or 200


def _unescaped(text: str) -> list[tuple[str, str]]:
    pairs = (item.partition("=") for item in text.split("&") if item)
    return [(unquote(name), unquote(value)) for name, _, value in pairs]
