"""Scores: of one set of rows, and of a whole stream in constant memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.records import Scores

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

LOGIT_SPAN = 20.0
BINS = 8_192


def confusion(flagged: np.ndarray[Any, np.dtype[np.bool_]], y: LabelArray) -> Scores:
    """Scores of yes-or-no answers (n,), without the figures that need a ranking."""
    positive = y == 1
    tp = int(np.count_nonzero(flagged & positive))
    fp = int(np.count_nonzero(flagged)) - tp
    fn = int(np.count_nonzero(positive)) - tp
    return Scores(tp=tp, tn=len(y) - tp - fp - fn, fp=fp, fn=fn)


def score(probabilities: FloatArray, y: LabelArray, threshold: float) -> Scores:
    """Scores of probabilities (n,) against labels (n,)."""
    counts = confusion(probabilities >= threshold, y)
    if counts.tp + counts.fn in (0, counts.rows):
        return counts
    return _ranked(counts, y, probabilities, None)


class RunningScores:
    """Scores over a stream. Mergeable counts: confusion, and a histogram of scores per class.

    The histogram has 8,192 bins on the logit, so ROC and PR AUC are exact but for rows that
    share a bin (0.005 wide), which count as ties.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._counts = np.zeros(4, dtype=np.int64)
        self._histogram = np.zeros((2, BINS), dtype=np.int64)

    def add(self, probabilities: FloatArray, y: LabelArray) -> None:
        """Take a batch."""
        batch = confusion(probabilities >= self._threshold, y)
        self._counts += (batch.tp, batch.tn, batch.fp, batch.fn)
        clipped = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
        logit = np.clip(np.log(clipped / (1 - clipped)), -LOGIT_SPAN, LOGIT_SPAN)
        place = ((logit + LOGIT_SPAN) / (2 * LOGIT_SPAN) * (BINS - 1)).astype(np.int64)
        np.add.at(self._histogram, (y.astype(np.int64), place), 1)

    def scores(self) -> Scores:
        """Everything so far."""
        tp, tn, fp, fn = (int(count) for count in self._counts)
        counts = Scores(tp=tp, tn=tn, fp=fp, fn=fn)
        if tp + fn in (0, counts.rows):
            return counts
        label, place = np.nonzero(self._histogram)
        return _ranked(counts, label.astype(np.int8), place, self._histogram[label, place])


def constant(scores: Scores, *, flag: bool) -> Scores:
    """What flagging everything, or nothing, would have scored on the same rows."""
    positive, negative = scores.tp + scores.fn, scores.tn + scores.fp
    if flag:
        return Scores(tp=positive, tn=0, fp=negative, fn=0, roc_auc=0.5)
    return Scores(tp=0, tn=negative, fp=0, fn=positive, roc_auc=0.5)


def _ranked(
    counts: Scores,
    y: LabelArray,
    ranking: np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any] | None,
) -> Scores:
    from sklearn import config_context
    from sklearn.metrics import average_precision_score, roc_auc_score

    with config_context(assume_finite=True, skip_parameter_validation=True):
        roc_auc = float(roc_auc_score(y, ranking, sample_weight=weights))
        pr_auc = float(average_precision_score(y, ranking, sample_weight=weights))
    return replace(counts, roc_auc=roc_auc, pr_auc=pr_auc)
