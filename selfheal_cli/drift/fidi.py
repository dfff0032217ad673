"""FIDI: has the mean of a sensitive feature left where it was in training?"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import erfc

from selfheal_cli.config import MonitorSettings, Policy
from selfheal_cli.drift.detector import (
    MOST_NAMED,
    QUIET,
    AlarmLimits,
    BatchView,
    Level,
    Reading,
    TrainingSample,
    holm,
)
from selfheal_cli.errors import DataError
from selfheal_cli.moments import Moments
from selfheal_cli.records import DriftReading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import Columns

    Floats = NDArray[np.float64]


FLOOR = 1e-8  # added to the standard deviation, as the article does
CONSTANT = 1e-12  # relative spread below which a feature does not vary


@dataclass(frozen=True, slots=True)
class Calibration:
    """Mean and standard deviation of the feature over the training rows; of a text, those of one
    ``category``'s share.

    A value counts as at most ``clip`` standard deviations away, so that one row alone is no drift.
    """

    feature: str
    mean: float
    sd: float
    category: str | None = None
    clip: float = inf  # as in selfheal 0.1.0

    def values(self, columns: Columns) -> Floats:
        """What is watched of a batch's columns: the numbers, or of a text 1 where it is the
        category and 0 where it is another.
        """
        values = columns[self.feature]
        return values if self.category is None else is_category(values, self.category)


def is_category(values: np.ndarray[Any, Any], category: str) -> Floats:
    """1 where a text (n,) is the category, NaN where it is missing."""
    return np.where(pd.isna(values), np.nan, (values == category).astype(np.float64))


def calibrate(
    feature: str, moments: Moments, category: str | None = None, clip: float = inf
) -> Calibration:
    """From the moments of the training values; raises `DataError` for a constant feature."""
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
        """Take a batch's values (n,).

        A batch without any leaves the window as it is; where values are clipped it is drift by
        itself, since training had some.
        """
        known, clip = self.calibration, self.calibration.clip
        present = values[~np.isnan(values)]
        vanished = clip < inf and len(values) > 0 and not len(present)
        if clip < inf:
            present = np.clip(present, known.mean - clip * known.sd, known.mean + clip * known.sd)
        if len(present):
            self._means.append(float(present.mean()))
        z = 0.0
        if len(self._means) >= min(self._policy.fidi_min_batches, self._policy.fidi_window):
            window = float(np.mean(self._means))
            z = abs(window - self.calibration.mean) / self.calibration.sd
        drifting = vanished or z > self._policy.fidi_threshold
        return DriftReading(self.calibration.feature, z, drifting=drifting)


class WeightedFidi:
    """``sqrt(sum of w z**2)`` over the features, weights w that sum to 1; z is the article's.

    With one feature this is the article's z itself.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        limits: AlarmLimits,
        targets: Sequence[str],
        sample: TrainingSample,
    ) -> None:
        self.limits = limits
        values = {name: sample.values(name) for name in targets}
        self._names = tuple(name for name in targets if _varies(values[name]))
        self._mean = np.array([values[name].mean() for name in self._names])
        self._sd = np.array([values[name].std() for name in self._names]) + FLOOR
        self._trained = np.array([len(values[name]) for name in self._names])
        self._weights = _weights(settings, self._names, sample)
        self._means: deque[Floats] = deque(maxlen=settings.window)
        self._rows: deque[Floats] = deque(maxlen=settings.window)

    def update(self, view: BatchView) -> Reading:
        """See `Monitor`; a feature without values in a batch keeps those of the others."""
        if not self._names:
            return QUIET
        values = [view.values(name) for name in self._names]
        rows = np.array([len(one) for one in values], dtype=np.float64)
        means = [one.mean() if len(one) else np.nan for one in values]
        self._means.append(np.array(means))
        self._rows.append(rows)
        seen = np.sum(self._rows, axis=0)
        batches = np.maximum(np.sum(np.array(self._rows) > 0, axis=0), 1)
        window = np.where(seen > 0, np.nansum(self._means, axis=0) / batches, self._mean)
        z = np.abs(window - self._mean) / self._sd
        error = np.sqrt(1 / np.maximum(seen, 1) + 1 / self._trained)
        p = holm(np.where(seen > 0, erfc(z / error / sqrt(2)), 1.0))
        share = np.sqrt(self._weights) * z
        value, least = float(np.sqrt(np.sum(share**2))), float(p.min())
        level = self.limits.level(value, least)
        ranked = np.argsort(-share, kind="stable")
        moved = [self._names[place] for place in ranked if p[place] <= self.limits.alpha]
        named = () if level is Level.QUIET else tuple(moved[:MOST_NAMED])
        return Reading(value, level, least, named)


def _weights(settings: MonitorSettings, names: Sequence[str], sample: TrainingSample) -> Floats:
    weights = np.array([sample.gradients.get(name, 0.0) for name in names])
    if settings.weights == "equal" or not weights.any():
        weights = np.ones(len(names))
    shares: Floats = weights / max(weights.sum(), FLOOR)
    return shares


def _varies(values: Floats) -> bool:
    """A feature that was constant in training has no standard deviation to measure by."""
    return bool(len(values)) and values.std() > CONSTANT * max(1.0, abs(float(values.mean())))
