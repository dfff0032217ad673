"""A diagnosis before healing: what moved, and what can be done about it, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.drift.refit import (
    GONE_SKILL,
    GONE_UPPER,
    MIN_ROWS,
    SIGNIFICANT,
    Columns,
    Floats,
    Ints,
    Refit,
    bounded,
    by_output,
    copies,
    effective_rows,
    entropy,
    refit_of,
    shares_of,
)
from selfheal_cli.logistic import row_losses
from selfheal_cli.moments import Moments, floored
from selfheal_cli.records import Advice, Diagnosis, MovedInput

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray


MIN_CLASS_ROWS = 20
BASE_RATE_Z = 4.0
INPUT_ERROR = 1e-3  # chance that any of the inputs is named though none moved
INPUT_SHIFT = 0.2  # in the class's training sd; less is not worth a word
TOGETHER = 0.6  # ratio of the classes' shifts from which they count as one


@dataclass(frozen=True, slots=True, eq=False)
class TrainingReference:
    """Statistics of the training rows: ``mean`` and ``sd`` (K, p) of the inputs, ``rows`` by class.

    ``skill`` is the network's on the training rows themselves; None where it was not measured.
    """

    names: tuple[str, ...]
    mean: Floats
    sd: Floats
    rows: tuple[int, ...]
    skill: float | None

    @property
    def shares(self) -> list[float]:
        """Of each class."""
        return shares_of(self.rows)


class ReferenceRows:
    """Accumulates a `TrainingReference` from training rows that come in blocks."""

    def __init__(self, names: Sequence[str], classes: int = 2) -> None:
        self._names = tuple(names)
        self._moments = [[Moments() for _ in self._names] for _ in range(classes)]
        self._rows = np.zeros(classes, dtype=np.int64)
        self._loss, self._scored = 0.0, 0

    def add(self, x: FloatArray, y: LabelArray, logits: FloatArray | None = None) -> None:
        """Take inputs (n, p), labels (n,) and, for the skill, the network's logits."""
        for label, moments in enumerate(self._moments):
            chosen = x[y == label]
            self._rows[label] += len(chosen)
            for column, moment in enumerate(moments):
                moment.add(chosen[:, column])
        if logits is not None:
            self._loss += float(row_losses(by_output(bounded(logits)), y).sum())
            self._scored += len(y)

    def reference(self) -> TrainingReference:
        """The reference of all rows so far."""
        rows = tuple(self._rows.tolist())
        total = sum(rows)
        skill = None
        if total > max(rows) and self._scored == total:
            skill = 1 - self._loss / total / entropy(shares_of(rows))
        mean = np.array([[moment.mean for moment in moments] for moments in self._moments])
        sd = np.array([[moment.sd for moment in moments] for moments in self._moments])
        return TrainingReference(self._names, mean, sd, rows, skill)


def diagnose(
    reference: TrainingReference,
    labels: Sequence[str],
    x: FloatArray,
    features: FloatArray,
    logits: FloatArray,
    y: LabelArray,
    trees: Columns | None = None,
    *,
    each: bool = False,
) -> Diagnosis:
    """Diagnose a labelled window of n rows.

    ``x`` (n, p) inputs, ``features`` (n, d) that the frozen head gets of them, ``logits``, (n,) or
    of K classes (n, K), of the frozen baseline, ``y`` (n,) classes from 0 on; ``labels`` are their
    names. ``trees`` learn from the inputs, and are asked where the features have lost something;
    ``each`` is as of `refit_of`.
    """
    rows, counts = len(y), np.bincount(y, minlength=len(labels)).tolist()
    shares = shares_of(counts)
    named = _named(reference.shares, shares)
    rates = (reference.shares[named], shares[named])
    group = copies(x)
    rate_moved = rows >= MIN_ROWS and _rates_differ(reference, shares, effective_rows(group))
    enough = rows >= MIN_ROWS and rows - max(counts) >= MIN_CLASS_ROWS
    moved = _moved_inputs(reference, labels, x, y, group) if enough else []
    refit = None
    if enough:
        refit = refit_of(features, logits, y, group, x, trees, reference.skill, each=each)
    if refit is None:
        advice, sentence = Advice.UNDECIDED, _too_few(reference, labels, counts)
    else:
        told = "the base rate" if len(labels) == 2 else f"the share of '{labels[named]}'"
        rate = f"{told} moved from {rates[0]:.3f} to {rates[1]:.3f}" if rate_moved else ""
        cause = _what_moved(reference, labels, moved, rate)
        advice = _advise(reference, refit, rate_moved=rate_moved, moved=bool(cause))
        sentence = _sentence(advice, refit, cause, labels, shares)
    return Diagnosis(
        rows=rows,
        positives=rows - counts[0] if len(labels) == 2 else rows - max(counts, default=0),
        advice=advice,
        base_rate=rates,
        base_rate_moved=rate_moved,
        inputs_moved=bool(moved),
        relation_moved=refit is not None and refit.relation_moved,
        moved=tuple(moved[:5]),
        auc=refit.auc if refit else None,
        skill=refit.skill if refit else None,
        ceiling_accuracy=max(shares),
        sentence=sentence,
    )


def _named(trained: Sequence[float], now: Sequence[float]) -> int:
    """The class whose share is told of: the positive one of two, else what moved furthest."""
    if len(now) == 2:
        return 1
    return max(range(len(now)), key=lambda label: abs(now[label] - trained[label]))


def _rates_differ(reference: TrainingReference, shares: Sequence[float], rows: float) -> bool:
    """Likelihood-ratio test of shares; the normal approximation fails for rare positives."""
    trained = float(sum(reference.rows))
    ratio = 0.0
    for then, now, count in zip(reference.shares, shares, reference.rows, strict=True):
        both = (count + now * rows) / (trained + rows)
        for part, of in ((then, trained), (now, rows)):
            ratio += 2 * of * part * log(part / both) if part else 0.0
    return bool(trained) and ratio > _limit(len(shares) - 1)


def _limit(freedom: int) -> float:
    """What such a ratio passes by the chance of `BASE_RATE_Z`, with so many degrees of freedom."""
    if freedom == 1:
        return BASE_RATE_Z**2
    from scipy.stats import chi2

    return float(chi2.isf(chi2.sf(BASE_RATE_Z**2, 1), freedom))


def _moved_inputs(
    reference: TrainingReference, labels: Sequence[str], x: FloatArray, y: LabelArray, group: Ints
) -> list[MovedInput]:
    """Inputs whose mean moved within a class, furthest first."""
    # by class, since a base rate that moves moves the mean of all rows with no input moving;
    # Bonferroni's correction over inputs, classes and both sides
    limit = NormalDist().inv_cdf(1 - INPUT_ERROR / (2 * len(labels) * max(len(reference.names), 1)))
    moved = []
    for label, name in enumerate(labels):
        rows, trained = y == label, reference.rows[label]
        if min(trained, int(rows.sum())) < MIN_CLASS_ROWS:
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
    if refit.trees_reach_more:
        return Advice.RETRAIN
    gone = refit.best < GONE_SKILL
    if gone and (reference.skill is None or refit.best < reference.skill / 2):
        sure = max(refit.upper, refit.trees_skill or 0.0) < GONE_UPPER
        return Advice.GONE if sure else Advice.UNDECIDED
    material = refit.skill - refit.frozen_skill > refit.material
    # where the base rate has moved already, the losses need to prove less
    if rate_moved and refit.z_over_frozen > SIGNIFICANT - 1:
        return Advice.HEAL
    if material and refit.z_over_frozen > SIGNIFICANT:
        return Advice.HEAL
    return Advice.UNDECIDED if material and moved else Advice.HOLDS


def _sentence(
    advice: Advice, refit: Refit, cause: str, labels: Sequence[str], shares: Sequence[float]
) -> str:
    if advice is Advice.GONE:
        likeliest = shares.index(max(shares))
        always = f"always '{labels[likeliest]}'"
        if len(labels) == 2:
            always = ("flag nothing", "flag everything")[likeliest]
        where = "these features" if refit.trees_skill is None else "these columns"
        return (
            f"the information is gone{cause and f' ({cause})'}: on {where} no model can "
            f"beat accuracy {max(shares):.3f} ({always}); do not expect F1 to "
            "return; retrain with new features"
        )
    if advice is Advice.RETRAIN:
        return (
            f"retrain on these columns{cause and f' ({cause})'}: trees on them reach ROC AUC "
            f"{refit.trees_auc:.2f} (skill {refit.trees_skill:.2f}), a refit of the frozen "
            f"features {refit.auc:.2f} (skill {refit.skill:.2f}, now {refit.frozen_skill:.2f}); "
            "heals go as far as their trees"
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
    labels: Sequence[str],
    moved: Sequence[MovedInput],
    rate: str,
) -> str:
    parts = []
    if moved and _together(reference, labels, moved):
        pair = [m for m in moved if m.name == moved[0].name]
        shifts = " and ".join(f"{_sd(m.shift)} in '{m.label}' rows" for m in pair)
        every = "both" if len(labels) == 2 else "all"
        parts.append(f"the inputs of {every} classes moved together: {moved[0].name} by {shifts}")
    else:
        parts += [f"in '{m.label}' rows {m.name} moved by {_sd(m.shift)}" for m in moved[:3]]
    return ", ".join([*parts, rate] if rate else parts)


def _sd(shift: float) -> str:
    # of an input that hardly varied in training, the figure itself says nothing
    return f"{shift:+.1f} sd" if abs(shift) < 100 else f"{'-' if shift < 0 else '+'}100 sd or more"


def _together(
    reference: TrainingReference, labels: Sequence[str], moved: Sequence[MovedInput]
) -> bool:
    """Whether the input that moved furthest moved alike in all classes, in its own unit."""
    column = reference.names.index(moved[0].name)
    shifts = [
        m.shift * float(floored(reference.sd[labels.index(m.label)])[column])
        for m in moved
        if m.name == moved[0].name
    ]
    low, high = min(shifts, key=abs), max(shifts, key=abs)
    return len(shifts) == len(labels) and low / high > TOGETHER


def _too_few(reference: TrainingReference, labels: Sequence[str], counts: Sequence[int]) -> str:
    """How many more rows it takes, at the window's shares of the classes or else training's."""
    rows = sum(counts)
    needed = MIN_ROWS - rows
    if len(labels) > 2:
        others, of = rows - max(counts), f"{MIN_CLASS_ROWS} that are not of the commonest class"
        named = f"{others:,} of them not of the commonest class"
        pairs = [(others, 1 - max(reference.shares))]
    else:
        of = f"{MIN_CLASS_ROWS} of each class"
        named = " and ".join(f"{n:,} '{label}'" for n, label in zip(counts, labels, strict=True))
        pairs = list(zip(counts, reference.shares, strict=True))
    for count, trained in pairs:
        share = count / rows if count else trained
        missing = MIN_CLASS_ROWS - count
        needed = max(needed, ceil(missing / share) if share else missing)
    return (
        f"undecided: {rows:,} labelled rows are in, {named}; about {needed:,} more are needed "
        f"for {MIN_ROWS} rows and {of}"
    )
