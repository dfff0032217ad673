"""A folder of Parquet files as one table, in the order of their names."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from selfheal_cli.errors import DataError
from selfheal_cli.source.table_file import CHUNK_ROWS, ParquetTable, require_names
from selfheal_cli.source.values import RowContract

PATTERN = "*.parquet"


class ParquetFolder:
    """Parts with the same columns in the same order and of the same types.

    Raises `DataError` naming the part and the column that differ from the first part.
    """

    def __init__(self, path: Path, contract: RowContract = 2) -> None:
        self.path, self.where, self.contract = path, str(path), contract
        parts = sorted(path.glob(PATTERN))
        if not parts:
            raise DataError(f"{path}: no file in the folder is named {PATTERN}")
        self._parts = [ParquetTable(part, contract) for part in parts]
        self.columns = self._parts[0].columns
        require_names(self.columns, where=str(parts[0]))
        for part in self._parts[1:]:
            _require_same(self._parts[0], part)
        self._ends = list(accumulate(pq.read_metadata(part).num_rows for part in parts))

    def place(self, row: int) -> str:
        """The part that the row is in, and its row there."""
        found = min(bisect_right(self._ends, row - 1), len(self._parts) - 1)
        before = self._ends[found - 1] if found else 0
        return self._parts[found].place(row - before)

    def keep(self, path: Path) -> None:
        """Write all parts into one."""
        with pq.ParquetWriter(path, self._parts[0].schema) as writer:
            for part in self._parts:
                with pq.ParquetFile(part.path) as stream:
                    for rows in stream.iter_batches(batch_size=CHUNK_ROWS):
                        writer.write_batch(rows.cast(self._parts[0].schema))

    def chunks(self, numeric: Sequence[str] | None, skip: int = 0) -> Iterator[pd.DataFrame]:
        """See `TableFile.chunks`."""
        before = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            if skip < end:
                yield from part.chunks(numeric, max(0, skip - before))
            before = end

    def notes(self) -> dict[str, int]:
        """See `TableFile.notes`."""
        return {}


def _require_same(first: ParquetTable, part: ParquetTable) -> None:
    wanted, found = _types(first.schema), _types(part.schema)
    for name in first.columns:
        if name not in found:
            raise DataError(f"{part.where}: no column '{name}', which {first.path.name} has")
        if found[name] != wanted[name]:
            raise DataError(
                f"{part.where}: column '{name}' holds {found[name]}, in {first.path.name} it "
                f"holds {wanted[name]}; all parts of a folder must agree"
            )
    new = [name for name in part.columns if name not in wanted]
    if new:
        raise DataError(f"{part.where}: column '{new[0]}' is not in {first.path.name}")
    if part.columns != first.columns:
        raise DataError(f"{part.where}: its columns are in another order than in {first.path.name}")


def _types(schema: pa.Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}
