"""``tandem do-not-call``: who must not be called."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from tandem.command import CONFIG, ConfigOption, fail, group, load

if TYPE_CHECKING:
    from tandem.do_not_call import DoNotCall
    from tandem.settings import Settings

app = group("Numbers that must not be called.")

NumberArgument = Annotated[str, typer.Argument(help="A number, as people write it.")]
TenantOption = Annotated[str, typer.Option(help="Whose calls are meant; default: everybody's.")]


@app.command()
def add(
    number: NumberArgument,
    reason: Annotated[str, typer.Option(help="Why, for those who look it up.")] = "",
    tenant: TenantOption = "",
    config: ConfigOption = CONFIG,
) -> None:
    """Put a number on the list; from now on it is not called."""
    settings = load(config)
    with _list(settings) as listed:
        entry = listed.add(_e164(settings, number), tenant, reason)
    typer.echo(f"{entry.number}: not called any more")


@app.command()
def remove(number: NumberArgument, tenant: TenantOption = "", config: ConfigOption = CONFIG) -> None:
    """Take a number from the list."""
    settings = load(config)
    e164 = _e164(settings, number)
    with _list(settings) as listed:
        if not listed.remove(e164, tenant):
            fail(f"{e164} is not on the list{f' for tenant {tenant!r}' if tenant else ''}")
    typer.echo(f"{e164}: may be called again")


@app.command("list")
def show(
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many, newest first.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    config: ConfigOption = CONFIG,
) -> None:
    """The list, newest first."""
    with _list(load(config)) as listed:
        for entry in listed.listed(limit):
            typer.echo(
                entry.model_dump_json() if as_json else f"{entry.number}  {entry.tenant or 'everybody'}  {entry.reason}"
            )


@contextmanager
def _list(settings: "Settings") -> "Iterator[DoNotCall]":
    from sqlalchemy.exc import SQLAlchemyError

    from tandem import database
    from tandem.do_not_call import DoNotCall, DoNotCallError

    try:
        database.upgrade(database.connect(settings.records.url))
        with DoNotCall(settings.records.url) as listed:
            yield listed
    except (DoNotCallError, SQLAlchemyError, OSError) as error:
        fail(f"the list cannot be used: {database.cause(error)}")


def _e164(settings: "Settings", number: str) -> str:
    from tandem import callee

    try:
        found = callee.read(settings, number).number
    except ValueError:
        found = None
    if found is None:
        fail(f"{number!r} is no number that could be called; expected e.g. +12025550147")
    return found
