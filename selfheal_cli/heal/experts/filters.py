"""Logistic regression that learns row by row and forgets: recursive Newton steps, no window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import lapack

from selfheal_cli.logistic import sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Places = NDArray[np.intp]

BLOCK = 100  # rows that forgetting is stated by, and that are learned at once
STEPS = 2  # of Newton's method, for each block
LEAST_WEIGHT = 1e-3  # of a row in the Hessian
BOUND = 0.5  # of the multinomial Hessian, whatever the probabilities (Boehning 1992)


@dataclass(frozen=True, slots=True)
class FilterSpec:
    """Filters on the same columns of the design: what each forgets, and where it begins.

    ``memories`` (k,) are the shares of what was known that are left after `BLOCK` rows; ``ridge``
    (k, columns) pulls towards the frozen network.
    """

    name: str
    columns: Places
    memories: Matrix
    ridge: Matrix

    @property
    def names(self) -> list[str]:
        """One for each filter."""
        if len(self.memories) == 1:
            return [self.name]
        return [f"{self.name}_{round(1e3 * memory)}" for memory in self.memories]


class Filters:
    """Coefficients ``theta`` (k, columns, margins) around given margins, by all rows so far.

    Of rows that were learned there is kept the ``precision`` (k, columns, columns) of the
    coefficients and ``pull`` (k, columns, margins), the precision times them; both forget. A
    Laplace filter: the posterior is taken as normal after each block (Penny and Roberts 1999).
    """

    def __init__(self, spec: FilterSpec, margins: int, state: Mapping[str, Matrix]) -> None:
        self.spec = spec
        filters, columns = spec.ridge.shape
        self.theta = state.get("theta", np.zeros((filters, columns, margins)))
        self._precision = state.get("precision", np.zeros((filters, columns, columns)))
        self._pull = state.get("pull", np.zeros((filters, columns, margins)))

    def state(self) -> dict[str, Matrix]:
        """What `Filters` begins from again."""
        return {"theta": self.theta, "precision": self._precision, "pull": self._pull}

    def learn(self, a: Matrix, margin: Matrix, y: Any, labelled: float) -> list[int]:
        """From rows of the whole design (n, all columns), frozen margins (n, margins) and y (n,).

        What was known fades as ``labelled`` rows have it, those that were held out among them.

        Returns the places of filters whose coefficients are no numbers: they begin anew.
        """
        a = np.ascontiguousarray(a[:, self.spec.columns])
        target = _one_hot(y, margin.shape[1])
        learned = [
            self._learn_one(place, a, margin, target, float(memory) ** (labelled / BLOCK))
            for place, memory in enumerate(self.spec.memories)
        ]
        theta, precision, pull = (np.stack(part) for part in zip(*learned, strict=True))
        lost = [
            place
            for place in range(len(theta))
            if not (np.isfinite(theta[place]).all() and np.isfinite(precision[place]).all())
        ]
        for part in (theta, precision, pull):
            part[lost] = 0.0
        self.theta, self._precision, self._pull = theta, precision, pull
        return lost

    def _learn_one(
        self, place: int, a: Matrix, margin: Matrix, target: Matrix, left: float
    ) -> tuple[Matrix, Matrix, Matrix]:
        """Theta, precision and pull of one filter after a block."""
        theta = self.theta[place]
        before, pull = left * self._precision[place], left * self._pull[place]
        known = before + np.diag(self.spec.ridge[place])
        gained, moved = before, pull
        for _ in range(STEPS):
            p = _probabilities(margin + a @ theta)
            gained = _information(a, p)
            moved = gained @ theta + a.T @ (target - p)
            _, theta, failed = lapack.dposv(known + gained, pull + moved, lower=1)
            if failed:
                theta = np.full_like(theta, np.nan)
                break
        return theta, before + gained, pull + moved


def _information(a: Matrix, p: Matrix) -> Matrix:
    """The Hessian (columns, columns) of the rows' log loss, or with K classes a bound on it."""
    multinomial = p.shape[1] > 1
    weight = BOUND if multinomial else np.maximum(p * (1.0 - p), LEAST_WEIGHT)
    weighted = a * np.sqrt(weight)
    information: Matrix = weighted.T @ weighted
    return information


def _probabilities(margin: Matrix) -> Matrix:
    """Of class 1 (n, 1), or of each class but the first (n, K - 1)."""
    if margin.shape[1] == 1:
        return sigmoid(margin)
    top = np.maximum(margin.max(axis=1, keepdims=True), 0.0)
    powers = np.exp(margin - top)
    p: Matrix = powers / (powers.sum(axis=1, keepdims=True) + np.exp(-top))
    return p


def _one_hot(y: Any, margins: int) -> Matrix:
    classes = np.asarray(y, dtype=np.int64)[:, None]
    target: Matrix = (classes == np.arange(1, margins + 1)).astype(np.float64)
    return target
