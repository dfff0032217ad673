"""The best that any model can do on the synthetic stream, from the generator's densities.

Only V14 tells the classes apart, so the posterior depends on it alone:
p(v) = q N(v; m, 0.8) / (q N(v; m, 0.8) + (1 - q) N(v; -d, 1)), m = -2.5 unless the positives moved.
Ranking rows by it gives the best ROC and precision-recall curves there are (Neyman and Pearson
1933).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.records import Limit

Grid = NDArray[np.float64]
GRID = 200_001
POSITIVE_MEAN, POSITIVE_SD = -2.5, 0.8  # of V14; see `synthetic`
SPAN = 12.0  # standard deviations beyond both means


def posterior(
    v14: NDArray[Any], drift: float, positive_share: float, positive_mean: float = POSITIVE_MEAN
) -> Grid:
    """Probability (n,) that rows with these V14 (n,) are positive: no model ranks them better.

    >>> posterior(np.array([-2.5, 0.0]), 0.0, 0.15).round(3).tolist()
    [0.834, 0.002]
    """
    v = np.asarray(v14, dtype=np.float64)
    z_positive, z_negative = (v - positive_mean) / POSITIVE_SD, v + drift
    log_odds = (
        np.log(positive_share / (1 - positive_share) / POSITIVE_SD)
        - 0.5 * z_positive**2
        + 0.5 * z_negative**2
    )
    return np.asarray(np.exp(-np.logaddexp(0.0, -log_odds)))


def bayes_limit(drift: float, positive_share: float, positive_mean: float = POSITIVE_MEAN) -> Limit:
    """Integrate the densities on a fine grid, rows taken from the highest posterior down.

    >>> limit = bayes_limit(2.2, 0.15)
    >>> round(limit.accuracy, 3), round(limit.f1, 3), round(limit.roc_auc, 3)
    (0.85, 0.295, 0.606)
    """
    means = (positive_mean, -drift)
    v = np.linspace(min(means) - SPAN, max(means) + SPAN, GRID)
    positive = positive_share * _normal(v, positive_mean, POSITIVE_SD)
    negative = (1 - positive_share) * _normal(v, -drift, 1.0)
    step = v[1] - v[0]
    order = np.argsort(-posterior(v, drift, positive_share, positive_mean), kind="stable")
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
