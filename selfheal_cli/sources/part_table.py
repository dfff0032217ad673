"""A table without some of its rows: those that were put aside."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from selfheal_cli.sources.sorted_table import SortedTable
from selfheal_cli.sources.table_file import Broken, TableFile
from selfheal_cli.sources.values import numbers


class PartTable:
    """A `TableFile` of row contract 2 without the rows ``without`` of another, which count from 1.

    Its own rows count on without a gap; `place` says where they are in the file.
    """

    def __init__(self, table: TableFile, without: Sequence[int]) -> None:
        self._table, self._without = table, sorted(without)
        self.where, self.columns, self.contract = table.where, table.columns, table.contract

    def place(self, row: int) -> str:
        """Where the row is found, for messages."""
        return self._table.place(self._whole(row))

    def number(self, row: int) -> int:
        """The number that one of its rows has in the file."""
        return number_in_file(self._table, self._whole(row))

    def keep(self, path: Path) -> None:
        """Write all of it to a file."""
        self._table.keep(path)

    def chunks(self, numeric: Sequence[str] | None, skip: int = 0) -> Iterator[pd.DataFrame]:
        """Frames of rows, as in `TableFile.chunks`."""
        before = self._whole(skip) if skip else 0
        # read as they are: what is no number is in the rows that are left out
        for frame in self._table.chunks(None, before):
            kept = np.ones(len(frame), dtype=np.bool_)
            kept[[row - before - 1 for row in _between(self._without, before, len(frame))]] = False
            before += len(frame)
            if kept.any():
                part = frame[kept]
                yield part.assign(**{name: numbers(part[name]) for name in numeric or ()})

    def notes(self) -> dict[str, int]:
        """Counts of rows that are left out, by reason."""
        return self._table.notes()

    def broken(self) -> Mapping[int, Broken]:
        """As `TableFile.broken`; they are among those that are left out."""
        return {}

    def _whole(self, row: int) -> int:
        """The number in the whole table of one of the rows that are left."""
        for gone in self._without:
            if gone > row:
                break
            row += 1
        return row


def number_in_file(table: TableFile, row: int) -> int:
    """The number that a row of a table has in the table's file."""
    return table.number(row) if isinstance(table, PartTable | SortedTable) else row


def texts_of(table: TableFile, rows: Sequence[int]) -> Iterator[str]:
    """Rows of a table, in order, as JSON objects."""
    before = 0
    for frame in table.chunks(None):
        for row in _between(rows, before, len(frame)):
            values = frame.iloc[row - before - 1].to_dict().items()
            held = {name: None if pd.isna(value) else value for name, value in values}
            yield json.dumps(held, ensure_ascii=False, default=str)
        before += len(frame)
        if before >= rows[-1]:
            return


def _between(rows: Sequence[int], before: int, count: int) -> Sequence[int]:
    """Those of the rows that are among the ``count`` after the first ``before``."""
    return rows[bisect_right(rows, before) : bisect_right(rows, before + count)]
