"""CSV and Parquet files as chunks of DataFrame, with errors that name file and row.

Nothing here keeps more than one chunk in memory.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import shutil
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate, islice
from pathlib import Path
from statistics import mode
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selfheal_cli.config_sources import TableSettings
from selfheal_cli.errors import DataError
from selfheal_cli.sources.text_file import UTF_8, by_mark, head_of, is_packed, opened_bytes
from selfheal_cli.sources.values import RowContract, numbers

if TYPE_CHECKING:
    from pandas.io.parsers import TextFileReader

CHUNK_ROWS = 8_192
MOST_COLUMNS = 10_000
SEPARATORS = (",", ";", "\t", "|")
DAMAGE = (pa.ArrowException, OSError, ValueError)
SNIFFED = 20  # records of the head that the separator is found in
WHOLE = re.compile(r"^([+-]?\d+)\.0+$")
SKIPPED = re.compile(r"Skipping line (\d+): expected")  # as pandas warns
INDEX = re.compile(r"__index_level_\d+__")  # the row numbers that pandas keeps beside a table
WHOLE_NUMBERS = {
    pa.int8(): pd.Int8Dtype(), pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(), pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(), pa.uint64(): pd.UInt64Dtype(),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that cannot be read; in the table's frames it has no values."""

    reason: str
    kind: str
    text: str


class TableFile(Protocol):
    """Rows of named columns, read from the start as often as wanted."""

    where: str  # what messages call it
    columns: list[str]
    contract: RowContract  # what its values mean

    def place(self, row: int) -> str:
        """Where the row is found; rows count from 1."""

    def keep(self, path: Path) -> None:
        """Write all of it to a file."""

    def chunks(self, numeric: Sequence[str] | None, skip: int = 0) -> Iterator[pd.DataFrame]:
        """Frames of up to `CHUNK_ROWS` rows after the first ``skip``.

        Columns in ``numeric`` come as float64 and the rest as text; with None, all as they are.
        """

    def notes(self) -> dict[str, int]:
        """Counts of rows that could not be read and are left out, by reason."""

    def broken(self) -> Mapping[int, Broken]:
        """Rows that cannot be read and are in the frames, by number, among those read so far."""


def open_table(
    path: Path,
    separator: str | None,
    contract: RowContract = 2,
    *,
    encoding: str | None = None,
    skip_lines: int | None = None,
) -> TableFile:
    """Look at the file's head and choose the reader; what is None is found in the head.

    Raises `DataError` for a file that is absent, empty, not text, or without a proper header.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a CSV or Parquet file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; it needs a header line and rows")
    head = head_of(path)
    table: TableFile
    if head[:4] == b"PAR1" and is_packed(path):
        raise DataError(f"{path}: a packed Parquet file; unpack it first")
    if head[:4] == b"PAR1":
        table = ParquetTable(path, contract)
    else:
        if separator is not None and len(separator) != 1:
            raise DataError(f"source.separator {separator!r}: one character is allowed")
        encoding = encoding or by_mark(head) or UTF_8
        text = _text(path, head, encoding)
        if text.lstrip().startswith(("{", "[")):
            raise DataError(
                f"{path}: this is JSON, not CSV; 'selfheal run' reads a JSON object a line from a "
                "file named .ndjson or .jsonl, 'selfheal init' a CSV or Parquet file"
            )
        if skip_lines is None:
            skip_lines = lines_before_header(text) if contract == 2 else 0
        text = "".join(text.splitlines(keepends=True)[skip_lines:])
        separator = separator or sniff_separator(text)
        table = CsvTable(path, separator, contract, encoding=encoding, skip_lines=skip_lines)
    require_names(table.columns, where=str(path))
    return table


def open_settled(settings: TableSettings, contract: RowContract = 2) -> TableFile:
    """The same, as settings say it."""
    return open_table(
        settings.path,
        settings.separator,
        contract,
        encoding=settings.encoding,
        skip_lines=settings.skip_lines,
    )


def require_names(columns: Sequence[str], *, where: str) -> None:
    """Raise `DataError` unless each of at most `MOST_COLUMNS` columns has a name of its own."""
    if len(columns) > MOST_COLUMNS:
        raise DataError(f"{where}: {len(columns):,} columns; at most {MOST_COLUMNS:,} are read")
    repeated = sorted(name for name, count in Counter(columns).items() if count > 1)
    if repeated:
        raise DataError(f"{where}: duplicate column names: {', '.join(repeated)}; rename them")
    if "" in columns:
        position = list(columns).index("") + 1
        raise DataError(f"{where}: column {position} has no name; name it in the header")


def require_column(table: TableFile, name: str) -> None:
    """Raise `DataError` with the nearest name where the table has no such column."""
    if name not in table.columns:
        raise DataError(
            f"{table.where}: no column '{name}'{nearest(name, table.columns)}; "
            f"columns: {', '.join(table.columns)}"
        )


def nearest(name: str, known: Sequence[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    matches = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def sniff_separator(head: str) -> str:
    """The separator that cuts the header into the most fields, and most rows into as many.

    >>> sniff_separator('"a";"b,c"\\n1;2\\n')
    ';'
    """
    best, width = ",", 1
    for separator in SEPARATORS:
        reader = csv.reader(io.StringIO(head, newline=""), delimiter=separator)
        records = list(islice(filter(None, reader), SNIFFED + 1))
        if len(records) > 1 and not (len(records) <= SNIFFED and head.endswith("\n")):
            records.pop()  # the last one may be cut
        field_count = len(records[0]) if records else 0
        alike = sum(len(fields) == field_count for fields in records)
        if field_count > width and alike * 2 > len(records):
            best, width = separator, field_count
    return best


def lines_before_header(head: str) -> int:
    """Lines above a table's header: blank ones, comments, and titles of a single field.

    >>> lines_before_header("# of March; net\\nPayments\\n\\nid;amount\\n1;2\\n3;4\\n")
    3
    >>> lines_before_header("#id,name\\nA,x\\nB,y\\n")
    0
    """
    lines = head.splitlines()[: 2 * SNIFFED]
    below = lines[len(lines) // 2 :]
    separator = sniff_separator("\n".join(below) + "\n")
    records = [next(csv.reader([line], delimiter=separator), []) for line in lines]
    width = mode(len(fields) for fields in records[-len(below) :]) if below else 0
    wide = (place for place, fields in enumerate(records) if len(fields) >= width > 1)
    first = next(wide, 0)
    alone = first or [len(fields) for fields in records[1:2]] != [width]
    if lines[first:] and lines[first].startswith("#") and alone:
        first = next(wide, 0)  # a comment has as many fields; a header would have rows below it
    header = records[first] if first else []
    if any(one.strip().replace(".", "", 1).isdecimal() for one in header):
        return 0
    before = [line.strip().strip(separator) for line in lines[:first]]
    spoken = all(line.startswith("#") or separator not in line for line in before)
    quoted = any('"' in line for line in before)  # a name may have a line's end in it
    return first if spoken and not quoted and any(before) else 0


class CsvTable:
    """A separated text file with a header line, below ``skip_lines`` others."""

    def __init__(
        self,
        path: Path,
        separator: str,
        contract: RowContract = 2,
        *,
        encoding: str = UTF_8,
        skip_lines: int = 0,
    ) -> None:
        self.path, self.where, self.contract = path, str(path), contract
        self.encoding, self.skip_lines = encoding, skip_lines
        self.columns: list[str] = []
        self.separator = separator
        self._wide: set[int] = set()  # lines with more fields than the header
        with (
            self._translated(),
            opened_bytes(path) as stream,
            io.TextIOWrapper(stream, encoding, newline="") as text,
        ):
            for _ in range(skip_lines):
                text.readline()
            header = next(filter(None, csv.reader(text, delimiter=separator)), [])
        self.columns = [name.strip() for name in header]

    def place(self, row: int) -> str:
        """Where the row is found, for messages."""
        return f"{self.where}: row {row}"

    def keep(self, path: Path) -> None:
        """Write all of it to a file."""
        shutil.copyfile(self.path, path)

    def chunks(self, numeric: Sequence[str] | None, skip: int = 0) -> Iterator[pd.DataFrame]:
        """Frames of rows, as in `TableFile.chunks`."""
        converted = set(numeric or ())
        options: dict[str, Any] = {"header": 0}
        known = numeric or ()
        if self.contract == 2:
            # the header is read as a row, or pandas would cut rows by the first below it
            options = {"header": None, "keep_default_na": False, "on_bad_lines": "warn"}
            known, skip = (), skip + 1
        else:
            converted = set()
        dtypes: Any = {name: "float64" if name in known else "str" for name in self.columns}
        with opened_bytes(self.path) as stream, self._reader(stream, dtypes, options) as reader:
            while True:
                with self._translated():
                    frame = next(reader, None)
                if frame is None:
                    return
                # rows are passed over here: pandas' own skipping counts lines, not rows
                if skip < len(frame):
                    kept = frame.iloc[skip:] if skip else frame
                    yield kept.assign(**{name: numbers(kept[name]) for name in converted})
                skip = max(0, skip - len(frame))

    def _reader(self, stream: IO[bytes], dtypes: Any, options: Mapping[str, Any]) -> TextFileReader:
        with self._translated():
            return pd.read_csv(
                stream,
                sep=self.separator,
                names=self.columns,
                index_col=False,
                dtype=dtypes,
                encoding=self.encoding,
                skiprows=self.skip_lines,
                compression=None,
                chunksize=CHUNK_ROWS,
                **options,
            )

    def notes(self) -> dict[str, int]:
        """Counts of rows that are left out, by reason."""
        if not self._wide:
            return {}
        return {f"rows of another width, left out (the first in line {min(self._wide)})":
                len(self._wide)}  # fmt: skip

    def broken(self) -> Mapping[int, Broken]:
        """As `TableFile.broken`; a row of another width is left out at once."""
        return {}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings(record=self.contract == 2) as caught:
                action: Any = "error" if self.contract == 1 else "always"
                warnings.simplefilter(action, pd.errors.ParserWarning)
                yield
            for warning in caught or ():
                self._wide.update(map(int, SKIPPED.findall(str(warning.message))))
        except pd.errors.EmptyDataError:
            raise DataError(f"{self.where}: no rows below the header") from None
        except UnicodeDecodeError as exc:
            raise _not_text(self.path, self.encoding, exc.reason) from exc
        except pd.errors.ParserWarning as exc:
            raise DataError(
                f"{self.path}: a row has more fields than the header's {len(self.columns)}"
            ) from exc
        except (pd.errors.ParserError, OverflowError, csv.Error) as exc:
            reason = str(exc).removeprefix("Error tokenizing data. C error: ").strip()
            raise DataError(f"{self.path}: {reason}") from exc


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
            with pq.ParquetFile(self.path) as stream:
                for record_batch in stream.iter_batches(batch_size=CHUNK_ROWS):
                    if skip >= record_batch.num_rows:
                        skip -= record_batch.num_rows
                        continue
                    frame = self._frame(record_batch.slice(skip), numeric)
                    skip = 0
                    yield frame
        except DAMAGE as exc:
            raise DataError(f"{self.path}: damaged Parquet file ({_line(exc)})") from exc

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


def csv_frame(body: bytes) -> pd.DataFrame:
    """A caller's CSV, each cell as it is written: pandas would take NA for a missing value."""
    return pd.read_csv(io.BytesIO(body), dtype="str", keep_default_na=False, compression=None)


def parquet_frame(body: bytes) -> pd.DataFrame:
    """A caller's Parquet; whole numbers stay whole beside missing ones."""
    frame: pd.DataFrame = pq.read_table(io.BytesIO(body)).to_pandas(types_mapper=WHOLE_NUMBERS.get)
    return frame


def as_text(values: pd.Series[Any]) -> pd.Series[str]:
    """Values as stripped text, whole numbers without a fraction: 1.0 and 1 are one category."""
    codes, unique = pd.factorize(values)  # a category is read once, not in each row
    names = pd.Series([one_text(value) for value in unique], dtype="str")
    return pd.Series(names.reindex(codes).to_numpy(), index=values.index, dtype="str")


def one_text(value: object) -> str:
    """What `as_text` makes of one value.

    >>> one_text(1.0), one_text(" 1 ")
    ('1', '1')
    """
    return WHOLE.sub(r"\1", str(value).strip())


def as_numbers(values: pd.Series[Any]) -> NDArray[np.float64]:
    """Numbers as float64; NaN where a value is missing or no number."""
    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _text(path: Path, head: bytes, encoding: str) -> str:
    if encoding == UTF_8 and b"\x00" in head:
        raise DataError(f"{path}: not text (a zero byte at {head.index(0)}); give CSV or Parquet")
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError as exc:
        where = f"byte 0x{head[exc.start]:02x} at {exc.start}"
        raise _not_text(path, encoding, where) from exc


def _not_text(path: Path, encoding: str, where: str) -> DataError:
    named = "UTF-8" if encoding == UTF_8 else encoding
    return DataError(
        f"{path}: not {named} text ({where}); 'selfheal init' finds out which encoding it is in, "
        "or give --encoding, such as cp1252"
    )


def _line(exc: Exception) -> str:
    return str(exc).splitlines()[0]


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
        part = min(bisect_right(self._ends, row - 1), len(self._parts) - 1)
        before = self._ends[part - 1] if part else 0
        return self._parts[part].place(row - before)

    def keep(self, path: Path) -> None:
        """Write all parts into one."""
        with pq.ParquetWriter(path, self._parts[0].schema) as writer:
            for part in self._parts:
                with pq.ParquetFile(part.path) as stream:
                    for rows in stream.iter_batches(batch_size=CHUNK_ROWS):
                        writer.write_batch(rows.cast(self._parts[0].schema))

    def chunks(self, numeric: Sequence[str] | None, skip: int = 0) -> Iterator[pd.DataFrame]:
        """Frames of rows, as in `TableFile.chunks`."""
        before = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            if skip < end:
                yield from part.chunks(numeric, max(0, skip - before))
            before = end

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
