"""The channel variables that FreeSWITCH's Sofia endpoint makes of a SIP leg."""

from sipmessage import Request, Response

from lab import message as sip_message
from lab import sdp
from lab.codec import CODECS, G722, RTP_CLOCK
from lab.switch.channel import Channel

_COPIED_PREFIXES = ("x-", "p-", "on", "k-")
_COPIED = ("user-to-user",)
_NOT_COPIED = ("p-asserted-identity", "p-preferred-identity")
"""Kept in variables of their own, without sip_h_."""


def of_invite(channel: Channel, invite: Request, *, source: tuple[str, int], profile_address: tuple[str, int]) -> None:
    """Variables of a call that came in: who, from where, to whom, the caller's own headers, the offer."""
    put = channel.set
    headers = invite.headers
    caller = sip_message.name_addr(headers["From"])
    put("direction", "inbound")
    put("uuid", channel.uuid)
    put("session_id", channel.session_id)
    _uri(channel, "sip_from", caller.uri)
    put("video_media_flow", "disabled")
    put("text_media_flow", "disabled")
    put("channel_name", channel.name)
    put("sip_call_id", sip_message.call_id(invite))
    put("sip_local_network_addr", profile_address[0])
    put("sip_network_ip", source[0])
    put("sip_network_port", source[1])
    put("sip_invite_stamp", channel.profile.times.created)
    put("sip_received_ip", source[0])
    put("sip_received_port", source[1])
    put("sip_via_protocol", "udp")
    user = (sip_message.sip_uri(caller.uri) or sip_message.SipUri("", "", None)).user
    put("sip_from_user_stripped", user.removeprefix("+"))
    put("sip_from_tag", caller.tag)
    of_profile(channel, profile_address)
    put("sip_full_via", ",".join(sip_message.values(invite, "Via")))
    record_route = sip_message.values(invite, "Record-Route")
    put("sip_invite_record_route", ",".join(record_route))
    put("sip_from_display", caller.display)
    put("sip_full_from", headers["From"])
    put("sip_full_to", headers["To"])
    put("sip_allow", headers.get("Allow"))
    _uri(channel, "sip_req", str(invite.uri))
    _uri(channel, "sip_to", sip_message.name_addr(headers["To"]).uri)
    contact = headers.get("Contact")
    if contact:
        _uri(channel, "sip_contact", sip_message.name_addr(contact).uri)
    put("sip_user_agent", headers.get("User-Agent"))
    via = sip_message.top_via(invite)
    put("sip_via_host", via.host)
    put("sip_via_port", via.port)
    put("max_forwards", headers.get("Max-Forwards"))
    for name in ("P-Asserted-Identity", "P-Preferred-Identity"):
        put(f"sip_{name}", headers.get(name))
    for name in headers.keys():  # noqa: SIM118 - not a mapping
        if _is_copied(name):
            for value in headers.getlist(name):
                put(f"sip_h_{name}", value)
    put("switch_r_sdp", invite.body.decode("utf-8", "replace"))


def _is_copied(name: str) -> bool:
    lower = name.lower()
    return lower not in _NOT_COPIED and (lower.startswith(_COPIED_PREFIXES) or lower in _COPIED)


def of_profile(channel: Channel, address: tuple[str, int]) -> None:
    """The Sofia profile that the leg belongs to."""
    channel.set("sofia_profile_name", "tandem")
    channel.set("sofia_profile_url", f"sip:mod_sofia@{address[0]}:{address[1]}")
    channel.set("recovery_profile_name", "tandem")


def of_response(channel: Channel, response: Response, invite: Request, local_tag: str) -> None:
    """Variables of a call that we placed, from the response that made its dialog."""
    put = channel.set
    put("sip_full_via", invite.headers["Via"])
    put("sip_full_from", invite.headers["From"])
    put("sip_full_to", response.headers["To"])
    _uri(channel, "sip_from", sip_message.name_addr(invite.headers["From"]).uri)
    _uri(channel, "sip_to", sip_message.name_addr(response.headers["To"]).uri)
    contact = response.headers.get("Contact")
    if contact:
        _uri(channel, "sip_contact", sip_message.name_addr(contact).uri)
    put("sip_to_tag", sip_message.to_tag(response))
    put("sip_from_tag", local_tag)
    put("sip_cseq", sip_message.cseq(response).number)
    put("sip_call_id", sip_message.call_id(response))


def of_refusal(channel: Channel, response: Response) -> None:
    """Variables of a call that we placed, from the final response that refused it."""
    channel.set("sip_invite_failure_phrase", response.phrase)
    for name in response.headers.keys():  # noqa: SIM118 - not a mapping
        if name.lower().startswith(("x-", "p-")):
            channel.set(f"sip_rh_{name}", response.headers[name])


def of_ack(channel: Channel, ack: Request | None, local_tag: str) -> None:
    """Variables that are set anew when the caller's ACK comes."""
    put = channel.set
    put("endpoint_disposition", "ANSWER")
    put("sip_to_tag", local_tag)
    for name in ("sip_from_tag", "sip_call_id"):
        put(name, channel.variables.get(name))
    if ack is not None:
        put("sip_cseq", sip_message.cseq(ack).number)
        put("sip_full_via", ",".join(sip_message.values(ack, "Via")))
        put("sip_full_from", ack.headers["From"])
        put("sip_full_to", ack.headers["To"])


def of_offer(channel: Channel, remote: sdp.Session) -> None:
    """What an offer has, before anything is chosen."""
    channel.set("ep_codec_string", _codec_string(remote))
    channel.set("audio_media_flow", "disabled")


def _codec_string(remote: sdp.Session) -> str:
    names = [entry.name.upper() for entry in remote.formats if entry.name.upper() in CODECS]
    modules = {G722.name: "mod_spandsp"}
    return ",".join(f"{modules.get(name, 'CORE_PCM_MODULE')}.{name}@8000h@20i@64000b" for name in names)


def of_remote_sdp(channel: Channel, remote: sdp.Session) -> None:
    """What was negotiated; ``channel.codec`` is set already."""
    put = channel.set
    payload_type = next(entry.payload_type for entry in remote.formats if entry.name.upper() == channel.codec)
    put("ep_codec_string", _codec_string(remote))
    put("rtp_use_codec_string", ",".join(CODECS))
    put("remote_video_media_flow", "inactive")
    put("remote_text_media_flow", "inactive")
    put("remote_audio_media_flow", remote.direction)
    put("audio_media_flow", remote.direction)
    put("remote_media_ip", remote.address)
    put("remote_media_port", remote.port)
    put("rtp_audio_recv_pt", payload_type)
    put("rtp_use_codec_name", channel.codec)
    put("rtp_use_codec_rate", RTP_CLOCK)
    put("rtp_use_codec_ptime", 20)
    put("rtp_use_codec_channels", 1)
    put("rtp_last_audio_codec_string", f"{channel.codec}@8000h@20i@1c")
    for way in ("read", "write"):
        put(f"{way}_codec", channel.codec)
        if way == "read":
            put("original_read_codec", channel.codec)
        put(f"{way}_rate", channel.rate)
        if way == "read":
            put("original_read_rate", channel.rate)
    put("dtmf_type", "rfc2833" if remote.telephone_event is not None else "info")


def of_local_sdp(channel: Channel, local: sdp.Session, remote: sdp.Session | None) -> None:
    """Our side of the media."""
    put = channel.set
    put("rtp_local_sdp_str", local.encode().decode())
    put("local_media_ip", local.address)
    put("local_media_port", local.port)
    put("advertised_media_ip", local.address)
    put("rtp_use_timer_name", "soft")
    put("rtp_use_pt", local.formats[0].payload_type)
    if remote is not None and remote.telephone_event is not None:
        put("rtp_2833_send_payload", remote.telephone_event)
        put("rtp_2833_recv_payload", remote.telephone_event)


def _uri(channel: Channel, prefix: str, text: str) -> None:
    parts = sip_message.sip_uri(text)
    if parts is None:
        channel.set(f"{prefix}_uri", text)
        return
    channel.set(f"{prefix}_user", parts.user)
    channel.set(f"{prefix}_port", parts.port)
    host = parts.host + (f":{parts.port}" if parts.port else "")
    channel.set(f"{prefix}_uri", f"{parts.user}@{host}" if parts.user else host)
    channel.set(f"{prefix}_host", parts.host)
