"""A person's rows in the files that runs kept, by `source.record_rows` and as rejects.

A row stays where it was, without its values, so that every other one keeps its number. A run whose
rows were erased cannot be replayed any more.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from selfheal_cli.errors import DataError, RegistryError, RegistryUnreachable
from selfheal_cli.events.archive import logs_of
from selfheal_cli.events.log import read
from selfheal_cli.events.types import RunStarted
from selfheal_cli.pipeline.prepare.rows import KEPT
from selfheal_cli.registry.base import Registry
from selfheal_cli.sources.feed import on_disk
from selfheal_cli.sources.files import CsvTable, open_table
from selfheal_cli.sources.first_contract import one_text
from selfheal_cli.sources.rejects import REJECTS
from selfheal_cli.sources.text_file import is_packed
from selfheal_cli.workspace import OWNER_ONLY, WORKSPACE

Erased = tuple[bytes, int]  # a file without the rows, and how many they are
SUFFIXES = (".csv", ".parquet", ".ndjson", ".jsonl")  # of what may be in the registry alone
NAMES = (*(f"{KEPT}{one}" for one in SUFFIXES), REJECTS)


def erase_kept(
    registry: Registry, model: str, column: str, value: str, *, dry_run: bool = False,
    workspace: Path = WORKSPACE,
) -> dict[str, int]:  # fmt: skip
    """Erase the rows that have a value in a column from what the model's runs in this folder kept,
    here and in the registry; of rejected lines those that contain it. Returns how many rows there
    are in each file, by RUN/FILE.

    Raises `DataError` naming a file that cannot be read, `StorageError`, `RegistryUnreachable`.
    """
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for log in logs_of(model, workspace):
            folder, source = log.parent, _source(log)
            for name in sorted({*NAMES, *(one.name for one in folder.glob(f"{KEPT}.*"))}):
                copy = _copy(registry, folder.name, name, Path(scratch))
                for path in (folder / name, copy):
                    if path is None or not path.exists():
                        continue
                    data, rows = _without(path, source, column, value)
                    if rows:
                        counts[f"{folder.name}/{name}"] = rows
                    if rows and not dry_run:
                        _write(path, data)
                        if path == copy:
                            registry.log_files(folder.name, [path])
    return counts


def _source(log: Path) -> Mapping[str, Any]:
    """The settings of a run's source."""
    first = next(read(log), None)
    return first.config.get("source", {}) if isinstance(first, RunStarted) else {}


def _copy(registry: Registry, run_id: str, name: str, into: Path) -> Path | None:
    """The registry's own, if it has one."""
    try:
        return registry.run_file(run_id, name, into)
    except RegistryUnreachable:
        raise
    except RegistryError:
        return None


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    with on_disk(path):
        part.touch(OWNER_ONLY)
        part.write_bytes(data)
        part.replace(path)


def _without(path: Path, source: Mapping[str, Any], column: str, value: str) -> Erased:
    """The file without the values of rows that have ``value`` in ``column``."""
    if path.name == REJECTS:
        return _lines(path, lambda kept: _reject(kept, value))
    if path.name == f"{KEPT}.jsonl":
        return _lines(path, lambda kept: _kept_line(kept, column, value))
    if path.suffix == ".ndjson":
        return _lines(path, lambda row: _blank(row, column, value))
    if path.suffix == ".parquet":
        return _parquet(path, column, value)
    table = open_table(
        path, source.get("separator"),
        encoding=source.get("encoding"), skip_lines=source.get("skip_lines"),
    )  # fmt: skip
    if not isinstance(table, CsvTable) or is_packed(path):
        raise DataError(f"{path}: rows cannot be erased from a packed file; remove it by hand")
    return _csv(table, column, value)


def _lines(path: Path, erase: Callable[[Any], Any | None]) -> Erased:
    """Of a file with a JSON object a line; ``erase`` gives what a line becomes, None for itself."""
    lines, rows = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            instead = erase(json.loads(line))
        except ValueError:
            instead = None  # half a line, of which nothing is known
        rows += instead is not None
        lines.append(line if instead is None else (json.dumps(instead) + "\n").encode())
    return b"".join(lines), rows


def _blank(row: Any, column: str, value: str) -> dict[str, None] | None:
    if isinstance(row, dict) and column in row and one_text(row[column]) == value:
        return dict.fromkeys(row)
    return None


def _kept_line(kept: dict[str, Any], column: str, value: str) -> dict[str, Any] | None:
    """A line of a stream, which is JSON in JSON."""
    try:
        instead = _blank(json.loads(kept["text"]), column, value)
    except ValueError:
        return None
    return None if instead is None else {**kept, "text": json.dumps(instead)}


def _reject(kept: dict[str, Any], value: str) -> dict[str, Any] | None:
    """A line that could not be read as a row: whatever contains the value."""
    return {**kept, "line": "", "reason": "erased"} if value in kept["line"] else None


def _parquet(path: Path, column: str, value: str) -> Erased:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    if column not in table.column_names:
        return b"", 0
    erased = pa.array([one is not None and one_text(one) == value
                       for one in table[column].to_pylist()])  # fmt: skip
    rows = int(pc.sum(erased).as_py() or 0)
    columns = [pc.if_else(erased, pa.scalar(None, one.type), one) for one in table.columns]
    stream = io.BytesIO()
    schema = pa.schema([one.with_nullable(nullable=True) for one in table.schema])
    pq.write_table(pa.table(columns, schema=schema), stream)
    return stream.getvalue(), rows


def _csv(table: CsvTable, column: str, value: str) -> Erased:
    """Every other line keeps its bytes."""
    if column not in table.columns:
        return b"", 0
    place, empty = table.columns.index(column), table.separator * (len(table.columns) - 1) + "\n"
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in text:
            taken.append(line)
            yield line

    written, rows, header = io.StringIO(newline=""), 0, True
    encoding = table.encoding.removesuffix("-sig")  # a mark at the beginning is text then
    with table.path.open(encoding=encoding, newline="") as text:
        written.writelines(text.readline() for _ in range(table.skip_lines))
        for fields in csv.reader(lines(), delimiter=table.separator):
            is_one = not header and len(fields) > place and one_text(fields[place]) == value
            rows += is_one
            written.write(empty if is_one else "".join(taken))
            header = header and not fields
            taken.clear()
    return written.getvalue().encode(encoding), rows
