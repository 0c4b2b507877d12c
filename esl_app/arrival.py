"""What the edge said of a call when it arrived: its ``X-Tandem-*`` headers, and what FreeSWITCH knows of its codec."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from esl_app.dialling import is_call_id
from esl_app.media import Refused
from tandem.outcome import RefusalCause
from tandem.rows import CallRecord
from tandem.seam import MAX_ID, Codec, SessionRequest

LADDER = "ladder"
"""Value of X-Tandem-Fallback."""
_HEADER = "variable_sip_h_X-Tandem-"
_NEGOTIATED = ("variable_rtp_use_codec_name", "variable_read_codec", "Channel-Read-Codec-Name")
"""Where FreeSWITCH has the codec of a call, once it is negotiated."""
_TELEPHONE_EVENT = re.compile(r"^a=rtpmap:[0-9]+ telephone-event/", re.MULTILINE | re.IGNORECASE)
_STATIC = {"0": "PCMU", "8": "PCMA", "9": "G722"}
"""What a worker's Sofia profile speaks: FreeSWITCH knows these codecs by their static payload types alone (RFC 3551)."""


@dataclass(frozen=True)
class Arrival:
    call: str
    """Of the edge; for a call without one, the channel's UUID."""
    trunk: str
    tenant: str
    agent: str
    number: str
    caller: str
    verified: str
    is_last: bool
    """No other worker is left to be asked: without a model this one takes the caller to the number's fallbacks."""
    codec: str
    """Its name in SDP: as negotiated, or as it will be."""
    telephone_event: bool
    """Keys come and go as RFC 4733 has them, as far as the caller's offer tells."""
    sip_call_id: str

    def record(self, worker: str, started_at: float) -> CallRecord:
        """Of the call, live, that ``worker`` has since ``started_at`` (Unix seconds)."""
        return CallRecord(
            id=self.call,
            worker=worker,
            trunk=self.trunk,
            tenant=self.tenant,
            caller=self.caller,
            number=self.number,
            agent=self.agent,
            verified=self.verified,
            codec=self.codec,
            sip_call_id=self.sip_call_id,
            started_at=started_at,
        )

    def request(self) -> SessionRequest:
        g711 = (Codec.PCMU, Codec.PCMA)
        return SessionRequest(
            call=self.call,
            agent=self.agent,
            caller=self.caller,
            number=self.number,
            codec=Codec(self.codec) if self.codec in g711 else Codec.L16,
            trunk=self.trunk,
            tenant=self.tenant,
            verified=self.verified,
        )


def read(channel: Mapping[str, str]) -> Arrival:
    """From the reply to ``connect``. Nothing is refused here, so that the call can be put on record; see :func:`check`."""

    def header(name: str) -> str:
        return channel.get(_HEADER + name, "").strip()[:MAX_ID]

    call = header("Call")
    return Arrival(
        call=call if is_call_id(call) else channel["Unique-ID"],
        trunk=header("Trunk"),
        tenant=header("Tenant") or "default",
        agent=header("Agent"),
        number=header("Number"),
        caller=header("Caller"),
        verified=header("Verified"),
        is_last=header("Fallback") == LADDER,
        codec=_codec(channel),
        telephone_event=_TELEPHONE_EVENT.search(channel.get("variable_switch_r_sdp", "")) is not None,
        sip_call_id=channel.get("variable_sip_call_id", ""),
    )


def is_resumed(channel: Mapping[str, str]) -> bool:
    """Whether an esl_app before this one had answered the call (freeswitch/dialplan.xml.j2)."""
    return channel.get("variable_tandem_answered", "") == "true"


def check(arrival: Arrival, channel: Mapping[str, str]) -> None:
    """Raises Refused (bad_call) where the edge's headers are missing: then the call did not come by way of the edge."""
    if channel.get(_HEADER + "Call", "").strip() != arrival.call:
        raise Refused(RefusalCause.BAD_CALL, "no X-Tandem-Call, or not one of the edge's")
    if not arrival.agent or not arrival.number:
        raise Refused(RefusalCause.BAD_CALL, "no X-Tandem-Agent or no X-Tandem-Number")


def _codec(channel: Mapping[str, str]) -> str:
    """The codec that is negotiated, or (with late negotiation) will be; G.711 where there is no offer yet."""
    negotiated = next((channel[key] for key in _NEGOTIATED if channel.get(key)), "")
    return negotiated or next(_offered(channel.get("variable_switch_r_sdp", "")), Codec.PCMU.value)


def _offered(sdp: str) -> Iterator[str]:
    """Names of the codecs in the offer's first audio, in the caller's order, as far as a worker speaks them (RFC 8866)."""
    offer = re.search(r"^m=audio [0-9/]+ \S+ ([0-9 ]+)\s*$", sdp, re.MULTILINE)
    mapped = dict(re.findall(r"^a=rtpmap:([0-9]+) (\S+?)(?:/1)?\s*$", sdp, re.MULTILINE))
    for payload_type in offer[1].split() if offer else ():
        name = _STATIC.get(payload_type)
        if name is not None and mapped.get(payload_type, f"{name}/8000").upper() == f"{name}/8000":
            yield name
