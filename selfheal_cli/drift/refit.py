"""Whether a model could do better on a labelled window: refits of the frozen features, and trees.

The frozen baseline is compared with refits on its own features, and where those have lost what
training had, with trees on the columns, all scored on rows that they did not learn from. A skill
is 1 - log loss / entropy of the base rate: 0 for a constant, 1 for a model that is always certain
and right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, fsum, log, sqrt
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.logistic import fit, row_losses, targets
from selfheal_cli.metrics import roc_auc
from selfheal_cli.moments import floored

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray


Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# learns from columns (n, p) and classes (n,), and gives probabilities (m, K) of other columns
Columns = Callable[[Any, Any, Any], Floats]

MIN_ROWS = 200
FOLDS = 5
PENALTIES = (30.0, 300.0)  # of a standardised feature's weight; the better one is taken
SCALE_PENALTY, LEVEL_PENALTY = 1.0, 1e-3  # of the logit's own weight and of the intercept
SIGNIFICANT = 3.0  # z of paired losses
MATERIAL = 0.15  # of the best skill; an overfit network gains up to a tenth where nothing moved
GONE_SKILL = 0.05  # below it the features say next to nothing of the label
GONE_UPPER = 0.12  # two standard errors above each of the skills must stay below
LARGEST = 30.0  # a logit beyond is as good as certain
LEAST = 1e-9  # share of a class that is not there
SURE = 1e-3  # probability that trees give no class less than
WIDEST = 500  # columns above which no trees are asked: a verdict would take seconds


@dataclass(frozen=True, slots=True)
class Refit:
    """Skills of three models on ``rows`` rows that they did not learn from.

    ``skill`` and ``auc`` (ROC) are of a logistic regression on the frozen features;
    ``frozen_skill`` is of the frozen baseline, ``bias_skill`` of it with its intercept refitted.
    ``upper`` is the most that a skill may be, ``error`` the standard error of the one that may. The
    ``z`` are of the regression's gain over each of the two.
    ``trees_skill`` and ``trees_auc`` are of trees on the columns, which are not asked where the
    features have what training had, and ``z_of_trees`` is of their gain over the regression.
    """

    rows: int
    auc: float
    skill: float
    error: float
    upper: float
    frozen_skill: float
    bias_skill: float
    z_over_frozen: float
    z_over_bias: float
    trees_skill: float | None = None
    trees_auc: float = 0.0
    z_of_trees: float = 0.0

    @property
    def trees_reach_more(self) -> bool:
        """Whether the columns tell what the frozen features do not, beyond chance."""
        more = self.trees_skill is not None and self.trees_skill - self.best > MATERIAL * max(
            self.trees_skill, GONE_SKILL
        )
        return more and self.z_of_trees > SIGNIFICANT

    @property
    def best(self) -> float:
        """The best skill of the three."""
        return max(self.skill, self.bias_skill, self.frozen_skill)

    @property
    def material(self) -> float:
        """A gain in skill below this is not worth a heal."""
        return MATERIAL * max(self.best, GONE_SKILL)

    @property
    def rows_needed(self) -> int:
        """About how many more rows would settle it."""
        # standard errors fall with the root of the rows
        proof = SIGNIFICANT / max(self.z_over_frozen, 1.0)
        width = 2 * self.error / (GONE_UPPER - GONE_SKILL) if self.best < GONE_SKILL else 0.0
        return max(ceil(self.rows * (max(proof, width) ** 2 - 1) / 100) * 100, 100)

    @property
    def relation_moved(self) -> bool:
        """Whether more than the base rate has moved, beyond chance and beyond overfitting."""
        return self.z_over_bias > SIGNIFICANT and self.skill - self.bias_skill > self.material


def refit_of(
    features: FloatArray,
    logits: FloatArray,
    y: LabelArray,
    group: Ints,
    x: FloatArray | None = None,
    trees: Columns | None = None,
    trained: float | None = None,
    *,
    each: bool = False,
) -> Refit:
    """The frozen baseline against refits on its features (n, d) and logits, (n,) or (n, K).

    ``y`` (n,) are classes from 0 on, and ``group`` (n,) as `copies` gives it. ``trees`` are asked
    on columns ``x`` (n, p) where the refit's skill is materially below the ``trained`` one.
    ``each`` of the three skills counts with its error; else the best with the regression's.
    """
    from threadpoolctl import threadpool_limits

    # threads of BLAS that wait for a core of their own take seconds instead of 25 ms
    with threadpool_limits(limits=1, user_api="blas"):
        return _compared(features, logits, y, group, _Growing(x, trees, trained), each=each)


@dataclass(frozen=True, slots=True, eq=False)
class _Growing:
    """Columns (n, p), what learns from them, and the skill in training; None: unknown."""

    x: Any
    trees: Columns | None
    trained: float | None

    def logits(self, y: LabelArray, fold: Ints, refit: Refit) -> Floats | None:
        """Each row's logits (n, outputs) by trees that did not learn from it; None: not asked."""
        lost = self.trained is None or refit.best < self.trained - refit.material
        if self.trees is None or not lost or self.x.shape[1] > WIDEST:
            return None
        told = None
        for number in range(FOLDS):
            learned = fold != number
            p = self.trees(self.x[learned], y[learned], self.x[~learned])
            told = np.empty((len(y), p.shape[1])) if told is None else told
            told[~learned] = np.clip(p, SURE, 1 - SURE)
        return None if told is None or np.isnan(told).any() else _logits(told)


def _logits(p: Floats) -> Floats:
    """Probabilities (n, K) to logits: of two classes one column, of more as many as there are."""
    odds: Floats = np.log(p)
    return odds[:, 1:] - odds[:, :1] if p.shape[1] == 2 else odds


def _compared(
    features: FloatArray, logits: FloatArray, y: LabelArray, group: Ints, asked: _Growing,
    *, each: bool,
) -> Refit:  # fmt: skip
    offset = by_output(bounded(logits))
    outputs, intercept = offset.shape[1], np.ones((len(y), 1))
    inputs = _standardised(np.nan_to_num(features.astype(np.float64)))
    design = np.hstack([inputs, _standardised(offset), intercept])
    fold = _folds(y, group)
    bias = _held_out(intercept, offset, y, np.array([LEVEL_PENALTY]), fold)
    weights = [np.full(design.shape[1], penalty) for penalty in PENALTIES]
    for penalty in weights:
        penalty[-1 - outputs :] = SCALE_PENALTY
        penalty[-1] = LEVEL_PENALTY
    refits = [_held_out(design, offset, y, penalty, fold) for penalty in weights]
    best = min(refits, key=lambda refit: float(row_losses(refit, y).sum()))
    shares = shares_of(np.bincount(y, minlength=max(outputs, 2)).tolist())
    level = np.tile(_logits(np.maximum([shares], LEAST)), (len(y), 1))

    # losses are summed over the copies of a row, which are one piece of evidence
    def lost(logit: Floats) -> Floats:
        return np.bincount(group, row_losses(logit, y)).astype(np.float64)

    frozen, biased, refitted, constant = map(lost, (offset, bias, best, level))
    whole = len(y) * entropy(shares)
    skills = [1 - float(one.sum()) / whole for one in (refitted, frozen, biased)]
    errors = [float((constant - one).std()) * sqrt(len(one)) / whole
              for one in (refitted, frozen, biased)]  # fmt: skip
    # a regression that learned nothing is a constant, and as sure of its skill as of nothing else
    upper, error = max((a + 2 * b, b) for a, b in zip(skills, errors, strict=True))
    if not each:
        upper, error = max(skills) + 2 * errors[0], errors[0]
    refit = Refit(
        rows=len(y),
        auc=_auc(best, y),
        skill=skills[0],
        error=error,
        upper=upper,
        frozen_skill=skills[1],
        bias_skill=skills[2],
        z_over_frozen=_paired_z(frozen - refitted),
        z_over_bias=_paired_z(biased - refitted),
    )
    grown = asked.logits(y, fold, refit)
    if grown is None:
        return refit
    of_trees = lost(grown)
    return replace(
        refit, trees_skill=1 - float(of_trees.sum()) / whole, trees_auc=_auc(grown, y),
        z_of_trees=_paired_z(refitted - of_trees),
    )  # fmt: skip


def _auc(logits: Floats, y: LabelArray) -> float:
    """ROC AUC; of more than two classes the mean of each class in ``y`` against all others."""
    if logits.shape[1] == 1:
        from sklearn.metrics import roc_auc_score

        return float(roc_auc_score(y, logits[:, 0]))
    odds = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return fmean(roc_auc(y == label, np.exp(odds[:, label])) for label in np.unique(y))


def _held_out(design: Floats, offset: Floats, y: LabelArray, penalty: Floats, fold: Ints) -> Floats:
    """Cross-validation: each row's logits from a fit without it and without its copies."""
    outputs = offset.shape[1]
    # the fit on all rows is close to each fold's, which then takes a step or two
    start = _refitted(design, offset, y, penalty, np.zeros((design.shape[1], outputs)))
    logits = offset.copy()
    for number in range(FOLDS):
        learned = fold != number
        weights = _refitted(design[learned], offset[learned], y[learned], penalty, start)
        logits[~learned] += design[~learned] @ weights
    return logits


def _refitted(
    design: Floats, offset: Floats, y: LabelArray, penalty: Floats, start: Floats
) -> Floats:
    return fit(design, offset, targets(design, y, offset.shape[1]), penalty, start)


def _folds(y: LabelArray, group: Ints) -> Ints:
    """Five consecutive parts of each class's rows; copies of a row fall into one part."""
    first = np.unique(group, return_index=True)[1]
    fold = np.zeros(len(first), dtype=np.int64)
    for label in np.unique(y):
        rows = np.flatnonzero(y[first] == label)
        fold[rows] = np.arange(len(rows)) * FOLDS // max(len(rows), 1)
    return np.asarray(fold[group])


def copies(x: FloatArray) -> Ints:
    """The group (n,) of each row of ``x`` (n, p): copies of a row have the same number.

    A stream may draw its rows with replacement. With few different rows (a table of categories)
    each row is a group: leaving all of a kind out would ask for more than a refit can know.
    """
    numbers: dict[bytes, int] = {}
    group = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in x], dtype=np.int64)
    return group if len(numbers) >= MIN_ROWS else np.arange(len(x))


def effective_rows(group: Ints) -> float:
    """How many independent rows these are worth (Kish 1965)."""
    counts = np.unique(group, return_counts=True)[1]
    return len(group) ** 2 / float((counts**2).sum())


def bounded(logits: FloatArray) -> Floats:
    """Finite logits in float64, of the same shape."""
    return np.clip(np.nan_to_num(logits.astype(np.float64)), -LARGEST, LARGEST)


def by_output(logits: Floats) -> Floats:
    """Logits (n,) of two classes as one column (n, 1); (n, K) as they are."""
    return logits[:, None] if logits.ndim == 1 else logits


def _standardised(columns: Floats) -> Floats:
    sd = columns.std(axis=0)
    return np.asarray((columns - columns.mean(axis=0)) / floored(sd))


def entropy(shares: Sequence[float]) -> float:
    """Log loss of a constant that is right about the classes' shares (K,)."""
    return fsum(-share * log(share) for share in shares if share)


def shares_of(counts: Sequence[int]) -> list[float]:
    """Of each class, from rows by class; all 0 where there is no row."""
    total = sum(counts)
    rest = [count / max(total, 1) for count in counts[1:]]
    return [max(0.0, 1 - sum(rest)) if total else 0.0, *rest]


def _paired_z(gains: Floats) -> float:
    """Mean of paired differences (n,) in its standard errors; 0 where they are all alike."""
    spread = float(gains.std())
    return float(gains.mean()) / spread * sqrt(len(gains)) if spread else 0.0
