"""Figures of rows that were asked for their label by lot: what all rows have, with an interval.

Labels that somebody volunteered are in none of them: who volunteers is no sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.labels.estimate import Interval
from selfheal_cli.metrics import classify

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, LabelArray

    Wide = NDArray[np.float64]

FEWEST_POSITIVES = 20  # below that nothing is said of precision, recall, F1 and ROC AUC
FEWEST = 20  # answered rows below which nothing is said at all
BLOCKS = 50  # of rows in their order, at least, that the bootstrap draws from
DRAWS = 500
SMALLEST = 1e-7  # probability of what came true, so that its logarithm is finite


@dataclass(frozen=True)
class AskedRows:
    """Rows that were asked for, in their order, with what was answered when they were scored.

    ``probabilities`` (n,) or (n, K) and the ``threshold`` (n,) that decided; ``y`` (n,), -1 where
    nobody answered; ``told`` (n,) those whose label was known before it was asked for; ``block``
    (n,), and in ``cell`` (n,) the place in ``cells`` of the rows that had the same chance to be
    drawn: how many there are in all, drawn or not.
    """

    probabilities: FloatArray
    threshold: Wide
    y: LabelArray
    told: NDArray[np.bool_]
    block: NDArray[np.intp]
    cell: NDArray[np.intp]
    cells: NDArray[np.int64]

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which rows (n,) have a label."""
        return np.asarray(self.y >= 0)

    @cached_property
    def weight(self) -> Wide:
        """For how many rows each answered one (answered,) stands.

        The inverse of the chance to be drawn, given how many of its cell were: the cell's rows by
        its drawn ones. Those that were drawn and not answered are stood for by the answered ones,
        but for those whose label had been told before: these would have been known anyway.
        """
        count = len(self.cells)
        drawn = np.bincount(self.cell, minlength=count)
        asked = np.bincount(self.cell[~self.told], minlength=count)
        came = np.bincount(self.cell[self.answered & ~self.told], minlength=count)
        each = self.cells / np.maximum(drawn, 1)
        answers = asked / np.maximum(came, 1)
        chosen, told = self.cell[self.answered], self.told[self.answered]
        return np.asarray(each[chosen] * np.where(told, 1.0, answers[chosen]))


@dataclass(frozen=True, slots=True)
class Sampled:
    """Figures of ``rows`` rows by the ``answered`` of those that were ``asked`` for.

    ``positives`` of the answered ones are of class 1; ``figures`` by name, without those that so
    few rows or positives say nothing of.
    """

    rows: int
    asked: int
    answered: int
    positives: int
    figures: dict[str, Interval] = field(default_factory=dict)

    @property
    def unanswered(self) -> int:
        """Rows that were asked for in vain, so far."""
        return self.asked - self.answered

    @property
    def lacks(self) -> str:
        """What there is not enough of for the figures that are missing; or nothing."""
        if self.answered < FEWEST:
            return f"not enough: {self.answered} answered rows, {FEWEST} are needed"
        if self.positives < FEWEST_POSITIVES:
            return (
                f"not enough for precision, recall, F1 and ROC AUC: {self.positives} sampled "
                f"positives, {FEWEST_POSITIVES} are needed"
            )
        return ""


def sampled(asked: AskedRows, seed: int = 0) -> Sampled:
    """What the answered rows say of all rows; the bootstrap draws by ``seed``."""
    known = asked.answered
    y, p = asked.y[known].astype(np.int64), asked.probabilities[known].astype(np.float64)
    positives = int(np.count_nonzero(y == 1))
    result = Sampled(int(asked.cells.sum()), len(known), int(known.sum()), positives)
    if result.answered < FEWEST:
        return result
    means = _Means(asked)
    wide = p[:, None] if p.ndim == 1 else p
    chosen = np.where(y == 1, p, 1 - p) if p.ndim == 1 else np.take_along_axis(
        wide, y[:, None], axis=1)[:, 0]  # fmt: skip
    decided = _decided(asked.probabilities[known], asked.threshold[known])
    figures = {
        "log_loss": means.mean(-np.log(np.maximum(chosen, SMALLEST))),
        "accuracy": means.share(decided == y),
    }
    if p.ndim == 1:
        figures["positive_rate"] = means.share(y == 1)
        if positives >= FEWEST_POSITIVES:
            figures |= _Ratios(p, decided == 1, y == 1, means.weight, _blocks(asked), seed).all()
    result.figures.update(figures)
    return result


def _decided(probabilities: FloatArray, threshold: Wide) -> NDArray[np.int64]:
    decided = np.empty(len(threshold), dtype=np.int64)
    for one in np.unique(threshold):
        rows = threshold == one
        decided[rows] = classify(probabilities[rows], float(one))
    return decided


class _Means:
    """Weighted means over answered rows, with the variance of drawing in cells."""

    def __init__(self, asked: AskedRows) -> None:
        self.weight = asked.weight
        self._total = float(self.weight.sum())
        chosen = asked.cell[asked.answered]
        self._cells = [
            (chosen == cell, int(asked.cells[cell])) for cell in np.unique(chosen).tolist()
        ]

    def mean(self, values: Wide) -> Interval:
        """Of values (answered,), which may be of any size."""
        value, variance = self._of(values)
        reach = _student(len(values)) * sqrt(variance)
        return Interval(value, value - reach, value + reach)

    def share(self, chosen: NDArray[np.bool_]) -> Interval:
        """Of rows (answered,): Wilson's interval, for as many rows as the variance is worth."""
        value, variance = self._of(chosen.astype(np.float64))
        value = min(value, 1.0)  # weights that add up to 1 may do so to the last digit but one
        # where all are alike in a sample, no variance is seen
        rows = max(float(value * (1 - value) / variance), 1.0) if variance else len(chosen)
        z = _student(len(chosen))
        middle = (value + z**2 / (2 * rows)) / (1 + z**2 / rows)
        reach = z / (1 + z**2 / rows) * sqrt(value * (1 - value) / rows + z**2 / (4 * rows**2))
        return Interval(value, max(middle - reach, 0.0), min(middle + reach, 1.0))

    def _of(self, values: Wide) -> tuple[float, float]:
        """A mean and its variance, which is none where every row of a cell was drawn."""
        share = self.weight / self._total
        value, variance = float(share @ values), 0.0
        for cell, rows in self._cells:
            count = int(cell.sum())
            part = float(share[cell].sum())
            spread = float(values[cell].var(ddof=1)) if count > 1 else 0.0
            variance += part**2 * max(1 - count / rows, 0.0) * spread / count
        return value, variance


@dataclass(frozen=True)
class _Ratios:
    """Figures that are no means: their intervals are those of a bootstrap over blocks of rows.

    ``p``, ``flagged``, ``positive`` and ``weight`` (n,) of answered rows, ``block`` (n,) from 0.
    """

    p: Wide
    flagged: NDArray[np.bool_]
    positive: NDArray[np.bool_]
    weight: Wide
    block: NDArray[np.intp]
    seed: int

    def all(self) -> dict[str, Interval]:
        """By name."""
        blocks = int(self.block.max()) + 1
        draw = np.random.default_rng(self.seed)
        counts = draw.multinomial(blocks, np.full(blocks, 1 / blocks), DRAWS)
        weights = np.concatenate([self.weight[None], self.weight * counts[:, self.block]])
        z = _student(int(self._worth))
        return {name: _logit_interval(values, z) for name, values in self._of(weights)}

    @property
    def _worth(self) -> float:
        """How many positives of equal weight say as much: one that stands for many is one."""
        own = self.weight[self.positive]
        return float(own.sum() ** 2 / (own**2).sum())

    def _of(self, weights: Wide) -> Iterator[tuple[str, Wide]]:
        """Figures (draws,) by weights (draws, n)."""

        def total(chosen: NDArray[np.bool_]) -> Wide:
            return np.asarray(weights[:, chosen].sum(axis=1))

        hit, flagged = total(self.flagged & self.positive), total(self.flagged)
        positive = total(self.positive)
        with np.errstate(invalid="ignore", divide="ignore"):
            yield "precision", hit / flagged
            yield "recall", hit / positive
            yield "f1", 2 * hit / (flagged + positive)
            if self._worth >= FEWEST_POSITIVES:
                yield "roc_auc", self._roc_auc(weights, positive)

    def _roc_auc(self, weights: Wide, positive: Wide) -> Wide:
        order = np.argsort(self.p, kind="stable")
        _, tie = np.unique(self.p[order], return_inverse=True)
        starts = np.flatnonzero(np.r_[True, np.diff(tie) > 0])
        above = np.add.reduceat(weights[:, order] * self.positive[order], starts, axis=1)
        below = np.add.reduceat(weights[:, order] * ~self.positive[order], starts, axis=1)
        under = np.cumsum(below, axis=1) - below / 2
        return np.asarray((above * under).sum(axis=1) / (positive * below.sum(axis=1)))


def _logit_interval(values: Wide, z: float) -> Interval:
    """The first of values in [0, 1] with an interval by the others' spread, as log odds.

    The percentiles of few positives are too narrow, and those of a figure near 1 end at 1.
    """
    value, drawn = float(values[0]), values[1:]
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(drawn) < DRAWS // 2:
        return Interval(0.0, 0.0, 1.0)
    spread = float(drawn.std())
    inside = min(max(value, 0.005), 0.995)
    reach = z * max(spread, 1e-9) / (inside * (1 - inside))
    middle = np.log(inside / (1 - inside))
    low, high = (1 / (1 + np.exp(-(middle + sign * reach))) for sign in (-1, 1))
    return Interval(value, min(float(low), value), max(float(high), value))


def _blocks(asked: AskedRows) -> NDArray[np.intp]:
    """The block (answered,) of each answered row from 0 on: its batch, or less where few are."""
    block = asked.block[asked.answered]
    _, place = np.unique(block, return_inverse=True)
    if len(place) and place.max() + 1 >= BLOCKS:
        return place
    return np.arange(len(block)) * min(BLOCKS, len(block)) // max(len(block), 1)


def _student(rows: int) -> float:
    """The 97.5 % quantile of Student's t with ``rows`` - 1 degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf(0.975, max(rows - 1, 1)))
