"""Shares of rows against training's: flagged rows, missing values, rules in conflict."""

from __future__ import annotations

from collections.abc import Sequence
from math import asin, sqrt
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from selfheal_cli.config import MonitorSettings
from selfheal_cli.monitor.monitors.base import BatchView, Finding, Limits, Reading, read
from selfheal_cli.monitor.monitors.counts import Window, homogeneity
from selfheal_cli.monitor.monitors.sample import TrainingSample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import Columns, LabelArray

    Counts = NDArray[np.int64]


class _Shares:
    """Several shares of the same rows; each of ``names`` has its counts of training."""

    def __init__(
        self,
        settings: MonitorSettings,
        limits: Limits,
        names: Sequence[str],
        trained: Counts,
        rows: int,
        *,
        only_more: bool = False,
    ) -> None:
        self.limits = limits
        self._names = tuple(names)
        self._trained, self._trained_rows = trained, rows
        self._only_more = only_more
        self._window = Window(settings.window)

    def _observe(self, counts: Counts, rows: int) -> Reading:
        *now, seen = self._window.add(np.append(counts, rows)).tolist()
        both = zip(self._names, self._trained.tolist(), now, strict=True)
        return read([self._find(name, before, hits, seen) for name, before, hits in both],
                    self.limits)  # fmt: skip

    def _find(self, name: str, before: int, hits: int, seen: int) -> Finding:
        rows = self._trained_rows
        if not (rows and seen) or (self._only_more and hits / seen <= before / rows):
            return Finding(name, 0.0, 1.0)
        pair = np.array([before, rows - before]), np.array([hits, seen - hits])
        return Finding(name, effect_size(before / rows, hits / seen), homogeneity(*pair))


class PredictionRate(_Shares):
    """The share of rows that are decided as each class, by whatever serves."""

    def __init__(
        self,
        settings: MonitorSettings,
        limits: Limits,
        targets: Sequence[str],
        sample: TrainingSample,
    ) -> None:
        # of two classes the one's share is all but the other's
        self._classes = range(1 if len(sample.labels) == 2 else 0, len(sample.labels))
        names = [sample.labels[place] for place in self._classes]
        trained = self._decided(sample.classes)
        super().__init__(settings, limits, names, trained, len(sample))

    def update(self, view: BatchView) -> Reading:
        """See `Monitor`."""
        return self._observe(self._decided(view.classes), len(view.classes))

    def _decided(self, classes: LabelArray) -> Counts:
        return np.array([np.count_nonzero(classes == place) for place in self._classes])


class Missing(_Shares):
    """The share of missing values of each feature."""

    def __init__(
        self,
        settings: MonitorSettings,
        limits: Limits,
        targets: Sequence[str],
        sample: TrainingSample,
    ) -> None:
        self._targets = tuple(targets)
        trained = self._absent(sample.rows.columns)
        super().__init__(settings, limits, targets, trained, len(sample))

    def update(self, view: BatchView) -> Reading:
        """See `Monitor`."""
        return self._observe(self._absent(view.columns), len(view.classes))

    def _absent(self, columns: Columns) -> Counts:
        return np.array([int(pd.isna(columns[name]).sum()) for name in self._targets])


class RuleConflicts(_Shares):
    """The share of rows where a rule and what serves disagree; only more of them count."""

    def __init__(
        self,
        settings: MonitorSettings,
        limits: Limits,
        targets: Sequence[str],
        sample: TrainingSample,
    ) -> None:
        trained = np.array([sample.conflicts])
        super().__init__(settings, limits, ["rules"], trained, len(sample), only_more=True)

    def update(self, view: BatchView) -> Reading:
        """See `Monitor`."""
        return self._observe(np.array([view.conflicts]), len(view.classes))


def effect_size(first: float, second: float) -> float:
    """Cohen's h, ``|2 asin sqrt(p) - 2 asin sqrt(q)|``: 0.2 is 1 % from 0, or 60 % from 50 %.

    >>> round(effect_size(0.0, 0.01), 3), round(effect_size(0.5, 0.6), 3)
    (0.2, 0.201)
    """
    return abs(2 * asin(sqrt(first)) - 2 * asin(sqrt(second)))
