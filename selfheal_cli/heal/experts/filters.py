"""Logistic regression that learns row by row and forgets: recursive Newton steps, no window.

Several side by side, by what each forgets. A slow one that falls far behind a quick one goes on
from what that knows, so that after a break nothing of the time before is left; what the slowest
knew until then is kept as it was, and comes back when it is right again.
"""

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
STEPS = 2  # of Newton's method, for each block; more where they are wanted and needed
ENOUGH = 0.5  # nats that a last step may still bring
HALVINGS = 30  # of a step
FALLS_BEHIND = 0.8  # share of a loss that is left after a block
FAR_BEHIND = 10.0  # nats, at which a filter goes on from what another knows
BEGAN, EMPTY = -1, -2  # steps before the first: of filters, and of places that keep nothing yet
LEAST_WEIGHT = 1e-3  # of a row in the Hessian
# where there are several margins: of a row in the Hessian of each; and what is carried on of a
# block's, since the log loss of a row flattens as it is told better, and a parabola does not
LEAST_OF_MANY, CARRIED = 3e-3, 0.25


@dataclass(frozen=True, slots=True)
class FilterSpec:
    """Filters on the same columns of the design: what each forgets, and where it begins.

    ``memories`` (k,), rising, are the shares of what was known that are left after `BLOCK` rows;
    ``ridge`` (k, columns) pulls towards the frozen network, or towards nothing where they do not
    correct its logit but begin without it (``around`` is False). As many as ``kept`` of what the
    slowest left behind are remembered. With ``steps`` more than `STEPS` a block is learned until
    little is to be gained: where all at once looks another way, two whole steps leap about.
    """

    name: str
    columns: Places
    memories: Matrix
    ridge: Matrix
    around: bool = True
    kept: int = 0
    steps: int = STEPS

    @property
    def names(self) -> list[str]:
        """One for each filter, and for each that is kept."""
        if len(self.memories) == 1:
            return [self.name]
        quick = [f"{self.name}_{round(1e3 * memory)}" for memory in self.memories]
        return quick + [f"{self.name}_past_{place}" for place in range(1, self.kept + 1)]


class Filters:
    """Coefficients ``theta`` (all, columns, margins) by all rows so far.

    All are the k filters that learn, and after them those that are kept. Of rows that were learned
    there is the ``precision`` (all, columns, columns) of the coefficients, of all margins together,
    and ``curved`` (all, margins), by which each margin has its share of it; both forget. ``loss``
    (all,) is a discounted sum, ``since`` (all,) the step at which each took its coefficients from
    another. A Laplace filter: the posterior is taken as normal after each block (Penny and Roberts
    1999), of K classes with one matrix for all margins, scaled for each.
    """

    def __init__(self, spec: FilterSpec, margins: int, state: Mapping[str, Any]) -> None:
        self.spec = spec
        filters, columns = spec.ridge.shape
        every = filters + spec.kept
        self.theta = state.get("theta", np.zeros((every, columns, margins)))
        self._precision = state.get("precision", np.zeros((every, columns, columns)))
        self._curved = state.get("curved", np.zeros((every, margins)))
        self._loss = state.get("loss", np.zeros(every))
        self._since = state.get("since", np.repeat([BEGAN, EMPTY], [filters, spec.kept]))

    def state(self) -> dict[str, Any]:
        """What `Filters` begins from again."""
        return {
            "theta": self.theta,
            "precision": self._precision,
            "curved": self._curved,
            "loss": self._loss,
            "since": self._since,
        }

    def judge(self, loss: Matrix, labelled: float, step: int) -> None:
        """Take the log loss (all,) of each on ``labelled`` rows that none has learned, and let
        those that are far behind go on from what another knows.
        """
        own = (self._since != EMPTY) & np.isfinite(self.theta).all(axis=(1, 2))
        left = FALLS_BEHIND ** (labelled / BLOCK)
        self._loss = np.where(own, left * self._loss + loss, self._loss)
        learning = len(self.spec.memories)
        for place in filter(own.__getitem__, range(1, learning)):
            rivals = [one for one in (*range(place), *range(learning, len(own))) if own[one]]
            best = min(rivals, key=self._loss.__getitem__, default=place)
            if self._loss[place] - self._loss[best] > FAR_BEHIND:
                self._go_on_from(place, best, step)

    def _go_on_from(self, place: int, other: int, step: int) -> None:
        """Give one what another knows; what the slowest knew is kept."""
        learning = len(self.spec.memories)
        keeps = self.spec.kept > 0 and place == learning - 1
        slot = (
            other
            if other >= learning
            else learning + int(self._since[learning:].argmin())
            if keeps
            else place
        )
        for name in ("theta", "_precision", "_curved", "_loss"):
            values = getattr(self, name).copy()
            before = values[place].copy()
            values[place] = values[other]
            if keeps:
                values[slot] = before
            setattr(self, name, values)
        self._since = self._since.copy()
        self._since[[place, slot]] = step

    def learn(self, a: Matrix, margin: Matrix, y: Any, labelled: float) -> list[int]:
        """From rows of the whole design (n, all columns), frozen margins (n, margins) and y (n,).

        What was known fades as ``labelled`` rows have it, those that were held out among them.

        Returns the places of filters whose coefficients are no numbers: they begin anew.
        """
        a = np.ascontiguousarray(a[:, self.spec.columns])
        margin = margin if self.spec.around else np.zeros_like(margin)
        target = one_hot(y, margin.shape[1])
        every = [part.copy() for part in (self.theta, self._precision, self._curved)]
        lost = []
        for place, memory in enumerate(self.spec.memories):
            left = float(memory) ** (labelled / BLOCK)
            learned = self._learn_one(place, a, margin, target, left)
            if not all(np.isfinite(part).all() for part in learned):
                lost.append(place)
            for part, one in zip(every, learned, strict=True):
                part[place] = 0.0 if place in lost else one
        self.theta, self._precision, self._curved = every
        return lost

    def _learn_one(
        self, place: int, a: Matrix, margin: Matrix, target: Matrix, left: float
    ) -> tuple[Matrix, Matrix, Matrix]:
        """Theta, precision and curvatures of one filter after a block."""
        theta, ridge = self.theta[place], np.diag(self.spec.ridge[place])
        before, curved = left * self._precision[place], left * self._curved[place]
        known = _by_margin(before, curved)
        pull = _times(known + left * ridge, theta)
        known = known + ridge
        gained, bent = before, curved
        for step in range(1, self.spec.steps + 1):
            begun = theta
            p = _probabilities(margin + a @ theta)
            gained, bent = _information(a, p)
            gains = _by_margin(gained, bent)
            hessian = known + gains
            theta = _solved(hessian, pull + _times(gains, theta) + a.T @ (target - p))
            if not np.isfinite(theta).all():
                break
            if step >= STEPS and _gain(hessian, theta - begun) <= ENOUGH:
                break
            if STEPS < step < self.spec.steps:
                theta = _shortened(begun, theta, known, pull, a, margin, target)
        carried = 1.0 if target.shape[1] == 1 else CARRIED
        return theta, before + carried * gained, curved + carried * bent


def _by_margin(precision: Matrix, curved: Matrix) -> Matrix:
    """Of each margin (margins, columns, columns): its share of what all have together."""
    whole = curved.sum()
    shares: Matrix = (curved / whole if whole > 0 else curved)[:, None, None] * precision
    return shares


def _times(hessian: Matrix, theta: Matrix) -> Matrix:
    """Hessians (margins, columns, columns) times coefficients (columns, margins)."""
    product: Matrix = np.matmul(hessian, theta.T[:, :, None])[:, :, 0].T
    return product


def _solved(hessian: Matrix, right: Matrix) -> Matrix:
    """Coefficients (columns, margins), which are no numbers where there is no one answer."""
    theta = np.full_like(right, np.nan)
    for place, one in enumerate(hessian):
        _, solved, failed = lapack.dposv(one, right[:, place], lower=1)
        if failed:
            break
        theta[:, place] = solved
    return theta


def _gain(hessian: Matrix, step: Matrix) -> float:
    """Nats by which a step of Newton's method should better what it minimises."""
    return 0.5 * float((step * _times(hessian, step)).sum())


def _shortened(
    begun: Matrix,
    theta: Matrix,
    known: Matrix,
    pull: Matrix,
    a: Matrix,
    margin: Matrix,
    target: Matrix,
) -> Matrix:
    """Halve a step until it betters the log loss of the rows with what was known before."""

    def lost(at: Matrix) -> float:
        z = margin + a @ at
        rows = np.logaddexp(0.0, np.logaddexp.reduce(z, axis=1)).sum() - (target * z).sum()
        return float(rows + 0.5 * (at * _times(known, at)).sum() - (at * pull).sum())

    first = lost(begun)
    for _ in range(HALVINGS):
        if lost(theta) <= first:
            break
        theta = 0.5 * (begun + theta)
    return theta


def _information(a: Matrix, p: Matrix) -> tuple[Matrix, Matrix]:
    """The Hessian (columns, columns) of the rows' log loss by probabilities (n, margins), summed
    over the margins as if each were alone, and what each has of it (margins,).
    """
    least = LEAST_WEIGHT if p.shape[1] == 1 else LEAST_OF_MANY
    bent = np.maximum(p * (1.0 - p), least)
    weighted = a * np.sqrt(bent.sum(axis=1, keepdims=True))
    information: Matrix = weighted.T @ weighted
    return information, bent.sum(axis=0)


def _probabilities(margin: Matrix) -> Matrix:
    """Of class 1 (n, 1), or of each class but the first (n, K - 1)."""
    if margin.shape[1] == 1:
        return sigmoid(margin)
    top = np.maximum(margin.max(axis=1, keepdims=True), 0.0)
    powers = np.exp(margin - top)
    p: Matrix = powers / (powers.sum(axis=1, keepdims=True) + np.exp(-top))
    return p


def class_probabilities(margin: Any) -> Matrix:
    """Of each class, (experts, n, K), by margins (experts, n, margins)."""
    logits = np.concatenate([np.zeros((*margin.shape[:2], 1)), margin], axis=2)
    with np.errstate(invalid="ignore"):  # what is no number is looked for by the caller
        p: Matrix = np.exp(logits - np.logaddexp.reduce(logits, axis=2, keepdims=True))
    return p


def one_hot(y: Any, margins: int) -> Matrix:
    """Of the classes (n,), which of them but the first it is: (n, margins)."""
    classes = np.asarray(y, dtype=np.int64)[:, None]
    target: Matrix = (classes == np.arange(1, margins + 1)).astype(np.float64)
    return target
