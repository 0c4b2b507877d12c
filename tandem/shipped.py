"""Files that come with the package but are no Python: Kamailio's and FreeSWITCH's templates, and the prompts."""

import sysconfig
from pathlib import Path


def shipped(name: str) -> Path:
    """Where ``kamailio/...`` or ``freeswitch/...`` lies: beside this package in a checkout, else where installation put it,
    in ``share/tandem`` of the environment.
    """
    checkout = Path(__file__).resolve().parents[1]
    installed = Path(sysconfig.get_path("data")) / "share/tandem"
    return (checkout if (checkout / "kamailio").is_dir() else installed) / name
