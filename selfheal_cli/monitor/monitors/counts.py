"""Counts in cells: of numbers between quantiles, of texts by category, over the last batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import chdtrc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

LEAST_EXPECTED = 5.0  # rows a cell, for the chi-squared approximation to hold


class Quantiles:
    """Cells between quantiles of a reference; equal quantiles make one cell."""

    def __init__(self, values: Floats, cells: int) -> None:
        inner = np.quantile(values, np.arange(1, cells) / cells) if len(values) else np.empty(0)
        self.edges = np.unique(inner)

    def count(self, values: Floats) -> Counts:
        """How many values (n,) lie in each cell; an edge belongs to the cell below it."""
        places = np.searchsorted(self.edges, values, side="left")
        return np.bincount(places, minlength=len(self.edges) + 1)


class Categories:
    """A cell a category, and one for whatever training did not have; missing texts count not."""

    def __init__(self, known: Sequence[str]) -> None:
        self._index = pd.Index(known)

    def count(self, values: NDArray[Any]) -> Counts:
        """How many texts (n,) are in each category, unseen ones last."""
        present = values[~pd.isna(values)]
        codes = self._index.get_indexer(pd.Index(present, dtype=object))
        return np.bincount(np.where(codes < 0, len(self._index), codes), minlength=self.cells)

    @property
    def cells(self) -> int:
        """Known categories and one."""
        return len(self._index) + 1


class Window:
    """The sum of the last batches' counts."""

    def __init__(self, batches: int) -> None:
        self._kept: deque[Counts] = deque()
        self._batches = batches
        self._sum: Counts | None = None

    def add(self, counts: Counts) -> Counts:
        """Take a batch's counts (k,); returns the window's."""
        total = counts.copy() if self._sum is None else self._sum + counts
        self._kept.append(counts)
        if len(self._kept) > self._batches:
            total -= self._kept.popleft()
        self._sum = total
        return total


def homogeneity(first: Counts, second: Counts) -> float:
    """The p-value of two rows of counts (k,) having the same shares: the likelihood-ratio test.

    Cells in which too few rows of the second are expected are put together.

    >>> homogeneity(np.array([500, 500]), np.array([50, 50]))
    1.0
    """
    pair = np.stack([first, second]).astype(np.float64)
    rows = pair.sum(axis=1)
    if not rows.all():
        return 1.0
    cells = _pooled(pair, least=LEAST_EXPECTED * rows.sum() / rows.min())
    if cells.shape[1] < 2:
        return 1.0
    under = np.outer(rows, cells.sum(axis=0)) / rows.sum()
    parts = np.zeros_like(cells)
    np.log(cells / under, out=parts, where=cells > 0)
    statistic = max(0.0, 2 * float((cells * parts).sum()))
    return float(chdtrc(cells.shape[1] - 1, statistic))


def _pooled(pair: Floats, least: float) -> Floats:
    """Columns (2, k) put together, smallest first, until each sums to ``least``."""
    pair = pair[:, np.argsort(pair.sum(axis=0), kind="stable")]
    starts, inside = [0], 0.0
    for place, size in enumerate(pair.sum(axis=0).tolist()):
        if inside >= least:
            starts.append(place)
            inside = 0.0
        inside += size
    if inside < least and len(starts) > 1:
        starts.pop()
    found: Floats = np.add.reduceat(pair, starts, axis=1)
    return found


def apart(first: Counts, second: Counts) -> float:
    """Total variation distance: the share of rows that would have to change their cell."""
    if not (first.any() and second.any()):
        return 0.0
    return float(np.abs(first / first.sum() - second / second.sum()).sum() / 2)
