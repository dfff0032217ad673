"""Refits of the frozen network on a labelled window, all scored on rows not learned from.

A skill is 1 - log loss / entropy of the base rate: 0 for a constant, 1 for a seer.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.logistic import fit, row_losses, targets

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_ROWS = 200
FOLDS = 5
PENALTIES = (30.0, 300.0)  # of a standardised feature's weight; the better one is taken
SCALE_PENALTY, LEVEL_PENALTY = 1.0, 1e-3  # of the logit's own weight and of the intercept
SIGNIFICANT = 3.0  # z of paired losses
MATERIAL = 0.15  # of the best skill; an overfit network gains up to a tenth where nothing moved
GONE_SKILL = 0.05
GONE_UPPER = 0.12  # two standard errors above the skill found must stay below
SD_FLOOR = 0.05  # of the median sd
LARGEST = 30.0  # a logit beyond is as good as certain


@dataclass(frozen=True, slots=True)
class Refit:
    """Skills on rows not learned from; ``z`` is of the refit's gain over the two others.

    ``bias`` is the frozen network with its intercept refitted, ``error`` the standard error of the
    refit's skill.
    """

    rows: int
    auc: float
    skill: float
    error: float
    frozen_skill: float
    bias_skill: float
    z_over_frozen: float
    z_over_bias: float

    @property
    def best(self) -> float:
        """The best skill of the three."""
        return max(self.skill, self.bias_skill, self.frozen_skill)

    @property
    def material(self) -> float:
        """A gain in skill below this is not worth a heal."""
        return MATERIAL * max(self.best, GONE_SKILL)

    @property
    def wanted(self) -> int:
        """About how many more rows would settle it, as errors fall with the root of the rows."""
        proof = SIGNIFICANT / max(self.z_over_frozen, 1.0)
        width = 2 * self.error / (GONE_UPPER - GONE_SKILL) if self.best < GONE_SKILL else 0.0
        return max(ceil(self.rows * (max(proof, width) ** 2 - 1) / 100) * 100, 100)

    @property
    def relation_moved(self) -> bool:
        """Whether more than the base rate has moved, beyond chance and beyond overfitting."""
        return self.z_over_bias > SIGNIFICANT and self.skill - self.bias_skill > self.material


def refit_of(features: FloatArray, logits: FloatArray, y: LabelArray, group: Ints) -> Refit:
    """Refit on features (n, d) and the frozen logits (n,); ``group`` (n,) as `copies` gives it."""
    from threadpoolctl import threadpool_limits

    # threads of BLAS that wait for a core of their own take seconds instead of 25 ms
    with threadpool_limits(limits=1, user_api="blas"):
        return _compared(features, logits, y, group)


def _compared(features: FloatArray, logits: FloatArray, y: LabelArray, group: Ints) -> Refit:
    from sklearn.metrics import roc_auc_score

    target, offset, one = y.astype(np.float64), bounded(logits), np.ones((len(y), 1))
    inputs = _standardised(np.nan_to_num(features.astype(np.float64)))
    design = np.hstack([inputs, _standardised(offset[:, None]), one])
    fold = _folds(y, group)
    bias = _held_out(one, offset, target, np.array([LEVEL_PENALTY]), fold)
    weights = [np.full(design.shape[1], penalty) for penalty in PENALTIES]
    for penalty in weights:
        penalty[-2:] = SCALE_PENALTY, LEVEL_PENALTY
    refits = [_held_out(design, offset, target, penalty, fold) for penalty in weights]
    best = min(refits, key=lambda refit: float(log_losses(refit, target).sum()))
    share = float(target.mean())
    level = np.full(len(y), log(share / (1 - share)))
    # copies of a row are one piece of evidence
    frozen, biased, refitted, constant = (
        np.bincount(group, log_losses(logit, target)).astype(np.float64)
        for logit in (offset, bias, best, level)
    )
    whole = len(y) * entropy(share)
    return Refit(
        rows=len(y),
        auc=float(roc_auc_score(target, best)),
        skill=1 - float(refitted.sum()) / whole,
        error=float((constant - refitted).std()) * sqrt(len(refitted)) / whole,
        frozen_skill=1 - float(frozen.sum()) / whole,
        bias_skill=1 - float(biased.sum()) / whole,
        z_over_frozen=_paired_z(frozen - refitted),
        z_over_bias=_paired_z(biased - refitted),
    )


def _held_out(design: Floats, offset: Floats, y: Floats, penalty: Floats, fold: Ints) -> Floats:
    """Each row's logit (n,) from a fit that saw neither it nor a copy of it."""
    start = _refitted(design, offset, y, penalty, np.zeros(design.shape[1]))
    logits = offset.copy()
    for number in range(FOLDS):
        seen = fold != number
        weights = _refitted(design[seen], offset[seen], y[seen], penalty, start)
        logits[~seen] += design[~seen] @ weights
    return logits


def _refitted(design: Floats, offset: Floats, y: Floats, penalty: Floats, start: Floats) -> Floats:
    goal = targets(design, y, 1)
    return fit(design, offset[:, None], goal, penalty, start[:, None])[:, 0]


def _folds(y: LabelArray, group: Ints) -> Ints:
    """Five consecutive parts of each class's rows; copies of a row fall into one part."""
    first = np.unique(group, return_index=True)[1]
    fold = np.zeros(len(first), dtype=np.int64)
    for label in (0, 1):
        rows = np.flatnonzero(y[first] == label)
        fold[rows] = np.arange(len(rows)) * FOLDS // max(len(rows), 1)
    return np.asarray(fold[group])


def copies(x: FloatArray) -> Ints:
    """(n,) one number for all copies of a row, in order of appearance.

    A stream may draw its rows with replacement. With few different rows (a table of categories)
    each stands for itself: leaving all of a kind out would ask for more than a refit can know.
    """
    seen: dict[bytes, int] = {}
    group = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in x], dtype=np.int64)
    return group if len(seen) >= MIN_ROWS else np.arange(len(x))


def effective_rows(group: Ints) -> float:
    """How many independent rows these are worth (Kish)."""
    counts = np.unique(group, return_counts=True)[1]
    return len(group) ** 2 / float((counts**2).sum())


def bounded(logits: FloatArray) -> Floats:
    """Finite logits in float64."""
    return np.clip(np.nan_to_num(logits.astype(np.float64)), -LARGEST, LARGEST)


def _standardised(columns: Floats) -> Floats:
    sd = columns.std(axis=0)
    return np.asarray((columns - columns.mean(axis=0)) / floored(sd))


def floored(sd: Floats) -> Floats:
    """A column that hardly varies must not turn into a loud one."""
    positive = sd[sd > 0]
    return np.maximum(sd, SD_FLOOR * float(np.median(positive)) if len(positive) else 1.0)


def log_losses(logits: Floats, y: Floats) -> Floats:
    """Log loss of each row, (n,), from logits (n,)."""
    return row_losses(logits[:, None], y)


def entropy(share: float) -> float:
    """Log loss of a constant that is right about the share of positives."""
    return -share * log(share) - (1 - share) * log(1 - share)


def _paired_z(gains: Floats) -> float:
    spread = float(gains.std())
    return float(gains.mean()) / spread * sqrt(len(gains)) if spread else 0.0
