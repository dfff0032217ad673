"""Parquet files, and folders of them, as chunks of DataFrame; one chunk is in memory at a time."""

from __future__ import annotations

import io
import re
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from selfheal_cli.errors import DataError
from selfheal_cli.sources.first_contract import as_text
from selfheal_cli.sources.table_file import CHUNK_ROWS, Broken, require_names
from selfheal_cli.sources.values import RowContract, numbers

DAMAGE = (pa.ArrowException, OSError, ValueError)
INDEX = re.compile(r"__index_level_\d+__")  # the row numbers that pandas keeps beside a table
WHOLE_NUMBERS = {
    pa.int8(): pd.Int8Dtype(), pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(), pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(), pa.uint64(): pd.UInt64Dtype(),
}  # fmt: skip
PATTERN = "*.parquet"
# what was read of a file is let go of: by default it stays until the file is closed
ONE_GROUP: dict[str, Any] = {"pre_buffer": False, "buffer_size": 65_536}


class ParquetTable:
    """A Parquet file."""

    def __init__(self, path: Path, contract: RowContract = 2) -> None:
        self.path, self.where, self.contract = path, str(path), contract
        try:
            schema = pq.read_schema(path)
        except DAMAGE as exc:
            raise DataError(f"{path}: not a readable Parquet file ({_line(exc)})") from exc
        self.columns = [n for n in schema.names if contract == 1 or not INDEX.fullmatch(n)]
        self.schema = schema

    def place(self, row: int) -> str:
        """Where the row is found, for messages."""
        return f"{self.where}: row {row}"

    def keep(self, path: Path) -> None:
        """Write all of it to a file."""
        shutil.copyfile(self.path, path)

    def chunks(self, numeric: Sequence[str] | None, skip: int = 0) -> Iterator[pd.DataFrame]:
        """Frames of rows, as in `TableFile.chunks`."""
        try:
            with pq.ParquetFile(self.path, **ONE_GROUP) as stream:
                for record_batch in stream.iter_batches(batch_size=CHUNK_ROWS):
                    if skip >= record_batch.num_rows:
                        skip -= record_batch.num_rows
                        continue
                    frame = self._frame(record_batch.slice(skip), numeric)
                    skip = 0
                    yield frame
        except DAMAGE as exc:
            raise DataError(f"{self.path}: damaged Parquet file ({_line(exc)})") from exc

    def frame_rows(self) -> list[int]:
        """Rows of each frame that `chunks` gives from the start."""
        full, rest = divmod(pq.read_metadata(self.path).num_rows, CHUNK_ROWS)
        return [CHUNK_ROWS] * full + [rest] * bool(rest)

    def notes(self) -> dict[str, int]:
        """As `TableFile.notes`; a Parquet file is read whole or not at all."""
        return {}

    def broken(self) -> Mapping[int, Broken]:
        """Rows that cannot be read, by number, among those read so far."""
        return {}

    def _frame(self, record_batch: pa.RecordBatch, numeric: Sequence[str] | None) -> pd.DataFrame:
        if self.contract == 2:
            return self._read(record_batch.select(self.columns), numeric or ())
        frame: pd.DataFrame = record_batch.to_pandas(ignore_metadata=True)
        for name in frame.columns:
            kind = self.schema.field(name).type
            if pa.types.is_decimal(kind) or pa.types.is_null(kind):
                frame[name] = frame[name].astype("float64")
            elif pa.types.is_dictionary(kind):
                frame[name] = frame[name].astype("object")
            if numeric is not None and name in numeric:
                frame[name] = frame[name].astype("float64")
            elif pa.types.is_boolean(kind):
                frame[name] = as_text(frame[name])  # the texts that a CSV file would have
        return frame

    @staticmethod
    def _read(record_batch: pa.RecordBatch, numeric: Sequence[str]) -> pd.DataFrame:
        """Whole numbers stay whole beside missing ones, and so each id what it is."""
        frame: pd.DataFrame = record_batch.to_pandas(
            ignore_metadata=True, types_mapper=WHOLE_NUMBERS.get, date_as_object=True
        )
        return frame.assign(**{name: numbers(frame[name]) for name in numeric})


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
        self.columns, self.schema = self._parts[0].columns, self._parts[0].schema
        require_names(self.columns, where=str(parts[0]))
        for part in self._parts[1:]:
            _require_same(self._parts[0], part)
        self._ends = list(accumulate(pq.read_metadata(part).num_rows for part in parts))

    def place(self, row: int) -> str:
        """The part that the row is in, and its row there."""
        part = min(bisect_right(self._ends, row - 1), len(self._parts) - 1)
        before = self._ends[part - 1] if part else 0
        return self._parts[part].place(row - before)

    def keep(self, path: Path) -> None:
        """Write all parts into one."""
        with pq.ParquetWriter(path, self._parts[0].schema) as writer:
            for part in self._parts:
                with pq.ParquetFile(part.path, **ONE_GROUP) as stream:
                    for rows in stream.iter_batches(batch_size=CHUNK_ROWS):
                        writer.write_batch(rows.cast(self._parts[0].schema))

    def chunks(self, numeric: Sequence[str] | None, skip: int = 0) -> Iterator[pd.DataFrame]:
        """Frames of rows, as in `TableFile.chunks`."""
        before = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            if skip < end:
                yield from part.chunks(numeric, max(0, skip - before))
            before = end

    def frame_rows(self) -> list[int]:
        """Rows of each frame that `chunks` gives from the start."""
        return [rows for part in self._parts for rows in part.frame_rows()]

    def broken(self) -> Mapping[int, Broken]:
        """Rows that cannot be read, by number, among those read so far."""
        return {}

    def notes(self) -> dict[str, int]:
        """Counts of rows that are left out, by reason."""
        return {}


def _require_same(first: ParquetTable, part: ParquetTable) -> None:
    expected, types = _types(first.schema), _types(part.schema)
    for name in first.columns:
        if name not in types:
            raise DataError(f"{part.where}: no column '{name}', which {first.path.name} has")
        if types[name] != expected[name]:
            raise DataError(
                f"{part.where}: column '{name}' holds {types[name]}, in {first.path.name} it "
                f"holds {expected[name]}; all parts of a folder must agree"
            )
    new = [name for name in part.columns if name not in expected]
    if new:
        raise DataError(f"{part.where}: column '{new[0]}' is not in {first.path.name}")
    if part.columns != first.columns:
        raise DataError(f"{part.where}: its columns are in another order than in {first.path.name}")


def _types(schema: pa.Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}


def parquet_frame(body: bytes) -> pd.DataFrame:
    """A caller's Parquet; whole numbers stay whole beside missing ones."""
    frame: pd.DataFrame = pq.read_table(io.BytesIO(body)).to_pandas(types_mapper=WHOLE_NUMBERS.get)
    return frame


def _line(exc: Exception) -> str:
    return str(exc).splitlines()[0]
