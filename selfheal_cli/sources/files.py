"""Opens a file of rows; CSV as chunks of DataFrame, with errors that name file and row.

Nothing here keeps more than one chunk in memory.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import mode
from typing import IO, TYPE_CHECKING, Any

import pandas as pd

from selfheal_cli.config_sources import NDJSON_SUFFIXES, NdjsonSettings, TableSettings
from selfheal_cli.errors import DataError
from selfheal_cli.sources.ndjson import NdjsonTable
from selfheal_cli.sources.parquet import ParquetTable
from selfheal_cli.sources.table_file import CHUNK_ROWS, Broken, TableFile, require_names
from selfheal_cli.sources.text_file import UTF_8, by_mark, head_of, is_packed, opened_bytes
from selfheal_cli.sources.values import RowContract, numbers

if TYPE_CHECKING:
    from pandas.io.parsers import TextFileReader

SEPARATORS = (",", ";", "\t", "|")
SNIFFED = 20  # records of the head that the separator is found in
SKIPPED = re.compile(r"Skipping line (\d+): expected")  # as pandas warns


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
                f"{path}: this is JSON, not CSV; a JSON object a line is read from a file named "
                "*.ndjson or *.jsonl"
            )
        if skip_lines is None:
            skip_lines = lines_before_header(text) if contract == 2 else 0
        text = "".join(text.splitlines(keepends=True)[skip_lines:])
        separator = separator or sniff_separator(text)
        table = CsvTable(path, separator, contract, encoding=encoding, skip_lines=skip_lines)
    require_names(table.columns, where=str(path))
    return table


def open_named(
    path: Path,
    separator: str | None = None,
    contract: RowContract = 2,
    *,
    encoding: str | None = None,
) -> TableFile:
    """The same, or of a file that is named as one with a JSON object a line the reader of these."""
    if path.suffix.lower() in NDJSON_SUFFIXES:
        return NdjsonTable(path, contract=contract)
    return open_table(path, separator, contract, encoding=encoding)


def open_settled(settings: TableSettings | NdjsonSettings, contract: RowContract = 2) -> TableFile:
    """The same, as settings say it."""
    if isinstance(settings, NdjsonSettings):
        return NdjsonTable(settings.path, contract=contract)
    return open_table(
        settings.path,
        settings.separator,
        contract,
        encoding=settings.encoding,
        skip_lines=settings.skip_lines,
    )


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
    """Lines above a table's header: blank ones, comments, and titles of a single field, which
    spreadsheets fill up with separators.

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
    named = (place for place, fields in enumerate(records) if any(map(str.strip, fields[1:])))
    wide = (place for place in named if len(records[place]) >= width > 1)
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


def csv_frame(body: bytes) -> pd.DataFrame:
    """A caller's CSV, each cell as it is written: pandas would take NA for a missing value."""
    return pd.read_csv(io.BytesIO(body), dtype="str", keep_default_na=False, compression=None)


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
