"""The answer to a table while it is written: whole parts in a folder beside it, put together at
the end. A job that was killed goes on after its last part.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from selfheal_cli.errors import ConfigurationError, DataError, OptionError, SelfhealError
from selfheal_cli.sources.feed import on_disk
from selfheal_cli.workspace import OWNERS_FOLDER

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

JOB, LOCK, PARTS = "job.json", "lock", "parts"
FORMS = {".csv": "csv", ".csv.gz": "csv.gz", ".parquet": "parquet"}
Kinds = Mapping[str, "pa.DataType"]  # of columns that come as they are


class PartFile(Protocol):
    """A part that is being written."""

    def add(self, frame: pd.DataFrame) -> None:
        """Write rows."""

    def close(self) -> None:
        """No more will come."""


class ScoredParts:
    """``OUTPUT.unfinished``: parts, each named by its last row, and what they are parts of."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.form = _form(output)
        self.folder = output.with_name(f"{output.name}.unfinished")
        self.version: int | None = None  # that the job was begun with
        self._job: Mapping[str, Any] = {}
        self._counts: dict[int, Counter[str]] = {}

    @contextmanager
    def open(self, job: Mapping[str, Any], *, force: bool) -> Iterator[None]:
        """Begin, or go on with, a job of that description; nobody else writes meanwhile.

        Raises `ConfigurationError` where the output is there, or an unfinished one of another job;
        ``force`` writes over both.
        """
        if self.output.exists() and not force:
            raise ConfigurationError(
                f"{self.output}: is there already; name another, or write over it with --force"
            )
        with on_disk(self.folder):
            self.folder.mkdir(OWNERS_FOLDER, parents=True, exist_ok=True)
            (self.folder / PARTS).mkdir(exist_ok=True)
        with self._locked():
            self._go_on(job, force=force)
            try:
                yield
            except SelfhealError:
                if not self.rows:  # what was refused leaves nothing that another job runs into
                    shutil.rmtree(self.folder, ignore_errors=True)
                raise
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def rows(self) -> int:
        """That are written."""
        return max(self._counts, default=0)

    @property
    def counts(self) -> Counter[str]:
        """What was counted in all parts."""
        return sum(self._counts.values(), Counter())

    def pin(self, version: int) -> None:
        """The version that all rows are scored with."""
        self.version = version
        self._note()

    @property
    def kinds(self) -> Kinds:
        """Types of the columns that the first part has, where there is one and it keeps them."""
        if self.form != "parquet" or not self.rows:
            return {}
        import pyarrow.parquet as pq

        schema = pq.read_schema(self._part(min(self._counts)))
        return {field.name: field.type for field in schema}

    @contextmanager
    def stream(self) -> Iterator[IO[bytes]]:
        """Where a new part is written; on disk where the block ends well."""
        path = self.folder / "part.tmp"
        with on_disk(path), path.open("wb") as stream:
            yield stream
            _sync(stream)

    def end(self, row: int, counts: Counter[str]) -> None:
        """The part is whole, up to that row of the table."""
        self._counts[row] = counts
        self._note()
        with on_disk(self.folder):
            (self.folder / "part.tmp").replace(self._part(row))

    def finish(self) -> None:
        """Put the parts together, or the folder in its place."""
        if not self.rows:
            raise DataError("the input has no rows")
        with on_disk(self.output):
            whole = self.folder / "whole.tmp"
            if self.output.suffix:
                self._assemble(whole)
            else:
                whole = self.folder / PARTS
                if self.output.is_dir():
                    shutil.rmtree(self.output)
            whole.replace(self.output)

    def _go_on(self, job: Mapping[str, Any], *, force: bool) -> None:
        self._job = json.loads(json.dumps(job, default=str))
        path = self.folder / JOB
        if not path.exists():
            self._forget()  # what another job left that was being given up
            return
        noted = json.loads(path.read_text(encoding="utf-8"))
        if noted["job"] != self._job:
            if not force:
                other = next(k for k in self._job if noted["job"].get(k) != self._job[k])
                raise ConfigurationError(
                    f"{self.folder}: holds an unfinished job with another {other}; finish that "
                    "one, or give it up with --force"
                )
            self._forget()
            return
        self.version = noted["version"]
        parts = sorted((int(row), Counter(counts)) for row, counts in noted["parts"].items())
        # behind one that is gone no row is known to be written
        self._counts = dict(takewhile(lambda part: self._part(part[0]).exists(), parts))

    def _forget(self) -> None:
        (self.folder / JOB).unlink(missing_ok=True)
        for path in (*(self.folder / PARTS).iterdir(), *self.folder.glob("*.ndjson")):
            path.unlink()

    def _part(self, row: int) -> Path:
        return self.folder / PARTS / f"part-{row:012}.{self.form}"

    def _note(self) -> None:
        noted = {"job": self._job, "version": self.version, "parts": self._counts}
        fresh = self.folder / f"{JOB}.tmp"
        with on_disk(fresh):
            fresh.write_text(json.dumps(noted), encoding="utf-8")
            fresh.replace(self.folder / JOB)

    def _assemble(self, whole: Path) -> None:
        parts = [self._part(row) for row in sorted(self._counts)]
        if self.form == "parquet":
            _join_parquet(parts, whole)
            return
        with whole.open("wb") as stream:  # members of gzip that follow one another are one file
            for part in parts:
                with part.open("rb") as rows:
                    shutil.copyfileobj(rows, stream)
            _sync(stream)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """SQLite's lock: it goes with the process, however that ends."""
        with closing(sqlite3.connect(self.folder / LOCK, timeout=0)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as exc:
                raise ConfigurationError(
                    f"{self.folder}: another process is at work there; wait for it"
                ) from exc
            yield


def part_file(stream: IO[bytes], form: str, kinds: Kinds, *, header: bool) -> PartFile:
    """A part in one of the `FORMS`; ``kinds`` are the types of its columns."""
    if form == "parquet":
        return _ParquetPart(stream, kinds)
    return _CsvPart(stream, header=header, packed=form == "csv.gz")


class _CsvPart:
    def __init__(self, stream: IO[bytes], *, header: bool, packed: bool) -> None:
        # without the time, so that the same rows are the same bytes
        self._packed = gzip.GzipFile("", "wb", fileobj=stream, mtime=0) if packed else None
        self._stream = self._packed or stream
        self._header = header

    def add(self, frame: pd.DataFrame) -> None:
        """See `PartFile`."""
        text = frame.to_csv(index=False, header=self._header, lineterminator="\n")
        self._stream.write(text.encode())
        self._header = False

    def close(self) -> None:
        """See `PartFile`."""
        if self._packed is not None:
            self._packed.close()


class _ParquetPart:
    def __init__(self, stream: IO[bytes], kinds: Kinds) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema(list(kinds.items()))
        self._writer = pq.ParquetWriter(stream, self._schema)

    def add(self, frame: pd.DataFrame) -> None:
        """See `PartFile`; raises `DataError` for a value of another type than before."""
        import pyarrow as pa

        columns = [as_kind(frame[field.name], field.type) for field in self._schema]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        """See `PartFile`."""
        self._writer.close()


def kind_of(values: pd.Series[Any], schema: pa.Schema | None) -> pa.DataType:
    """The type that a column is written with: its file's, else that of its first values."""
    import pyarrow as pa

    if schema is not None and values.name in schema.names:
        kind = schema.field(values.name).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind
    try:
        kind = pa.array(values, from_pandas=True).type
    except pa.ArrowException:
        return pa.string()
    return pa.string() if pa.types.is_null(kind) or pa.types.is_large_string(kind) else kind


def as_kind(values: pd.Series[Any], kind: pa.DataType) -> pa.Array:
    """A column as Arrow has it; raises `DataError` for a value that is of another type."""
    import pyarrow as pa

    plain = values.astype("object")
    if pa.types.is_string(kind):
        plain = plain.map(str, na_action="ignore")
    try:
        return pa.array(plain, kind, from_pandas=True)
    except (pa.ArrowException, OverflowError) as exc:
        reason = str(exc).splitlines()[0]
        raise DataError(
            f"column '{values.name}': {reason}; it held {kind} before: write CSV, or --keep others"
        ) from exc


def _join_parquet(parts: list[Path], whole: Path) -> None:
    import pyarrow.parquet as pq

    with whole.open("wb") as stream:
        with pq.ParquetWriter(stream, pq.read_schema(parts[0])) as writer:
            for part in parts:
                with pq.ParquetFile(part, pre_buffer=False) as rows:
                    for group in range(rows.num_row_groups):
                        writer.write_table(rows.read_row_group(group))
        _sync(stream)


def _sync(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _form(output: Path) -> str:
    if not output.suffix:
        return "parquet"
    for ending, form in FORMS.items():
        if output.name.lower().endswith(ending):
            return form
    raise OptionError(
        f"OUTPUT {output}: a name that ends in {', '.join(FORMS)} is allowed, or a folder's"
    )
