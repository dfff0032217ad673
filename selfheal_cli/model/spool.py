"""Training rows that are read once each epoch, whatever their number."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from selfheal_cli.records import Rows


class SpooledRows:
    """Training blocks that are read once each epoch: one stays in memory, more go to a file."""

    def __init__(self, blocks: Iterator[Rows]) -> None:
        first = next(blocks)
        self._width = first.x.shape[1]
        self._first = (first.x, first.y.astype(np.float32))
        self._sizes: list[int] = []
        self._file: IO[bytes] | None = None
        for block in blocks:
            self._spool(block)

    def __iter__(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        yield self._first
        if self._file is None:
            return
        self._file.seek(0)
        for rows in self._sizes:
            data = np.frombuffer(self._file.read(rows * (self._width + 1) * 4), dtype=np.float32)
            block = data.reshape(rows, self._width + 1)
            yield block[:, :-1].copy(), block[:, -1].copy()

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()

    def _spool(self, block: Rows) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        joined = np.column_stack([block.x, block.y.astype(np.float32)])
        self._file.write(np.ascontiguousarray(joined).tobytes())
        self._sizes.append(len(block))
