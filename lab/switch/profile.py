"""A channel's caller profile: who calls whom, and when what happened."""

from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["inbound", "outbound"]


@dataclass
class Times:
    """When what happened to the channel: Unix time in microseconds, 0 for never."""

    profile_created: int = 0
    created: int = 0
    answered: int = 0
    progress: int = 0
    progress_media: int = 0
    hungup: int = 0
    transferred: int = 0
    bridged: int = 0


@dataclass
class CallerProfile:
    """Who calls whom. Written into events under a prefix: Caller-, Other-Leg-, Channel-."""

    direction: Direction
    uuid: str
    channel_name: str
    destination_number: str
    caller_id_name: str = ""
    caller_id_number: str = ""
    callee_id_name: str = ""
    callee_id_number: str = ""
    username: str = ""
    dialplan: str = ""
    network_address: str = ""
    ani: str = ""
    source: str = "mod_sofia"
    transfer_source: str = ""
    context: str = ""
    index: int = 1
    original_caller_id_name: str = ""
    original_caller_id_number: str = ""
    times: Times = field(default_factory=Times)

    def headers(self, prefix: str) -> list[tuple[str, str]]:
        times = self.times
        pairs: list[tuple[str, str | int]] = [
            ("Direction", self.direction),
            ("Logical-Direction", self.direction),
            ("Username", self.username),
            ("Dialplan", self.dialplan),
            ("Caller-ID-Name", self.caller_id_name),
            ("Caller-ID-Number", self.caller_id_number),
            ("Orig-Caller-ID-Name", self.original_caller_id_name),
            ("Orig-Caller-ID-Number", self.original_caller_id_number),
            ("Callee-ID-Name", self.callee_id_name),
            ("Callee-ID-Number", self.callee_id_number),
            ("Network-Addr", self.network_address),
            ("ANI", self.ani),
            ("Destination-Number", self.destination_number),
            ("Unique-ID", self.uuid),
            ("Source", self.source),
            ("Transfer-Source", self.transfer_source),
            ("Context", self.context),
            ("Channel-Name", self.channel_name),
            ("Profile-Index", self.index),
            ("Profile-Created-Time", times.profile_created),
            ("Channel-Created-Time", times.created),
            ("Channel-Answered-Time", times.answered),
            ("Channel-Progress-Time", times.progress),
            ("Channel-Progress-Media-Time", times.progress_media),
            ("Channel-Hangup-Time", times.hungup),
            ("Channel-Transfer-Time", times.transferred),
            ("Channel-Resurrect-Time", 0),
            ("Channel-Bridged-Time", times.bridged),
            ("Channel-Last-Hold", 0),
            ("Channel-Hold-Accum", 0),
            ("Screen-Bit", "true"),
            ("Privacy-Hide-Name", "false"),
            ("Privacy-Hide-Number", "false"),
        ]
        return [(f"{prefix}-{name}", str(value)) for name, value in pairs if value != ""]
