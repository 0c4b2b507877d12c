"""REFER (RFC 3515): what the referring side learns, and the sipfrag bodies of RFC 3420 that tell it."""

import asyncio
import re
from collections.abc import Callable
from typing import NamedTuple

from sipmessage import Request, Response

from lab import message as sip_message

SIPFRAG = "message/sipfrag;version=2.0"
_STATUS_LINE = re.compile(rb"^SIP/2\.0 (\d{3})(?: ([^\r\n]*))?", re.IGNORECASE)


class Progress(NamedTuple):
    """One NOTIFY of a REFER's subscription."""

    status: int
    """Of the referred call, from the sipfrag; 0 where the body has no status line."""
    phrase: str
    subscription_state: str
    """``active;expires=60``, ``terminated;reason=noresource``."""
    request: Request

    @property
    def terminated(self) -> bool:
        return self.subscription_state.split(";")[0].strip().lower() == "terminated"


class Referral:
    """A REFER that we sent: its response, then what its NOTIFYs say of the referred call."""

    def __init__(self, cseq: int, accepted: "asyncio.Future[Response]") -> None:
        self.cseq = cseq
        """CSeq of the REFER, the ``id`` of its subscription."""
        self.progress: list[Progress] = []
        self.on_progress: Callable[[Progress], None] | None = None
        self._accepted = accepted
        self._changed = asyncio.Event()

    async def response(self) -> Response:
        """The final response to the REFER itself; one of 408 made locally where none came."""
        return await asyncio.shield(self._accepted)

    @property
    def response_status(self) -> int | None:
        """Status of that response: 202 means accepted, not done. None while there is none."""
        return self._accepted.result().code if self._accepted.done() and not self._accepted.cancelled() else None

    @property
    def target_status(self) -> int | None:
        """Final status of the referred call, once a NOTIFY told it."""
        return next((step.status for step in self.progress if step.status >= 200), None)

    async def wait_done(self, timeout_s: float) -> int:
        """Final status of the referred call, or the REFER's own where it was refused. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            response = await self.response()
            if response.code >= 300:
                return response.code
            while self.target_status is None:
                self._changed.clear()
                await self._changed.wait()
        return self.target_status

    def notified(self, request: Request) -> bool:
        """Take in a NOTIFY if it is of this referral's subscription."""
        event = request.headers.get("Event") or ""
        identity = sip_message.parameters(event).get("id")
        if event.split(";")[0].strip().lower() != "refer" or identity not in (None, str(self.cseq)):
            return False
        match = _STATUS_LINE.match(request.body.lstrip())
        status, phrase = (int(match.group(1)), (match.group(2) or b"").decode(errors="replace")) if match else (0, "")
        step = Progress(status, phrase, request.headers.get("Subscription-State") or "", request)
        self.progress.append(step)
        self._changed.set()
        if self.on_progress is not None:
            self.on_progress(step)
        return True


def sipfrag(status: int, reason: str | None = None) -> bytes:
    """The body of a NOTIFY that tells ``status``."""
    return f"SIP/2.0 {status} {reason or sip_message.REASONS.get(status, 'Unknown')}\r\n".encode()


def notify_headers(refer: Request, *, terminated: bool) -> list[tuple[str, str]]:
    """Event and Subscription-State of a NOTIFY for that REFER."""
    state = "terminated;reason=noresource" if terminated else "active;expires=60"
    return [("Event", f"refer;id={sip_message.cseq(refer).number}"), ("Subscription-State", state)]
