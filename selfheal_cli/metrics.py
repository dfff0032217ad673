"""Scores: of one set of rows, of a whole stream in constant memory, and of a constant answer.

Probabilities are (n,) of the positive class, or (n, K) of K classes. A label of -1 is unknown:
its row is left out. A ``table`` counts rows by true class (row) and predicted class (column).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.scores import AnyScores, ClassScores, Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, LabelArray, Threshold

    Wide = NDArray[np.float64]
    Counts = NDArray[np.int64]


LOGIT_SPAN = 20.0
BINS = 8_192
CALIBRATION_BINS = 10
ALARMS = 0.01  # share of negatives that may be flagged, of the recall that is told
MOST_RANKED = 64  # classes; a histogram of each takes 128 KB
EPSILON = 1e-12  # probabilities are kept this far from 0 and 1 before their logarithm


def confusion(flagged: np.ndarray[Any, np.dtype[np.bool_]], y: LabelArray) -> Scores:
    """Scores of yes-or-no answers (n,), without the figures that need a ranking."""
    positive, negative = y == 1, y == 0
    tp = int(np.count_nonzero(flagged & positive))
    fp = int(np.count_nonzero(flagged & negative))
    fn = int(np.count_nonzero(positive)) - tp
    return Scores(tp=tp, tn=int(np.count_nonzero(negative)) - fp, fp=fp, fn=fn)


def counts(predicted: NDArray[np.integer[Any]], y: LabelArray, classes: int) -> AnyScores:
    """Scores of predicted classes (n,), without the figures that need probabilities.

    >>> counts(np.array([0, 2, 1]), np.array([0, 1, -1], dtype=np.int8), classes=3)
    ClassScores(confusion=((1, 0, 0), (0, 0, 1), (0, 0, 0)), roc_auc=None, log_loss=None, ece=None)
    """
    if classes == 2:
        return confusion(predicted == 1, y)
    known = y >= 0
    return _scores_of(_table(predicted[known], y[known], classes))


def classify(probabilities: FloatArray, threshold: Threshold) -> LabelArray:
    """The class of each row: at or above the threshold, or the likeliest of K classes."""
    if probabilities.ndim == 1:
        # compared in the probabilities' own precision, whatever the threshold's
        limit = np.asarray(threshold, dtype=probabilities.dtype)
        predicted: LabelArray = (probabilities >= limit).astype(np.int8)
    else:
        predicted = probabilities.argmax(axis=1).astype(np.int8)
    return predicted


def score(probabilities: FloatArray, y: LabelArray, threshold: float) -> AnyScores:
    """Scores of probabilities against labels (n,); the threshold is for (n,) ones alone."""
    p, y = _known(probabilities, y)
    classes = 2 if p.ndim == 1 else p.shape[1]
    predicted = classify(p, threshold)
    scores = counts(predicted, y, classes)
    if not len(y):
        return scores
    losses, gaps = _losses_and_gaps(p, predicted, y)
    scores = replace(scores, log_loss=losses / len(y), ece=_ece(gaps, len(y)))
    present = np.unique(y)
    if len(present) < 2:
        return scores
    if isinstance(scores, Scores):
        return _with_areas(scores, _histogram(y == 1, p if p.ndim == 1 else p[:, 1]))
    histograms = [_histogram(y == k, p[:, k])[None] for k in present]
    return replace(scores, roc_auc=float(np.mean([_roc_aucs(h)[0] for h in histograms])))


class RunningScores:
    """Scores over a stream, from sums: confusion, log loss, calibration, and histograms.

    A histogram has 8,192 bins on the logit, so ROC and PR AUC are exact but for rows that share
    a bin (0.005 wide), which count as ties. With K > 2 classes each has its own, up to K = 64;
    beyond that, and where they are not ``ranked``, there is no ROC AUC.

    >>> running = RunningScores()
    >>> running.add(np.array([0.2, 0.9], np.float32), 0.5, np.array([0, 1], np.int8))
    >>> running.add(np.array([0.4, 0.6], np.float32), 0.3, np.array([1, -1], np.int8))
    >>> running.scores().figures()["accuracy"], running.scores().rows
    (1.0, 3)
    """

    def __init__(self, classes: int = 2, *, ranked: bool = True) -> None:
        self._classes = classes
        self._table = np.zeros((classes, classes), dtype=np.int64)
        self._losses = 0.0
        self._gaps = np.zeros(CALIBRATION_BINS)
        many = classes if ranked and classes <= MOST_RANKED else 0
        columns = 1 if classes == 2 else many
        self._histogram = np.zeros((columns, 2, BINS), dtype=np.int64)  # column, its label, bin
        self._starts = 2 * BINS * np.arange(columns)

    def add(self, probabilities: FloatArray, threshold: Threshold, y: LabelArray) -> None:
        """Take a batch, classified at this threshold."""
        limit = threshold[y >= 0] if isinstance(threshold, np.ndarray) else threshold
        p, y = _known(probabilities, y)
        predicted = classify(p, limit)
        self._table += _table(predicted, y, self._classes)
        losses, gaps = _losses_and_gaps(p, predicted, y)
        self._losses += losses
        self._gaps += gaps
        if self._classes == 2:
            cells = _bins(p if p.ndim == 1 else p[:, 1]) + BINS * (y == 1)
        elif len(self._starts):
            cells = _bins(p) + BINS * (y[:, None] == np.arange(self._classes)) + self._starts
        else:
            return
        np.add.at(self._histogram.reshape(-1), cells.ravel(), 1)

    def plus(self, other: RunningScores) -> RunningScores:
        """Of the rows of both."""
        both = copy(self)
        both._table, both._losses = self._table + other._table, self._losses + other._losses
        both._gaps, both._histogram = self._gaps + other._gaps, self._histogram + other._histogram
        return both

    def minus(self, part: RunningScores) -> RunningScores:
        """Of the rows without those of a ``part`` of them."""
        rest = copy(self)
        rest._table, rest._losses = self._table - part._table, self._losses - part._losses
        rest._gaps, rest._histogram = self._gaps - part._gaps, self._histogram - part._histogram
        return rest

    def without(
        self, probabilities: FloatArray, threshold: Threshold, y: LabelArray
    ) -> RunningScores:
        """Of the rows without some of them, as they were added."""
        part = RunningScores(self._classes, ranked=bool(len(self._starts)))
        part.add(probabilities, threshold, y)
        return self.minus(part)

    def scores(self) -> AnyScores:
        """The scores of all rows so far."""
        scores = _scores_of(self._table)
        if not scores.rows:
            return scores
        losses = self._losses / scores.rows
        scores = replace(scores, log_loss=losses, ece=_ece(self._gaps, scores.rows))
        present = self._table.any(axis=1)
        if np.count_nonzero(present) < 2 or not len(self._starts):
            return scores
        if isinstance(scores, Scores):
            return _with_areas(scores, self._histogram[0])
        return replace(scores, roc_auc=float(_roc_aucs(self._histogram[present]).mean()))

    def recall_at(self, alarms: float = ALARMS) -> float | None:
        """The share of positives above the lowest bin at which at most ``alarms`` of the negatives
        are flagged; None for more than 2 classes, and where one of the two never came.

        >>> running = RunningScores()
        >>> p, y = np.linspace(0.01, 0.99, 200), np.repeat(np.array([0, 1], np.int8), 100)
        >>> running.add(p.astype(np.float32), 0.5, y)
        >>> running.recall_at(0.01)
        1.0
        """
        if self._classes != 2:
            return None
        flagged = np.cumsum(self._histogram[0, :, ::-1], axis=1)
        negatives, positives = (int(count) for count in flagged[:, -1])
        if not negatives or not positives:
            return None
        allowed = int(np.searchsorted(flagged[0], alarms * negatives, side="right"))
        return float(flagged[1, allowed - 1]) / positives if allowed else 0.0

    def curve(self, ratios: Sequence[float]) -> list[float]:
        """Cost per 100 rows, for each ratio of a miss's cost to a false alarm's (which is 1).

        Rows are flagged from the probability where both errors cost the same, ``1 / (1 + ratio)``;
        those in that threshold's bin (0.005 of a logit) are flagged too. Raises `ValueError` for
        more than 2 classes, and for a ratio that is negative or not finite.
        """
        if self._classes != 2:
            raise ValueError(f"a cost curve needs 2 classes, not {self._classes}")
        costs = np.asarray(ratios, dtype=np.float64)
        if not (np.isfinite(costs).all() and (costs >= 0).all()):
            raise ValueError(f"cost ratios must be 0 or more and finite: {list(ratios)}")
        below = np.zeros((2, BINS + 1), dtype=np.int64)
        np.cumsum(self._histogram[0], axis=1, out=below[:, 1:])
        start = _bins(1 / (1 + costs))
        misses, alarms = below[1, start], below[0, -1] - below[0, start]
        rows = max(int(below[:, -1].sum()), 1)
        return [float(cost) for cost in 100 * (costs * misses + alarms) / rows]


def constant(scores: Scores, *, flag: bool) -> Scores:
    """The scores of flagging every row, or none, on the same rows."""
    positive, negative = scores.tp + scores.fn, scores.tn + scores.fp
    if flag:
        return Scores(tp=positive, tn=0, fp=negative, fn=0, roc_auc=0.5)
    return Scores(tp=0, tn=negative, fp=0, fn=positive, roc_auc=0.5)


def commonest(scores: ClassScores) -> ClassScores:
    """The scores of always predicting the commonest class, on the same rows."""
    truth = [sum(row) for row in scores.confusion]
    answer = truth.index(max(truth))
    rows = [[count if label == answer else 0 for label in range(len(truth))] for count in truth]
    return ClassScores(tuple(map(tuple, rows)), roc_auc=0.5)


def _known(probabilities: FloatArray, y: LabelArray) -> tuple[FloatArray, LabelArray]:
    """The rows whose label is known; mostly all, then nothing is copied."""
    known = y >= 0
    return (probabilities, y) if known.all() else (probabilities[known], y[known])


def _table(predicted: NDArray[np.integer[Any]], y: LabelArray, classes: int) -> Counts:
    """Rows (classes, classes) by true and predicted class."""
    cells = y.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def _scores_of(table: Counts) -> AnyScores:
    if len(table) == 2:
        (tn, fp), (fn, tp) = table.tolist()
        return Scores(tp=tp, tn=tn, fp=fp, fn=fn)
    return ClassScores(tuple(tuple(row) for row in table.tolist()))


def _losses_and_gaps(p: FloatArray, predicted: LabelArray, y: LabelArray) -> tuple[float, Wide]:
    """Sum of the rows' log losses, and by calibration bin the sum of confidence - outcome.

    Of two classes the confidence is the positive class's probability, of more the predicted one's.
    """
    wide = p.astype(np.float64)
    if p.ndim == 1 or p.shape[1] == 2:
        confidence, outcome = (wide if p.ndim == 1 else wide[:, 1]), y == 1
        of_truth = np.where(outcome, confidence, 1 - confidence)
    else:
        row = np.arange(len(y))
        confidence, outcome = wide[row, predicted], predicted == y
        of_truth = wide[row, y]
    losses = -float(np.log(np.maximum(of_truth, EPSILON)).sum())
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - outcome, minlength=CALIBRATION_BINS)
    return losses, gaps.astype(np.float64)


def _ece(gaps: Wide, rows: int) -> float:
    """Expected calibration error: mean distance of confidence from outcome, bin by bin."""
    return float(np.abs(gaps).sum()) / rows


def _bins(p: NDArray[np.floating[Any]]) -> Counts:
    """The bin of each probability on the histogram's logit axis."""
    # by logit, so that rare positives' probabilities, all near 0, do not share one bin
    kept = np.minimum(np.maximum(p.astype(np.float64), EPSILON), 1 - EPSILON)
    logit = np.minimum(np.maximum(np.log(kept / (1 - kept)), -LOGIT_SPAN), LOGIT_SPAN)
    bins: Counts = ((logit + LOGIT_SPAN) * ((BINS - 1) / (2 * LOGIT_SPAN))).astype(np.int64)
    return bins


def _roc_aucs(histograms: Counts) -> Wide:
    """ROC AUC of each class against the rest, from (K, 2, bins)."""
    negatives, positives = histograms[:, 0], histograms[:, 1]
    # the share of pairs that are ranked rightly (Mann-Whitney's U); ties count half
    below = np.cumsum(negatives, axis=1) - negatives / 2
    areas: Wide = (positives * below).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))
    return areas


def roc_auc(positive: NDArray[np.bool_], ranking: FloatArray | Wide) -> float:
    """The chance that a positive (n,) ranks above another row, ties half; both must be there.

    >>> roc_auc(np.array([True, False, False]), np.array([0.5, 0.5, 0.1]))
    0.75
    """
    return float(_roc_aucs(_histogram(positive, ranking)[None])[0])


def _histogram(positive: NDArray[np.bool_], ranking: FloatArray | Wide) -> Counts:
    """Rows by rank of their probability, (2, ranks): the rest, then the class itself."""
    ranks, place = np.unique(ranking, return_inverse=True)
    rows = np.bincount(place + len(ranks) * positive, minlength=2 * len(ranks))
    return rows.reshape(2, -1)


def _average_precision(histogram: Counts) -> float:
    """Mean precision over the class's rows, ranks taken from the highest down; (2, ranks)."""
    false, true = np.cumsum(histogram[:, ::-1], axis=1)
    gained = np.diff(true, prepend=0)
    flagged = np.maximum(false + true, 1)
    return float((gained * true / flagged).sum() / true[-1])


def _with_areas(counts: Scores, histogram: Counts) -> Scores:
    """The scores with ROC and PR AUC, from (2, ranks)."""
    # both from one sorting: scikit-learn's two functions take 1.4 ms, which every heal would pay
    roc_auc = float(_roc_aucs(histogram[None])[0])
    return replace(counts, roc_auc=roc_auc, pr_auc=_average_precision(histogram))


@dataclass(frozen=True, slots=True)
class Lift:
    """Live minus shadow on the same rows."""

    accuracy: float
    f1: float


def lift(live: AnyScores, shadow: AnyScores) -> Lift:
    """Live minus shadow."""
    return Lift(live.accuracy - shadow.accuracy, live.f1 - shadow.f1)
