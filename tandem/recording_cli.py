"""``tandem recording``: make a key, list recordings, export one, purge some. For the machine that has the folder."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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

if TYPE_CHECKING:
    from pyrage.x25519 import Identity

    from tandem.rows import RecordingRecord
    from tandem.settings import Settings

app = group("Recordings of calls: list, export, purge.")
RECORDS_S = 30.0
"""For the rows of what was purged to reach the database."""

IdArgument = Annotated[str, typer.Argument(help="The call's id, as `tandem calls` lists it.")]
NumberOption = Annotated[str, typer.Option("--recording", help="Which of the call's recordings, as listed.")]


@app.command()
def key(
    out: Annotated[Path, typer.Option(help="File for the secret key; it must not exist yet.")],
) -> None:
    """Make a pair of keys: the secret one goes to a file, the public one is printed, for recordings.recipients."""
    import os

    from tandem.archive.seal import new_identity

    secret, public = new_identity()
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"# public key: {public}\n{secret}\n")
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}")
    typer.echo(public)


@app.command(name="list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, newest first.")] = 20,
    since: Annotated[str | None, typer.Option(help="How far back: 30m, 12h, 7d.")] = None,
    call: Annotated[str | None, typer.Option(help="Only those of this call.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    config: ConfigOption = CONFIG,
    database: DatabaseOption = None,
) -> None:
    """List recordings, newest first."""
    from tandem.records import Records

    started = time.time() - seconds(since, "--since") if since is not None else None
    with readable_records(), Records(records_url(config, database)) as records:
        found = records.recordings(limit, started, call=call)
    if as_json:
        for row in found:
            typer.echo(row.model_dump_json())
        return
    from tandem.show import console, recordings_table

    console().print(recordings_table(found))


@app.command()
def export(
    call: IdArgument,
    out: Annotated[Path, typer.Option(help="File to write, or - for standard output.")],
    number: NumberOption = "1",
    identity: Annotated[
        Path | None, typer.Option(help="File with the secret key, instead of recordings.identity.")
    ] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Decrypt a recording: WAV or Ogg Opus, as the agent has it."""
    from tandem.archive import seal

    settings = load(config)
    row = _kept(settings, call, number)
    try:
        secret = _secret(settings, identity)
        if str(out) == "-":
            seal.unseal(settings.recordings.folder / row.file, typer.get_binary_stream("stdout"), secret)
            return
        partial = out.with_name(f"{out.name}.partial")
        try:
            with partial.open("wb") as file:
                seal.unseal(settings.recordings.folder / row.file, file, secret)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
    except (seal.SealError, OSError) as error:
        fail(str(error))
    typer.echo(f"{out}: {(row.duration_ms or 0) / 1000:.1f} s, consent: {row.consent.value}")


@app.command()
def purge(
    call: Annotated[str | None, typer.Argument(help="The call whose recordings are to go.")] = None,
    older: Annotated[str | None, typer.Option("--older-than", help="All that began before: 12h, 30d.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, say only what would go.")] = False,
    config: ConfigOption = CONFIG,
) -> None:
    """Delete recordings before their time is over. What is on record of them stays."""
    from tandem.archive import archive
    from tandem.records import Recorder

    if (call is None) == (older is None):
        fail("expected a call's id, or --older-than")
    settings = load(config)
    before = time.time() - seconds(older, "--older-than") if older is not None else None
    chosen = [
        (path, row)
        for path, row in _all_kept(settings)
        if (row.call == call if before is None else row.started_at < before)
    ]
    failed = False
    for worker in sorted({row.worker for _, row in chosen}):
        recorder = Recorder(settings.records, worker, "recording") if yes else None
        for path, row in chosen:
            if row.worker != worker:
                continue
            if recorder is not None:
                try:
                    purged = archive.purge(path, row, "by an operator", time.time())
                except OSError as error:
                    typer.echo(f"tandem: {row.file}: {error.strerror}", err=True)
                    failed = True
                    continue
                recorder.put(purged)
            typer.echo(row.file)
        if recorder is not None and not recorder.close(RECORDS_S):
            typer.echo("tandem: the database is away; the records wait in the spool", err=True)
    typer.echo(f"{len(chosen)} recordings {'purged' if yes else 'would go; --yes purges them'}")
    if failed:
        raise typer.Exit(1)


def _all_kept(settings: "Settings") -> "list[tuple[Path, RecordingRecord]]":
    from tandem.archive import archive, notes

    folder = settings.recordings.folder
    return [found for worker in settings.workers for found in archive.kept_notes(notes.kept(folder, worker))]


def _kept(settings: "Settings", call: str, number: str) -> "RecordingRecord":
    found = [row for _, row in _all_kept(settings) if row.call == call]
    for row in found:
        if row.id == number:
            return row
    if found:
        fail(f"call {call!r} has no recording {number}; there are: {', '.join(row.id for row in found)}")
    fail(f"{settings.recordings.folder} has no recording of call {call!r}; `tandem recording list` tells of all")


def _secret(settings: "Settings", file: Path | None) -> "Identity":
    from tandem.archive import seal

    if file is not None:
        return seal.identity(file.read_text(encoding="utf-8"))
    if settings.recordings.identity is None:
        raise seal.SealError("there is no secret key to decrypt with; expected recordings.identity, or --identity FILE")
    return seal.identity(settings.recordings.identity.get_secret_value())
