"""Estimated scores of rows whose labels are not known yet, from their probabilities alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.metrics import classify

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, Threshold

    Wide = NDArray[np.float64]

NORMAL_95 = 1.959963984540054  # 97.5 % of a normal distribution lie below


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the interval that it lies in for 95 % of the labels that may come."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected figures of ``rows`` unlabelled rows.

    With more than one probability a row only the accuracy is known; ``roc_auc`` is None too where
    the rows are expected to be of one class.
    """

    rows: int
    accuracy: Interval
    precision: Interval | None = None
    recall: Interval | None = None
    f1: Interval | None = None
    roc_auc: Interval | None = None

    def figures(self) -> dict[str, float]:
        """The defined figures and their bounds by metric name."""
        known = {
            "est_accuracy": self.accuracy,
            "est_precision": self.precision,
            "est_recall": self.recall,
            "est_f1": self.f1,
            "est_roc_auc": self.roc_auc,
        }
        figures: dict[str, float] = {}
        for name, interval in known.items():
            if interval is not None:
                figures[name] = interval.value
                figures[f"{name}_low"], figures[f"{name}_high"] = interval.low, interval.high
        return figures


def estimate(probabilities: FloatArray, threshold: Threshold) -> Estimate:
    """Confidence-based performance estimation (CBPE), as NannyML's documentation describes it.

    A row of probability p counts as p of a positive and 1 - p of a negative, which gives the
    expected confusion matrix and ROC curve. This assumes that the probabilities are calibrated on
    these very rows. Drift in what the features mean breaks that, and nothing here can notice it:
    labels can. The interval covers how labels drawn with these probabilities fall, and nothing
    else. It is the delta method's (exact variances for accuracy and precision): too narrow where
    only a few positives are expected.

    Raises `ValueError` without rows, or for a probability outside 0 and 1.

    >>> accuracy = estimate(np.array([0.875, 0.75, 0.125, 0.25], dtype=np.float32), 0.5).accuracy
    >>> accuracy.value, round(accuracy.low, 3), round(accuracy.high, 3)
    (0.8125, 0.435, 1.0)
    """
    if not len(probabilities):
        raise ValueError("an estimate needs at least one row")
    p = probabilities.astype(np.float64)
    if not (p.min() >= 0 and p.max() <= 1):  # NaN is caught, too
        raise ValueError(f"probabilities must lie between 0 and 1: {p.min():g} to {p.max():g}")
    if p.ndim == 2:
        return Estimate(len(p), _accuracy(p.max(axis=1)))
    flagged = classify(probabilities, threshold) == 1
    accuracy = _accuracy(np.where(flagged, p, 1 - p))
    precision, recall, f1 = _of_confusion(p, flagged)
    return Estimate(len(p), accuracy, precision, recall, f1, _roc_auc(p))


def _interval(value: float, variance: float) -> Interval:
    """Within 0 and 1, where all the figures lie; rounding must not take the value out."""
    value = min(max(value, 0.0), 1.0)
    reach = NORMAL_95 * sqrt(variance)
    return Interval(value, max(value - reach, 0.0), min(value + reach, 1.0))


def _accuracy(right: Wide) -> Interval:
    """From each row's probability of being right."""
    return _interval(float(right.mean()), float((right * (1 - right)).sum()) / len(right) ** 2)


def _of_confusion(
    p: Wide, flagged: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[Interval, Interval, Interval]:
    """Precision, recall and F1; one without rows is 0, as in `Scores`.

    True positives and misses are independent sums, so variances add up by each one's slope.
    """
    spread = p * (1 - p)
    predicted = int(np.count_nonzero(flagged))
    tp, fn = float(p[flagged].sum()), float(p[~flagged].sum())
    var_tp, var_fn = float(spread[flagged].sum()), float(spread[~flagged].sum())
    none = Interval(0.0, 0.0, 0.0)
    if not predicted:
        return none, none, none
    precision = _interval(tp / predicted, var_tp / predicted**2)
    both = predicted + tp + fn
    f1 = _interval(2 * tp / both, 4 * ((predicted + fn) ** 2 * var_tp + tp**2 * var_fn) / both**4)
    positive = tp + fn
    if not positive:
        return precision, none, f1
    return precision, _interval(tp / positive, _recall_variance(tp, fn, var_tp, var_fn)), f1


def _recall_variance(tp: float, fn: float, var_tp: float, var_fn: float) -> float:
    # in shares of the positives, so that a sum near nought cannot underflow when squared
    positive = tp + fn
    hit, missed = tp / positive, fn / positive
    return (missed**2 * (var_tp / positive) + hit**2 * (var_fn / positive)) / positive


def _roc_auc(p: Wide) -> Interval | None:
    """Area under the expected ROC curve: each row weighs p as a positive, 1 - p as a negative."""
    ranks, inverse = np.unique(p, return_inverse=True)
    rows = np.bincount(inverse)
    positives, negatives = rows * ranks, rows * (1 - ranks)
    positive, negative = float(positives.sum()), float(negatives.sum())
    if not (positive and negative):
        return None
    # share of negatives that a row ranks above, and of positives that rank above it; ties half
    below = (np.cumsum(negatives) - negatives / 2) / negative
    above = 1 - (np.cumsum(positives) - positives / 2) / positive
    area = float((positives * below).sum()) / positive
    # slope of the area in one row's label: what it adds as a positive less what as a negative
    slope = (below - area) / positive - (above - area) / negative
    return _interval(area, float((rows * ranks * (1 - ranks) * slope**2).sum()))
