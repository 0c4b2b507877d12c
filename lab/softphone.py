"""A softphone on the lab's own machine: the trunk by which it is let in, and how baresip calls by it."""

from typing import Any, Final

from lab.transaction import Address

TRUNK: Final = "softphone"
ADDRESS: Final = "127.0.0.1"


def allow(data: dict[str, Any]) -> None:
    """Let in whoever calls from ADDRESS, without registration. ``data``: tandem.yaml's."""
    data["trunks"][TRUNK] = {"kind": "generic", "sources": [f"{ADDRESS}/32"]}


def baresip(number: str, edge: Address) -> list[str]:
    """The command that calls ``number``; in it, b hangs up and q quits.

    Without ``-n`` baresip takes the machine's address in its network, which the edge does not know.
    """
    account, target = f"<sip:me@{ADDRESS}>;regint=0", f"sip:{number}@{edge[0]}:{edge[1]}"
    return ["baresip", "-n", ADDRESS, "-e", f"/uanew {account}", "-e", f"/dial {target}"]
