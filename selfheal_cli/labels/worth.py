"""What more labels would be worth: how much the last half of those that are there brought."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.labels.estimate import NORMAL_95, Interval
from selfheal_cli.logistic import fit, row_losses, targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, LabelArray

    Wide = NDArray[np.float64]

FEWEST = 200  # labels below which halving them says nothing
FEWEST_OF_A_CLASS = 20
FOLDS = 10
RIDGE, SCALE_RIDGE, LIGHT = 5.0, 1.0, 1e-3  # as the recipe anchored has them
EDGE = 1e-6  # of a probability, so that its logit is finite


@dataclass(frozen=True, slots=True)
class Worth:
    """Log loss as answered, and of refits by half of the ``labels`` and by all, each on rows that
    it did not see; ``step`` is what the other half brought.
    """

    labels: int
    frozen: float
    half: float
    whole: float
    step: Interval

    def __str__(self) -> str:
        reached = (
            f"log loss {self.frozen:.3f} as answered, {self.half:.3f} by a refit on "
            f"{self.labels // 2:,} of these labels, {self.whole:.3f} on {self.labels:,}"
        )
        if self.step.low <= 0:
            return f"{reached}: what more would bring cannot be told from chance"
        return (
            f"{reached}: as many again bring no more than these did, while returns diminish: "
            f"{self.step.value:.3f} ({self.step.low:.3f} to {self.step.high:.3f})"
        )


def worth(x: FloatArray, p: FloatArray, y: LabelArray, weight: Wide) -> Worth | None:
    """By inputs (n, d), answered probabilities (n,), labels (n,), and for how many rows each
    stands, (n,); None where there are too few.

    Refits are logistic regressions around what was answered, left out by tenths.
    """
    if len(y) < FEWEST or min(np.bincount(y, minlength=2)[:2]) < FEWEST_OF_A_CLASS:
        return None
    wide = np.clip(p.astype(np.float64), EDGE, 1 - EDGE)
    offset = np.log(wide / (1 - wide))[:, None]
    a = _design(x, offset)
    ridge = np.array([RIDGE] * (a.shape[1] - 2) + [SCALE_RIDGE, LIGHT])
    fold = np.arange(len(y)) % FOLDS
    losses = np.empty((3, len(y)))
    for left_out in range(FOLDS):
        tested, seen = fold == left_out, np.flatnonzero(fold != left_out)
        losses[0, tested] = row_losses(offset[tested], y[tested])
        for place, rows in ((1, seen[::2]), (2, seen)):
            target = targets(a[rows], y[rows], 1)
            theta = fit(a[rows], offset[rows], target, ridge, np.zeros((a.shape[1], 1)))
            losses[place, tested] = row_losses(offset[tested] + a[tested] @ theta, y[tested])
    share = weight / weight.sum()
    frozen, half, whole = (losses @ share).tolist()
    gap = losses[1] - losses[2]
    reach = NORMAL_95 * sqrt(float(share**2 @ (gap - share @ gap) ** 2))
    return Worth(len(y), frozen, half, whole, Interval(half - whole, half - whole - reach,
                                                       half - whole + reach))  # fmt: skip


def _design(x: FloatArray, offset: Wide) -> Wide:
    """Standardised inputs that vary, 0 where missing; the standardised logit; 1."""
    columns = [values for values in x.T.astype(np.float64) if np.nanstd(values) > 0]
    parts = [np.nan_to_num((one - np.nanmean(one)) / np.nanstd(one)) for one in columns]
    scaled = (offset[:, 0] - offset.mean()) / max(float(offset.std()), EDGE)
    return np.column_stack([*parts, scaled, np.ones(len(offset))])
