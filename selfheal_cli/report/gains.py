"""What healing gave, figure by figure: each with an interval, and in one word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import sqrt
from statistics import fmean
from typing import Any

from selfheal_cli.config import Objective
from selfheal_cli.events.evidence import quantile
from selfheal_cli.scores import AnyScores, Scores, title_of

COST = "cost per 100 rows"
FEWEST = 10  # stretches of the stream, for an interval
FEWEST_OTHERS = 20  # rows outside of the commonest class; with fewer nothing is said of ranks, and
PLAIN = 0.01  # of another figure's difference only where it is as large: the common rows' alone
RANKS = ("F1", "ROC AUC")
LEVEL = 0.05  # chance that any of the intervals misses its figure
HELPED, HURT, CHANCE, UNKNOWN = "helped", "hurt", "no difference", "too few batches to say"
NO_DIFFERENCE = "no difference that could not be chance"
TOO_FEW = "too few batches, or rows outside of the commonest class,"  # to tell from chance
LITTLE_DIFFERENCE = "too little difference to matter"
LESS = (COST, title_of("log_loss"))  # figures of which less is better
LEAST = {COST: 0.05}  # what is less is called no difference, whatever its cause
LITTLE = 0.002  # of the other figures, and of the log loss:
SHARE = 0.01
DIGITS = {COST: 1}


@dataclass(frozen=True, slots=True)
class FigureGain:
    """A figure of the stream without healing and with it, on the same rows.

    ``against`` is the version that served when the run began, None for the frozen baseline; ``low``
    and ``high`` are the interval of the difference, None where there are too few batches, or too
    few rows outside of the commonest class.
    """

    figure: str
    against: int | None
    before: float
    after: float
    low: float | None
    high: float | None
    rows: int
    batches: int

    @property
    def word(self) -> str:
        """Helped, hurt, no difference (chance, or too little to matter), or not known."""
        if self.low is None or self.high is None:
            return UNKNOWN
        least = LEAST.get(self.figure, LITTLE)
        if self.figure == title_of("log_loss"):
            least = SHARE * self.before
        if abs(self.after - self.before) < least or not self.sure:
            return CHANCE
        return HELPED if (self.low > 0) != (self.figure in LESS) else HURT

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out zero, however small the difference is."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    @property
    def told(self) -> str:
        """The figure with its values and the interval of their difference."""
        digits = DIGITS.get(self.figure, 3)
        text = f"{self.figure} {self.before:,.{digits}f} to {self.after:,.{digits}f}"
        if self.low is None or self.high is None:
            return text
        return f"{text} ({signed(self.low, digits)} to {signed(self.high, digits)})"

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "word": self.word}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FigureGain:
        """The inverse of `as_dict`."""
        return cls(**{name: value for name, value in data.items() if name != "word"})


def figure_gains(
    whole: tuple[AnyScores, AnyScores],
    without: Sequence[tuple[AnyScores, AnyScores]],
    objective: Objective,
    batches: int,
    against: int | None,
) -> list[FigureGain]:
    """Of the ``whole`` stream, live and what it is held against; ``without`` leaves out one stretch
    after the other.

    Intervals are those of the jackknife over stretches (Efron, The Jackknife, the Bootstrap and
    Other Resampling Plans, 1982) with Student's t, `LEVEL` shared by the figures. What healing
    gives changes as the stream drifts, which is no noise: the pseudovalues' variance is that of
    their successive differences.
    """
    figures = {
        name: figure
        for name, figure in _figures(objective).items()
        if all(figure(one) is not None for both in (whole, *without) for one in both)
    }
    gains = []
    for name, figure in figures.items():
        after, before = (figure(one) or 0.0 for one in whole)
        differences = [(figure(live) or 0.0) - (figure(other) or 0.0) for live, other in without]
        low = high = None
        rare = _others(whole[0]) < FEWEST_OTHERS
        unsaid = rare and (name in RANKS or abs(after - before) < PLAIN)
        if len(differences) >= FEWEST and not unsaid:
            error, degrees = successive(after - before, differences)
            reach = error * quantile(1 - LEVEL / len(figures) / 2, degrees)
            low, high = after - before - reach, after - before + reach
        gains.append(FigureGain(name, against, before, after, low, high, whole[0].rows, batches))
    return gains


def signed(value: float, digits: int) -> str:
    """A difference with its sign; none of what rounds to nothing.

    >>> signed(0.0021, 3), signed(-0.0001, 3)
    ('+0.002', '0.000')
    """
    text = f"{value:+.{digits}f}"
    return text if float(text) else f"{0:.{digits}f}"


def _others(scores: AnyScores) -> int:
    """Rows that are not of the commonest class."""
    if isinstance(scores, Scores):
        return min(scores.tp + scores.fn, scores.tn + scores.fp)
    return scores.rows - max(map(sum, scores.confusion))


def jackknife(without: Sequence[float]) -> float:
    """Standard error of a figure from its values without each part.

    >>> round(jackknife([1.0, 2.0, 3.0]), 3)
    1.155
    """
    mean, count = fmean(without), len(without)
    return sqrt((count - 1) / count * sum((value - mean) ** 2 for value in without))


def successive(whole: float, without: Sequence[float]) -> tuple[float, float]:
    """Standard error of a ``whole`` figure from its values without each part, and its degrees of
    freedom: by the mean square successive difference of the jackknife's pseudovalues, which a drift
    of their mean does not enlarge, at two thirds of the efficiency (von Neumann, Kent, Bellinson
    and Hart, Annals of Mathematical Statistics 12, 1941, 153-162).

    >>> successive(0.0, [0.0, 1.0, 0.0, 1.0])
    (1.0606601717798212, 2.0)
    """
    count = len(without)
    values = [count * whole - (count - 1) * value for value in without]
    squares = sum((after - before) ** 2 for before, after in pairwise(values))
    return sqrt(squares / (2 * (count - 1)) / count), 2 * (count - 1) / 3


def sentence_of(gains: Sequence[FigureGain]) -> str:
    """What healing did, against one other version, in a sentence; of `figure_gains`."""
    if not gains:
        return ""
    first = gains[0]
    other = "the frozen baseline" if first.against is None else f"v{first.against}, served first,"
    rows = f"{first.rows:,} labelled rows in {first.batches:,} batches"
    if all(one.word == UNKNOWN for one in gains):
        told = ", ".join(one.told for one in gains)
        return f"Against {other} {told}: {TOO_FEW} to tell from chance ({rows})."
    by_word = {word: [one.told for one in gains if one.word == word] for word in (HELPED, HURT)}
    parts = [f"{word} {', '.join(told)}" for word, told in by_word.items() if told]
    alike = _alike([one for one in gains if one.word == CHANCE])
    unsaid = ", ".join(one.told for one in gains if one.word == UNKNOWN)
    alike += [f"{TOO_FEW} to say of {unsaid}"] if unsaid else []
    if not parts:
        return f"Healing made {'; '.join(alike)}; against {other}, {rows}."
    return f"Healing {' and '.join(parts)}, against {'; '.join([other, *alike, rows])}."


def _alike(gains: Sequence[FigureGain]) -> list[str]:
    """Figures that are alike, apart those of which it is sure that they are not quite."""
    kinds = {False: NO_DIFFERENCE, True: LITTLE_DIFFERENCE}
    told = {sure: [one.told for one in gains if one.sure == sure] for sure in kinds}
    return [f"{kinds[sure]} in {', '.join(figures)}" for sure, figures in told.items() if figures]


Figure = Callable[[AnyScores], float | None]


def _figures(objective: Objective) -> dict[str, Figure]:
    figures: dict[str, Figure] = {
        "accuracy": lambda scores: scores.accuracy,
        "F1": lambda scores: scores.f1,
        "ROC AUC": lambda scores: scores.roc_auc,
        "log loss": lambda scores: scores.log_loss,
    }
    if objective.kind == "f1":
        return {"F1": figures["F1"], **figures}
    if objective.kind != "cost":
        return figures
    return {COST: lambda scores: _cost(scores, objective), **figures}


def _cost(scores: AnyScores, objective: Objective) -> float | None:
    return scores.cost(objective.fn, objective.fp) if isinstance(scores, Scores) else None
