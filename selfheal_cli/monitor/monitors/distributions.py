"""Whole distributions against training's: PSI, a two-sample test, categories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import kolmogorov

from selfheal_cli.config import MonitorSettings
from selfheal_cli.monitor.monitors.base import BatchView, Finding, Limits, Reading, read
from selfheal_cli.monitor.monitors.counts import Categories, Quantiles, Window, apart, homogeneity
from selfheal_cli.monitor.monitors.sample import TrainingSample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]

PSI_CELLS = 10
TEST_CELLS = 50  # the distance between two curves is looked for at so many places
LEAST_SHARE = 1e-4  # of a cell, so that an empty one has a logarithm


class _Watched:
    """One feature's cells: training's counts, and those of the last batches."""

    def __init__(
        self, target: str, settings: MonitorSettings, sample: TrainingSample, cells: int
    ) -> None:
        self.target = target
        self.ordered = target not in sample.categories
        self._cells: Quantiles | Categories
        if self.ordered:
            self._cells = Quantiles(sample.values(target), cells)
            self.trained = self._cells.count(sample.values(target))
        else:
            self._cells = Categories(sample.categories[target])
            self.trained = self._cells.count(sample.rows.columns[target])
        self._window = Window(settings.window)

    def update(self, view: BatchView) -> Counts:
        """The window's counts with this batch."""
        values: Any = view.values(self.target) if self.ordered else view.columns[self.target]
        return self._window.add(self._cells.count(values))


class _Distributions(ABC):
    """One measure of distance a feature, all together under Holm's correction."""

    cells = PSI_CELLS

    def __init__(
        self,
        settings: MonitorSettings,
        limits: Limits,
        targets: Sequence[str],
        sample: TrainingSample,
    ) -> None:
        self.limits = limits
        self._watched = [_Watched(name, settings, sample, self.cells) for name in targets]

    def update(self, view: BatchView) -> Reading:
        """See `Monitor`."""
        return read([self._find(one, one.update(view)) for one in self._watched], self.limits)

    @abstractmethod
    def _find(self, watched: _Watched, now: Counts) -> Finding:
        """How far a feature's window is from training."""


class Psi(_Distributions):
    """Population stability index over the deciles of training, or over categories."""

    def _find(self, watched: _Watched, now: Counts) -> Finding:
        return Finding(watched.target, psi(watched.trained, now), homogeneity(watched.trained, now))


class TwoSample(_Distributions):
    """Kolmogorov-Smirnov for numbers, the likelihood-ratio test for categories."""

    cells = TEST_CELLS

    def _find(self, watched: _Watched, now: Counts) -> Finding:
        if watched.ordered:
            return Finding(watched.target, *kolmogorov_smirnov(watched.trained, now))
        distance = apart(watched.trained, now)
        return Finding(watched.target, distance, homogeneity(watched.trained, now))


class Category(_Distributions):
    """Total variation distance of a text's categories, those that training had not among them."""

    def _find(self, watched: _Watched, now: Counts) -> Finding:
        distance = apart(watched.trained, now)
        return Finding(watched.target, distance, homogeneity(watched.trained, now))


def psi(trained: Counts, now: Counts) -> float:
    """``sum of (q - p) ln(q / p)`` over cells (k,), p and q their shares; 0 without rows.

    >>> psi(np.array([10, 10]), np.array([5, 5]))
    0.0
    """
    if not (trained.any() and now.any()):
        return 0.0
    p = np.maximum(trained / trained.sum(), LEAST_SHARE)
    q = np.maximum(now / now.sum(), LEAST_SHARE)
    return float(((q - p) * np.log(q / p)).sum())


def kolmogorov_smirnov(trained: Counts, now: Counts) -> tuple[float, float]:
    """Largest distance of two distributions over the same ordered cells (k,), and its p-value.

    The distance between cells is not seen, so that the p-value errs to the safe side.
    """
    rows = (int(trained.sum()), int(now.sum()))
    if not all(rows):
        return 0.0, 1.0
    curves = np.cumsum(trained) / rows[0] - np.cumsum(now) / rows[1]
    distance = float(np.abs(curves).max())
    return distance, float(kolmogorov(distance * sqrt(rows[0] * rows[1] / sum(rows))))
