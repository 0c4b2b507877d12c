"""The called side of an INVITE dialog (RFC 3261 section 13.3)."""

import asyncio
from typing import Literal

from sipmessage import Request, Response

from lab import message as sip_message
from lab.dialog import Dialog, DialogState, End, UserAgent
from lab.transaction import HeaderList, ServerTransaction


class Uas(Dialog):
    """A call that came in, 100 Trying already sent. Handed to Endpoint.on_invite."""

    role: Literal["uac", "uas"] = "uas"

    def __init__(self, agent: UserAgent, server: ServerTransaction, *, contact: str) -> None:
        invite, source = server.request, server.source
        super().__init__(
            agent, invite, contact=contact, peer=source, local=invite.headers["To"], remote=invite.headers["From"]
        )
        self.local_tag = server.tag
        self.remote_tag = sip_message.from_tag(invite)
        self.remote_target = f"sip:{source[0]}:{source[1]}"
        self._refresh_target(invite)
        self.route_set = sip_message.values(invite, "Record-Route")
        self.remote_cseq = sip_message.cseq(invite).number
        self.transaction = server
        """Of the initial INVITE."""
        self._bye_headers: HeaderList | None = None
        server.on_unacknowledged = self._never_acknowledged

    def respond(
        self,
        status: int,
        reason: str | None = None,
        *,
        headers: HeaderList = (),
        body: bytes = b"",
        content_type: str = "application/sdp",
    ) -> None:
        """180, 183, 200, 302, 486 … to the initial INVITE. Does nothing once a final response was sent.

        A 2xx is retransmitted until its ACK; without one in 64*T1 the dialog ends with BYE, cause "no_ack".
        """
        if self.transaction.settled:
            return
        self.transaction.respond(status, reason, headers=headers, body=body, content_type=content_type)
        if 100 < status < 200:
            self.state = DialogState.EARLY
        elif 200 <= status < 300:
            self.state, self.final_status = DialogState.CONFIRMED, status
        elif status >= 300:
            self.final_status = status
            self._finish(End("us", "refused", status, sip_message.reason_in(headers)))
        self._notify()

    def ignore(self) -> None:
        """Never answer the INVITE (100 Trying was sent): a worker that hangs."""
        self.transaction.ignore()

    def hang_up(self, *, status: int = 480, headers: HeaderList = ()) -> None:
        if self.state is DialogState.CONFIRMED:
            self.bye(headers=headers)
        else:
            self.respond(status, headers=headers)

    def cancelled(self, request: Request) -> None:
        """A CANCEL for the initial INVITE came (its 200 is sent): 487 and the end, unless it is answered already."""
        self._abandoned(End("peer", "cancel", 487, request.headers.get("Reason")))

    def _bye_received(self, request: Request) -> None:
        self._abandoned(End("peer", "bye", 487, request.headers.get("Reason")))
        super()._bye_received(request)

    def _abandoned(self, end: End) -> None:
        if not self.transaction.settled:
            self.transaction.respond(487)
            self.final_status = 487
            self._finish(end)

    def acknowledged_by(self, request: Request) -> None:
        super().acknowledged_by(request)
        if self.acknowledged or sip_message.cseq(request).number != sip_message.cseq(self.invite).number:
            return
        self.transaction.acknowledge()
        self.acknowledged = True
        if self._bye_headers is not None:
            super()._send_bye(self._bye_headers)
        elif self.on_confirmed is not None and self.end is None:
            self.on_confirmed()
        self._notify()

    def _send_bye(self, headers: HeaderList) -> "asyncio.Future[Response] | None":
        if self.acknowledged:
            return super()._send_bye(headers)
        self._bye_headers = headers
        return None

    def _never_acknowledged(self) -> None:
        if self.final_status is None or self.final_status >= 300:
            return
        super()._send_bye(self._bye_headers or ())
        self._finish(End("us", "no_ack", self.final_status))
