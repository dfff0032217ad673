"""What monitors keep of the training rows: a sample of fixed size, drawn by a fixed seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.monitor.monitors.base import numbers
from selfheal_cli.records import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, LabelArray

    Floats = NDArray[np.float64]

SIZE = 10_000  # rows; a share of them is known to half a percentage point
SEED = 14


class Reservoir:
    """A uniform sample of rows that come in blocks, in their order; at most ``size`` of them."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._draw = np.random.default_rng(SEED)
        self._rows: Rows | None = None
        self._keys = np.empty(0)

    def add(self, rows: Rows) -> None:
        """Take a block."""
        keys = np.concatenate([self._keys, self._draw.random(len(rows))])
        joined = rows if self._rows is None else _joined(self._rows, rows)
        if len(keys) > self._size:
            kept = np.sort(np.argpartition(keys, self._size - 1)[: self._size])
            joined, keys = _chosen(joined, kept), keys[kept]
        self._rows, self._keys = joined, keys

    def rows(self) -> Rows:
        """The sample; raises ValueError where no block came."""
        if self._rows is None:
            raise ValueError("no training rows were given")
        return self._rows


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSample:
    """The sampled rows with what the trained network made of them.

    ``scores`` as in `BatchView`; ``classes`` (n,) as it decided; ``conflicts`` counts rows where a
    rule and it disagree; ``categories`` the known values of text features; ``gradients`` how much
    the logit moves with one standard deviation of each numeric feature.
    """

    rows: Rows
    scores: FloatArray
    classes: LabelArray
    conflicts: int
    labels: tuple[str, ...]
    numeric: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    gradients: Mapping[str, float]

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, target: str) -> Floats:
        """As `BatchView.values`, of features and scores."""
        return numbers(self.rows.columns, self.scores, target)


def _joined(first: Rows, second: Rows) -> Rows:
    columns = {
        name: np.concatenate([values, second.columns[name]])
        for name, values in first.columns.items()
    }
    return Rows(np.concatenate([first.x, second.x]), np.concatenate([first.y, second.y]), columns)


def _chosen(rows: Rows, kept: NDArray[np.intp]) -> Rows:
    columns = {name: values[kept] for name, values in rows.columns.items()}
    return Rows(rows.x[kept], rows.y[kept], columns)
