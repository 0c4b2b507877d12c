"""The archive: what has ended is sealed, put on record and purged in time; what a crash leaves is taken up; nothing is lost."""

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tandem.archive import notes, seal
from tandem.archive.archive import RETRY_S, SETTLE_S, Archive
from tandem.archive.wav import BadWav, WavReader, inspect
from tandem.outcome import Consent, RecordingState
from tandem.recording import RecordingFormat, Recordings
from tandem.records import Records
from tandem.rows import RecordingRecord
from tests.tandem.site_files import write_site

SECRET, PUBLIC = seal.new_identity()
BEGAN = 1_700_000_000.0
KEPT_S = 90 * 86400
TONE = (8000 * np.sin(np.arange(16000) * 0.3)).astype("<i2")
BOTH = np.column_stack((TONE, TONE[::-1]))


def row(call: str = "call-1", **changes: object) -> RecordingRecord:
    values: dict[str, object] = {
        "call": call, "id": "1", "worker": "worker-1", "tenant": "default", "agent": "reception",
        "state": RecordingState.WAITING, "consent": Consent.ANNOUNCED, "consent_at": BEGAN - 1, "started_at": BEGAN,
        "ended_at": BEGAN + 2, "format": RecordingFormat.WAV, "keep_until": BEGAN + KEPT_S,
    }  # fmt: skip
    return RecordingRecord.model_validate(values | changes)


def write_wav(path: Path, samples: np.ndarray = BOTH, rate: int = 8000) -> bytes:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path.read_bytes()


class Site:
    """A folder of recordings, its archive, and a clock that stands well after what was written."""

    def __init__(self, folder: Path) -> None:
        self.recordings = Recordings(folder=folder, recipients=[PUBLIC])
        self.incoming = notes.incoming(folder, "worker-1")
        notes.make(self.incoming)
        self.rows: list[RecordingRecord] = []
        self.now = BEGAN + 100
        self.archive = self.start()

    def start(self) -> Archive:
        """An archive that knows nothing of one before it."""
        return Archive(self.recordings, "worker-1", self.rows.append, threading.Event(), lambda: self.now)

    def ended(self, row: RecordingRecord, audio: bytes | None = None) -> Path:
        note = notes.write(self.incoming, row)
        path = note.with_suffix(".wav")
        if audio is None:
            write_wav(path)
        else:
            path.write_bytes(audio)
        os.utime(path, (BEGAN, BEGAN))
        return path

    def opened(self, row: RecordingRecord) -> bytes:
        out = io.BytesIO()
        seal.unseal(self.recordings.folder / row.file, out, seal.identity(SECRET))
        return out.getvalue()

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.incoming.iterdir())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "recordings")


def test_a_recording_is_sealed_and_nothing_of_it_stays_open(site: Site) -> None:
    original = site.ended(row()).read_bytes()
    site.archive.scan()
    waiting, stored = site.rows
    assert waiting.state is RecordingState.WAITING
    assert stored.state is RecordingState.STORED
    assert stored.file == "worker-1/kept/2023-11-14/call-1.1.wav.age"
    assert stored.duration_ms == 2000
    file = site.recordings.folder / stored.file
    assert stored.bytes == file.stat().st_size
    assert stored.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.read_bytes().startswith(b"age-encryption.org/v1\n"), "which any age opens"
    assert site.opened(stored) == original
    assert site.left == []
    assert notes.read(file.parent / "call-1.1.json") == stored


def test_opus_holds_both_sides_apart(site: Site) -> None:
    quiet = np.column_stack((TONE, np.zeros_like(TONE)))
    path = site.incoming / "made.wav"
    site.ended(row(format=RecordingFormat.OPUS), write_wav(path, quiet))
    path.unlink()
    site.archive.scan()
    stored = site.rows[-1]
    assert stored.file.endswith("call-1.1.opus.age")
    audio, rate = soundfile.read(io.BytesIO(site.opened(stored)), dtype="int16")
    assert len(audio) / rate == pytest.approx(2, abs=0.1)
    loud = np.sqrt((audio.astype(float) ** 2).mean(axis=0))
    assert loud[0] > 4000 and loud[1] < 300
    assert site.left == []


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_a_file_that_nobody_closed_is_kept_as_far_as_it_goes(site: Site, length: int) -> None:
    path = site.incoming / "made.wav"
    whole = write_wav(path)
    path.unlink()
    torn = whole[:4] + (8).to_bytes(4, "little") + whole[8:40] + length.to_bytes(4, "little") + whole[44 : 44 + 32001]
    site.ended(row(), torn)
    site.archive.scan()
    stored = site.rows[-1]
    assert (stored.state, stored.duration_ms) == (RecordingState.STORED, 1000)
    with wave.open(io.BytesIO(site.opened(stored))) as file:
        assert file.readframes(file.getnframes()) == whole[44 : 44 + 32000]


def test_what_is_still_written_to_is_left_alone(site: Site) -> None:
    path = site.ended(row())
    os.utime(path, (site.now - SETTLE_S / 2, site.now - SETTLE_S / 2))
    site.ended(row("call-2", state=RecordingState.RECORDING, ended_at=None))
    site.archive.scan()
    site.archive.scan()
    assert sorted(found.state for found in site.rows) == ["recording", "waiting"]
    assert len(site.left) == 4
    site.now += SETTLE_S
    site.archive.scan()
    assert site.rows[-1].state is RecordingState.STORED


def test_what_has_ended_before_the_archive_is_to_end_is_still_sealed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site.ended(row())
    os.utime(path, (site.now - 1, site.now - 1))
    site.ended(row("call-2", state=RecordingState.RECORDING, ended_at=None))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        site.now += seconds

    monkeypatch.setattr("tandem.archive.archive.time.sleep", sleep)
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", lambda seconds: stop.set())
    Archive(site.recordings, "worker-1", site.rows.append, stop, lambda: site.now).run()
    assert site.rows[-1].state is RecordingState.STORED
    assert 0 < len(slept) <= 4, "and one that runs is not waited for"


@pytest.mark.parametrize("torn", ["target", "note", "both"])
def test_a_crash_between_sealing_and_forgetting_is_made_good(site: Site, torn: str) -> None:
    path = site.ended(row())
    original, note = path.read_bytes(), path.with_suffix(".json").read_bytes()
    site.archive.scan()
    stored = site.rows[-1]
    kept = site.recordings.folder / stored.file
    if torn in ("target", "both"):
        kept.write_bytes(kept.read_bytes()[:100])
    if torn in ("note", "both"):
        kept.with_name("call-1.1.json").unlink()
    path.write_bytes(original)
    path.with_suffix(".json").write_bytes(note)
    os.utime(path, (BEGAN, BEGAN))
    site.rows.clear()
    site.start().scan()
    assert site.rows[-1].state is RecordingState.STORED
    assert site.opened(site.rows[-1]) == original
    assert site.left == []


def test_what_cannot_be_sealed_waits_and_is_tried_again(site: Site) -> None:
    site.ended(row())
    blocked = site.recordings.folder / "worker-1/kept"
    blocked.write_text("no folder")
    site.archive.scan()
    assert site.rows[-1].state is RecordingState.WAITING
    assert len(site.left) == 2
    blocked.unlink()
    site.archive.scan()
    assert len(site.left) == 2, "not at once"
    site.now += RETRY_S
    site.archive.scan()
    assert site.rows[-1].state is RecordingState.STORED


@pytest.mark.parametrize("audio", [b"", b"RIFF", b"RIFF\x08\0\0\0WAVEjunk", b"not a recording at all"])
def test_nothing_that_can_be_read_is_lost_and_said_so(site: Site, audio: bytes) -> None:
    site.ended(row(), audio)
    site.archive.scan()
    assert site.rows[-1].state is RecordingState.LOST
    assert site.rows[-1].cause
    assert site.left == ["call-1.1.lost"]


def test_no_file_and_an_empty_one_are_lost(site: Site) -> None:
    site.ended(row()).unlink()
    path = site.incoming / "made.wav"
    site.ended(row("call-2"), write_wav(path, BOTH[:0]))
    path.unlink()
    site.archive.scan()
    assert [found.cause for found in site.rows if found.state is RecordingState.LOST] == [
        "there is no file",
        "is empty",
    ]


def test_what_was_not_made_is_put_on_record_and_leaves_nothing(site: Site) -> None:
    site.ended(row(state=RecordingState.NOT_MADE, cause="consent: refused", consent=Consent.REFUSED))
    site.archive.scan()
    assert [found.state for found in site.rows] == [RecordingState.NOT_MADE]
    assert site.left == []


def test_one_note_that_is_none_does_not_keep_the_others(site: Site) -> None:
    (site.incoming / "a.json").write_text("{")
    site.ended(row())
    site.archive.scan()
    assert site.rows[-1].state is RecordingState.STORED


def test_what_has_had_its_time_is_purged_and_the_rest_is_not(site: Site) -> None:
    site.ended(row())
    site.ended(row("call-2", keep_until=BEGAN + 7 * 86400))
    site.archive.scan()
    site.rows.clear()
    site.now = BEGAN + 7 * 86400
    site.archive.purge()
    [purged] = site.rows
    assert (purged.call, purged.state, purged.file, purged.purged_at) == ("call-2", RecordingState.PURGED, "", site.now)
    kept = site.recordings.folder / "worker-1/kept/2023-11-14"
    assert sorted(path.name for path in kept.iterdir()) == ["call-1.1.json", "call-1.1.wav.age"]
    site.now = BEGAN + KEPT_S
    site.archive.purge()
    assert not kept.exists()


def test_a_changed_or_shortened_recording_and_another_key_are_refused(site: Site) -> None:
    site.ended(row())
    site.archive.scan()
    file = site.recordings.folder / site.rows[-1].file
    sealed = file.read_bytes()
    other = seal.identity(seal.new_identity()[0])
    with pytest.raises(seal.SealError):
        seal.unseal(file, io.BytesIO(), other)
    for changed in (sealed[:-1], sealed[:5000] + bytes([sealed[5000] ^ 1]) + sealed[5001:]):
        file.write_bytes(changed)
        with pytest.raises(seal.SealError):
            seal.unseal(file, io.BytesIO(), seal.identity(SECRET))


def test_several_keys_open_each(site: Site) -> None:
    secret, public = seal.new_identity()
    site.recordings = Recordings(folder=site.recordings.folder, recipients=[PUBLIC, public])
    site.ended(row())
    site.start().scan()
    for key in (SECRET, f"# made by hand\n{secret}\n"):
        out = io.BytesIO()
        seal.unseal(site.recordings.folder / site.rows[-1].file, out, seal.identity(key))
        assert out.getvalue()[:4] == b"RIFF"


def test_a_long_recording_needs_no_memory(tmp_path: Path) -> None:
    """64 MB of WAV in an address space that has room for no more than 32 MB beyond what the program itself takes."""
    program = f"""
import os, resource, sys
from pathlib import Path
from tandem.archive import seal
from tandem.archive.wav import inspect
from tandem.recording import RecordingFormat
path = Path({str(tmp_path)!r}) / "long.wav"
with path.open("wb") as file:
    file.write(b"RIFF\\x08\\0\\0\\0WAVEfmt \\x10\\0\\0\\0\\x01\\0\\x02\\0\\x40\\x1f\\0\\0\\0\\x7d\\0\\0\\x04\\0\\x10\\0data\\0\\0\\0\\0")
    file.truncate(64 << 20)
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (32 << 20),) * 2)
recipient = seal.identity({SECRET!r}).to_public()
size, _ = seal.seal(inspect(path), RecordingFormat.WAV, path.with_suffix(".age"), [recipient])
assert size > 64 << 20
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_two_archives_of_a_worker_do_not_work_at_once_and_each_ends_with_its_parent(tmp_path: Path) -> None:
    config = write_site(tmp_path, {"recordings": {"recipients": [PUBLIC]}})
    incoming = notes.incoming(tmp_path / "recordings", "worker-1")
    argv = [sys.executable, "-m", "tandem.archive", "--config", str(config), "--worker", "worker-1"]
    first, second = (subprocess.Popen(argv, stdin=subprocess.PIPE) for _ in range(2))
    try:
        notes.make(incoming)
        write_wav(notes.write(incoming, row(keep_until=time.time() + 3600)).with_suffix(".wav"))
        deadline = time.monotonic() + 30
        while not list((tmp_path / "recordings").glob("worker-1/kept/*/*.json")):
            assert time.monotonic() < deadline, "the recording to be stored"
            time.sleep(0.05)
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.close()
        assert (first.wait(30), second.wait(30)) == (0, 0)
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    assert sorted(path.name for path in incoming.iterdir()) == ["lock"]
    with Records(f"sqlite:///{tmp_path}/tandem.db") as records:
        assert [found.state for found in records.recordings()] == [RecordingState.STORED]


def test_a_wav_of_anything_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    whole = write_wav(path)
    for changed in (
        b"RIFX" + whole[4:],
        whole[:20] + b"\x07\0" + whole[22:],
        whole[:34] + b"\x08\0" + whole[36:],
        whole[:22] + b"\0\0" + whole[24:],
    ):
        path.write_bytes(changed)
        with pytest.raises(BadWav):
            inspect(path)


def test_chunks_before_the_samples_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    whole = write_wav(path)
    path.write_bytes(whole[:12] + b"LIST\x05\0\0\0abcde\0" + whole[12:])
    with WavReader(inspect(path)) as reader:
        assert reader.read() + reader.read() == whole
