"""Which switches this machine has: the lab's own always, FreeSWITCH where it is installed with a streaming mod_audio_fork."""

import os
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

DEFAULT_PREFIX = Path("/usr/local/freeswitch")
_STREAMING = b"bidirectionalAudio_stream"
"""In the usage text of the module's streaming build, absent from the other."""


class SwitchKind(StrEnum):
    LAB = "lab"
    FREESWITCH = "freeswitch"


@dataclass(frozen=True)
class FreeSwitchInstall:
    """Where FreeSWITCH lies: its program, its modules, and the prefix that holds both."""

    prefix: Path
    program: Path
    modules: Path


class NoFreeSwitch(LookupError):
    """There is no usable FreeSWITCH; the message says why."""


def find_freeswitch() -> FreeSwitchInstall:
    """FreeSWITCH under ``FREESWITCH_PREFIX``, /usr/local/freeswitch, or where ``freeswitch`` on PATH belongs.

    Raises NoFreeSwitch where there is none, or its mod_audio_fork is missing or cannot stream.
    """
    named = os.environ.get("FREESWITCH_PREFIX")
    on_path = shutil.which("freeswitch")
    if named:
        prefix = Path(named)
    elif (DEFAULT_PREFIX / "bin/freeswitch").exists() or not on_path:
        prefix = DEFAULT_PREFIX
    else:
        prefix = Path(on_path).resolve().parent.parent
    program = prefix / "bin/freeswitch"
    if not program.exists():
        raise NoFreeSwitch(f"no FreeSWITCH at {program} (FREESWITCH_PREFIX names another place)")
    candidates = [prefix / "mod", prefix / "lib/freeswitch/mod", *prefix.glob("lib/*/freeswitch/mod")]
    for modules in candidates:
        module = modules / "mod_audio_fork.so"
        if module.exists():
            if _STREAMING not in module.read_bytes():
                raise NoFreeSwitch(f"{module} is not the streaming build of mod_audio_fork")
            return FreeSwitchInstall(prefix, program, modules)
    raise NoFreeSwitch(f"FreeSWITCH at {prefix} has no mod_audio_fork")


def available() -> dict[SwitchKind, str]:
    """Each kind of switch, with the reason why it cannot be used, or an empty string."""
    try:
        find_freeswitch()
        reason = ""
    except NoFreeSwitch as error:
        reason = str(error)
    return {SwitchKind.LAB: "", SwitchKind.FREESWITCH: reason}
