"""Kamailio's command line, as docs/edge.md gives it."""

from collections.abc import Sequence
from pathlib import Path


def command(file: Path, run: Path, *options: str, program: Sequence[str] = ("kamailio",)) -> list[str]:
    """In the foreground with the configuration ``file``; ``run``, which is made, has its pid and its sockets."""
    run.mkdir(parents=True, exist_ok=True)
    memory = ("-M", "8", "-x", "tlsf", "-X", "tlsf")
    return [*program, "-f", str(file), "-DD", "-E", *memory, "-P", str(run / "pid"), "-Y", str(run), *options]
