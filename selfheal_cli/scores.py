"""Scores of predictions against labels: counts, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from operator import add, sub
from typing import Any

TINY = 1e-8  # in the denominators of precision, recall and F1, as the article has it


FIGURES = ("accuracy", "f1", "precision", "recall", "roc_auc", "pr_auc", "log_loss", "ece", "kappa")
SPELLED = {
    "f1": "F1",
    "f1_half": "F1 at 0.5",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "ece": "ECE",
    "recall_at_1pct_fp": "recall at 1 % FP",
    "memory_mb": "MB",
}


def title_of(figure: str) -> str:
    """A figure's name as a person reads it."""
    return SPELLED.get(figure, figure.replace("_", " "))


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts and figures of two classes on ``tp + tn + fp + fn`` labelled rows.

    ``roc_auc`` and ``pr_auc`` are None where only one class was present or nothing ranks the rows;
    ``log_loss`` and ``ece`` (expected calibration error) are None without probabilities.

    >>> scores = Scores(tp=51, tn=673, fp=177, fn=99)
    >>> scores.rows, scores.accuracy, round(scores.f1, 4), round(scores.kappa, 4)
    (1000, 0.724, 0.2698, 0.1085)
    >>> scores.cost(fn=10, fp=1)
    116.7
    """

    tp: int
    tn: int
    fp: int
    fn: int
    roc_auc: float | None = None
    pr_auc: float | None = None
    log_loss: float | None = None
    ece: float | None = None

    @property
    def rows(self) -> int:
        """Number of rows behind every figure."""
        return self.tp + self.tn + self.fp + self.fn

    @property
    def accuracy(self) -> float:
        """Share of rows that were right."""
        return _rates(self.tp, self.tn, self.fp, self.fn)[0]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _rates(self.tp, self.tn, self.fp, self.fn)[1]

    @property
    def precision(self) -> float:
        """Share of flagged rows that were positive; 0 when nothing was flagged."""
        return _rates(self.tp, self.tn, self.fp, self.fn)[2]

    @property
    def recall(self) -> float:
        """Share of positive rows that were flagged; 0 when there were none."""
        return _rates(self.tp, self.tn, self.fp, self.fn)[3]

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance; 0 where chance alone agrees on all rows."""
        return _rates(self.tp, self.tn, self.fp, self.fn)[4]

    def cost(self, fn: float, fp: float) -> float:
        """What the errors cost per 100 rows, a miss at ``fn`` and a false alarm at ``fp``."""
        return 100 * (fn * self.fn + fp * self.fp) / self.rows if self.rows else 0.0

    def plus(self, other: AnyScores) -> Scores:
        """Counts of both sets of rows, without the figures that need probabilities.

        Raises `TypeError` where the other scores are of more than two classes.
        """
        if not isinstance(other, Scores):
            raise TypeError("scores of two classes and of more cannot be added")
        return Scores(
            self.tp + other.tp, self.tn + other.tn, self.fp + other.fp, self.fn + other.fn
        )

    def minus(self, part: AnyScores) -> Scores:
        """Counts without those of a ``part`` of the rows; raises as `plus`."""
        if not isinstance(part, Scores):
            raise TypeError("scores of two classes and of more cannot be subtracted")
        return Scores(self.tp - part.tp, self.tn - part.tn, self.fp - part.fp, self.fn - part.fn)

    def figures(self) -> dict[str, float]:
        """The defined figures by metric name."""
        accuracy, f1, precision, recall, kappa = _rates(self.tp, self.tn, self.fp, self.fn)
        ranked = self.roc_auc, self.pr_auc, self.log_loss, self.ece
        return _defined((accuracy, f1, precision, recall, *ranked, kappa))

    def as_dict(self) -> dict[str, Any]:
        """Counts and figures, as they go into events and JSON."""
        rows = self.tp + self.tn + self.fp + self.fn
        return {**asdict(self), **self.figures(), "rows": rows}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Scores:
        """The inverse of `as_dict`; figures that a record of an earlier version lacks are None."""
        return cls(*map(record.get, cls.__slots__))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Counts and figures of more than two classes.

    ``confusion`` counts rows by true class (row) and predicted class (column). Precision, recall
    and F1 are means over the classes that occur in either; ``roc_auc`` is the mean of each class
    against the rest, ``ece`` is of the predicted class's probability.

    >>> scores = ClassScores(((5, 1, 0), (2, 6, 0), (0, 1, 5)))
    >>> scores.rows, scores.accuracy, round(scores.f1, 4), round(scores.kappa, 4)
    (20, 0.8, 0.8094, 0.697)
    """

    confusion: tuple[tuple[int, ...], ...]
    roc_auc: float | None = None
    log_loss: float | None = None
    ece: float | None = None

    @property
    def rows(self) -> int:
        """Number of rows behind every figure."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """Share of rows that were right."""
        return sum(right for right, _, _ in self._by_class()) / self.rows if self.rows else 0.0

    @property
    def precision(self) -> float:
        """Mean share of the rows predicted as a class that were of it."""
        return _mean([right / (predicted + TINY) for right, _, predicted in self._by_class()])

    @property
    def recall(self) -> float:
        """Mean share of the rows of a class that were predicted as it."""
        return _mean([right / (true + TINY) for right, true, _ in self._by_class()])

    @property
    def f1(self) -> float:
        """Mean F1 of the classes, not the F1 of the mean precision and recall."""
        return _mean(
            [2 * right / (true + predicted) for right, true, predicted in self._by_class()]
        )

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance; 0 where chance alone agrees on all rows."""
        return _kappa(self.confusion)

    def plus(self, other: AnyScores) -> ClassScores:
        """As `Scores.plus`; raises `TypeError` where the other scores are of two classes."""
        if not isinstance(other, ClassScores):
            raise TypeError("scores of two classes and of more cannot be added")
        return self._with(other, add)

    def minus(self, part: AnyScores) -> ClassScores:
        """As `Scores.minus`; raises `TypeError` where the part is of two classes."""
        if not isinstance(part, ClassScores):
            raise TypeError("scores of two classes and of more cannot be subtracted")
        return self._with(part, sub)

    def _with(self, other: ClassScores, combine: Callable[[int, int], int]) -> ClassScores:
        rows = zip(self.confusion, other.confusion, strict=True)
        return ClassScores(tuple(tuple(map(combine, *pair)) for pair in rows))

    def figures(self) -> dict[str, float]:
        """The defined figures by metric name."""
        exact = self.accuracy, self.f1, self.precision, self.recall
        return _defined((*exact, self.roc_auc, None, self.log_loss, self.ece, self.kappa))

    def as_dict(self) -> dict[str, Any]:
        """Counts and figures, as they go into events and JSON."""
        counts = [list(row) for row in self.confusion]
        return {**asdict(self), "confusion": counts, **self.figures(), "rows": self.rows}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ClassScores:
        """The inverse of `as_dict`."""
        known = {name: record.get(name) for name in cls.__slots__}
        known["confusion"] = tuple(tuple(row) for row in record["confusion"])
        return cls(**known)  # type: ignore[arg-type]

    def _by_class(self) -> list[tuple[int, int, int]]:
        """Rows right, true and predicted, of each class that occurs in truth or prediction."""
        predicted = [sum(column) for column in zip(*self.confusion, strict=True)]
        return [
            (row[label], sum(row), predicted[label])
            for label, row in enumerate(self.confusion)
            if sum(row) or predicted[label]
        ]


AnyScores = Scores | ClassScores


def scores_from(record: Mapping[str, Any]) -> AnyScores:
    """Scores of two or more classes, from their `as_dict`.

    >>> scores_from({"tp": 1, "tn": 2, "fp": 3, "fn": 4}).rows
    10
    """
    if "confusion" in record:
        return ClassScores.from_dict(record)
    return Scores.from_dict(record)


@lru_cache(maxsize=4096)
def _rates(tp: int, tn: int, fp: int, fn: int) -> tuple[float, float, float, float, float]:
    """Accuracy, F1, precision, recall and kappa: asked for many times of the same counts."""
    rows = tp + tn + fp + fn
    accuracy = (tp + tn) / rows if rows else 0.0
    precision = tp / (tp + fp + TINY)
    recall = tp / (tp + fn + TINY)
    f1 = 2 * precision * recall / (precision + recall + TINY)
    chance = (tn + fp) * (tn + fn) + (fn + tp) * (fp + tp)
    kappa = (rows * (tp + tn) - chance) / (rows * rows - chance) if rows * rows > chance else 0.0
    return accuracy, f1, precision, recall, kappa


def _kappa(confusion: tuple[tuple[int, ...], ...]) -> float:
    # in whole numbers, so that agreement by chance alone is exactly 0
    columns = zip(*confusion, strict=True)
    chance = sum(sum(row) * sum(column) for row, column in zip(confusion, columns, strict=True))
    rows = sum(map(sum, confusion))
    right = sum(row[place] for place, row in enumerate(confusion))
    return (rows * right - chance) / (rows * rows - chance) if rows * rows > chance else 0.0


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _defined(values: tuple[float | None, ...]) -> dict[str, float]:
    """By the names of `FIGURES`, those that are not None."""
    figures = dict(zip(FIGURES, values, strict=True))
    for name in FIGURES:
        if figures[name] is None:
            del figures[name]
    return figures  # type: ignore[return-value]
