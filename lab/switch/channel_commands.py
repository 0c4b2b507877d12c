"""API commands about one channel: ``uuid_…`` and ``originate``, by FreeSWITCH's names and with its replies."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from lab.switch import cause as causes
from lab.switch.applications import digit_duration_ms, sendable
from lab.switch.channel import ChannelState, PrivateEvent
from lab.switch.displace import uuid_displace
from lab.switch.event import Event
from lab.switch.fork_command import uuid_audio_fork
from lab.switch.originate import DEFAULT_TIMEOUT_S, OriginateFailed, originate
from lab.switch.refer import deflect
from lab.switch.session_record import uuid_record
from lab.switch.text import decode, separate, to_int

if TYPE_CHECKING:
    from lab.switch.core import Switch
    from lab.switch.session import Session

Handler = Callable[["Switch", str], Awaitable[str]]
"""The switch and what follows the command's name; returns the reply."""

NO_CHANNEL = "-ERR No such channel!\n"
TRANSFER_USAGE = "-USAGE: <uuid> [-bleg|-both] <dest-exten> [<dialplan>] [<context>]\n"
ORIGINATE_USAGE = (
    "-USAGE: <call url> <exten>|&<application_name>(<app_args>) [<dialplan>] [<context>] [<cid_name>] [<cid_num>]"
    " [<timeout_sec>]\n"
)


async def _kill(switch: "Switch", argument: str) -> str:
    identity, _, cause = argument.strip().partition(" ")
    if not identity:
        return "-USAGE: <uuid> [cause]\n"
    session = switch.locate(identity)
    if session is None:
        return NO_CHANNEL
    session.channel.hangup(causes.parse(cause))
    return "+OK\n"


async def _break(switch: "Switch", argument: str) -> str:
    words = argument.split()
    if not words:
        return "-USAGE: <uuid> [all]\n"
    session = switch.locate(words[0])
    if session is None:
        return NO_CHANNEL
    everything = words[-1] in ("all", "both")
    session.channel.break_(flush=everything)
    if words[-1] == "both" and session.bridge_peer is not None:
        session.bridge_peer.channel.break_(flush=True)
    return "+OK\n"


async def _setvar(switch: "Switch", argument: str) -> str:
    words = separate(argument, 3)
    if len(words) not in (2, 3):
        return "-USAGE: <uuid> <var> [value]\n"
    session = switch.locate(words[0])
    if session is None:
        return NO_CHANNEL
    session.channel.set(words[1], words[2] if len(words) == 3 else None)
    return "+OK\n"


async def _setvar_multi(switch: "Switch", argument: str) -> str:
    identity, _, pairs = argument.partition(" ")
    usage = "-USAGE: <uuid> <var>=<value>;<var>=<value>...\n"
    if not identity or not pairs:
        return usage
    session = switch.locate(identity)
    if session is None:
        return NO_CHANNEL + usage
    for pair in separate(pairs, 64, ";"):
        name, _, value = pair.partition("=")
        if not name:
            return "-ERR No variable specified\n"
        session.channel.set(name, value)
    return "+OK\n"


async def _getvar(switch: "Switch", argument: str) -> str:
    words = separate(argument, 2)
    if len(words) < 2:
        return "-USAGE: <uuid> <var>\n"
    session = switch.locate(words[0])
    if session is None:
        return NO_CHANNEL
    return session.channel.get(words[1]) or "_undef_"


async def _dump(switch: "Switch", argument: str) -> str:
    identity, _, form = argument.strip().partition(" ")
    if not identity:
        return "-USAGE: <uuid> [format]\n"
    session = switch.locate(identity)
    if session is None:
        return NO_CHANNEL
    event = Event("CHANNEL_DATA", headers=session.channel.headers(variables=True))
    switch.bus.stamp(event)
    return decode(event.serialize_json() if form == "json" else event.serialize())


async def _exists(switch: "Switch", argument: str) -> str:
    return "true" if switch.locate(argument.strip()) is not None else "false"


async def _send_dtmf(switch: "Switch", argument: str) -> str:
    identity, _, digits = argument.strip().partition(" ")
    if not identity or not digits:
        return "-USAGE: <uuid> <dtmf_data>\n"
    session = switch.locate(identity)
    if session is None:
        return "-ERR Cannot locate session!\n"
    if not sendable(digits):
        return "-ERR Operation failed\n"
    switch.send_digits(session, sendable(digits), digit_duration_ms(digits))
    return f"+OK {identity} sent DTMF {digits}.\n"


async def _broadcast(switch: "Switch", argument: str) -> str:
    """``uuid_broadcast UUID PATH|APP::ARG [aleg|bleg|both]``."""
    words = separate(argument, 3)
    if len(words) < 2:
        return "-USAGE: <uuid> <path> [aleg|bleg|holdb|both]\n"
    session = switch.locate(words[0])
    if session is None:
        return "-ERR invalid uuid\n"
    application, colons, data = words[1].partition("::")
    if not colons:
        application, data = "playback", words[1]
    whom = words[2] if len(words) > 2 else "aleg"
    targets: list[Session | None] = [session] if whom in ("aleg", "both") else []
    targets += [session.bridge_peer] if whom in ("bleg", "both") else []
    for target in targets:
        if target is not None:
            headers = {"call-command": "execute", "execute-app-name": application.rstrip("!"), "execute-app-arg": data}
            target.channel.queue_private_event(PrivateEvent(headers))
    return "+OK Message sent\n"


# Where channels go


async def _bridge(switch: "Switch", argument: str) -> str:
    words = argument.split()
    if len(words) < 2:
        return "-USAGE: <uuid> <other_uuid>\n"
    first, second = switch.locate(words[0]), switch.locate(words[1])
    if first is None or second is None or not switch.bridges.uuid_bridge(first, second):
        return "-ERR Invalid uuid\n"
    return f"+OK {words[1]}\n"


async def _transfer(switch: "Switch", argument: str) -> str:
    """``uuid_transfer UUID [-bleg|-both] EXTENSION [DIALPLAN] [CONTEXT]``; dialplans XML (the only one) and inline."""
    words = separate(argument, 5)
    if len(words) < 2:
        return TRANSFER_USAGE
    session = switch.locate(words[0])
    if session is None:
        return NO_CHANNEL
    option = words.pop(1).lower() if words[1].lower() in ("-bleg", "-both") else ""
    if len(words) < 2:
        return TRANSFER_USAGE
    targets = {"-bleg": [session.bridge_peer], "-both": [session.bridge_peer, session]}.get(option, [session])
    inline = len(words) > 2 and words[2].lower() == "inline"
    for target in targets:
        if target is not None:
            if not inline:
                target.channel.profile.destination_number = words[1]
            extension = switch.inline_extension(words[1]) if inline else switch.extension(target.channel)
            target.transfer_to(extension)
    return "+OK\n"


async def _park(switch: "Switch", argument: str) -> str:
    session = switch.locate(argument.strip())
    if session is None:
        return NO_CHANNEL
    session.channel.transfer = True
    session.channel.state = ChannelState.PARK
    session.channel.wake.set()
    return "+OK\n"


async def _deflect(switch: "Switch", argument: str) -> str:
    identity, _, target = argument.strip().partition(" ")
    if not target:
        return "-USAGE: <uuid> <uri>\n"
    session = switch.locate(identity)
    if session is None:
        return f"-ERR No such channel {identity}!\n"
    outcome = await deflect(session, target)
    return f"+OK:{outcome or ''}\n"


async def _originate(switch: "Switch", argument: str) -> str:
    words: list[str | None] = [None if word.lower() == "undef" else word for word in separate(argument, 10)]
    if not 2 <= len(words) <= 7 or words[0] is None or words[1] is None:
        return ORIGINATE_USAGE
    words += [None] * (7 - len(words))
    timeout_s = to_int(words[6]) or DEFAULT_TIMEOUT_S
    caller_id = (words[4] or "", words[5] or "")
    try:
        session = await originate(switch, words[0], timeout_s=timeout_s, caller_id=caller_id)
    except OriginateFailed as failed:
        return f"-ERR {failed.cause.name}\n"
    extension = words[1]
    if extension.startswith("&") and len(extension) > 1:
        name, _, data = extension[1:].partition(")")[0].partition("(")
        session.extension.extend([(name, data)])
        session.channel.state = ChannelState.EXECUTE
        session.channel.wake.set()
    elif (words[2] or "").lower() == "inline":
        session.transfer_to(switch.inline_extension(extension))
    else:
        session.channel.profile.destination_number = extension
        session.transfer_to(switch.extension(session.channel))
    return f"+OK {session.channel.uuid}\n"


HANDLERS: dict[str, Handler] = {
    "originate": _originate,
    "uuid_audio_fork": uuid_audio_fork,
    "uuid_break": _break,
    "uuid_bridge": _bridge,
    "uuid_broadcast": _broadcast,
    "uuid_deflect": _deflect,
    "uuid_displace": uuid_displace,
    "uuid_dump": _dump,
    "uuid_exists": _exists,
    "uuid_getvar": _getvar,
    "uuid_kill": _kill,
    "uuid_park": _park,
    "uuid_record": uuid_record,
    "uuid_send_dtmf": _send_dtmf,
    "uuid_setvar": _setvar,
    "uuid_setvar_multi": _setvar_multi,
    "uuid_transfer": _transfer,
}
