"""Notes: a recording's row beside its audio, so that a folder of recordings is whole without the database."""

import os
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from tandem.rows import RecordingRecord

SUFFIX = ".json"
FOLDER_MODE = 0o770
"""FreeSWITCH may run as another user of the same group."""


class NoteError(Exception):
    """A note cannot be read; the message says why."""


def stem(row: RecordingRecord) -> str:
    """What the names of its files begin with. A call's id has nothing that could be more than a name."""
    return f"{row.call}.{row.id}"


def incoming(folder: Path, worker: str) -> Path:
    """Where FreeSWITCH writes."""
    return folder / worker / "incoming"


def kept(folder: Path, worker: str) -> Path:
    return folder / worker / "kept"


def day(row: RecordingRecord) -> str:
    """Of its beginning, UTC; recordings of one day lie together."""
    return datetime.fromtimestamp(row.started_at, UTC).strftime("%Y-%m-%d")


def write(folder: Path, row: RecordingRecord) -> Path:
    """Write a note, whole or not at all, and make its folder where that is missing. Raises OSError."""
    make(folder)
    path = folder / f"{stem(row)}{SUFFIX}"
    partial = path.with_suffix(".partial")
    partial.write_text(row.model_dump_json(), encoding="utf-8")
    partial.replace(path)
    return path


def read(path: Path) -> RecordingRecord:
    """Raises NoteError, and FileNotFoundError where it is gone."""
    try:
        return RecordingRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValidationError) as error:
        shown = error.strerror if isinstance(error, OSError) else f"{error.errors(include_url=False)[0]['msg']}"
        raise NoteError(f"{path}: {shown}") from None


def make(folder: Path) -> None:
    """The folder, and those above it. Raises OSError."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        made.chmod(FOLDER_MODE)


def sync(folder: Path) -> None:
    """Have the names in ``folder`` on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
