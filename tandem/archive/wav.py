"""WAV files as FreeSWITCH leaves them: whole, or with the header of a file that nobody closed."""

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_PCM = 1
_MAX_HEADER = 1 << 16
"""Bytes before the samples; FreeSWITCH's has 44."""


class BadWav(ValueError):
    """No audio can be read from it; the message says why."""


@dataclass(frozen=True)
class Wav:
    """16 bit PCM. ``offset`` and ``size`` (bytes): where its samples are in the file, as far as they were written."""

    path: Path
    rate: int
    channels: int
    offset: int
    size: int

    @property
    def duration_ms(self) -> int:
        return self.size * 1000 // (self.rate * self.channels * 2)

    def header(self) -> bytes:
        """A header that tells of its true length."""
        block = self.channels * 2
        form = struct.pack("<HHIIHH", _PCM, self.channels, self.rate, self.rate * block, block, 16)
        sizes = (min(36 + self.size, 0xFFFFFFFF), min(self.size, 0xFFFFFFFF))
        return (
            b"RIFF" + struct.pack("<I", sizes[0]) + b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", sizes[1])
        )


def inspect(path: Path) -> Wav:
    """Raises BadWav, and OSError where the file cannot be read.

    A length of 0, and one beyond the file's end, are those of a file that was not closed: what is there counts.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if file.read(4) != b"RIFF" or not file.read(4) or file.read(4) != b"WAVE":
            raise BadWav("is no WAV file")
        form: tuple[int, ...] | None = None
        while file.tell() < _MAX_HEADER:
            name, length = _chunk(file)
            if name == b"fmt " and 16 <= length <= 64:
                form = struct.unpack("<HHIIHH", file.read(length)[:16])
            elif name == b"data":
                return _wav(path, form, file.tell(), length, size)
            else:
                file.seek(length + length % 2, io.SEEK_CUR)
    raise BadWav("has no samples within its first bytes")


def _chunk(file: BinaryIO) -> tuple[bytes, int]:
    head = file.read(8)
    if len(head) < 8:
        raise BadWav("ends before its samples")
    return head[:4], struct.unpack("<I", head[4:])[0]


def _wav(path: Path, form: tuple[int, ...] | None, offset: int, length: int, size: int) -> Wav:
    if form is None or form[0] != _PCM or form[5] != 16 or not form[1] or not form[2]:
        raise BadWav("is not PCM of 16 bits")
    there = size - offset
    block = form[1] * 2
    samples = length if 0 < length <= there else there
    return Wav(path, rate=form[2], channels=form[1], offset=offset, size=samples // block * block)


class WavReader(io.RawIOBase):
    """The file with a true header, to be read once from its beginning. Raises OSError."""

    def __init__(self, wav: Wav) -> None:
        self._header = wav.header()
        self._left = wav.size
        self._file = wav.path.open("rb")
        self._file.seek(wav.offset)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._header:
            data, self._header = self._header, b""
            return data
        data = self._file.read(min(self._left, size if size >= 0 else self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()
