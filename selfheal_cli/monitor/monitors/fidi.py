"""FIDI on several features, each weighted by how much the network's output moves with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erfc

from selfheal_cli.config import MonitorSettings
from selfheal_cli.monitor.fidi import CONSTANT, FLOOR
from selfheal_cli.monitor.monitors.base import (
    MOST_NAMED,
    QUIET,
    BatchView,
    Level,
    Limits,
    Reading,
    holm,
)
from selfheal_cli.monitor.monitors.sample import TrainingSample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Fidi:
    """``sqrt(sum of w z**2)`` over the features, weights w that sum to 1; z is the article's.

    With one feature this is the article's z itself.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        limits: Limits,
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
    found: Floats = weights / max(weights.sum(), FLOOR)
    return found


def _varies(values: Floats) -> bool:
    """A feature that was constant in training has no standard deviation to measure by."""
    return bool(len(values)) and values.std() > CONSTANT * max(1.0, abs(float(values.mean())))
