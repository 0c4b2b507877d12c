"""How our processes begin: ``--config PATH``, of a worker ``--worker NAME`` too, read and checked; exit code 2 where they are wrong."""

import argparse
import logging
import resource
import sys
from pathlib import Path
from typing import NoReturn

from tandem import telemetry
from tandem.settings import ConfigurationError, Settings, load

BAD_CONFIGURATION = 2
"""Exit code, that of a wrong command line too: starting the process again changes nothing."""

_log = logging.getLogger(__name__)


def command_line(program: str, description: str, *, of_worker: bool = True) -> argparse.ArgumentParser:
    """What every process is told, of a worker or not; more options may be added."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--config", type=Path, required=True, metavar="PATH", help="tandem.yaml")
    if of_worker:
        parser.add_argument("--worker", required=True, metavar="NAME", help="a name from workers in the configuration")
    return parser


def begin(component: str, arguments: argparse.Namespace) -> Settings:
    """The configuration that ``command_line`` was given, with logging set up for ``component``.

    Says on stderr what is wrong and exits with BAD_CONFIGURATION: each problem of the configuration on a line of its
    own, a worker that it does not have, or a log level that is none.
    """
    try:
        telemetry.configure(component)
        settings = load(arguments.config)
    except (ConfigurationError, telemetry.UnknownLevelError) as error:
        _refuse(str(error))
    if "worker" in arguments and arguments.worker not in settings.workers:
        known = ", ".join(sorted(settings.workers))
        _refuse(f"no worker named {arguments.worker!r}; expected one of: {known}")
    telemetry.configure(component, settings)
    return settings


def allow_files(needed: int) -> None:
    """Raise this process's limit of open files to ``needed`` at least; where the hard limit forbids it, say so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if possible < needed:
        _log.warning("open files are limited to %d where %d may be needed; raise LimitNOFILE", hard, needed)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))


def _refuse(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    sys.exit(BAD_CONFIGURATION)
