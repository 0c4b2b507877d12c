"""What the commands of ``tandem`` share: their options, the configuration they load, and how they fail."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from tandem.settings import Settings

ConfigOption = Annotated[
    Path, typer.Option("--config", envvar="TANDEM_CONFIG", help="The configuration, tandem.yaml.", show_default=True)
]
DatabaseOption = Annotated[
    str | None, typer.Option("--database", help="SQLAlchemy URL to read, instead of records.url of the configuration.")
]
CONFIG = Path("config/tandem.yaml")


def group(help: str) -> typer.Typer:
    return typer.Typer(
        help=help, add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, rich_markup_mode=None
    )


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 1."""
    typer.echo(f"tandem: {message}", err=True)
    raise typer.Exit(1)


def load(config: Path) -> "Settings":
    """The settings; problems are printed one a line, exit code 1."""
    from tandem import settings

    try:
        return settings.load(config)
    except settings.ConfigurationError as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        raise typer.Exit(1) from None


def records_url(config: Path, database: str | None) -> str:
    return database if database is not None else load(config).records.url


@contextmanager
def readable_records() -> Iterator[None]:
    from tandem.records import RecordsError

    try:
        yield
    except RecordsError as error:
        fail(str(error))


def seconds(ago: str, option: str) -> float:
    """``30m``, ``12h``, ``7d``; what is none fails with ``option`` named."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if ago[:-1].isdecimal() and ago[-1:] in units:
        return int(ago[:-1]) * units[ago[-1]]
    fail(f"{option} {ago!r} cannot be used; expected a number and s, m, h or d, e.g. 12h")
