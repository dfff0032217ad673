"""Feeds of lines that keep coming: the contract, standard input, and the lines that a run kept."""

from __future__ import annotations

import io
import json
import os
import select
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from selfheal_cli.errors import DataError, StorageError
from selfheal_cli.sources.ndjson import LONGEST_LINE
from selfheal_cli.workspace import OWNER_ONLY

READ_AT_ONCE = 1_000  # lines of a kept file
Positions = Mapping[str, int]  # by partition, the offset of the next line


@dataclass(frozen=True, slots=True)
class FeedLine:
    """A line: its partition, its offset there, its bytes; ``label``: it is a label, not a row."""

    partition: str
    offset: int
    text: bytes
    label: bool = False


class Feed(Protocol):
    """Lines in the order of their arrival, which within a partition is that of their offsets."""

    where: str  # what messages call it

    def read(self, seconds: float, *, labels: bool = True) -> list[FeedLine] | None:
        """The lines that have come, after waiting ``seconds`` at most; None after the last one.

        Without ``labels`` those are left unread for now.
        """

    def positions(self) -> Positions:
        """By partition, the offset that is read next."""

    def place(self, partition: str, offset: int) -> str:
        """Where a line is found, for messages."""

    def commit(self, upto: Positions, held: Callable[[], bool]) -> None:
        """What is before ``upto`` is scored and on disk: it need not be given again.

        Others are told so only while ``held`` says that the run still heals its model.
        """

    def close(self) -> None:
        """Close the feed."""


@dataclass(frozen=True, slots=True)
class Past:
    """The positions in a run's log: where reading began, where the stream began, and for each batch
    its number of rows and the feed's positions after it.
    """

    begin: Positions = field(default_factory=dict)
    stream: Positions = field(default_factory=dict)
    taken: tuple[tuple[int, Positions], ...] = ()


class KeptLines:
    """A `Feed` of the lines that a run kept, then those of another ``feed``, if there is one."""

    def __init__(self, path: Path, feed: Feed | None) -> None:
        self._path, self._live, self.where = path, feed, str(path)
        self._lines: Iterator[FeedLine] | None = read_lines(path)
        self._positions: dict[str, int] = {}

    def read(self, seconds: float, *, labels: bool = True) -> list[FeedLine] | None:
        """The lines that have come, as in `Feed.read`."""
        if self._lines is not None:
            lines = list(islice(self._lines, READ_AT_ONCE))
            self._positions |= {line.partition: line.offset + 1 for line in lines}
            if lines:
                return lines
            self._lines = None
        return None if self._live is None else self._live.read(seconds, labels=labels)

    def positions(self) -> Positions:
        """By partition, the offset that is read next."""
        live = {} if self._live is None or self._lines is not None else self._live.positions()
        return {**self._positions, **live}

    def place(self, partition: str, offset: int) -> str:
        """Where a line is found, for messages."""
        return f"{self._path}: {partition}, line {offset + 1}"

    def commit(self, upto: Positions, held: Callable[[], bool]) -> None:
        """Mark the lines before ``upto`` as done, as in `Feed.commit`."""
        if self._live is not None and self._lines is None:
            self._live.commit(upto, held)

    def close(self) -> None:
        """Close the feed."""
        if self._live is not None:
            self._live.close()


class Keeping:
    """Keeps lines: in memory until there is a file, then in the file."""

    def __init__(self) -> None:
        self._waiting: list[FeedLine] = []
        self._stream: IO[str] | None = None

    def to(self, path: Path) -> None:
        """Write to this file from now on, after the lines that it holds."""
        if path.exists():
            _cut_half_line(path)
        path.touch(OWNER_ONLY)
        self._stream = path.open("a", encoding="ascii")
        self.add(self._waiting)
        self._waiting = []

    def add(self, lines: Iterable[FeedLine]) -> None:
        """Keep lines."""
        if self._stream is None:
            self._waiting.extend(lines)
            return
        with on_disk(self._stream.name):
            for line in lines:
                text = line.text.decode("utf-8", "surrogateescape")
                kept = {"partition": line.partition, "offset": line.offset, "text": text}
                kept |= {"label": True} if line.label else {}
                self._stream.write(json.dumps(kept) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()


class KeepingFeed:
    """A `Feed` whose lines are kept as they come."""

    def __init__(self, feed: Feed, keeping: Keeping) -> None:
        self._feed, self._keeping, self.where = feed, keeping, feed.where
        self.positions, self.place = feed.positions, feed.place
        self.commit, self.close = feed.commit, feed.close

    def read(self, seconds: float, *, labels: bool = True) -> list[FeedLine] | None:
        """The lines that have come, as in `Feed.read`."""
        lines = self._feed.read(seconds, labels=labels)
        self._keeping.add(lines or ())
        return lines


@contextmanager
def on_disk(path: object) -> Iterator[None]:
    """Turn errors of writing into `StorageError`, naming the file."""
    try:
        yield
    except OSError as exc:
        raise StorageError(f"{path}: cannot be written ({exc.strerror})") from exc


def read_lines(path: Path) -> Iterator[FeedLine]:
    """The lines of a kept file, but for a last one that a crash left half-written.

    Raises `DataError` for another file.
    """
    with path.open(encoding="ascii", newline="\n") as stream:
        for number, text in enumerate(stream, 1):
            if not text.endswith("\n"):
                return
            try:
                kept = json.loads(text)
                line = kept["text"].encode("utf-8", "surrogateescape")
                kept_line = FeedLine(
                    kept["partition"], kept["offset"], line, kept.get("label", False)
                )
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                raise DataError(f"{path}: line {number} is not as a run keeps it") from exc
            yield kept_line


def positions_in(path: Path) -> Positions:
    """The positions after the lines of a kept file."""
    return {line.partition: line.offset + 1 for line in read_lines(path)}


def _cut_half_line(path: Path) -> None:
    """Take off a last line that a crash left half-written."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as stream:
            stream.truncate(whole)


PARTITION = "standard input"
READ_BYTES = 65_536


class StdinFeed:
    """A `Feed` of a stream of bytes; reading waits no longer than its ``seconds``.

    ``first`` lines came before those of the stream.
    """

    where = PARTITION

    def __init__(self, stream: BinaryIO, first: int = 0) -> None:
        self._stream = stream
        self._next = first
        self._half = bytearray()  # of a line whose end has not come
        self._ended = False
        try:
            self._descriptor: int | None = stream.fileno()
            self._ready = select.poll()  # not select(): the 1,024th open file is beyond it
            self._ready.register(self._descriptor, select.POLLIN)
        except (OSError, io.UnsupportedOperation):
            self._descriptor = None  # no file of the operating system: reading it never waits

    def read(self, seconds: float, *, labels: bool = True) -> list[FeedLine] | None:
        """As `Feed.read`; there are no labels by themselves."""
        if self._ended:
            return None
        if self._descriptor is None:
            data = self._stream.read(READ_BYTES)
        else:
            if not self._ready.poll(1000 * max(0.0, seconds)):
                return []
            data = os.read(self._descriptor, READ_BYTES)
        if not data:
            self._ended = True
            last, self._half = bytes(self._half), bytearray()
            return [self._line(last)] if last else None
        first, *rest = data.split(b"\n")
        lines = []
        for part in rest:
            self._add(first)
            lines.append(self._line(bytes(self._half)))
            self._half, first = bytearray(), part
        self._add(first)
        return lines

    def positions(self) -> Positions:
        """By partition, the offset that is read next."""
        return {PARTITION: self._next}

    def place(self, partition: str, offset: int) -> str:
        """Where a line is found, for messages."""
        return f"{partition}: line {offset + 1}"

    def commit(self, upto: Positions, held: Callable[[], bool]) -> None:
        """Nothing: standard input cannot be read again."""

    def close(self) -> None:
        """Nothing: the stream belongs to the process."""

    def _add(self, part: bytes) -> None:
        """Add to the line; of one that is too long, no more is kept than shows that."""
        self._half += part[: max(0, LONGEST_LINE + 2 - len(self._half))]

    def _line(self, text: bytes) -> FeedLine:
        self._next += 1
        return FeedLine(PARTITION, self._next - 1, text)
