"""What a channel knows of itself when it is over: the variables that CHANNEL_HANGUP_COMPLETE carries."""

import time

from lab.switch.channel import Channel
from lab.switch.media import Media


def report(channel: Channel, media: Media | None) -> None:
    """Set the final variables: cause, time stamps, durations, RTP counts."""
    assert channel.hangup_cause is not None
    channel.set("hangup_cause", channel.hangup_cause.name)
    channel.set("hangup_cause_q850", channel.hangup_cause.value if channel.hangup_cause < 128 else 16)
    channel.set("digits_dialed", "none")
    times = channel.profile.times
    created, answered, hungup = times.created, times.answered, times.hungup
    for name, moment in (
        ("start", created),
        ("profile_start", times.profile_created),
        ("answer", answered),
        ("bridge", times.bridged),
        ("progress", times.progress),
        ("progress_media", times.progress_media),
        ("end", hungup),
    ):
        if moment:
            channel.set(f"{name}_stamp", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment / 1e6)))
        channel.set(f"{name}_epoch", moment // 1_000_000)
        channel.set(f"{name}_uepoch", moment)
    for name in ("last_hold_epoch", "last_hold_uepoch", "resurrect_epoch", "resurrect_uepoch"):
        channel.set(name, 0)
    for unit in ("seconds", "usec", "ms"):
        channel.set(f"hold_accum_{unit}", 0)
    channel.set("last_app", channel.get("current_application"))
    channel.set("last_arg", channel.get("current_application_data"))
    profile = channel.profile
    channel.set("caller_id", f'"{profile.caller_id_name}" <{profile.caller_id_number}>')
    spans = (
        ("duration", created, hungup),
        ("bill", answered, hungup),
        ("progress", created, times.progress),
        ("answer", created, answered),
        ("wait", created, times.bridged),
        ("progress_media", created, times.progress_media),
        ("flow_bill", created, hungup),
    )
    for name, begin, end in spans:
        ran = bool(begin and end)
        # FreeSWITCH counts seconds between whole epoch seconds, not the elapsed time.
        seconds = end // 1_000_000 - begin // 1_000_000 if ran else 0
        milliseconds, microseconds = (end - begin) // 1000 if ran else 0, end - begin if ran else 0
        if name == "duration":
            named = (("duration", seconds), ("mduration", milliseconds), ("uduration", microseconds))
        else:
            named = ((f"{name}sec", seconds), (f"{name}msec", milliseconds), (f"{name}usec", microseconds))
        for variable, value in named:
            channel.set(variable, value)
    if media is not None:
        received, sent = media.counters["frames_in"], media.counters["frames_out"]
        for way, packets in (("in", received), ("out", sent)):
            channel.set(f"rtp_audio_{way}_media_bytes", packets * 172)
            channel.set(f"rtp_audio_{way}_packet_count", packets)
            channel.set(f"rtp_audio_{way}_media_packet_count", packets)
