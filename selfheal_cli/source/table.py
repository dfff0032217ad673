"""A CSV or Parquet file as a source: the first part trains the network, the rest streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from selfheal_cli.config import TableSettings
from selfheal_cli.errors import DataError
from selfheal_cli.moments import Moments
from selfheal_cli.records import Batch, Rows
from selfheal_cli.source.blocks import Block, joined
from selfheal_cli.source.encoding import (
    CategoricalColumn,
    Column,
    Encoding,
    NumericColumn,
    constant_sd,
    occurred,
)
from selfheal_cli.source.profile import Profile, profile, require_column
from selfheal_cli.source.table_file import as_text, open_table
from selfheal_cli.source.target import UNKNOWN, as_classes

MAX_CATEGORIES = 64
BLOCK_ROWS = 65_536


class TableSource:
    """A `Source` over a file. Reads it in chunks: memory does not grow with the rows."""

    def __init__(self, settings: TableSettings, *, batch_size: int, batches: int | None) -> None:
        self._table = open_table(settings.path, settings.separator)
        found = profile(self._table, settings)
        self._where = str(settings.path)
        self._target = settings.target
        self._times = found.times
        self._numeric = found.numeric
        self._inputs = settings.inputs
        self._train_rows = int(found.rows * settings.train_fraction)
        self._batch_size = batch_size
        self.labels = found.target.labels(settings.positive)
        self.batch_count = self._count_batches(found.rows, batches)
        found.target.require_trained(self._train_rows)
        self._counts: Counter[str] = Counter()
        self.encoding = self._fit(found)

    def training(self) -> Iterator[Rows]:
        """The first rows, in blocks of up to `BLOCK_ROWS`."""
        pending: list[Block] = []
        for block in self._read(0, self._train_rows, counts=None):
            pending.append(block)
            if sum(map(len, pending)) >= BLOCK_ROWS:
                yield joined(pending).rows
                pending = []
        if pending:
            yield joined(pending).rows

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """The rows after the training part; the last batch may be smaller."""
        skip = (start - 1) * self._batch_size
        stop = self.batch_count * self._batch_size
        index, pending = start, None
        for block in self._read(self._train_rows + skip, stop - skip, counts=self._counts):
            ready = block if pending is None else joined([pending, block])
            whole = len(ready) - len(ready) % self._batch_size
            for at in range(0, whole, self._batch_size):
                yield ready.cut(at, at + self._batch_size).batch(index)
                index += 1
            pending = ready.cut(whole, len(ready)) if whole < len(ready) else None
        if pending is not None:
            yield pending.batch(index)

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
        for frame in self._frames(0, self._train_rows):
            for name, moment in moments.items():
                moment.add(frame[name].to_numpy(dtype=np.float64))
            for name, counter in texts.items():
                counter.update(as_text(frame[name]).dropna())
        if self._inputs:
            self._require_inputs(found)
            return Encoding.raw_columns(self._inputs)
        names = [name for name in self._table.columns if name in moments or name in texts]
        columns: list[Column] = []
        for name in names:
            if name in moments:
                columns.append(_standardised(name, moments[name]))
            else:
                columns.append(CategoricalColumn(name=name, categories=_most(texts[name])))
        return Encoding(columns=tuple(columns))

    def _require_inputs(self, found: Profile) -> None:
        """Every input of a wrapped model must be there, as a number."""
        for name in self._inputs:
            if name not in found.numeric:
                require_column(self._table, name)
                raise DataError(
                    f"{self._where}: column '{name}' is an input of the model and holds text, or "
                    "is the target or dropped; it must hold numbers"
                )

    def _frames(self, skip: int, limit: int) -> Iterator[pd.DataFrame]:
        if limit <= 0:
            return
        for frame in self._table.chunks(self._numeric, skip):
            yield frame.iloc[:limit] if len(frame) > limit else frame
            limit -= len(frame)
            if limit <= 0:
                return

    def _read(self, skip: int, limit: int, counts: Counter[str] | None) -> Iterator[Block]:
        numeric = set(self._numeric)
        for frame in self._frames(skip, limit):
            columns: dict[str, np.ndarray[Any, Any]] = {
                name: frame[name].to_numpy(dtype=np.float64)
                if name in numeric
                else as_text(frame[name]).to_numpy(dtype=object)
                for name in self.encoding.names
            }
            y = as_classes(frame[self._target], self.labels)
            rows = Rows(self.encoding.encode(columns, counts), y, columns)
            if self._times is None:
                yield Block(rows)
                continue
            at, label_at = self._times.of(frame)
            if label_at is not None:
                label_at[y == UNKNOWN] = np.nan  # a label that is not in the table never comes
            yield Block(rows, at, label_at)


def _standardised(name: str, moments: Moments) -> NumericColumn:
    if moments.sd <= constant_sd(moments.mean):
        return NumericColumn(name=name, mean=moments.mean, sd=1.0, constant=True)
    return NumericColumn(name=name, mean=moments.mean, sd=moments.sd)


def _most(counts: Counter[str]) -> tuple[str, ...]:
    """The most frequent categories, in alphabetical order."""
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    return tuple(sorted(ranked[:MAX_CATEGORIES]))
