"""Kamailio's command line, as docs/edge.md gives it."""

from collections.abc import Sequence
from pathlib import Path

from tandem.edge import PRIVATE_MEMORY


def command(file: Path, run: Path, *options: str, program: Sequence[str] = ("kamailio",)) -> list[str]:
    """In the foreground with the configuration ``file``; ``run``, which is made, has its pid and its sockets."""
    run.mkdir(parents=True, exist_ok=True)
    memory = (*PRIVATE_MEMORY, "-x", "tlsf", "-X", "tlsf")
    return [*program, "-f", str(file), "-DD", "-E", *memory, "-P", str(run / "pid"), "-Y", str(run), *options]
