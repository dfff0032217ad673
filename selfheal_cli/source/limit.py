"""The best that any model can do on the synthetic stream, from the generator's densities.

Only V14 tells the classes apart, so the posterior depends on it alone:
p(v) = q N(v; -2.5, 0.8) / (q N(v; -2.5, 0.8) + (1 - q) N(v; -d, 1)). Ranking rows by it gives the
best ROC and precision-recall curves there are (Neyman and Pearson 1933).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.records import Limit

Grid = NDArray[np.float64]
GRID = 200_001
POSITIVE_MEAN, POSITIVE_SD = -2.5, 0.8  # of V14; see `synthetic`
SPAN = 12.0  # standard deviations beyond both means


def bayes_limit(drift: float, positive_share: float) -> Limit:
    """Integrate the densities on a fine grid, rows taken from the highest posterior down.

    >>> limit = bayes_limit(2.2, 0.15)
    >>> round(limit.accuracy, 3), round(limit.f1, 3), round(limit.roc_auc, 3)
    (0.85, 0.295, 0.606)
    """
    means = (POSITIVE_MEAN, -drift)
    v = np.linspace(min(means) - SPAN, max(means) + SPAN, GRID)
    positive = positive_share * _normal(v, POSITIVE_MEAN, POSITIVE_SD)
    negative = (1 - positive_share) * _normal(v, -drift, 1.0)
    step = v[1] - v[0]
    order = np.argsort(-positive / (positive + negative), kind="stable")
    caught = np.cumsum(positive[order]) * step
    alarms = np.cumsum(negative[order]) * step
    flagged = caught + alarms
    f1 = 2 * caught / (positive_share + flagged)
    best = int(np.argmax(f1))
    recall, precision = caught / positive_share, caught / flagged
    return Limit(
        accuracy=float(np.sum(np.maximum(positive, negative)) * step),
        f1=float(f1[best]),
        recall=float(recall[best]),
        roc_auc=float(np.trapezoid(recall, alarms / (1 - positive_share))),
        pr_auc=float(np.trapezoid(precision, recall)),
    )


def _normal(v: Grid, mean: float, sd: float) -> Grid:
    density = np.exp(-0.5 * ((v - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    return np.asarray(np.maximum(density, 1e-300))
