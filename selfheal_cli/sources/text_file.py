"""The bytes of a text file: out of gzip or zip, and in which encoding they are text."""

from __future__ import annotations

import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from selfheal_cli.errors import DataError

GZIP, ZIP = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06")
BLOCK = 1 << 20
FREE = 1 << 26  # bytes that any file may unpack to
MOST_UNPACKED = 100  # times the packed size; a table of text packs by 3 to 30
UTF_8 = "utf-8-sig"  # the same, without the mark that some programs put before it
MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
WESTERN = "cp1252"
HEAD_BYTES = 65_536


@contextmanager
def opened_bytes(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes; those of a gzip or zip file unpacked, whatever its name says.

    Raises `DataError` for one that is damaged, holds more than one file, or unpacks to more than
    `MOST_UNPACKED` times its size.
    """
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(0)
        try:
            if start.startswith(GZIP):
                with gzip.open(stream) as unpacked:
                    yield io.BufferedReader(_Bounded(unpacked, path), BLOCK)
            elif start in ZIP:
                with zipfile.ZipFile(stream) as archive, archive.open(_only(archive, path)) as one:
                    yield io.BufferedReader(_Bounded(one, path), BLOCK)
            else:
                yield stream
        except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error) as exc:
            raise DataError(f"{path}: a damaged gzip or zip file ({exc})") from exc
        except (NotImplementedError, RuntimeError) as exc:  # a method that there is not, a password
            raise DataError(f"{path}: it cannot be unpacked ({exc}); unpack it first") from exc


def is_packed(path: Path) -> bool:
    """Whether the bytes of a file are those of gzip or zip."""
    with path.open("rb") as stream:
        start = stream.read(4)
    return start.startswith(GZIP) or start in ZIP


class _Bounded(io.RawIOBase):
    """What a packed file holds, up to a limit."""

    def __init__(self, stream: Any, path: Path) -> None:
        super().__init__()
        self._stream, self._path, self._given = stream, path, 0
        self._most = max(FREE, MOST_UNPACKED * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        block: bytes = self._stream.read(len(into))
        self._given += len(block)
        if self._given > self._most:
            raise DataError(
                f"{self._path}: it unpacks to more than {MOST_UNPACKED} times its size; unpack it "
                "first if it is what you think it is"
            )
        into[: len(block)] = block
        return len(block)


def _only(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """The one file in an archive."""
    names = archive.namelist()
    if "[Content_Types].xml" in names:
        raise DataError(f"{path}: an Excel workbook; save its sheet as CSV")
    files = [one for one in archive.infolist() if not one.is_dir()]
    files = [one for one in files if not one.filename.startswith("__MACOSX/")]
    if len(files) != 1:
        shown = ", ".join(one.filename for one in files[:5]) or "none"
        raise DataError(f"{path}: a zip file of one table is read, this has {len(files)}: {shown}")
    return files[0]


def head_of(path: Path) -> bytes:
    """The first bytes of a file, unpacked."""
    with opened_bytes(path) as stream:
        return stream.read(HEAD_BYTES)


def by_mark(head: bytes) -> str | None:
    """The encoding that a mark at the beginning tells."""
    return next((name for mark, name in MARKS if head.startswith(mark)), None)


def find_encoding(path: Path) -> str | None:
    """The encoding of a whole text file; None where it is UTF-8 or its mark says it.

    UTF-16 without a mark has a zero in every other byte. What is no UTF-8 and has a letter in each
    byte of the Windows code page of Western Europe is taken for that.
    """
    head = head_of(path)
    if by_mark(head):
        return None
    if b"\x00" in head:
        zeros = [head[place::2].count(0) for place in (0, 1)]
        likely = max(zeros) > len(head) / 8 > 8 * min(zeros)
        return f"utf-16-{'be' if zeros[0] > zeros[1] else 'le'}" if likely else None
    with opened_bytes(path) as stream:
        fitting = {name: codecs.getincrementaldecoder(name)() for name in (UTF_8, WESTERN)}
        while fitting and (block := stream.read(BLOCK)):
            fitting = {name: one for name, one in fitting.items() if _fits(one, block)}
    return WESTERN if list(fitting) == [WESTERN] else None


def _fits(decoder: codecs.IncrementalDecoder, block: bytes) -> bool:
    try:
        decoder.decode(block)
    except UnicodeDecodeError:
        return False
    return True
