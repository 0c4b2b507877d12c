"""``tandem``: check, render and reload the configuration, try a call's route, drain workers, look at calls, place one.

Every command imports what it needs when it runs, so that each starts quickly.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tandem import call_command, do_not_call_command
from tandem.command import (
    CONFIG,
    ConfigOption,
    DatabaseOption,
    fail,
    group,
    load,
    readable_records,
    records_url,
    seconds,
)
from tandem.recording_cli import app as recording_app

app = group("A speech-to-speech AI agent on your own SIP trunks.")
call_app = group("Look at one call, have one placed, or try the edge with one.")
db_app = group("The records' database.")
app.add_typer(call_app, name="call")
app.add_typer(db_app, name="db")
app.add_typer(recording_app, name="recording")
app.add_typer(do_not_call_command.app, name="do-not-call")
call_app.command()(call_command.dial)


AtOption = Annotated[
    str | None,
    typer.Option("--at", help="When, e.g. 2026-06-03T08:00-04:00; without an offset on this machine's clock."),
]
_SHOWN = 40
"""Lines of one file's differences."""


@contextmanager
def _lab(command: str) -> Iterator[None]:
    """For what is imported from the lab, which is no part of an installed package."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "lab":
            fail(f"`tandem {command}` needs the lab, which only a checkout of Tandem has; run it there")
        fail(f"`tandem {command}` needs {error.name}; in the checkout, run: make setup")


@app.command()
def check(
    config: ConfigOption = CONFIG,
    config_only: Annotated[bool, typer.Option("--config-only", help="Do not look at what is reachable.")] = False,
) -> None:
    """Check the configuration, then what it names: model, database, edge, workers and their module."""
    settings = load(config)
    if config_only:
        typer.echo(f"{config}: ok")
        return
    from tandem.check import check_all, findings_table, is_failed
    from tandem.show import console

    findings = check_all(settings)
    console().print(findings_table(findings))
    raise typer.Exit(1 if any(map(is_failed, findings)) else 0)


@app.command()
def render(
    out: Annotated[Path, typer.Option(help="Folder for kamailio/ and freeswitch/WORKER/.")],
    config: ConfigOption = CONFIG,
    freeswitch_prefix: Annotated[
        Path | None,
        typer.Option(envvar="FREESWITCH_PREFIX", help="Installation that the workers load their modules from."),
    ] = None,
) -> None:
    """Write the site files of Kamailio and of each worker's FreeSWITCH."""
    from tandem.render import RenderError
    from tandem.render import render as write

    settings = load(config)
    try:
        write(settings, out, freeswitch_prefix)
    except (RenderError, OSError) as error:
        fail(str(error))
    typer.echo(f"{out}: kamailio, {', '.join(f'freeswitch/{name}' for name in settings.workers)}")


@app.command("route-test")
def route_test(
    from_: Annotated[str, typer.Option("--from", help="Caller, as the peer writes it.")],
    to: Annotated[str, typer.Option(help="Number dialled, or a whole sip:, tel: or urn: URI.")],
    source: Annotated[str, typer.Option(help="IP address that the INVITE comes from.")],
    over: Annotated[str | None, typer.Option("--over", help="From a worker: the trunk it names.")] = None,
    certificate: Annotated[
        str | None, typer.Option("--certificate", help="By TLS: the name in the client certificate.")
    ] = None,
    tenant: Annotated[str, typer.Option("--tenant", help="From a worker: the tenant it names.")] = "default",
    at: AtOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The decision as one JSON object.")] = False,
    config: ConfigOption = CONFIG,
) -> None:
    """What the edge would do with a call, step by step, without placing it."""
    import json
    from dataclasses import asdict

    from tandem.route import decide

    settings = load(config)
    now = _moment(at)
    try:
        decision = decide(settings, from_, to, source, over=over, tenant=tenant, certificate=certificate, now=now)
    except ValueError as error:
        fail(f"--source: {error}; expected e.g. 203.0.113.10")
    if as_json:
        typer.echo(json.dumps(asdict(decision) | {"status": decision.status}))
        return
    for step in decision.path:
        typer.echo(step)
    typer.echo(f"{decision.action.value}{f': {decision.cause.value}' if decision.cause else ''}")


@app.command("dial-test")
def dial_test(
    number: Annotated[str, typer.Argument(help="As an agent or a program might write it.")],
    agent: Annotated[str, typer.Option(help="Agent that names it itself; default: an operator, or a program.")] = "",
    tenant: Annotated[str, typer.Option(help="For whom.")] = "default",
    trunk: Annotated[str, typer.Option(help="Over which; default: as routes has it.")] = "",
    at: AtOption = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Whether the dial policy lets a number be called, by which rule, over which trunk; without calling it."""
    from tandem.dial_policy import Refused, decide_number

    now = _moment(at)
    decision = decide_number(load(config), number, tenant=tenant, trunk=trunk, agent=agent, now=now)
    if isinstance(decision, Refused):
        typer.echo(f"refused: {decision.refusal.value}: {decision.detail}")
        raise typer.Exit(1)
    by = f"by rule {decision.rule}" if decision.rule else "no rule says otherwise"
    typer.echo(f"allowed: {decision.dial} over {decision.trunk}, {by}")


def _moment(at: str | None) -> float:
    from datetime import datetime

    if at is None:
        return time.time()
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        fail(f"--at {at!r} is no time; expected e.g. 2026-06-03T08:00-04:00")


@contextmanager
def _running_edge() -> Iterator[None]:
    from tandem.rpc import RpcError
    from tandem.workers import DrainError

    try:
        yield
    except (RpcError, DrainError) as error:
        fail(str(error))


@app.command()
def workers(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    config: ConfigOption = CONFIG,
) -> None:
    """List the workers as the running edge has them: state, calls, weight."""
    import json
    from dataclasses import asdict

    from tandem import workers
    from tandem.rpc import Rpc
    from tandem.show import console

    with _running_edge():
        found = workers.workers(Rpc(load(config).edge.rpc))
    if as_json:
        for worker in found:
            typer.echo(json.dumps(asdict(worker)))
        return
    console().print(workers.workers_table(found))


@app.command()
def drain(
    name: Annotated[str, typer.Argument(help="The worker's name.")],
    wait: Annotated[float, typer.Option(min=0, max=86400, help="Wait so many seconds for its calls to end.")] = 0,
    config: ConfigOption = CONFIG,
) -> None:
    """Send no new calls to a worker; those that it has go on. Holds until `tandem undrain`, over reloads and restarts."""
    from tandem import workers
    from tandem.rpc import Rpc

    rpc = Rpc(load(config).edge.rpc)
    with _running_edge():
        worker = workers.drain(rpc, name)
        if workers.is_left_without(rpc):
            typer.echo("tandem: no worker takes new calls now: they go to the number's fallback, or get 503", err=True)
        deadline = time.monotonic() + wait
        while worker.calls and time.monotonic() < deadline:
            time.sleep(min(1.0, wait))
            worker = workers.named(rpc, name)
    typer.echo(f"{name}: drained, {worker.calls} calls")
    raise typer.Exit(1 if wait and worker.calls else 0)


@app.command()
def undrain(
    name: Annotated[str, typer.Argument(help="The worker's name.")],
    config: ConfigOption = CONFIG,
) -> None:
    """Send new calls to a worker again."""
    from tandem import workers
    from tandem.rpc import Rpc

    with _running_edge():
        worker = workers.undrain(Rpc(load(config).edge.rpc), name)
    typer.echo(f"{name}: {worker.state.value}, {worker.calls} calls")


@app.command()
def reload(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would change.")] = False,
    config: ConfigOption = CONFIG,
) -> None:
    """Have the running edge take over the configuration, all of it or nothing; calls, loads and drains stay."""
    from tandem.reload import ReloadError, carry_out, plan
    from tandem.render import RenderError
    from tandem.rpc import Rpc

    settings = load(config)
    rpc = Rpc(settings.edge.rpc)
    try:
        with _running_edge():
            planned = plan(settings, rpc)
            if not dry_run:
                carry_out(planned, settings, rpc)
    except ReloadError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        fail("nothing was changed")
    except (RenderError, OSError) as error:
        fail(f"{error}; nothing was changed")
    for file in planned.changed:
        lines = file.difference()
        shown = lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} lines more"]
        typer.echo("\n    ".join([f"{file.name}:", *shown]))
    for name in planned.undrained:
        typer.echo(f"{name}: is no longer drained, for it is gone")
    typer.echo("nothing was changed" if dry_run else f"{planned.folder}: loaded, {len(planned.changed)} files changed")


@app.command()
def calls(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, newest first.")] = 20,
    since: Annotated[str | None, typer.Option(help="How far back: 30m, 12h, 7d.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only calls that ended so, e.g. refused.")] = None,
    worker: Annotated[str | None, typer.Option(help="Only calls that this worker took.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Only calls that have not ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    config: ConfigOption = CONFIG,
    database: DatabaseOption = None,
) -> None:
    """List calls, newest first."""
    from tandem.outcome import Outcome
    from tandem.records import Records

    if outcome is not None and outcome not in set(Outcome):
        fail(f"no outcome {outcome!r}; expected one of: {', '.join(Outcome)}")
    started = time.time() - seconds(since, "--since") if since is not None else None
    with readable_records(), Records(records_url(config, database)) as records:
        found = records.calls(limit, started, outcome=Outcome(outcome) if outcome else None, worker=worker, live=live)
    if as_json:
        for call in found:
            typer.echo(call.model_dump_json())
        return
    from tandem.show import calls_table, console

    console().print(calls_table(found))


@call_app.command()
def show(
    id: Annotated[str, typer.Argument(help="The call's id, as `tandem calls` lists it.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole story as one JSON object.")] = False,
    config: ConfigOption = CONFIG,
    database: DatabaseOption = None,
) -> None:
    """Everything about one call: turns, tool calls, transfers, timings."""
    from tandem.records import Records

    with readable_records(), Records(records_url(config, database)) as records:
        story = records.call(id)
    if story is None:
        fail(f"no call {id!r}; `tandem calls` lists them")
    if as_json:
        typer.echo(story.model_dump_json())
        return
    from tandem.show import console, story_parts

    terminal = console()
    terminal.print(*story_parts(story, terminal.width), sep="\n")


@call_app.command()
def place(
    to: Annotated[str, typer.Option(help="Number to call, as the trunk would send it.")],
    from_: Annotated[str, typer.Option("--from", help="Caller's number.")] = "+12025550199",
    trunk: Annotated[str | None, typer.Option(help="Trunk to call as; default: the first that can be.")] = None,
    source: Annotated[str | None, typer.Option(help="Address of this machine to call from.")] = None,
    say: Annotated[str | None, typer.Option(help="Text to speak once the other side is quiet.")] = None,
    wav: Annotated[Path | None, typer.Option(help="The same from a file: 8 kHz, 16 bit, mono.")] = None,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long to listen after that.")] = 8,
    out: Annotated[Path | None, typer.Option(help="WAV to write: left what was said, right what was heard.")] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Try the edge with a call as from a trunk: is it answered, and is anything heard? To call somebody: `tandem call dial`."""
    with _lab("call place"):
        from lab.place import CannotPlace, Probe
        from lab.place import place as place_call
        from lab.voice import VoiceError

    probe = Probe(to=to, from_number=from_, trunk=trunk, source=source, say=say, wav=wav, listen_s=seconds, out=out)
    try:
        report = place_call(load(config), probe)
    except (CannotPlace, VoiceError) as error:
        fail(str(error))
    for line in report.lines():
        typer.echo(line)
    raise typer.Exit(0 if report.ok else 1)


@db_app.command()
def upgrade(config: ConfigOption = CONFIG, database: DatabaseOption = None) -> None:
    """Bring the database's tables to this version. Every process does so itself when it starts; safe at any time."""
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from tandem import database as records_database

    url = records_url(config, database)
    try:
        engine = records_database.connect(url)
        records_database.upgrade(engine)
    except (SQLAlchemyError, CommandError, OSError) as error:
        fail(f"the database cannot be upgraded: {records_database.cause(error)}")
    typer.echo(f"{engine.url.render_as_string(hide_password=True)}: schema {records_database.newest_revision()}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def demo(context: typer.Context) -> None:
    """Place the demonstration call in a world of its own; `tandem demo --help` lists its options."""
    with _lab("demo"):
        from lab.demo import main
    sys.argv = ["tandem demo", *context.args]
    typer.run(main)
