"""FIDI: has the mean of a sensitive feature left where it was in training?

`Fidi` is the article's detector on one feature, `WeightedFidi` the monitor over several.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import erfc

from selfheal_cli.config import Policy
from selfheal_cli.drift.merging import SummingMonitor
from selfheal_cli.drift.monitor import (
    CONSTANT,
    MOST_NAMED,
    QUIET,
    BatchView,
    FeatureReading,
    Level,
    MonitorSetup,
    Reading,
    holm,
    varies,
)
from selfheal_cli.errors import DataError
from selfheal_cli.moments import Moments
from selfheal_cli.records import DriftReading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import Columns

    Floats = NDArray[np.float64]


FLOOR = 1e-8  # added to the standard deviation, as the article does


@dataclass(frozen=True, slots=True)
class Calibration:
    """Mean and standard deviation of the feature over the training rows.

    Of a text they are those of the indicator of ``category``. A value counts as at most ``clip``
    standard deviations away, so that one row alone is no drift.
    """

    feature: str
    mean: float
    sd: float
    category: str | None = None
    clip: float = inf  # as in selfheal 0.1.0

    def values(self, columns: Columns) -> Floats:
        """The values (n,) to observe: the feature's numbers, or a text's indicator."""
        values = columns[self.feature]
        return values if self.category is None else is_category(values, self.category)


def is_category(values: np.ndarray[Any, Any], category: str) -> Floats:
    """Indicator (n,) of a category: 1.0, 0.0 for another text, NaN for a missing one."""
    return np.where(pd.isna(values), np.nan, (values == category).astype(np.float64))


def calibrate(
    feature: str, moments: Moments, category: str | None = None, clip: float = inf
) -> Calibration:
    """The calibration by the training values' moments; a constant feature is a `DataError`."""
    if moments.sd <= CONSTANT * max(1.0, abs(moments.mean)):
        raise DataError(
            f"sensitive feature '{feature}' is constant in the training part "
            f"({f'{moments.mean:g}' if moments.count else 'no value at all'}); "
            "name another with --sensitive"
        )
    return Calibration(feature, moments.mean, moments.sd + FLOOR, category, clip)


class Fidi:
    """Feature-based Input Distribution Inspection (the article).

    ``z = |mean of the last batch means - mean| / sd``, and 0 until ``fidi_min_batches`` are in.

    >>> fidi = Fidi(Calibration("V14", 0.0, 1.0), Policy())
    >>> [fidi.observe(np.array([-2.0])).z for _ in range(3)]
    [0.0, 0.0, 2.0]
    """

    def __init__(self, calibration: Calibration, policy: Policy) -> None:
        self.calibration = calibration
        self._policy = policy
        self._means: deque[float] = deque(maxlen=policy.fidi_window)

    def observe(self, values: np.ndarray[Any, Any]) -> DriftReading:
        """Take a batch's values (n,), NaN where missing.

        A batch whose values are all missing leaves the window as it is. It is drift by itself,
        since training had values, but not under a calibration of 0.1.0, which did not clip.
        """
        mean, sd, clip = self.calibration.mean, self.calibration.sd, self.calibration.clip
        present = values[~np.isnan(values)]
        vanished = clip < inf and len(values) > 0 and not len(present)
        if clip < inf:
            present = np.clip(present, mean - clip * sd, mean + clip * sd)
        if len(present):
            self._means.append(float(present.mean()))
        z = 0.0
        if len(self._means) >= min(self._policy.fidi_min_batches, self._policy.fidi_window):
            # every batch counts once, however many rows it has: the article's mean of means
            z = abs(float(np.mean(self._means)) - mean) / sd
        drifting = vanished or z > self._policy.fidi_threshold
        return DriftReading(self.calibration.feature, z, drifting=drifting)


class WeightedFidi(SummingMonitor):
    """``sqrt(sum of w z**2)`` over the features, weights w that sum to 1; z is the article's.

    With one feature this is the article's z itself.
    """

    def __init__(self, setup: MonitorSetup) -> None:
        values = {name: setup.sample.values(name) for name in setup.targets}
        self._names = tuple(name for name in setup.targets if varies(values[name]))
        self._mean = np.array([values[name].mean() for name in self._names])
        self._sd = np.array([values[name].std() for name in self._names]) + FLOOR
        self._trained = np.array([len(values[name]) for name in self._names])
        self._weights = _weights(setup, self._names)
        super().__init__(setup, self._mean, self._sd, self._trained, self._weights)

    def _sums(self, view: BatchView) -> Floats:
        columns = [view.values(name) for name in self._names]
        sums = [[column.sum() for column in columns], [len(column) for column in columns]]
        return np.array(sums, dtype=np.float64).ravel()

    def _read(self, sums: Floats) -> Reading:
        """A feature without values in a batch keeps those of the window's others."""
        if not self._names:
            return QUIET
        totals, counts = np.hsplit(sums, 2)
        # a mean of the batches' means, as the article has it: each weighs the same
        means = np.divide(totals, counts, out=np.zeros_like(totals), where=counts > 0)
        rows = np.sum(counts, axis=0)
        batches = np.maximum(np.sum(counts > 0, axis=0), 1)
        window = np.where(rows > 0, np.sum(means, axis=0) / batches, self._mean)
        z = np.abs(window - self._mean) / self._sd
        # of a difference of two means, both with the training standard deviation
        error = np.sqrt(1 / np.maximum(rows, 1) + 1 / self._trained)
        p = holm(np.where(rows > 0, erfc(z / error / sqrt(2)), 1.0))
        contribution = np.sqrt(self._weights) * z
        value, least = float(np.sqrt(np.sum(contribution**2))), float(p.min())
        level = self.limits.level(value, least)
        ranked = np.argsort(-contribution, kind="stable")
        moved = [self._names[place] for place in ranked if p[place] <= self.limits.alpha]
        named = () if level is Level.QUIET else tuple(moved[:MOST_NAMED])
        far = [FeatureReading(self._names[i], float(z[i]), float(p[i]))
               for i in ranked if p[i] <= self.limits.alpha]  # fmt: skip
        return Reading(value, level, least, named, tuple(far) if level is Level.ALARM else ())


def _weights(setup: MonitorSetup, names: tuple[str, ...]) -> Floats:
    """Weights (d,) that sum to 1: how far the logit moves with each feature, or equal ones."""
    weights = np.array([setup.sample.gradients.get(name, 0.0) for name in names])
    if setup.settings.weights == "equal" or not weights.any():
        weights = np.ones(len(names))
    shares: Floats = weights / max(weights.sum(), FLOOR)
    return shares
