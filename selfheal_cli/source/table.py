"""A CSV or Parquet file as a source: the first part trains the network, the rest streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.config import TableSettings
from selfheal_cli.errors import DataError
from selfheal_cli.moments import Moments
from selfheal_cli.records import Batch, Rows
from selfheal_cli.source.encoding import (
    CategoricalColumn,
    Column,
    Encoding,
    NumericColumn,
    occurred,
)
from selfheal_cli.source.profile import Profile, order_labels, profile
from selfheal_cli.source.table_file import as_text, open_table

if TYPE_CHECKING:
    from selfheal_cli.records import Columns

MAX_CATEGORIES = 64
BLOCK_ROWS = 65_536


class TableSource:
    """A `Source` over a file. Reads it in chunks: memory does not grow with the rows."""

    def __init__(self, settings: TableSettings, *, batch_size: int, batches: int | None) -> None:
        self._table = open_table(settings.path, settings.separator)
        found = profile(
            self._table,
            target=settings.target,
            drop=settings.drop,
            categorical=settings.categorical,
        )
        self._where = str(settings.path)
        self._target = settings.target
        self._numeric = found.numeric
        self._train_rows = int(found.rows * settings.train_fraction)
        self._batch_size = batch_size
        self.labels = order_labels(found.target_values, settings.positive, where=self._where)
        self.batch_count = self._count_batches(found.rows, batches)
        self._counts: Counter[str] = Counter()
        self.encoding = self._fit(found)

    def training(self) -> Iterator[Rows]:
        """The first rows, in blocks of up to `BLOCK_ROWS`."""
        pending: list[Rows] = []
        for rows in self._read(0, self._train_rows, counts=None):
            pending.append(rows)
            if sum(map(len, pending)) >= BLOCK_ROWS:
                yield _joined(pending)
                pending = []
        if pending:
            yield _joined(pending)

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """The rows after the training part; the last batch may be smaller."""
        skip = (start - 1) * self._batch_size
        stop = self.batch_count * self._batch_size
        index, pending = start, None
        for rows in self._read(self._train_rows + skip, stop - skip, counts=self._counts):
            ready = rows if pending is None else _joined([pending, rows])
            whole = len(ready) - len(ready) % self._batch_size
            for at in range(0, whole, self._batch_size):
                yield Batch(index, _cut(ready, at, at + self._batch_size))
                index += 1
            pending = _cut(ready, whole, len(ready)) if whole < len(ready) else None
        if pending is not None:
            yield Batch(index, pending)

    def held_out(self) -> Mapping[str, Rows]:
        """Nothing: every row of the stream is scored before anything learns from it."""
        return {}

    def limit(self) -> None:
        """Nobody knows the best that can be done on real rows."""

    def notes(self) -> Mapping[str, int]:
        """Missing values and unseen categories in the stream so far."""
        return occurred(self._counts)

    def _count_batches(self, rows: int, batches: int | None) -> int:
        streamed = rows - self._train_rows
        if self._train_rows < self._batch_size or streamed < self._batch_size:
            raise DataError(
                f"{self._where}: {rows} rows give {self._train_rows} to train on and {streamed} "
                f"to stream; each part needs at least one batch of {self._batch_size}: "
                "give more rows, another --train-fraction or a smaller --batch-size"
            )
        available = -(-streamed // self._batch_size)
        return available if batches is None else min(batches, available)

    def _fit(self, found: Profile) -> Encoding:
        """Means, standard deviations and categories of the training part alone."""
        moments = {name: Moments() for name in found.numeric}
        texts: dict[str, Counter[str]] = {name: Counter() for name in found.text}
        classes: Counter[str] = Counter()
        for frame in self._frames(0, self._train_rows):
            for name, moment in moments.items():
                moment.add(frame[name].to_numpy(dtype=np.float64))
            for name, counter in texts.items():
                counter.update(as_text(frame[name]).dropna())
            classes.update(as_text(frame[self._target]))
        if len(classes) < 2:
            raise DataError(
                f"{self._where}: the first {self._train_rows} rows hold only "
                f"{next(iter(classes))!r} in '{self._target}'; training needs both: "
                "give a larger --train-fraction"
            )
        names = [name for name in self._table.columns if name in moments or name in texts]
        columns: list[Column] = []
        for name in names:
            if name in moments:
                columns.append(_standardised(name, moments[name]))
            else:
                columns.append(CategoricalColumn(name=name, categories=_most(texts[name])))
        return Encoding(columns=tuple(columns))

    def _frames(self, skip: int, limit: int) -> Iterator[pd.DataFrame]:
        if limit <= 0:
            return
        for frame in self._table.chunks(self._numeric, skip):
            yield frame.iloc[:limit] if len(frame) > limit else frame
            limit -= len(frame)
            if limit <= 0:
                return

    def _read(self, skip: int, limit: int, counts: Counter[str] | None) -> Iterator[Rows]:
        numeric = set(self._numeric)
        for frame in self._frames(skip, limit):
            columns: dict[str, np.ndarray[Any, Any]] = {
                name: frame[name].to_numpy(dtype=np.float64)
                if name in numeric
                else as_text(frame[name]).to_numpy(dtype=object)
                for name in self.encoding.names
            }
            y = (as_text(frame[self._target]) == self.labels[1]).to_numpy().astype(np.int8)
            yield Rows(self.encoding.encode(columns, counts), y, columns)


def _standardised(name: str, moments: Moments) -> NumericColumn:
    """A constant column is centred only: there is no scale to learn."""
    constant = moments.sd <= 1e-12 * max(1.0, abs(moments.mean))
    return NumericColumn(name=name, mean=moments.mean, sd=1.0 if constant else moments.sd)


def _most(counts: Counter[str]) -> tuple[str, ...]:
    """The most frequent categories, in alphabetical order."""
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    return tuple(sorted(ranked[:MAX_CATEGORIES]))


def _cut(rows: Rows, start: int, stop: int) -> Rows:
    part = slice(start, stop)
    return Rows(rows.x[part], rows.y[part], {name: v[part] for name, v in rows.columns.items()})


def _joined(parts: list[Rows]) -> Rows:
    columns: Columns = {
        name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns
    }
    return Rows(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.y for part in parts]),
        columns,
    )
