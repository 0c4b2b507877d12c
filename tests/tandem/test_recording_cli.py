"""``tandem recording``: a key is made, recordings are listed, opened and purged, and what cannot be done is one line."""

import io
import wave
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tandem import settings
from tandem.archive import notes, seal
from tandem.archive.wav import inspect
from tandem.cli import app
from tandem.outcome import RecordingState
from tandem.recording import RecordingFormat
from tandem.records import Recorder, Records
from tandem.rows import RecordingRecord
from tests.tandem.recording import call_row, recording_row
from tests.tandem.site_files import write_site


def tandem(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["recording", *(str(argument) for argument in arguments)])


class Kept:
    """A site with two recordings of one call, a day apart, and one of another."""

    def __init__(self, folder: Path) -> None:
        self.secret = folder / "recordings.key"
        public = tandem("key", "--out", self.secret).stdout.strip()
        self.config = write_site(folder, {"recordings": {"recipients": [public]}})
        self.settings = settings.load(self.config, {})
        self.audio = self._wav(folder / "made.wav")
        recorder = Recorder(self.settings.records, "worker-1")
        recorder.put(call_row())
        for call, id, began in (
            ("call-1", "1", 1_700_000_000),
            ("call-1", "2", 1_700_100_000),
            ("call-2", "1", 1_700_100_000),
        ):
            recorder.put(self._keep(folder / "made.wav", recording_row(call, id, started_at=began)))
        assert recorder.close(30)

    def _wav(self, path: Path) -> bytes:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(bytes(range(256)) * 1250)
        return path.read_bytes()

    def _keep(self, path: Path, row: RecordingRecord) -> RecordingRecord:
        root = self.settings.recordings.folder
        folder = notes.kept(root, "worker-1") / notes.day(row)
        notes.make(folder)
        target = folder / f"{notes.stem(row)}.wav.age"
        seal.seal(inspect(path), RecordingFormat.WAV, target, seal.recipients(self.settings.recordings))
        stored = row.model_copy(update={"file": target.relative_to(root).as_posix()})
        notes.write(folder, stored)
        return stored

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.settings.recordings.folder.glob("worker-1/kept/*/*.age"))


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_a_key_is_for_its_owner_alone_and_never_written_over(kept: Kept) -> None:
    assert kept.secret.stat().st_mode & 0o777 == 0o600
    result = tandem("key", "--out", kept.secret)
    assert (result.exit_code, result.stderr) == (1, f"tandem: {kept.secret} cannot be written: File exists\n")


def test_recordings_are_listed_newest_first(kept: Kept) -> None:
    shown = tandem("list", "--config", kept.config).stdout
    assert shown.index("call-1.2.wav.age") < shown.index("call-1.1.wav.age")
    lines = tandem("list", "--call", "call-1", "--json", "--config", kept.config).stdout.splitlines()
    assert [RecordingRecord.model_validate_json(line).id for line in lines] == ["2", "1"]


def test_a_recording_is_opened_with_the_secret_key_alone(kept: Kept, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    result = tandem("export", "call-1", "--out", out, "--config", kept.config)
    assert result.stderr == (
        "tandem: there is no secret key to decrypt with; expected recordings.identity, or --identity FILE\n"
    )
    result = tandem(
        "export", "call-1", "--recording", "2", "--out", out, "--identity", kept.secret, "--config", kept.config
    )
    assert result.stdout == f"{out}: 10.0 s, consent: announced\n"
    assert out.read_bytes() == kept.audio
    with wave.open(io.BytesIO(out.read_bytes())) as file:
        assert file.getnchannels() == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["call-9"], "has no recording of call 'call-9'; `tandem recording list` tells of all"),
        (["call-1", "--recording", "3"], "call 'call-1' has no recording 3; there are: 1, 2"),
    ],
)
def test_what_is_not_there_is_one_line(kept: Kept, arguments: list[str], expected: str) -> None:
    result = tandem("export", *arguments, "--out", "-", "--config", kept.config)
    assert result.exit_code == 1
    assert expected in result.stderr and result.stderr.count("\n") == 1


def test_a_file_that_was_changed_leaves_nothing_behind(kept: Kept, tmp_path: Path) -> None:
    file = next(kept.settings.recordings.folder.glob("worker-1/kept/*/call-2.1.wav.age"))
    file.write_bytes(file.read_bytes()[:-1])
    out = tmp_path / "out.wav"
    result = tandem("export", "call-2", "--out", out, "--identity", kept.secret, "--config", kept.config)
    assert result.exit_code == 1 and "cannot be decrypted" in result.stderr
    assert not list(tmp_path.glob("out*"))


def test_purging_says_what_would_go_and_then_does_it(kept: Kept) -> None:
    asked = tandem("purge", "call-1", "--config", kept.config)
    assert asked.stdout.endswith("2 recordings would go; --yes purges them\n")
    assert len(kept.files) == 3
    done = tandem("purge", "call-1", "--yes", "--config", kept.config)
    assert done.stdout.endswith("2 recordings purged\n")
    assert kept.files == ["call-2.1.wav.age"]
    with Records(kept.settings.records.url) as records:
        rows = records.recordings(call="call-1")
    assert {(row.state, row.cause, row.file) for row in rows} == {(RecordingState.PURGED, "by an operator", "")}


def test_purging_by_age_and_what_it_needs(kept: Kept) -> None:
    assert "3 recordings would go" in tandem("purge", "--older-than", "1d", "--config", kept.config).stdout
    result = tandem("purge", "--config", kept.config)
    assert (result.exit_code, result.stderr) == (1, "tandem: expected a call's id, or --older-than\n")
