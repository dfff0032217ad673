"""A table as a source: the first part trains the network, the rest streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from selfheal_cli.errors import DataError
from selfheal_cli.inputs import BoundedSettings
from selfheal_cli.records import Batch, Rows
from selfheal_cli.source.blocks import Block, joined
from selfheal_cli.source.contract import Contract, Departures
from selfheal_cli.source.fit import fit
from selfheal_cli.source.profile import profile
from selfheal_cli.source.table_file import TableFile

BLOCK_ROWS = 65_536


class TableSource:
    """A `Source` over rows that end. Reads them in chunks: memory does not grow with the rows."""

    def __init__(
        self, settings: BoundedSettings, table: TableFile, *, batch_size: int, batches: int | None
    ) -> None:
        self.table = table
        found = profile(table, settings)
        self._numeric = found.numeric
        self._train_rows = int(found.rows * settings.train_fraction)
        self._batch_size = batch_size
        self.batch_count = self._count_batches(found.rows, batches)
        found.target.require_trained(self._train_rows)
        self._fitted = fit(table, found, self._frames(0, self._train_rows), settings)
        self._seen = Departures(self._fitted.contract)
        self.labels = self._fitted.labels
        self.encoding = self._fitted.encoding

    @property
    def contract(self) -> Contract:
        """What every row must be."""
        return self._fitted.contract

    def training(self) -> Iterator[Rows]:
        """The first rows, in blocks of up to `BLOCK_ROWS`."""
        pending: list[Block] = []
        for block in self._read(0, self._train_rows, None):
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
        for block in self._read(self._train_rows + skip, stop - skip, self._seen):
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
        """Missing values, unseen categories and values out of range in the stream so far."""
        return self._seen.notes() | self.table.notes()

    def departures(self) -> Mapping[str, Mapping[str, int]]:
        """The same by column."""
        return self._seen.columns()

    def _count_batches(self, rows: int, batches: int | None) -> int:
        trained, streamed = self._train_rows, rows - self._train_rows
        if trained < self._batch_size or streamed < self._batch_size:
            raise DataError(
                f"{self.table.where}: {rows} rows give {trained} to train on and {streamed} "
                f"to stream; each part needs at least one batch of {self._batch_size}: "
                "give more rows, another --train-fraction or a smaller --batch-size"
            )
        available = -(-streamed // self._batch_size)
        return available if batches is None else min(batches, available)

    def _frames(self, skip: int, limit: int) -> Iterator[pd.DataFrame]:
        if limit <= 0:
            return
        for frame in self.table.chunks(self._numeric, skip):
            yield frame.iloc[:limit] if len(frame) > limit else frame
            limit -= len(frame)
            if limit <= 0:
                return

    def _read(self, skip: int, limit: int, seen: Departures | None) -> Iterator[Block]:
        for frame in self._frames(skip, limit):
            yield self._fitted.block(frame, seen)
