"""A channel's SIP leg: FreeSWITCH's Sofia endpoint on top of a dialog and an RTP stream."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from sipmessage import Response

from lab import sdp
from lab.codec import CODECS
from lab.dialog import End
from lab.rtp import RtpStream
from lab.switch import cause as causes
from lab.switch import sip_variables
from lab.switch.cause import Cause
from lab.switch.channel import CallState, Channel
from lab.switch.event import Event
from lab.switch.media import Media
from lab.switch.text import to_int
from lab.transaction import ServerTransaction
from lab.uac import Uac
from lab.uas import Uas

if TYPE_CHECKING:
    from lab.switch.core import Switch

Headers = Sequence[tuple[str, str]]
NotifyHandler = Callable[[ServerTransaction], None]

_log = logging.getLogger(__name__)


class Leg:
    """The SIP and RTP of one channel. ``remote``: the peer's session description, once it is there."""

    def __init__(self, switch: "Switch", channel: Channel) -> None:
        self.switch = switch
        self.channel = channel
        self.dialog: Uas | Uac | None = None
        self.remote: sdp.Session | None = None
        self.media: Media | None = None
        self.respond_with: tuple[int, str, Headers] | None = None
        """Status, phrase and headers of the final response, where an application chose them."""
        self.on_notify: list[NotifyHandler] = []
        self._stream: RtpStream | None = None
        self._version = 1

    # Beginning

    def receive(self, dialog: Uas, source: tuple[str, int]) -> None:
        """Take a call that came in. Its codec is chosen when it is answered, or media is asked for before. Raises sdp.BadSdp."""
        channel = self.channel
        self.dialog = dialog
        address = (self.switch.address, self.switch.sip_port)
        sip_variables.of_invite(channel, dialog.invite, source=source, profile_address=address)
        self.remote = sdp.parse(dialog.invite.body)
        sip_variables.of_offer(channel, self.remote)
        channel.set("endpoint_disposition", "DELAYED NEGOTIATION")
        self._watch(dialog)

    def _watch(self, dialog: Uas | Uac) -> None:
        dialog.on_request = self._on_request
        dialog.on_ended = self._on_ended
        dialog.on_confirmed = self._on_confirmed

    @property
    def _codecs(self) -> tuple[str, ...]:
        """Codecs that are accepted: the profile's, or fewer where the channel says so."""
        wanted = (self.channel.get("absolute_codec_string") or "").upper().split(",")
        return tuple(name for name in wanted if name in CODECS) or tuple(CODECS)

    def _learn(self, remote: sdp.Session) -> None:
        entry = remote.codec(self._codecs)
        assert entry is not None
        self.remote = remote
        self.channel.codec = entry.name.upper()
        sip_variables.of_remote_sdp(self.channel, remote)

    def fire_codecs(self) -> None:
        """The two CODEC events that follow the choice of a codec."""
        self.fire_codec("read", self.channel.codec)
        self.fire_codec("write", self.channel.codec)

    def fire_codec(self, way: Literal["read", "write"], codec: str) -> None:
        """A CODEC event: what frames are read or written as from now on."""
        channel = self.channel
        if way == "read":
            channel.reads = codec
        rates = (
            (f"channel-{way}-codec-rate", channel.rate),
            (f"channel-{way}-codec-bit-rate", channel.bit_rate(codec)),
        )
        channel.fire("CODEC", (f"channel-{way}-codec-name", codec), *rates)

    async def open_stream(self) -> RtpStream:
        """The leg's RTP port."""
        if self._stream is None:
            ports = self.switch.rtp_ports
            self._stream = await RtpStream.open(self.switch.address, ports, pacer=self.switch.pacer, record=False)
        return self._stream

    async def offer(self) -> bytes:
        """Our session description for a call that we place."""
        stream = await self.open_stream()
        local = sdp.offer(
            self.switch.address,
            stream.local[1],
            codecs=self._codecs,
            session_id=self._session_id,
            version=self._version,
        )
        sip_variables.of_local_sdp(self.channel, local, None)
        return local.encode()

    def call(self, uri: str, *, from_uri: str, from_name: str | None, headers: Headers, body: bytes) -> Uac:
        """Send the INVITE. Raises ValueError where ``uri`` leads nowhere."""

        def prepare(dialog: Uac) -> None:
            self.dialog = dialog
            self._watch(dialog)

        return self.switch.endpoint.invite(
            uri,
            from_uri=from_uri,
            from_name=from_name,
            headers=headers,
            body=body,
            contact_user="mod_sofia",
            prepare=prepare,
        )

    @property
    def _session_id(self) -> int:
        return self.channel.profile.times.created // 1_000_000

    # Answering a call that came in

    async def _local_answer(self) -> bytes:
        assert self.remote is not None
        stream = await self.open_stream()
        local = sdp.answer(
            self.remote,
            self.switch.address,
            stream.local[1],
            codecs=self._codecs,
            session_id=self._session_id,
            version=self._version,
        )
        self._version += 1
        sip_variables.of_local_sdp(self.channel, local, self.remote)
        return local.encode()

    def begin_media(self) -> None:
        """Start RTP as negotiated, or change it after a new offer or answer."""
        assert self.remote is not None and self._stream is not None
        entry = self.remote.codec((self.channel.codec,))
        assert entry is not None
        if self.media is None:
            self.media = Media(self.channel, self._stream)
        self.media.sending = self.remote.receives
        limit = "media_timeout" if self.remote.receives else "media_hold_timeout"
        self.media.timeout_ms = to_int(self.channel.get(limit))
        self._stream.start(
            entry.name.upper(),
            entry.payload_type,
            (self.remote.address, self.remote.port),
            telephone_event=self.remote.telephone_event,
            latch=True,
        )

    def ring_ready(self) -> None:
        """180 Ringing."""
        channel = self.channel
        if isinstance(self.dialog, Uas) and not channel.answered and not channel.early_media and not channel.ring_ready:
            channel.ring_ready = True
            self.dialog.respond(180)
            channel.profile.times.progress = channel.now()
            channel.fire("CHANNEL_PROGRESS")

    async def _negotiate(self) -> bytes:
        """Choose the codec, once, and begin with media. Returns our answer; empty where the call is over for it."""
        channel, remote = self.channel, self.remote
        assert remote is not None
        try:
            sdp.answer(remote, self.switch.address, 1, codecs=self._codecs)
        except sdp.NoCommonCodec as error:
            _log.warning("call %s cannot be answered: %s", channel.uuid, error)
            channel.set("endpoint_disposition", "CODEC NEGOTIATION ERROR")
            channel.hangup(Cause.INCOMPATIBLE_DESTINATION)
            return b""
        if not channel.early_media:
            self._learn(remote)
            self.fire_codecs()
        body = await self._local_answer()
        return b"" if channel.down else body

    def _mark_pre_answered(self) -> None:
        """Media is on its way; FreeSWITCH says so of a call that is answered at once as well."""
        channel = self.channel
        if channel.early_media:
            return
        channel.early_media = True
        channel.set("endpoint_disposition", "EARLY MEDIA")
        self.begin_media()
        channel.profile.times.progress_media = channel.now()
        channel.fire("CHANNEL_PROGRESS_MEDIA")
        channel.set_callstate(CallState.EARLY)

    async def pre_answer(self) -> None:
        """183 with our session description; media flows from here on."""
        channel = self.channel
        if not isinstance(self.dialog, Uas) or channel.answered or channel.early_media:
            return
        body = await self._negotiate()
        if body:
            self.dialog.respond(183, body=body)
            self._mark_pre_answered()

    async def answer(self) -> None:
        """200 OK."""
        channel = self.channel
        if not isinstance(self.dialog, Uas) or channel.answered:
            return
        body = await self._negotiate()
        if not body:
            return
        self._mark_pre_answered()
        self.dialog.respond(200, body=body)
        self._mark_answered()
        channel.set("endpoint_disposition", "ANSWER")
        session = self.switch.locate(channel.uuid)
        application, _, argument = (channel.get("execute_on_answer") or "").partition(" ")
        if application and session is not None:
            await session.execute(application, argument)
        channel.set_callstate(CallState.ACTIVE)

    def _mark_answered(self) -> None:
        channel = self.channel
        channel.answered = True
        channel.profile.times.answered = channel.now()
        channel.fire("CHANNEL_ANSWER")

    def early_media_from(self, response: Response) -> None:
        """Our call rings with sound of its own. Raises sdp.BadSdp, sdp.NoCommonCodec."""
        remote = sdp.parse(response.body)
        if remote.codec(self._codecs) is None:
            raise sdp.NoCommonCodec("the provisional answer has no codec of ours")
        self._learn(remote)
        self.fire_codecs()
        self.begin_media()

    def answered_by(self, response: Response) -> None:
        """Our call was answered. Raises sdp.BadSdp, sdp.NoCommonCodec."""
        assert isinstance(self.dialog, Uac)
        sip_variables.of_response(self.channel, response, self.dialog.invite, self.dialog.local_tag)
        self.channel.set("switch_r_sdp", response.body.decode("utf-8", "replace"))
        remote = sdp.parse(response.body)
        if remote.codec(self._codecs) is None:
            raise sdp.NoCommonCodec("the answer has no codec of ours")
        fresh = self.media is None
        self._learn(remote)
        if fresh:
            self.fire_codecs()
        self.begin_media()
        self.channel.acknowledged.set()
        self._mark_answered()
        self.channel.set("endpoint_disposition", "ANSWER")
        self.channel.set_callstate(CallState.ACTIVE)

    # Ending

    def hang_up(self, cause: Cause) -> None:
        """End the dialog as its state asks, with a Reason header. Nothing is sent where it has ended."""
        channel, dialog = self.channel, self.dialog
        if self._stream is not None and self.media is None:
            self._stream.close()
        if dialog is None or dialog.end is not None:
            return
        reason = [("Reason", channel.get("sip_reason") or causes.reason_header(cause))]
        if channel.answered:
            channel.set("sip_hangup_disposition", "send_bye")
            dialog.bye(headers=reason)
        elif isinstance(dialog, Uac):
            channel.set("sip_hangup_disposition", "send_cancel")
            channel.set("sip_invite_failure_status", 487)
            channel.set("sip_invite_failure_phrase", "CANCEL")
            dialog.cancel(headers=reason)
        else:
            channel.set("sip_hangup_disposition", "send_refuse")
            status, phrase, headers = self.respond_with or (self._status_of(cause), "", ())
            dialog.respond(status, phrase or None, headers=[*reason, *headers])

    def _status_of(self, cause: Cause) -> int:
        """The final status for a cause: the one that the leg dialled by ``bridge`` was refused with goes before."""
        kind, _, status = (self.channel.get("last_bridge_proto_specific_hangup_cause") or "").partition(":")
        return to_int(status) if kind == "sip" and to_int(status) >= 400 else causes.sip_status(cause)

    def _on_ended(self, end: End) -> None:
        """The dialog is over. What we ended ourselves is known already, or leaves the channel as it is."""
        channel = self.channel
        if end.by == "us" and end.cause not in ("timeout", "no_ack"):
            return
        if end.cause == "bye":
            self._unhold()
            channel.set("sip_term_status", 200)
            channel.set("proto_specific_hangup_cause", "sip:200")
            channel.set("sip_term_cause", 16)
            channel.hangup(causes.of_sip(200, end.reason_header))
            channel.set("sip_hangup_disposition", "recv_bye")
            return
        status = end.status or 408
        if end.cause == "refused" or end.cause == "cancel":
            channel.set("sip_invite_failure_status", status)
        if end.cause == "refused" and isinstance(self.dialog, Uac) and self.dialog.final is not None:
            sip_variables.of_refusal(channel, self.dialog.final)
        channel.set("sip_term_status", status)
        channel.set("proto_specific_hangup_cause", f"sip:{status}")
        channel.set("sip_hangup_disposition", "recv_cancel" if end.cause == "cancel" else "recv_refuse")
        cause = causes.of_sip(status, end.reason_header)
        channel.set("sip_term_cause", cause.value)
        channel.hangup(cause)

    def _on_confirmed(self) -> None:
        if isinstance(self.dialog, Uas):
            sip_variables.of_ack(self.channel, self.dialog.ack, self.dialog.local_tag)
            self.channel.acknowledged.set()

    # Requests inside the dialog

    async def _on_request(self, transaction: ServerTransaction) -> None:
        match transaction.method:
            case "INVITE":
                await self._on_reinvite(transaction)
            case "NOTIFY":
                transaction.respond(200)
                for handler in tuple(self.on_notify):
                    handler(transaction)
            case "REFER":
                transaction.respond(405)
            case "INFO":
                body = transaction.request.body.decode("utf-8", "replace")
                self.channel.fire("RECV_INFO", body=body)

    async def _on_reinvite(self, transaction: ServerTransaction) -> None:
        request, channel = transaction.request, self.channel
        if not request.body:
            transaction.respond(200, body=await self._local_answer())
            return
        try:
            remote = sdp.parse(request.body)
            sdp.answer(remote, self.switch.address, 1, codecs=self._codecs)
        except (sdp.BadSdp, sdp.NoCommonCodec) as error:
            _log.warning("re-INVITE of %s refused: %s", channel.uuid, error)
            transaction.respond(488)
            return
        held = remote.receives
        self._learn(remote)
        body = await self._local_answer()
        unheld = held and self._unhold()
        if not held and channel.callstate is CallState.ACTIVE:
            channel.set_callstate(CallState.HELD)
            channel.fire("CHANNEL_HOLD")
        self.begin_media()
        transaction.respond(200, body=body)
        channel.bus.fire(Event("CUSTOM", "sofia::reinvite", [("Unique-ID", channel.uuid)]))
        if unheld:
            channel.set_callstate(CallState.ACTIVE)

    def _unhold(self) -> bool:
        """The peer no longer holds the call. False where it did not."""
        if self.channel.callstate is not CallState.HELD:
            return False
        self.channel.set_callstate(CallState.UNHELD)
        self.channel.fire("CHANNEL_UNHOLD")
        return True
