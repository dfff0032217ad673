"""Rows that a program hands over, one call after another."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.records import Batch, Rows
from selfheal_cli.sources.base import Around
from selfheal_cli.sources.encoding import MISSING, Encoding, occurred

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

BLOCK_ROWS = 65_536
WAITING = 1_000  # batches that wait for the stream; beyond, rows are turned away


@dataclass(frozen=True, slots=True)
class Reference:
    """What is normal: rows (n, d) and their classes (n,), positions in ``labels``."""

    x: FloatArray
    y: LabelArray
    names: tuple[str, ...]
    labels: tuple[str, ...]


class PushedSource(Around):
    """A `Source` whose stream is what `push` is given, cut into batches; `end` ends it.

    `push` may be called from any thread and never waits.
    """

    batch_count = None
    contract = None

    def __init__(self, reference: Reference, batch_size: int, encoding: Encoding) -> None:
        self.labels = reference.labels
        self.encoding = encoding
        self._reference = reference
        self._batch_size = batch_size
        self._waiting: queue.Queue[tuple[FloatArray, LabelArray] | None] = queue.Queue(WAITING)
        self.turned_away = 0
        self._unusual: Counter[str] = Counter()

    def push(self, x: FloatArray, y: LabelArray) -> bool:
        """Rows (n, d) and classes (n,), -1 where unknown; False where too much waits already."""
        try:
            self._waiting.put_nowait((x, y))
        except queue.Full:
            self.turned_away += len(y)
            return False
        return True

    def end(self) -> None:
        """No more rows; what was pushed is still streamed."""
        self._waiting.put(None)

    def training(self) -> Iterator[Rows]:
        """The reference, in blocks."""
        known = self._reference
        for at in range(0, len(known.y), BLOCK_ROWS):
            yield self._rows(known.x[at : at + BLOCK_ROWS], known.y[at : at + BLOCK_ROWS])

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """Full batches as they fill; the rest at the end. A label comes with its row or never."""
        x = np.empty((0, self._reference.x.shape[1]), dtype=np.float32)
        y = np.empty(0, dtype=np.int8)
        index = start
        while (pushed := self._waiting.get()) is not None:
            x, y = np.concatenate([x, pushed[0]]), np.concatenate([y, pushed[1]])
            while len(y) >= self._batch_size:
                yield self._batch(index, x[: self._batch_size], y[: self._batch_size])
                x, y, index = x[self._batch_size :], y[self._batch_size :], index + 1
        if len(y):
            yield self._batch(index, x, y)

    def held_out(self) -> Mapping[str, Rows]:
        """Nothing: every row of the stream is scored before anything learns from it."""
        return {}

    def limit(self) -> None:
        """None: of real rows the best possible figures are not known."""

    def departures(self) -> Mapping[str, Mapping[str, int]]:
        """Nothing: there is no row contract."""
        return {}

    def notes(self) -> Mapping[str, int]:
        """Rows that were turned away since too much waited."""
        return occurred({"rows turned away": self.turned_away, **self._unusual})

    def _batch(self, index: int, x: FloatArray, y: LabelArray) -> Batch:
        now = float(index)
        label_at = np.where(y >= 0, now, np.nan)
        return Batch(index, self._rows(x, y), now, label_at)

    def _rows(self, x: FloatArray, y: LabelArray) -> Rows:
        names = self._reference.names
        wide = x.astype(np.float64)
        columns = {name: wide[:, place] for place, name in enumerate(names)}
        self._unusual[MISSING] += int(np.isnan(x).sum())
        return Rows(self.encoding.filled(x), y, columns)
