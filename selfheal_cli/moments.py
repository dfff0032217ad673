"""Mean and variance that merge: chunk by chunk, or one day machine by machine."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class Moments:
    """Count, mean and sum of squared deviations (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, values: np.ndarray[Any, Any]) -> None:
        """Take values (n,) of any float type; missing ones are left out."""
        present = values[values == values].astype("float64")  # noqa: PLR0124 (NaN differs)
        if not len(present):
            return
        mean = float(present.mean())
        delta, total = mean - self.mean, self.count + len(present)
        self._squares += float(((present - mean) ** 2).sum())
        self._squares += delta**2 * self.count * len(present) / total
        self.mean += delta * len(present) / total
        self.count = total

    @property
    def sd(self) -> float:
        """Standard deviation of the population; 0 without values."""
        return sqrt(self._squares / self.count) if self.count else 0.0
