"""Whole distributions against training's: PSI, a two-sample test, categories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import asin, erfc, log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import kolmogorov

from selfheal_cli.config import MonitorSettings
from selfheal_cli.drift.detector import (
    ERRORS,
    AlarmLimits,
    BatchView,
    Categories,
    CountWindow,
    FeatureReading,
    Quantiles,
    Reading,
    TrainingSample,
    apart,
    homogeneity,
    read,
)
from selfheal_cli.drift.fidi import CONSTANT
from selfheal_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    from selfheal_cli.records import Columns, LabelArray

    Floats = NDArray[np.float64]


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
        self._window = CountWindow(settings.window)

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
        limits: AlarmLimits,
        targets: Sequence[str],
        sample: TrainingSample,
    ) -> None:
        self.limits = limits
        self._watched = [_Watched(name, settings, sample, self.cells) for name in targets]

    def update(self, view: BatchView) -> Reading:
        """See `Monitor`."""
        return read([self._find(one, one.update(view)) for one in self._watched], self.limits)

    @abstractmethod
    def _find(self, watched: _Watched, now: Counts) -> FeatureReading:
        """How far a feature's window is from training."""


class Psi(_Distributions):
    """Population stability index over the deciles of training, or over categories."""

    def _find(self, watched: _Watched, now: Counts) -> FeatureReading:
        return FeatureReading(
            watched.target, psi(watched.trained, now), homogeneity(watched.trained, now)
        )


class TwoSample(_Distributions):
    """Kolmogorov-Smirnov for numbers, the likelihood-ratio test for categories."""

    cells = TEST_CELLS

    def _find(self, watched: _Watched, now: Counts) -> FeatureReading:
        if watched.ordered:
            return FeatureReading(watched.target, *kolmogorov_smirnov(watched.trained, now))
        distance = apart(watched.trained, now)
        return FeatureReading(watched.target, distance, homogeneity(watched.trained, now))


class Category(_Distributions):
    """Total variation distance of a text's categories, those that training had not among them."""

    def _find(self, watched: _Watched, now: Counts) -> FeatureReading:
        distance = apart(watched.trained, now)
        return FeatureReading(watched.target, distance, homogeneity(watched.trained, now))


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


class _Shares:
    """Several shares of the same rows; each of ``names`` has its counts of training."""

    def __init__(
        self,
        settings: MonitorSettings,
        limits: AlarmLimits,
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
        self._window = CountWindow(settings.window)

    def _observe(self, counts: Counts, rows: int) -> Reading:
        *now, seen = self._window.add(np.append(counts, rows)).tolist()
        both = zip(self._names, self._trained.tolist(), now, strict=True)
        return read([self._find(name, before, hits, seen) for name, before, hits in both],
                    self.limits)  # fmt: skip

    def _find(self, name: str, before: int, hits: int, seen: int) -> FeatureReading:
        rows = self._trained_rows
        if not (rows and seen) or (self._only_more and hits / seen <= before / rows):
            return FeatureReading(name, 0.0, 1.0)
        pair = np.array([before, rows - before]), np.array([hits, seen - hits])
        return FeatureReading(name, effect_size(before / rows, hits / seen), homogeneity(*pair))


class PredictionRate(_Shares):
    """The share of rows that are decided as each class, by whatever serves."""

    def __init__(
        self,
        settings: MonitorSettings,
        limits: AlarmLimits,
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
        limits: AlarmLimits,
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
        limits: AlarmLimits,
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


# A batch of any size gives each detector at most five values: means of its parts in units of their
# standard error. Row by row the detectors would test a batch of 10,000 rows 10,000 times. Needs
# selfheal-cli[monitors].


PARTS = 5  # values a batch
WARM_UP = 100  # parts of the training rows that a detector knows before the first batch
LARGEST = 20.0  # standard errors; one wild value shall not stay in the detectors' means for ever
ALLOWANCE = 0.5  # Page-Hinkley: a shift of less than twice this many standard errors is no matter
SEED = 14
MakeDetector = Callable[[float], Any]  # by the chance of a false alarm a value


def require_river() -> Any:
    """River's detectors; raises `ConfigurationError` where it is not installed."""
    try:
        from river import drift
    except ImportError as exc:
        raise ConfigurationError(
            "monitors adwin, kswin and page-hinkley need river: "
            "pip install 'selfheal-cli[monitors]', or leave them out"
        ) from exc
    return drift


def adwin(chance: float) -> Any:
    """Looks for a change after each value."""
    return require_river().ADWIN(delta=chance, clock=1)


def kswin(chance: float) -> Any:
    """The last 30 values against 30 of the 70 before."""
    return require_river().KSWIN(alpha=chance, seed=SEED)


def page_hinkley(chance: float) -> Any:
    """Alarms at ``ln(1 / chance)``: of a sum with allowance k that is the chance of exp(-2 k h)."""
    height = log(1 / chance) / (2 * ALLOWANCE)
    return require_river().PageHinkley(delta=ALLOWANCE, threshold=height)


@dataclass(frozen=True, slots=True)
class _Normal:
    """What is normal: mean and standard deviation of so many values."""

    mean: float
    sd: float
    rows: int

    @classmethod
    def of(cls, values: Floats) -> _Normal:
        return cls(float(values.mean()), float(values.std()), len(values))

    def parts(self, values: Floats, parts: int) -> list[float]:
        """Means of up to so many parts of the values, in standard errors from normal."""
        if not len(values):
            return []
        pieces = np.array_split(values, min(parts, len(values)))
        deviations = [(float(p.mean()) - self.mean) / self.sd * sqrt(len(p)) for p in pieces]
        return [min(max(one, -LARGEST), LARGEST) for one in deviations]


class _Target:
    """A detector for one feature, the scores or the errors."""

    def __init__(self, target: str, window: int, detector: Any) -> None:
        self.target = target
        self._detector = detector
        self._normal: _Normal | None = None
        self._first: list[Floats] = []
        self._last: deque[tuple[float, int]] = deque(maxlen=window)
        self._since = window  # batches since the detector spoke up
        self._window = window

    def learn(self, values: Floats) -> None:
        """What is normal; a target that never varied there is not watched."""
        if self.target == ERRORS and len(values):
            rate = (values.sum() + 0.5) / (len(values) + 1)  # none so far is not none ever
            self._normal = _Normal(float(rate), sqrt(rate * (1 - rate)), len(values))
        else:
            self._normal = _Normal.of(values)
        for value in self._normal.parts(values, WARM_UP):
            self._detector.update(value)

    def update(self, values: Floats) -> FeatureReading:
        """Take a batch's values (n,)."""
        if self._normal is None:
            return self._begin(values)
        self._since += 1
        for value in self._normal.parts(values, PARTS):
            self._detector.update(value)
            if self._detector.drift_detected:
                self._since = 0
        self._last.append((float(values.sum()), len(values)))
        total, rows = (sum(part) for part in zip(*self._last, strict=True))
        if self._since >= self._window or not rows:
            return FeatureReading(self.target, 0.0, 1.0)
        shift = (total / rows - self._normal.mean) / self._normal.sd
        if self.target == ERRORS and shift < 0:
            return FeatureReading(self.target, 0.0, 1.0)  # fewer of them are no alarm
        error = sqrt(1 / rows + 1 / self._normal.rows)
        return FeatureReading(self.target, abs(shift), erfc(abs(shift) / error / sqrt(2)))

    def _begin(self, values: Floats) -> FeatureReading:
        """Errors have no training to be compared with: the first window is what is normal."""
        if len(values):
            self._first.append(values)
        if len(self._first) == self._window:
            self.learn(np.concatenate(self._first))
            self._first = []
        return FeatureReading(self.target, 0.0, 1.0)


class Changes:
    """Alarms where a detector spoke up within the window, and the window's mean has moved."""

    def __init__(
        self,
        make: MakeDetector,
        settings: MonitorSettings,
        limits: AlarmLimits,
        targets: Sequence[str],
        sample: TrainingSample,
    ) -> None:
        self.limits = limits
        chance = settings.alpha / (PARTS * max(len(targets), 1))
        self._targets = []
        for name in targets:
            known = np.empty(0) if name == ERRORS else sample.values(name)
            if name != ERRORS and not _varies(known):
                continue
            one = _Target(name, settings.window, make(chance))
            if name != ERRORS:
                one.learn(known)
            self._targets.append(one)

    def update(self, view: BatchView) -> Reading:
        """See `Monitor`."""
        return read([one.update(view.values(one.target)) for one in self._targets], self.limits)


def _varies(values: Floats) -> bool:
    return bool(len(values)) and values.std() > CONSTANT * max(1.0, abs(float(values.mean())))
