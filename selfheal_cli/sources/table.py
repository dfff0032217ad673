"""A table as a source: the first part trains the network, the rest streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.config import SegmentSettings
from selfheal_cli.config_sources import BoundedSettings
from selfheal_cli.errors import DataError
from selfheal_cli.records import Batch, Rows
from selfheal_cli.sources.base import Around, Block, joined, labelled
from selfheal_cli.sources.contract import Contract, RangeViolations
from selfheal_cli.sources.fit import fit
from selfheal_cli.sources.profile import Kinds, Target, as_classes, as_labels, profile
from selfheal_cli.sources.recognition import open_found
from selfheal_cli.sources.rejects import Rejects
from selfheal_cli.sources.segment import NONE, with_segment
from selfheal_cli.sources.table_file import TableFile, require_column
from selfheal_cli.sources.values import finite, texts

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, LabelArray


BLOCK_ROWS = 65_536
NO_LABEL = "rows of the training part without a label, left out"


class TableSource(Around):
    """A `Source` over rows that end. Reads them in chunks: memory does not grow with the rows."""

    def __init__(
        self,
        settings: BoundedSettings,
        table: TableFile,
        *,
        batch_size: int,
        batches: int | None,
        segments: SegmentSettings = NONE,
    ) -> None:
        self._rejects = Rejects(settings.max_rejects)
        profiled = profile(table, settings, self._rejects)
        self.table = table = profiled.table
        self.remarks = profiled.remarks
        self._numeric = profiled.numeric
        self._train_rows = int(profiled.rows * settings.train_fraction)
        self.streamed, self._batches = profiled.rows - self._train_rows, batches
        self.cut_into(batch_size)
        profiled.target.require_trained(self._train_rows)
        self._unlabelled = 0
        fitted = fit(table, profiled, self._counted(settings.target), settings)
        self._fitted = with_segment(fitted, table, settings, segments)
        if self._unlabelled:
            self.remarks += (self._left_out(),)
        self._seen = RangeViolations(self._fitted.contract)
        self.labels = self._fitted.labels
        self.encoding = self._fitted.encoding

    def cut_into(self, batch_size: int) -> None:
        """From now on its batches have that many rows; raises `DataError` where there are fewer."""
        self._batch_size = batch_size
        self.batch_count = self._count_batches()

    @property
    def contract(self) -> Contract:
        """What every row must be."""
        return self._fitted.contract

    def training(self) -> Iterator[Rows]:
        """The first rows that have a label, in blocks of up to `BLOCK_ROWS`."""
        pending: list[Block] = []
        for block in self._read(0, self._train_rows, None):
            pending.append(block)
            if sum(map(len, pending)) >= BLOCK_ROWS:
                yield from self._labelled(pending)
                pending = []
        if pending:
            yield from self._labelled(pending)

    def _labelled(self, pending: list[Block]) -> Iterator[Rows]:
        rows = joined(pending).rows
        known = labelled(rows)
        if len(known):
            yield known

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """The rows after the training part; the last batch may be smaller."""
        skip = (start - 1) * self._batch_size
        stop = self.batch_count * self._batch_size
        index, pending = start, None
        for block in self._read(self._train_rows + skip, stop - skip, self._seen):
            ready = block if pending is None else joined([pending, block])
            whole = len(ready) - len(ready) % self._batch_size
            for at in range(0, whole, self._batch_size):
                yield ready.cut(at, at + self._batch_size).batch(index)
                index += 1
            pending = ready.cut(whole, len(ready)) if whole < len(ready) else None
        if pending is not None:
            yield pending.batch(index)

    def attend(self, folder: Path, idle: Callable[[], bool]) -> None:
        """Rows that were put aside go to ``folder``."""
        self._rejects.to(folder)

    def held_out(self) -> Mapping[str, Rows]:
        """Nothing: every row of the stream is scored before anything learns from it."""
        return {}

    def limit(self) -> None:
        """None: of real rows the best possible figures are not known."""

    def notes(self) -> Mapping[str, int]:
        """Counts of unusual values in the stream so far, and of rows left out of the table."""
        held = {NO_LABEL: self._unlabelled} if self._unlabelled else {}
        return self._seen.notes() | self.table.notes() | self._rejects.notes() | held

    def departures(self) -> Mapping[str, Mapping[str, int]]:
        """Counts of range violations so far, by column."""
        return self._seen.columns()

    def _count_batches(self) -> int:
        trained, streamed = self._train_rows, self.streamed
        if trained < self._batch_size or streamed < self._batch_size:
            raise DataError(
                f"{self.table.where}: {trained + streamed} rows give {trained} to train on and "
                f"{streamed} to stream; each part needs at least one batch of {self._batch_size}: "
                "give more rows, another source.train_fraction or a smaller --batch-size"
            )
        available = -(-streamed // self._batch_size)
        return available if self._batches is None else min(self._batches, available)

    def _counted(self, target: str) -> Iterator[pd.DataFrame]:
        """The training part; those of its rows that have no label are counted."""
        for frame in self._frames(0, self._train_rows):
            self._unlabelled += int(as_labels(frame[target], self.table.contract).isna().sum())
            yield frame

    def _left_out(self) -> str:
        return (
            f"{self._unlabelled:,} of the {self._train_rows:,} rows that train the network have no "
            "label, and are left out"
        )

    def _frames(self, skip: int, limit: int) -> Iterator[pd.DataFrame]:
        if limit <= 0:
            return
        for frame in self.table.chunks(self._numeric, skip):
            yield frame.iloc[:limit] if len(frame) > limit else frame
            limit -= len(frame)
            if limit <= 0:
                return

    def _read(self, skip: int, limit: int, seen: RangeViolations | None) -> Iterator[Block]:
        for frame in self._frames(skip, limit):
            yield self._fitted.block(frame, seen)


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
    """Read a CSV, Parquet or NDJSON file, however it is written, as `selfheal init` finds out;
    kinds and label order are those that a run would find.

    Raises `DataError` naming file, row, column and value for the first mistake.
    """
    table = open_found(path, separator).reads
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
    numeric, text = kinds.kinds()
    for violation in kinds.violations():
        raise DataError(violation.message(table.place(violation.row)))
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
