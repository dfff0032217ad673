"""The stream in stretches, by which what healing gave is told from chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.config import Objective
from selfheal_cli.labels.queue import Scored
from selfheal_cli.metrics import RunningScores
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.report.gains import FEWEST, FigureGain, figure_gains

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, Threshold

MOST = 80  # stretches, so that what is kept of them is bounded
LIVE, FROZEN, BEFORE = "live", "frozen", "before"


@dataclass(frozen=True, slots=True)
class ServedFirst:
    """The version that served when the run began, made by an earlier one."""

    version: int
    network: SelfHealingNetwork
    threshold: float


class Stretches:
    """Scores of what served, of the frozen baseline and of what served first, by stretches.

    There are 40 to 79 stretches of as many parts, each the rows of a batch whose labels came
    together; of a shorter stream each part is its own. Short ones, since two stretches beside a
    jump of the stream differ by it: the fewer their rows, the less that widens an interval.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._first: ServedFirst | None = None
        self._size = 1  # parts in a stretch
        self._in_last = 0
        self._rows = 0  # that have a label, however many each stands for
        self._stretches: list[dict[str, RunningScores]] = []

    def hold_against(self, first: ServedFirst) -> None:
        """Score what served first as well."""
        self._first = first

    def add(self, part: Scored) -> None:
        """Take labelled rows of one batch."""
        if not bool((part.y >= 0).any()):
            return
        if not self._stretches or self._in_last == self._size:
            self._begin()
        self._rows += int((part.y >= 0).sum())
        y = _standing(part, part.y)
        for name, answers, threshold in self._answers(part):
            self._stretches[-1][name].add(answers, threshold, y)
        self._in_last += 1

    def correct(self, was: Scored, now: Scored) -> None:
        """Rows with other labels than they were taken with. Which stretch they are in nobody knows
        any more: the last one is corrected, so that what all of them add up to is right.
        """
        if not self._stretches:
            return
        last = self._stretches[-1]
        y_was, y_now = _standing(was, was.y), _standing(now, now.y)
        for name, answers, threshold in self._answers(was):
            last[name] = last[name].without(answers, threshold, y_was)
            last[name].add(answers, threshold, y_now)

    def _answers(self, part: Scored) -> Iterator[tuple[str, FloatArray, Threshold]]:
        """By whom, what and from which threshold on."""
        limit = part.threshold
        if isinstance(limit, np.ndarray):
            limit = _standing(part, limit)
        yield LIVE, _standing(part, part.probabilities), limit
        yield FROZEN, _standing(part, part.shadow), part.shadow_threshold
        if self._first is not None:
            answers = self._first.network.predict_features(part.features)
            yield BEFORE, _standing(part, answers), self._first.threshold

    def gains(self, objective: Objective, batches: int) -> list[FigureGain]:
        """What healing gave in so many batches, by figure: against the frozen baseline, then
        against what served first.
        """
        names = [(FROZEN, None), *([(BEFORE, self._first.version)] if self._first else [])]
        gains: list[FigureGain] = []
        for name, version in names:
            if self._stretches:
                live, other = self._sum(LIVE), self._sum(name)
                without = [
                    (live.minus(one[LIVE]).scores(), other.minus(one[name]).scores())
                    for one in self._stretches
                    if len(self._stretches) >= FEWEST
                ]
                whole = live.scores(), other.scores()
                gains += figure_gains(whole, without, objective, batches, version)
        return [replace(one, rows=self._rows) for one in gains]

    def _sum(self, name: str) -> RunningScores:
        return reduce(RunningScores.plus, [one[name] for one in self._stretches])

    def _begin(self) -> None:
        if len(self._stretches) == MOST:
            halves = zip(self._stretches[::2], self._stretches[1::2], strict=True)
            self._stretches = [
                {name: one[name].plus(two[name]) for name in one} for one, two in halves
            ]
            self._size *= 2
        self._in_last = 0
        ranked = self._classes == 2
        names = (LIVE, FROZEN, *((BEFORE,) if self._first else ()))
        self._stretches.append(
            {name: RunningScores(self._classes, ranked=ranked) for name in names}
        )


def _standing(part: Scored, values: NDArray[Any]) -> NDArray[Any]:
    """Values of rows (n,), each as often as the row stands for."""
    return (
        values if part.weight is None else np.repeat(values, part.weight.astype(np.int64), axis=0)
    )
