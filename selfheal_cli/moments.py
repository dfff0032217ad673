"""Means and standard deviations that are added up block by block (Chan, Golub and LeVeque 1979)."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SD_FLOOR = 0.05  # of the median standard deviation, below which a column counts as constant


class Moments:
    """Count, mean and standard deviation of values."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, values: np.ndarray[Any, Any]) -> None:
        """Take values (n,) of any float type; missing ones are left out."""
        present = values[values == values].astype("float64")  # noqa: PLR0124 (NaN differs)
        if not len(present):
            return
        mean = float(present.mean())
        # squares about the block's own mean, then what the two means are apart: no cancellation
        self._merge(len(present), mean, float(((present - mean) ** 2).sum()))

    def state(self) -> tuple[int, float, float]:
        """Count, mean, and sum of squares about the mean."""
        return self.count, self.mean, self._squares

    def merge(self, state: tuple[int, float, float]) -> None:
        """Take what was counted of other values."""
        if state[0]:
            self._merge(*state)

    def _merge(self, count: int, mean: float, squares: float) -> None:
        delta, total = mean - self.mean, self.count + count
        self._squares += squares
        self._squares += delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    @property
    def sd(self) -> float:
        """Standard deviation of the population; 0 without values."""
        return sqrt(self._squares / self.count) if self.count else 0.0


class ColumnMoments:
    """Count, and mean and standard deviation (p,) of the columns of a matrix without gaps."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean, self._squares = np.zeros(width), np.zeros(width)

    def add(self, values: Floats) -> None:
        """Take rows (n, p)."""
        if not len(values):
            return
        mean, total = values.mean(axis=0), self.count + len(values)
        delta = mean - self.mean
        self._squares += ((values - mean) ** 2).sum(axis=0)
        self._squares += delta**2 * (self.count * len(values) / total)
        self.mean = self.mean + delta * (len(values) / total)
        self.count = total

    @property
    def sd(self) -> Floats:
        """Standard deviations of the population; 0 without rows."""
        return np.asarray(np.sqrt(self._squares / max(self.count, 1)))


def floored(sd: Floats) -> Floats:
    """Standard deviations (p,) that are safe to divide by.

    One of nearly nothing would make the smallest change a large one.
    """
    positive = sd[sd > 0]
    return np.maximum(sd, SD_FLOOR * float(np.median(positive)) if len(positive) else 1.0)
