"""The monitors: features, scores and decisions of a window of batches against training.

``Psi``, ``TwoSample`` and ``Category`` compare distributions over cells, ``PredictionRate``,
``Missing`` and ``RuleConflicts`` shares of the rows, and ``Changes`` means, where a change
detector has fired: Page-Hinkley, or one of river's (needs selfheal-cli[monitors]). FIDI is in
`fidi`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import asin, erfc, log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import kolmogorov

from selfheal_cli.drift.merging import InOrder, SummingMonitor
from selfheal_cli.drift.monitor import (
    ERRORS,
    BatchView,
    Categories,
    FeatureReading,
    MonitorSetup,
    Quantiles,
    Reading,
    apart,
    homogeneity,
    read,
    varies,
)
from selfheal_cli.drift.page_hinkley import PageHinkley
from selfheal_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    from selfheal_cli.records import Columns, LabelArray

    Floats = NDArray[np.float64]


PSI_CELLS = 10
TEST_CELLS = 50  # the distance between two curves is looked for at so many places
LEAST_SHARE = 1e-4  # of a cell, so that an empty one has a logarithm
PARTS = 5  # values of a batch that a change detector gets
WARM_UP = 100  # parts of the training rows that a detector knows before the first batch
LARGEST = 20.0  # standard errors; one wild value shall not stay in the detectors' means for ever
ALLOWANCE = 0.5  # Page-Hinkley: a shift of less than twice this many standard errors is no matter
SEED = 14


class _FeatureCells:
    """One feature's cells, and the counts of the training rows in them."""

    def __init__(self, feature: str, setup: MonitorSetup, cells: int) -> None:
        sample = setup.sample
        self.feature = feature
        self.ordered = feature not in sample.categories
        self._cells: Quantiles | Categories
        if self.ordered:
            self._cells = Quantiles(sample.values(feature), cells)
            self.reference = self._cells.count(sample.values(feature))
        else:
            self._cells = Categories(sample.categories[feature])
            self.reference = self._cells.count(sample.rows.columns[feature])

    def count(self, view: BatchView) -> Counts:
        """The batch's rows in each cell."""
        values: Any = view.values(self.feature) if self.ordered else view.columns[self.feature]
        return self._cells.count(values)

    @property
    def edges(self) -> NDArray[Any]:
        """Where its cells end; of a text nothing, whose cells are its categories."""
        return self._cells.edges if isinstance(self._cells, Quantiles) else np.empty(0)


class _Distributions(SummingMonitor):
    """One measure of distance for each feature, all together under Holm's correction."""

    cells = PSI_CELLS

    def __init__(self, setup: MonitorSetup) -> None:
        self._features = [_FeatureCells(name, setup, self.cells) for name in setup.targets]
        self._ends = np.cumsum([len(one.reference) for one in self._features])
        known = [part for one in self._features for part in (one.edges, one.reference)]
        super().__init__(setup, *known)

    def _sums(self, view: BatchView) -> Counts:
        counts = [feature.count(view) for feature in self._features]
        return np.concatenate(counts) if counts else np.empty(0, dtype=np.int64)

    def _read(self, sums: Counts) -> Reading:
        current = np.split(sums.sum(axis=0), self._ends[:-1])
        pairs = zip(self._features, current, strict=False)  # without features one part is empty
        return read([self._compare(feature, counts) for feature, counts in pairs], self.limits)

    @abstractmethod
    def _compare(self, feature: _FeatureCells, current: Counts) -> FeatureReading:
        """How far the window's counts ``current`` (k,) are from training's."""


class Psi(_Distributions):
    """Population stability index over the deciles of training, or over categories."""

    def _compare(self, feature: _FeatureCells, current: Counts) -> FeatureReading:
        reference = feature.reference
        return FeatureReading(
            feature.feature, psi(reference, current), homogeneity(reference, current)
        )


class Category(_Distributions):
    """Total variation distance of a text's categories; those that training lacks are one more."""

    def _compare(self, feature: _FeatureCells, current: Counts) -> FeatureReading:
        reference = feature.reference
        return FeatureReading(
            feature.feature, apart(reference, current), homogeneity(reference, current)
        )


class TwoSample(Category):
    """Kolmogorov-Smirnov for numbers; for categories as `Category`."""

    cells = TEST_CELLS

    def _compare(self, feature: _FeatureCells, current: Counts) -> FeatureReading:
        if not feature.ordered:
            return super()._compare(feature, current)
        return FeatureReading(feature.feature, *kolmogorov_smirnov(feature.reference, current))


def psi(reference: Counts, current: Counts) -> float:
    """``sum of (q - p) ln(q / p)`` over cells (k,), p and q their shares; 0 without rows.

    >>> psi(np.array([10, 10]), np.array([5, 5]))
    0.0
    """
    if not (reference.any() and current.any()):
        return 0.0
    p = np.maximum(reference / reference.sum(), LEAST_SHARE)
    q = np.maximum(current / current.sum(), LEAST_SHARE)
    return float(((q - p) * np.log(q / p)).sum())


def kolmogorov_smirnov(reference: Counts, current: Counts) -> tuple[float, float]:
    """Largest distance of two distributions over the same ordered cells (k,), and its p-value.

    The curves are compared at the edges of the cells only, so the p-value is too large rather
    than too small.
    """
    rows = (int(reference.sum()), int(current.sum()))
    if not all(rows):
        return 0.0, 1.0
    curves = np.cumsum(reference) / rows[0] - np.cumsum(current) / rows[1]
    distance = float(np.abs(curves).max())
    return distance, float(kolmogorov(distance * sqrt(rows[0] * rows[1] / sum(rows))))


class _Shares(SummingMonitor):
    """Shares of the same rows, one for each of ``names``.

    ``reference`` (k,) counts the training rows of each; with ``only_more`` a share that fell is
    no drift.
    """

    def __init__(
        self,
        setup: MonitorSetup,
        names: Sequence[str],
        reference: Counts,
        *,
        only_more: bool = False,
    ) -> None:
        super().__init__(setup, reference, np.array(len(setup.sample)))
        self._names = tuple(names)
        self._reference, self._reference_rows = reference, len(setup.sample)
        self._only_more = only_more

    @abstractmethod
    def _count(self, view: BatchView) -> Counts:
        """The batch's rows that have each share's mark."""

    def _sums(self, view: BatchView) -> Counts:
        return np.append(self._count(view), len(view.classes))

    def _read(self, sums: Counts) -> Reading:
        *current, total = sums.sum(axis=0).tolist()
        names = zip(self._names, self._reference.tolist(), current, strict=True)
        return read([self._compare(name, before, now, total) for name, before, now in names],
                    self.limits)  # fmt: skip

    def _compare(self, name: str, before: int, now: int, total: int) -> FeatureReading:
        rows = self._reference_rows
        if not (rows and total) or (self._only_more and now / total <= before / rows):
            return FeatureReading(name, 0.0, 1.0)
        pair = np.array([before, rows - before]), np.array([now, total - now])
        return FeatureReading(name, effect_size(before / rows, now / total), homogeneity(*pair))


class PredictionRate(_Shares):
    """The share of rows that the serving version decides as each class."""

    def __init__(self, setup: MonitorSetup) -> None:
        labels = setup.sample.labels
        # of two classes one share says all: the other is 1 minus it
        self._classes = range(1 if len(labels) == 2 else 0, len(labels))
        names = [labels[place] for place in self._classes]
        super().__init__(setup, names, self._decided(setup.sample.classes))

    def _count(self, view: BatchView) -> Counts:
        return self._decided(view.classes)

    def _decided(self, classes: LabelArray) -> Counts:
        return np.array([np.count_nonzero(classes == place) for place in self._classes])


class Missing(_Shares):
    """The share of missing values of each feature."""

    def __init__(self, setup: MonitorSetup) -> None:
        self._features = setup.targets
        super().__init__(setup, setup.targets, self._absent(setup.sample.rows.columns))

    def _count(self, view: BatchView) -> Counts:
        return self._absent(view.columns)

    def _absent(self, columns: Columns) -> Counts:
        absent = [int(pd.isna(columns[name]).sum()) for name in self._features]
        return np.array(absent, dtype=np.int64)


class RuleConflicts(_Shares):
    """The share of rows where a rule and the serving version disagree; fewer of them are fine."""

    def __init__(self, setup: MonitorSetup) -> None:
        super().__init__(setup, ["rules"], np.array([setup.sample.conflicts]), only_more=True)

    def _count(self, view: BatchView) -> Counts:
        return np.array([view.conflicts])


def effect_size(first: float, second: float) -> float:
    """Cohen's h, ``|2 asin sqrt(p) - 2 asin sqrt(q)|``: 0.2 is 1 % from 0, or 60 % from 50 %.

    >>> round(effect_size(0.0, 0.01), 3), round(effect_size(0.5, 0.6), 3)
    (0.2, 0.201)
    """
    return abs(2 * asin(sqrt(first)) - 2 * asin(sqrt(second)))


def require_river() -> Any:
    """River's detectors; raises `ConfigurationError` where it is not installed."""
    try:
        from river import drift
    except ImportError as exc:
        raise ConfigurationError(
            "monitors adwin and kswin need river: "
            "pip install 'selfheal-cli[monitors]', or leave them out"
        ) from exc
    return drift


def adwin(chance: float) -> Any:
    """ADWIN (Bifet and Gavaldà 2007), looking for a change after each value.

    ``chance``, here and below, is that of a false alarm at one value.
    """
    return require_river().ADWIN(delta=chance, clock=1)


def kswin(chance: float) -> Any:
    """KSWIN (Raab, Heusinger and Schleif 2020): the last 30 values against 30 of the 70 before."""
    return require_river().KSWIN(alpha=chance, seed=SEED)


def page_hinkley(chance: float) -> PageHinkley:
    """Page-Hinkley (Page 1954): alarms where a sum of deviations has risen by ``threshold``."""
    # a sum with allowance k exceeds h by chance with probability exp(-2 k h): solved for h
    height = log(1 / chance) / (2 * ALLOWANCE)
    return PageHinkley(delta=ALLOWANCE, threshold=height)


@dataclass(frozen=True, slots=True)
class _Reference:
    """Mean and standard deviation of ``rows`` values without drift."""

    mean: float
    sd: float
    rows: int

    @classmethod
    def of(cls, values: Floats) -> _Reference:
        return cls(float(values.mean()), float(values.std()), len(values))

    def parts(self, values: Floats, parts: int) -> list[float]:
        """Means of up to ``parts`` parts of the values, in standard errors from the mean."""
        if not len(values):
            return []
        pieces = np.array_split(values, min(parts, len(values)))
        deviations = [(float(p.mean()) - self.mean) / self.sd * sqrt(len(p)) for p in pieces]
        return [min(max(deviation, -LARGEST), LARGEST) for deviation in deviations]


class _ChangeDetector:
    """A change detector for one feature, the scores or the errors."""

    def __init__(self, target: str, window: int, detector: Any, *, exact: bool = False) -> None:
        self.target = target
        self._exact = exact and target == ERRORS
        self._errors = 0  # of the reference
        self._detector = detector
        self._reference: _Reference | None = None
        self._first: list[Floats] = []
        self._last: deque[tuple[float, int]] = deque(maxlen=window)
        self._since = window  # batches since the detector fired
        self._window = window

    def learn(self, values: Floats) -> None:
        """Take the values (n,) without drift that the batches are compared with."""
        if self.target == ERRORS and len(values):
            # half an error more: a first window without errors does not mean that none may come
            rate = (values.sum() + 0.5) / (len(values) + 1)
            self._reference = _Reference(float(rate), sqrt(rate * (1 - rate)), len(values))
            self._errors = int(values.sum())
        else:
            self._reference = _Reference.of(values)
        for value in self._reference.parts(values, WARM_UP):
            self._detector.update(value)

    def update(self, values: Floats) -> FeatureReading:
        """Take a batch's values (n,)."""
        if self._reference is None:
            return self._begin(values)
        self._since += 1
        # means of parts, because row by row 10,000 rows would be 10,000 tests
        for value in self._reference.parts(values, PARTS):
            self._detector.update(value)
            if self._detector.drift_detected:
                self._since = 0
        self._last.append((float(values.sum()), len(values)))
        total, rows = (sum(part) for part in zip(*self._last, strict=True))
        if self._since >= self._window or not rows:
            return FeatureReading(self.target, 0.0, 1.0)
        shift = (total / rows - self._reference.mean) / self._reference.sd
        if self.target == ERRORS and shift < 0:
            return FeatureReading(self.target, 0.0, 1.0)  # fewer of them are no alarm
        if self._exact:
            right = self._reference.rows - self._errors
            pair = np.array([self._errors, right]), np.array([int(total), int(rows - total)])
            return FeatureReading(self.target, abs(shift), homogeneity(*pair))
        error = sqrt(1 / rows + 1 / self._reference.rows)
        return FeatureReading(self.target, abs(shift), erfc(abs(shift) / error / sqrt(2)))

    def _begin(self, values: Floats) -> FeatureReading:
        """Training knows no errors of a serving version: the first window is the reference."""
        if len(values):
            self._first.append(values)
        if len(self._first) == self._window:
            self.learn(np.concatenate(self._first))
            self._first = []
        return FeatureReading(self.target, 0.0, 1.0)


class Changes(InOrder):
    """Alarms where a detector fired within the window, and the window's mean has moved.

    ``make`` gives a detector by the chance of a false alarm at one value.
    """

    def __init__(self, make: Callable[[float], Any], setup: MonitorSetup) -> None:
        self.limits = setup.limits
        self._of = str(setup.settings)
        chance = setup.settings.alpha / (PARTS * max(len(setup.targets), 1))
        self._detectors = []
        for name in setup.targets:
            reference = np.empty(0) if name == ERRORS else setup.sample.values(name)
            if name != ERRORS and not varies(reference):
                continue  # without a standard deviation there is nothing to measure by
            window, exact = setup.settings.window, setup.exact
            detector = _ChangeDetector(name, window, make(chance), exact=exact)
            if name != ERRORS:
                detector.learn(reference)
            self._detectors.append(detector)

    def update(self, view: BatchView) -> Reading:
        """Take a batch."""
        readings = [detector.update(view.values(detector.target)) for detector in self._detectors]
        return read(readings, self.limits)
