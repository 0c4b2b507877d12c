"""API commands about the switch as a whole, by FreeSWITCH's names and with its replies."""

import time
import uuid
from typing import TYPE_CHECKING

import orjson

from lab.switch.audio_fork import MODULE
from lab.switch.channel_commands import Handler
from lab.switch.profile import Direction
from lab.switch.text import decode

if TYPE_CHECKING:
    from lab.switch.core import Switch
    from lab.switch.session import Session

VERSION = "1.10.12-release"
MODULES = frozenset(
    (
        MODULE,
        "mod_commands",
        "mod_dialplan_xml",
        "mod_dptools",
        "mod_event_socket",
        "mod_sndfile",
        "mod_sofia",
        "mod_tone_stream",
    )
)


async def _global_getvar(switch: "Switch", argument: str) -> str:
    if not argument.strip():
        return "".join(f"{name}={value}\n" for name, value in switch.globals.items())
    return switch.globals.get(argument.strip(), "")


async def _status(switch: "Switch", argument: str) -> str:
    seconds = int(switch.bus.clock() - switch.started)
    count = len(switch.sessions)
    return (
        f"UP 0 years, {seconds // 86400} days, {seconds // 3600 % 24} hours, {seconds // 60 % 60} minutes,"
        f" {seconds % 60} seconds, 0 milliseconds, 0 microseconds\n"
        f"FreeSWITCH (Version {VERSION}) is {'not ready' if switch.paused else 'ready'}\n"
        f"{switch.total_sessions} session(s) since startup\n"
        f"{count} session(s) - peak {switch.peak_sessions}, last 5min {switch.peak_sessions} \n"
        f"0 session(s) per Sec out of max {switch.max_sessions}, peak 0, last 5min 0 \n"
        f"{switch.max_sessions} session(s) max\n"
    )


async def _show(switch: "Switch", argument: str) -> str:
    words = argument.split()
    if words[:1] != ["channels"]:
        return "-USAGE: channels [count|as json]\n"
    rows = [_row(session) for session in switch.sessions.values()]
    if words[1:] == ["as", "json"]:
        document = {"row_count": len(rows), **({"rows": rows} if rows else {})}
        return decode(orjson.dumps(document))
    total = f"\n{len(rows)} total.\n"
    if words[1:2] == ["count"]:
        return total
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)] if rows else []
    return "".join(f"{line}\n" for line in lines) + total


def _row(session: "Session") -> dict[str, str]:
    channel, profile = session.channel, session.channel.profile
    created = profile.times.created // 1_000_000
    address = profile.network_address if profile.direction == "inbound" else ""
    return {
        "uuid": channel.uuid,
        "direction": profile.direction,
        "created": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created)),
        "created_epoch": str(created),
        "name": channel.name,
        "state": f"CS_{channel.running_state.name}",
        "cid_name": profile.caller_id_name,
        "cid_num": profile.caller_id_number,
        "ip_addr": address,
        "dest": profile.destination_number,
        "application": channel.get("current_application") or "",
        "application_data": channel.get("current_application_data") or "",
        "dialplan": profile.dialplan,
        "context": profile.context,
        "read_codec": channel.codec,
        "read_rate": str(channel.rate) if channel.codec else "",
        "read_bit_rate": "64000" if channel.codec else "",
        "write_codec": channel.codec,
        "write_rate": str(channel.rate) if channel.codec else "",
        "write_bit_rate": "64000" if channel.codec else "",
        "secure": "",
        "hostname": session.switch.bus.switchname,
        "presence_id": "",
        "presence_data": "",
        "accountcode": "",
        "callstate": channel.callstate.value,
        "callee_name": profile.callee_id_name,
        "callee_num": profile.callee_id_number,
        "callee_direction": "",
        "call_uuid": channel.get("call_uuid") or channel.uuid,
        "sent_callee_name": "",
        "sent_callee_num": "",
        "initial_cid_name": profile.original_caller_id_name,
        "initial_cid_num": profile.original_caller_id_number,
        "initial_ip_addr": address,
        "initial_dest": profile.destination_number,
        "initial_dialplan": profile.dialplan,
        "initial_context": profile.context,
    }


async def _fsctl(switch: "Switch", argument: str) -> str:
    words = argument.split()
    ways: tuple[Direction, ...] = ("inbound", "outbound")
    ways = tuple(way for way in ways if words[1:] in ([], [way]))
    match words[:1]:
        case ["pause"]:
            switch.paused.update(ways)
        case ["resume"]:
            switch.paused.difference_update(ways)
        case ["pause_check"]:
            return "true" if switch.paused.issuperset(ways) else "false"
        case ["ready_check"]:
            return "true"
        case ["shutdown_check"]:
            return "false"
        case _:
            return "-ERR Invalid command\n"
    return "+OK\n"


async def _reloadxml(switch: "Switch", argument: str) -> str:
    return "+OK [Success]\n"


async def _create_uuid(switch: "Switch", argument: str) -> str:
    return str(uuid.uuid4())


async def _module_exists(switch: "Switch", argument: str) -> str:
    return "true" if argument.strip() in MODULES else "false"


async def _version(switch: "Switch", argument: str) -> str:
    return f"{VERSION}\n" if argument.strip() == "short" else f"FreeSWITCH Version {VERSION} (lab)\n"


HANDLERS: dict[str, Handler] = {
    "create_uuid": _create_uuid,
    "fsctl": _fsctl,
    "global_getvar": _global_getvar,
    "module_exists": _module_exists,
    "reloadxml": _reloadxml,
    "show": _show,
    "status": _status,
    "version": _version,
}
