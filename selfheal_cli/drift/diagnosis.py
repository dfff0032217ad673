"""A diagnosis before healing: what moved, and can the frozen features still separate the classes?

The frozen baseline is compared with refits on its own features, all scored on rows that they did
not learn from. A skill is 1 - log loss / entropy of the base rate: 0 for a constant, 1 for a
model that is always certain and right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.logistic import fit, row_losses, targets
from selfheal_cli.moments import Moments, floored
from selfheal_cli.records import Advice, Diagnosis, MovedInput

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
GONE_SKILL = 0.05  # below it the features say next to nothing of the label
GONE_UPPER = 0.12  # two standard errors above each of the skills must stay below
LARGEST = 30.0  # a logit beyond is as good as certain
MIN_CLASS_ROWS = 20
BASE_RATE_Z = 4.0
INPUT_ERROR = 1e-3  # chance that any of the inputs is named though none moved
INPUT_SHIFT = 0.2  # in the class's training sd; less is not worth a word
TOGETHER = 0.6  # ratio of the classes' shifts from which they count as one


@dataclass(frozen=True, slots=True)
class Refit:
    """Skills of three models on ``rows`` rows that they did not learn from.

    ``skill`` and ``auc`` (ROC) are of a logistic regression on the frozen features;
    ``frozen_skill`` is of the frozen baseline, ``bias_skill`` of it with its intercept refitted.
    ``upper`` is the most that a skill of the three may be, ``error`` the standard error of that
    one. The ``z`` are of the regression's gain over each of the two.
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


def refit_of(features: FloatArray, logits: FloatArray, y: LabelArray, group: Ints) -> Refit:
    """The frozen baseline against refits on its features (n, d) and logits (n,).

    ``y`` (n,) is 0 or 1, and ``group`` (n,) as `copies` gives it.
    """
    from threadpoolctl import threadpool_limits

    # threads of BLAS that wait for a core of their own take seconds instead of 25 ms
    with threadpool_limits(limits=1, user_api="blas"):
        return _compared(features, logits, y, group)


def _compared(features: FloatArray, logits: FloatArray, y: LabelArray, group: Ints) -> Refit:
    from sklearn.metrics import roc_auc_score

    target, offset, intercept = y.astype(np.float64), bounded(logits), np.ones((len(y), 1))
    inputs = _standardised(np.nan_to_num(features.astype(np.float64)))
    design = np.hstack([inputs, _standardised(offset[:, None]), intercept])
    fold = _folds(y, group)
    bias = _held_out(intercept, offset, target, np.array([LEVEL_PENALTY]), fold)
    weights = [np.full(design.shape[1], penalty) for penalty in PENALTIES]
    for penalty in weights:
        penalty[-2:] = SCALE_PENALTY, LEVEL_PENALTY
    refits = [_held_out(design, offset, target, penalty, fold) for penalty in weights]
    best = min(refits, key=lambda refit: float(log_losses(refit, target).sum()))
    share = float(target.mean())
    level = np.full(len(y), log(share / (1 - share)))
    # losses are summed over the copies of a row, which are one piece of evidence
    frozen, biased, refitted, constant = (
        np.bincount(group, log_losses(logit, target)).astype(np.float64)
        for logit in (offset, bias, best, level)
    )
    whole = len(y) * entropy(share)
    skills = [1 - float(one.sum()) / whole for one in (refitted, frozen, biased)]
    errors = [float((constant - one).std()) * sqrt(len(one)) / whole
              for one in (refitted, frozen, biased)]  # fmt: skip
    # a regression that learned nothing is a constant, and as sure of its skill as of nothing else
    upper, error = max((a + 2 * b, b) for a, b in zip(skills, errors, strict=True))
    return Refit(
        rows=len(y),
        auc=float(roc_auc_score(target, best)),
        skill=skills[0],
        error=error,
        upper=upper,
        frozen_skill=skills[1],
        bias_skill=skills[2],
        z_over_frozen=_paired_z(frozen - refitted),
        z_over_bias=_paired_z(biased - refitted),
    )


def _held_out(design: Floats, offset: Floats, y: Floats, penalty: Floats, fold: Ints) -> Floats:
    """Cross-validation: each row's logit (n,) from a fit without it and without its copies."""
    # the fit on all rows is close to each fold's, which then takes a step or two
    start = _refitted(design, offset, y, penalty, np.zeros(design.shape[1]))
    logits = offset.copy()
    for number in range(FOLDS):
        learned = fold != number
        weights = _refitted(design[learned], offset[learned], y[learned], penalty, start)
        logits[~learned] += design[~learned] @ weights
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
    """Finite logits in float64."""
    return np.clip(np.nan_to_num(logits.astype(np.float64)), -LARGEST, LARGEST)


def _standardised(columns: Floats) -> Floats:
    sd = columns.std(axis=0)
    return np.asarray((columns - columns.mean(axis=0)) / floored(sd))


def log_losses(logits: Floats, y: Floats) -> Floats:
    """Log loss of each row, (n,), from logits (n,)."""
    return row_losses(logits[:, None], y)


def entropy(share: float) -> float:
    """Log loss of a constant that is right about the share of positives."""
    return -share * log(share) - (1 - share) * log(1 - share)


def _paired_z(gains: Floats) -> float:
    """Mean of paired differences (n,) in its standard errors; 0 where they are all alike."""
    spread = float(gains.std())
    return float(gains.mean()) / spread * sqrt(len(gains)) if spread else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class TrainingReference:
    """Statistics of the training rows: ``mean`` and ``sd`` (2, p) of the inputs, ``rows`` by class.

    ``skill`` is the network's on the training rows themselves; None where it was not measured.
    """

    names: tuple[str, ...]
    mean: Floats
    sd: Floats
    rows: tuple[int, int]
    skill: float | None

    @property
    def base_rate(self) -> float:
        """Share of positives."""
        return self.rows[1] / max(sum(self.rows), 1)


class ReferenceRows:
    """Accumulates a `TrainingReference` from training rows that come in blocks."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._moments = [[Moments() for _ in self._names] for _ in (0, 1)]
        self._rows = np.zeros(2, dtype=np.int64)
        self._loss, self._scored = 0.0, 0

    def add(self, x: FloatArray, y: LabelArray, logits: FloatArray | None = None) -> None:
        """Take inputs (n, p), labels (n,) and, for the skill, the network's logits (n,)."""
        for label, moments in enumerate(self._moments):
            chosen = x[y == label]
            self._rows[label] += len(chosen)
            for column, moment in enumerate(moments):
                moment.add(chosen[:, column])
        if logits is not None:
            self._loss += float(log_losses(bounded(logits), y.astype(np.float64)).sum())
            self._scored += len(y)

    def reference(self) -> TrainingReference:
        """The reference of all rows so far."""
        negative, positive = (int(count) for count in self._rows)
        total = negative + positive
        skill = None
        if negative and positive and self._scored == total:
            skill = 1 - self._loss / total / entropy(positive / total)
        mean = np.array([[moment.mean for moment in moments] for moments in self._moments])
        sd = np.array([[moment.sd for moment in moments] for moments in self._moments])
        return TrainingReference(self._names, mean, sd, (negative, positive), skill)


def diagnose(
    reference: TrainingReference,
    labels: tuple[str, str],
    x: FloatArray,
    features: FloatArray,
    logits: FloatArray,
    y: LabelArray,
) -> Diagnosis:
    """Diagnose a labelled window of n rows.

    ``x`` (n, p) inputs, ``features`` (n, d) that the frozen head gets of them, ``logits`` (n,) of
    the frozen baseline, ``y`` (n,) 0 or 1; ``labels`` are the classes' names.
    """
    rows, positives = len(y), int(np.count_nonzero(y))
    rates = (reference.base_rate, positives / rows if rows else 0.0)
    group = copies(x)
    rate_moved = rows >= MIN_ROWS and _rates_differ(reference, rates[1], effective_rows(group))
    enough = rows >= MIN_ROWS and min(positives, rows - positives) >= MIN_CLASS_ROWS
    moved = _moved_inputs(reference, labels, x, y, group) if enough else []
    refit = refit_of(features, logits, y, group) if enough else None
    if refit is None:
        advice, sentence = Advice.UNDECIDED, _too_few(reference, labels, rows, positives)
    else:
        cause = _what_moved(reference, labels, moved, rates if rate_moved else None)
        advice = _advise(reference, refit, rate_moved=rate_moved, moved=bool(cause))
        sentence = _sentence(advice, refit, cause, rates[1])
    return Diagnosis(
        rows=rows,
        positives=positives,
        advice=advice,
        base_rate=rates,
        base_rate_moved=rate_moved,
        inputs_moved=bool(moved),
        relation_moved=refit is not None and refit.relation_moved,
        moved=tuple(moved[:5]),
        auc=refit.auc if refit else None,
        skill=refit.skill if refit else None,
        ceiling_accuracy=max(rates[1], 1 - rates[1]),
        sentence=sentence,
    )


def _rates_differ(reference: TrainingReference, share: float, rows: float) -> bool:
    """Likelihood-ratio test of two shares; the normal approximation fails for rare positives."""
    trained = float(sum(reference.rows))
    both = (reference.rows[1] + share * rows) / (trained + rows)
    ratio = 0.0
    for rate, count in ((reference.base_rate, trained), (share, rows)):
        for part, expected in ((rate, both), (1 - rate, 1 - both)):
            ratio += 2 * count * part * log(part / expected) if part else 0.0
    return bool(trained) and ratio > BASE_RATE_Z**2


def _moved_inputs(
    reference: TrainingReference, labels: tuple[str, str], x: FloatArray, y: LabelArray, group: Ints
) -> list[MovedInput]:
    """Inputs whose mean moved within a class, furthest first."""
    # by class, since a base rate that moves moves the mean of all rows with no input moving;
    # Bonferroni's correction over inputs, classes and both sides
    limit = NormalDist().inv_cdf(1 - INPUT_ERROR / (4 * max(len(reference.names), 1)))
    moved = []
    for label, name in enumerate(labels):
        rows, trained = y == label, reference.rows[label]
        if trained < MIN_CLASS_ROWS:
            continue
        inputs, sd = x[rows].astype(np.float64), floored(reference.sd[label])
        delta = inputs.mean(axis=0) - reference.mean[label]
        error = np.sqrt(inputs.var(axis=0) / effective_rows(group[rows]) + sd**2 / trained)
        far = (np.abs(delta) > limit * error) & (np.abs(delta) >= INPUT_SHIFT * sd)
        for column in np.flatnonzero(far):
            shift = float(delta[column] / sd[column])
            moved.append(MovedInput(name, reference.names[column], shift))
    return sorted(moved, key=lambda m: -abs(m.shift))


def _advise(reference: TrainingReference, refit: Refit, *, rate_moved: bool, moved: bool) -> Advice:
    """``moved``: an input or the base rate did, whatever the losses say."""
    gone = refit.best < GONE_SKILL
    if gone and (reference.skill is None or refit.best < reference.skill / 2):
        return Advice.GONE if refit.upper < GONE_UPPER else Advice.UNDECIDED
    material = refit.skill - refit.frozen_skill > refit.material
    # where the base rate has moved already, the losses need to prove less
    if rate_moved and refit.z_over_frozen > SIGNIFICANT - 1:
        return Advice.HEAL
    if material and refit.z_over_frozen > SIGNIFICANT:
        return Advice.HEAL
    return Advice.UNDECIDED if material and moved else Advice.HOLDS


def _sentence(advice: Advice, refit: Refit, cause: str, share: float) -> str:
    if advice is Advice.GONE:
        flag = "nothing" if share <= 0.5 else "everything"
        return (
            f"the information is gone{cause and f' ({cause})'}: on these features no model can "
            f"beat accuracy {max(share, 1 - share):.3f} (flag {flag}); do not expect F1 to "
            "return; retrain with new features"
        )
    skills = f"skill {refit.skill:.2f}, now {refit.frozen_skill:.2f}"
    if advice is Advice.UNDECIDED:
        return (
            f"undecided{cause and f': {cause}'}; what a refit of the frozen features would gain "
            f"({skills}) may yet be chance on {refit.rows:,} rows; about {refit.rows_needed:,} "
            "more are needed"
        )
    if advice is Advice.HOLDS:
        return (
            f"holds{cause and f', although {cause}'}: a refit of the frozen features would do "
            f"little better ({skills}); no heal is needed"
        )
    return (
        f"heal: {cause or 'the relation of inputs and label moved, though no mean did'}; a refit "
        f"of the frozen features reaches ROC AUC {refit.auc:.2f} ({skills})"
    )


def _what_moved(
    reference: TrainingReference,
    labels: tuple[str, str],
    moved: Sequence[MovedInput],
    rates: tuple[float, float] | None,
) -> str:
    parts = []
    if moved and _together(reference, labels, moved):
        pair = [m for m in moved if m.name == moved[0].name]
        shifts = " and ".join(f"{_sd(m.shift)} in '{m.label}' rows" for m in pair)
        parts.append(f"the inputs of both classes moved together: {moved[0].name} by {shifts}")
    else:
        parts += [f"in '{m.label}' rows {m.name} moved by {_sd(m.shift)}" for m in moved[:3]]
    if rates is not None:
        parts.append(f"the base rate moved from {rates[0]:.3f} to {rates[1]:.3f}")
    return ", ".join(parts)


def _sd(shift: float) -> str:
    # of an input that hardly varied in training, the figure itself says nothing
    return f"{shift:+.1f} sd" if abs(shift) < 100 else f"{'-' if shift < 0 else '+'}100 sd or more"


def _together(
    reference: TrainingReference, labels: tuple[str, str], moved: Sequence[MovedInput]
) -> bool:
    """Whether the input that moved furthest moved alike in both classes, in its own unit."""
    column = reference.names.index(moved[0].name)
    shifts = [
        m.shift * float(floored(reference.sd[labels.index(m.label)])[column])
        for m in moved
        if m.name == moved[0].name
    ]
    low, high = min(shifts, key=abs), max(shifts, key=abs)
    return len(shifts) == 2 and low / high > TOGETHER


def _too_few(
    reference: TrainingReference, labels: tuple[str, str], rows: int, positives: int
) -> str:
    """How many more rows it takes, at the window's shares of the classes or else training's."""
    needed = MIN_ROWS - rows
    counts = (rows - positives, positives)
    for count, trained in zip(counts, (1 - reference.base_rate, reference.base_rate), strict=True):
        share = count / rows if count else trained
        missing = MIN_CLASS_ROWS - count
        needed = max(needed, ceil(missing / share) if share else missing)
    return (
        f"undecided: {rows:,} labelled rows are in, {counts[0]:,} '{labels[0]}' and "
        f"{counts[1]:,} '{labels[1]}'; about {needed:,} more are needed for {MIN_ROWS} rows "
        f"and {MIN_CLASS_ROWS} of each class"
    )
