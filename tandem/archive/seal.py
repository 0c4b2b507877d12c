"""Recordings sealed and opened: encrypted with age (X25519, ChaCha20-Poly1305), a piece at a time; Ogg Opus made of WAV.

The file format is https://age-encryption.org/v1, so that the ``age`` program opens them as well. Whoever has only the public
keys can seal and not open.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import pyrage
import soundfile

from tandem.archive.wav import Wav, WavReader
from tandem.recording import RecordingFormat, Recordings

SUFFIX = ".age"
PIECE_S = 1
"""Audio that is in memory at a time."""


class SealError(Exception):
    """It cannot be sealed or opened; the message says why."""


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Hashed:
    """What is written goes through a hash."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def recipients(recordings: Recordings) -> list[pyrage.x25519.Recipient]:
    """Whom recordings are encrypted to. Empty where no key is configured."""
    if recordings.recipients:
        return [pyrage.x25519.Recipient.from_str(text) for text in recordings.recipients]
    if recordings.identity is None:
        return []
    return [identity(recordings.identity.get_secret_value()).to_public()]


def identity(text: str) -> pyrage.x25519.Identity:
    """A secret key: the text ``AGE-SECRET-KEY-1...``, or a file of age's with that in a line of its own. Raises SealError."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        return pyrage.x25519.Identity.from_str(lines[0] if lines else "")
    except pyrage.IdentityError as error:
        raise SealError(f"no secret key of age: {error}") from None


def new_identity() -> tuple[str, str]:
    """A secret key and its public one."""
    made = pyrage.x25519.Identity.generate()
    return str(made), str(made.to_public())


def seal(wav: Wav, form: RecordingFormat, target: Path, whom: Sequence[pyrage.x25519.Recipient]) -> tuple[int, str]:
    """Write ``target`` (over what a crash may have left of it) and have it on the disk; its bytes and SHA-256.

    Raises OSError, SealError.
    """
    with target.open("wb") as file:
        hashed = _Hashed(file)
        try:
            if form is RecordingFormat.OPUS:
                with tempfile.TemporaryFile(dir=wav.path.parent) as opus:
                    _encode(wav, opus)
                    opus.seek(0)
                    pyrage.encrypt_io(opus, hashed, whom)
            else:
                with WavReader(wav) as reader:
                    pyrage.encrypt_io(reader, hashed, whom)
        except (pyrage.EncryptError, soundfile.SoundFileError) as error:
            raise SealError(f"{wav.path}: {error}") from None
        file.flush()
        os.fsync(file.fileno())
    return hashed.bytes, hashed.sha256.hexdigest()


def unseal(source: Path, target: BinaryIO, key: pyrage.x25519.Identity) -> None:
    """Write what is in ``source``. Raises SealError where the key is another or the file was changed or cut; then what
    has been written is worth nothing. Raises OSError where ``source`` cannot be read.
    """
    with source.open("rb") as file:
        try:
            pyrage.decrypt_io(file, target, [key])
        except (pyrage.DecryptError, OSError) as error:
            raise SealError(f"{source}: cannot be decrypted: {error}") from None


def _encode(wav: Wav, target: BinaryIO) -> None:
    with (
        wav.path.open("rb") as file,
        soundfile.SoundFile(target, "w", wav.rate, wav.channels, format="OGG", subtype="OPUS") as opus,
    ):
        file.seek(wav.offset)
        left = wav.size
        while left:
            piece = file.read(min(left, PIECE_S * wav.rate * wav.channels * 2))
            if not piece:
                break
            left -= len(piece)
            opus.write(np.frombuffer(piece, dtype="<i2").reshape(-1, wav.channels))
