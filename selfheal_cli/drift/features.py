"""How far each feature moved from training: one figure for each feature and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from selfheal_cli.events.types import WatchedFeature
from selfheal_cli.moments import ColumnMoments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

MOST = 64  # features whose figures are kept; bounds what a batch adds to the log
DIGITS = 3
FLAT = 1e-9  # spread of an input below which training saw one value


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature and the ``width`` inputs that it takes: one number, or one input a category."""

    name: str
    kind: Literal["numeric", "categorical"]
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class Shifts:
    """The training rows' ``mean`` and ``sd`` (p,) by input; ``watched`` are indices of features.

    A number's shift is (mean of the batch - mean in training) / sd in training; of one that was
    constant, how many more rows are above it than below. A text's shift is the share of rows
    that would have to change category to have the training rows' shares. Missing numbers count
    as the mean: a feature that vanishes does not move.

    >>> shifts = Shifts((Feature("a", "numeric", 1),), (0,), np.array([1.0]), np.array([2.0]))
    >>> shifts.of(np.array([[3.0], [5.0]], dtype=np.float32))
    [1.5]
    """

    features: tuple[Feature, ...]
    watched: tuple[int, ...]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]

    def of(self, x: FloatArray) -> list[float]:
        """The shifts of a batch's inputs (n, p or more), in the order of ``watched``."""
        away = x[:, : len(self.mean)].mean(axis=0, dtype=np.float64) - self.mean
        starts = np.cumsum([0] + [feature.width for feature in self.features])
        shifts = []
        for place in self.watched:
            part = away[starts[place] : starts[place + 1]]
            if self.features[place].kind == "numeric":
                shift = float(part[0] / self.sd[starts[place]])
            else:  # what the shares lack to 1 are categories that training never saw
                shift = float(np.abs(part).sum() + abs(part.sum())) / 2
            shifts.append(round(shift, DIGITS) + 0.0)  # no -0.0
        return shifts

    def described(self) -> list[WatchedFeature]:
        """Name and kind of the features that `of` gives figures of, for the log."""
        chosen = [self.features[place] for place in self.watched]
        return [{"name": feature.name, "kind": feature.kind} for feature in chosen]


class ShiftRows:
    """Accumulates `Shifts` from training rows that come in blocks."""

    def __init__(self, features: Sequence[Feature], first: str) -> None:
        """Of more than `MOST` features, ``first`` and those that come first are watched."""
        self._features = tuple(features)
        places = range(len(self._features))
        ranked = sorted(places, key=lambda place: self._features[place].name != first)
        self._watched = tuple(ranked[:MOST])
        self._width = sum(feature.width for feature in features)
        self._moments = ColumnMoments(self._width)

    def add(self, x: FloatArray) -> None:
        """Take inputs (n, p or more); those beyond are no feature's."""
        self._moments.add(x[:, : self._width].astype(np.float64))

    def shifts(self) -> Shifts:
        """The shifts against all rows so far."""
        mean, sd = self._moments.mean, self._moments.sd
        return Shifts(self._features, self._watched, mean, np.where(sd > FLAT, sd, 1.0))
