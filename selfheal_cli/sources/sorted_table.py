"""A table whose rows are not in time order, in time order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from selfheal_cli.errors import DataError
from selfheal_cli.sources.table_file import CHUNK_ROWS, Broken, TableFile
from selfheal_cli.sources.times import in_seconds
from selfheal_cli.sources.values import numbers

MOST_CELLS = 100_000_000  # that are held to be sorted


class SortedTable:
    """A `TableFile` in the order of a column of numbers or times; equal ones stay as they stand.

    It holds all rows, so that memory grows with them. Rows without a time come last. Raises
    `DataError` for more than `MOST_CELLS` values.
    """

    def __init__(self, table: TableFile, column: str) -> None:
        self._table = table
        self.where, self.columns, self.contract = table.where, table.columns, table.contract
        self._broken: Mapping[int, Broken] = {}
        frames, rows = [], 0
        for frame in table.chunks(None):
            frames.append(frame)
            rows += len(frame)
            if rows * len(table.columns) > MOST_CELLS:
                raise DataError(
                    f"{table.where}: more than {MOST_CELLS:,} values are not sorted by "
                    f"'{column}' here: sort the file and leave source.sort_by out"
                )
        self._frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        self._order = np.argsort(in_seconds(self._frame[column]), kind="stable")
        self._frame = self._frame.iloc[self._order].reset_index(drop=True)
        placed = {int(row): place for place, row in enumerate(self._order, 1)}
        self._broken = {placed[row - 1]: one for row, one in table.broken().items()}

    def place(self, row: int) -> str:
        """Where the row is found in the file."""
        return self._table.place(self.number(row))

    def number(self, row: int) -> int:
        """The number that one of its rows has in the file."""
        return int(self._order[row - 1]) + 1

    def keep(self, path: Path) -> None:
        """Write all of it to a file, in the file's own order."""
        self._table.keep(path)

    def chunks(self, numeric: Sequence[str] | None, skip: int = 0) -> Iterator[pd.DataFrame]:
        """Frames of rows, as in `TableFile.chunks`."""
        for start in range(skip, len(self._frame), CHUNK_ROWS):
            part = self._frame.iloc[start : start + CHUNK_ROWS]
            yield part.assign(**{name: numbers(part[name]) for name in numeric or ()})

    def notes(self) -> dict[str, int]:
        """Counts of rows that are left out, by reason."""
        return self._table.notes()

    def broken(self) -> Mapping[int, Broken]:
        """As `TableFile.broken`, by the number that the row has here."""
        return self._broken
