"""FIDI: has the mean of a sensitive feature left where it was in training?"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.config import Policy
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
