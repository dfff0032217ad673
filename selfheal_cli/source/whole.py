"""A whole table in memory as raw columns, for commands that look at its rows more than once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError
from selfheal_cli.source.profile import Kinds, require_column
from selfheal_cli.source.table_file import TableFile, open_table
from selfheal_cli.source.target import Target, as_classes
from selfheal_cli.source.values import finite, texts

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, LabelArray


@dataclass(frozen=True, slots=True)
class WholeTable:
    """Rows in the file's order: ``columns`` (n,) each, as rules read them.

    ``y`` (n,) holds positions in ``labels``, -1 where a label is missing; without a target all are
    -1 and ``labels`` is empty.
    """

    path: Path
    numeric: tuple[str, ...]
    text: tuple[str, ...]
    labels: tuple[str, ...]
    columns: Columns
    y: LabelArray

    def __len__(self) -> int:
        return len(self.y)


def read_whole(
    path: Path,
    *,
    target: str | None = None,
    positive: str | None = None,
    separator: str | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
) -> WholeTable:
    """Read a CSV or Parquet file; kinds and label order are those that a run would find.

    Raises `DataError` naming file, row, column and value for the first mistake.
    """
    table = open_table(path, separator)
    for name in (*([target] if target else []), *drop, *categorical):
        require_column(table, name)
    features = [name for name in table.columns if name != target and name not in drop]
    kinds = Kinds(table, features, categorical)
    answers = Target(str(path), target, missing_allowed=True, place=table.place) if target else None
    rows = 0
    for frame in table.chunks(None):
        kinds.add(frame, rows)
        if answers is not None and target is not None:
            answers.add(frame[target], rows)
        rows += len(frame)
    if rows == 0:
        raise DataError(f"{path}: no rows below the header")
    numeric, text = kinds.found()
    labels: tuple[str, ...] = ()
    if answers is not None:
        answers.require_classes()
        labels = answers.labels(positive)
    columns, y = _read(table, numeric, text, target, labels, rows)
    return WholeTable(path, numeric, text, labels, columns, y)


def _read(
    table: TableFile,
    numeric: Sequence[str],
    text: Sequence[str],
    target: str | None,
    labels: tuple[str, ...],
    rows: int,
) -> tuple[Columns, LabelArray]:
    parts: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in (*numeric, *text)}
    y: LabelArray = np.full(rows, -1, dtype=np.int8)
    at = 0
    for frame in table.chunks(numeric):
        for name in numeric:
            parts[name].append(finite(frame[name].to_numpy(dtype=np.float64)))
        for name in text:
            parts[name].append(texts(frame[name]))
        if target is not None:
            y[at : at + len(frame)] = as_classes(frame[target], labels)
        at += len(frame)
    return {name: np.concatenate(part) for name, part in parts.items()}, y
