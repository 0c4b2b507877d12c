"""The calling side of an INVITE dialog (RFC 3261 section 13.2)."""

from collections.abc import Callable
from typing import Literal

from sipmessage import Request, Response

from lab import message as sip_message
from lab.dialog import Dialog, DialogEnded, DialogState, End, UserAgent
from lab.transaction import Address, ClientTransaction, HeaderList


class Uac(Dialog):
    """A call that we place. Made by Endpoint.invite()."""

    role: Literal["uac", "uas"] = "uac"

    def __init__(self, agent: UserAgent, invite: Request, *, contact: str, peer: Address) -> None:
        super().__init__(
            agent, invite, contact=contact, peer=peer, local=invite.headers["From"], remote=invite.headers["To"]
        )
        self.local_tag = sip_message.from_tag(invite)
        self.remote_target = str(invite.uri)
        self.local_cseq = sip_message.cseq(invite).number
        self.provisionals: list[Response] = []
        """1xx as they came, 100 included."""
        self.final: Response | None = None
        """Final response to the initial INVITE; one of 408 made locally when none came in 64*T1."""
        self.on_provisional: Callable[[Response], None] | None = None
        self._client: ClientTransaction | None = None
        self._cancel_headers: HeaderList | None = None
        self._cancel_sent = False

    def call(self) -> None:
        """Send the initial INVITE."""
        self._client = self._agent.start_client(
            self.invite, self._peer, on_response=self._receive, on_timeout=self._timed_out
        )

    async def wait_final(self, timeout_s: float) -> Response:
        """The final response; one of 408 made locally when none came in 64*T1. Raises TimeoutError, DialogEnded."""
        await self._until(lambda: self.final is not None or self.end is not None, timeout_s, "a final response")
        if self.final is None:
            assert self.end is not None
            raise DialogEnded(self.end)
        return self.final

    async def wait_provisional(self, timeout_s: float, status: int = 101) -> Response:
        """The first 1xx of at least ``status``, or the 2xx that came without one. Raises TimeoutError, DialogEnded."""

        def found() -> Response | None:
            ringing = (response for response in self.provisionals if response.code >= status)
            return next(ringing, self.final if self.acknowledged else None)

        await self._until(lambda: found() is not None or self.end is not None, timeout_s, "a provisional response")
        response = found()
        if response is None:
            assert self.end is not None
            raise DialogEnded(self.end)
        return response

    def cancel(self, *, headers: HeaderList = ()) -> None:
        """CANCEL the INVITE once a provisional has come. A 2xx that crosses it is ACKed and BYEd.

        The dialog ends with the 487, or 64*T1 after the CANCEL.
        """
        if self._cancel_headers is None and self.final is None and self.end is None:
            self._cancel_headers = headers
            self._send_cancel()

    def hang_up(self, *, status: int = 480, headers: HeaderList = ()) -> None:
        if self.state is DialogState.CONFIRMED:
            self.bye(headers=headers)
        else:
            self.cancel(headers=headers)

    def _send_cancel(self) -> None:
        client = self._client
        if client is None or client.provisional is None or self._cancel_headers is None or self._cancel_sent:
            return
        self._cancel_sent = True
        cancel = self._agent.new_request("CANCEL", str(self.invite.uri))
        cancel.headers.set("Via", self.invite.headers["Via"])
        for name in ("Route", "From", "To", "Call-ID"):
            sip_message.copy_header(self.invite, cancel, name)
        cancel.headers.set("CSeq", f"{sip_message.cseq(self.invite).number} CANCEL")
        for name, value in self._cancel_headers:
            cancel.headers.add(name, value)
        self._agent.start_client(cancel, self._peer, on_response=lambda response: None, on_timeout=lambda: None)
        client.expire_in(self._agent.timers.timeout)

    def _timed_out(self) -> None:
        if self._cancel_headers is not None:
            self._finish(End("us", "cancel", None, sip_message.reason_in(self._cancel_headers)))
            return
        self.final = sip_message.response_to(self.invite, self._peer, 408)
        self.final_status = 408
        self._finish(End("us", "timeout", 408))

    def _receive(self, response: Response) -> None:
        if response.code < 200:
            self._provisional(response)
        elif response.code >= 300:
            self._refused(response)
        elif self.final is None:
            self._answered(response)
        elif sip_message.to_tag(response) == self.remote_tag:
            self.success_repeated(response)
        else:
            self._answered_elsewhere(response)

    def _provisional(self, response: Response) -> None:
        self.provisionals.append(response)
        if response.code > 100:
            self.state = DialogState.EARLY
            self._learn(response)
        self._send_cancel()
        if self.on_provisional is not None:
            self.on_provisional(response)
        self._notify()

    def _refused(self, response: Response) -> None:
        self.final, self.final_status = response, response.code
        reason = response.headers.get("Reason")
        if response.code == 487 and self._cancel_headers is not None:
            self._finish(End("us", "cancel", 487, reason or sip_message.reason_in(self._cancel_headers)))
        else:
            self._finish(End("peer", "refused", response.code, reason))

    def _answered(self, response: Response) -> None:
        self.final, self.final_status = response, response.code
        self._learn(response)
        answers = self.ack_body if not self.invite.body else None
        self._acknowledge(response, answers(response) if answers is not None else b"")
        self.acknowledged = True
        if self.end is None:
            self.state = DialogState.CONFIRMED
        if self._cancel_headers is not None:
            self.bye(headers=self._cancel_headers)
        elif self.end is not None:
            self._send_bye(())
        elif self.on_confirmed is not None:
            self.on_confirmed()
        self._notify()

    def _answered_elsewhere(self, response: Response) -> None:
        """A second UAS answered the same INVITE: ACK and BYE it, in a dialog of its own."""
        number = sip_message.cseq(response).number
        if (sip_message.to_tag(response), number) in self._acks:
            self.success_repeated(response)
            return
        fork = Uac(self._agent, self.invite, contact=self.contact, peer=self._peer)
        fork._learn(response)
        fork._acknowledge(response, b"")
        self._acks |= fork._acks
        fork._send_bye([("Reason", 'SIP;cause=200;text="Call completed elsewhere"')])

    def _learn(self, response: Response) -> None:
        """Tag, target and route set from a response that makes the dialog (RFC 3261 section 12.1.2)."""
        self.remote_tag = sip_message.to_tag(response) or self.remote_tag
        self._refresh_target(response)
        self.route_set = sip_message.values(response, "Record-Route")[::-1]
