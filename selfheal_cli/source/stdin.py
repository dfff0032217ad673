"""A JSON object a line on standard input: ``tail -f rows.ndjson | selfheal run -``."""

from __future__ import annotations

import io
import os
import select
from typing import BinaryIO

from selfheal_cli.source.feed import Line, Positions
from selfheal_cli.source.ndjson import LONGEST_LINE

PARTITION = "standard input"
READ_BYTES = 65_536


class StdinFeed:
    """Lines of a stream of bytes; reading does not wait longer than it is told to.

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
        except (OSError, io.UnsupportedOperation):
            self._descriptor = None  # not a file of the system's: it never makes one wait

    def read(self, seconds: float, *, labels: bool = True) -> list[Line] | None:
        """See `Feed.read`; there are no labels by themselves."""
        if self._ended:
            return None
        if self._descriptor is None:
            data = self._stream.read(READ_BYTES)
        else:
            if not select.select([self._descriptor], [], [], max(0.0, seconds))[0]:
                return []
            data = os.read(self._descriptor, READ_BYTES)
        if not data:
            self._ended = True
            last, self._half = bytes(self._half), bytearray()
            return [self._line(last)] if last else None
        first, *rest = data.split(b"\n")
        found = []
        for part in rest:
            self._add(first)
            found.append(self._line(bytes(self._half)))
            self._half, first = bytearray(), part
        self._add(first)
        return found

    def positions(self) -> Positions:
        """See `Feed.positions`."""
        return {PARTITION: self._next}

    def place(self, partition: str, offset: int) -> str:
        """See `Feed.place`."""
        return f"{partition}: line {offset + 1}"

    def commit(self, upto: Positions) -> None:
        """Nobody is told."""

    def close(self) -> None:
        """The stream is the process's own."""

    def _add(self, part: bytes) -> None:
        """Of a line that is too long only so much is kept that this shows."""
        self._half += part[: max(0, LONGEST_LINE + 2 - len(self._half))]

    def _line(self, text: bytes) -> Line:
        self._next += 1
        return Line(PARTITION, self._next - 1, text)
