"""``anchored``: a convex heal with a unique answer, no learning rate and no optimiser state.

Logistic regression on the frozen features around the trained head (a ridge prior towards it), so
that few rows change little and many rows change what they must. Four experts are kept side by
side, and each heal serves their average, weighted by each one's loss on rows before it learned
from them (exponential weights, Vovk 1990; discounted, so that a drift that ends is noticed):

- the frozen network: nothing changed;
- the logit scaled and shifted, by the last 5 labelled batches, or by the whole window;
- every coefficient fitted, on the whole window.

With ``progressive``, labels of several batches that a heal learns at once, such as those that a
restart finds, are gone through as if each had been healed on (prequential, Dawid 1984).

The average of affine corrections is one affine correction, so it folds into one adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from selfheal_cli.config import HealSettings
from selfheal_cli.heal.anchor import Anchor, Design
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask, require_finite
from selfheal_cli.logistic import fit, row_losses, targets
from selfheal_cli.model.network import SelfHealingNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import LabelArray

    Matrix = NDArray[np.float64]

# chosen on synthetic seeds 0 to 3 (docs/healing.md) and fixed
SHORT = 5  # labelled batches behind the quick expert
DISCOUNT = 0.8  # of past losses, per labelled batch
TEMPER = 0.2  # of losses in the weights: below 1, since rows of one batch are alike
FROZEN_BONUS = 3.0  # log prior odds of "nothing changed" against each other expert
LIGHT = 1e-3  # penalty of the intercept
SCALE_RIDGE = 1.0  # penalty of scaling the frozen logit
NEVER = -1  # arrival before the first
PIECE = 100  # rows that the experts are judged by at once, of labels that came all together
MOST_BEHIND = 100.0  # loss; an expert further behind could not come back when a drift ends
NAMES = ("frozen", "scaled_short", "scaled", "fitted")


class Anchored:
    """A `Recipe`; how well it does is measured in docs/healing-figures.md."""

    def __init__(self, network: SelfHealingNetwork, anchor: Anchor, settings: HealSettings) -> None:
        self._network = network
        self._design = Design(network, anchor)
        outputs = self._design.outputs
        tail = [SCALE_RIDGE] * outputs + [LIGHT]
        self._ridge = np.array([settings.ridge] * self._design.features + tail)
        self._tail = outputs + 1
        self._progressive = settings.progressive

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """As `Recipe.heal`. Measures the weight of each expert."""
        design, rows = self._design, task.rows
        learned = rows.learnable
        thetas, losses, last = self._recall(before)
        if len(learned):
            offset = design.offset(learned.features)
            a = design.rows(learned.features, offset)
            y, arrival = learned.y, learned.arrival
            for part in self._parts(arrival, last):
                now = slice(0, part.stop)
                new = slice(part.start, part.stop)
                losses = _discounted(losses, thetas, a[new], offset[new], y[new], arrival[new])
                thetas = self._refit(thetas, a[now], offset[now], y[now], arrival[now])
            last = int(arrival[-1])
        weights = _weights(losses)
        theta = np.tensordot(weights, thetas, axes=1)
        folded = design.fold(theta)
        require_finite(folded, task, "check the rows of the window")
        after = AdapterState(folded, _memory(thetas, losses, last))
        return HealOutcome(
            task,
            after,
            self._network.with_adapter(before.weights).predict_features(rows.features),
            self._network.with_adapter(folded).predict_features(rows.features),
            {f"weight_{name}": float(w) for name, w in zip(NAMES, weights, strict=True)},
        )

    def _parts(self, arrival: NDArray[np.int32], last: int) -> list[range]:
        """The rows that came since arrival ``last``, as they are learned: all at once, or one
        arrival after the other. What is learned first has nothing to be judged by unless its rows
        are several parts.
        """
        new = range(int(np.searchsorted(arrival, last, side="right")), len(arrival))
        if not self._progressive or not new:
            return [new]
        ends = [*(np.flatnonzero(np.diff(arrival[new.start :])) + 1 + new.start), new.stop]
        if last == NEVER:
            pieces = max(1, round(ends[0] / PIECE))
            ends = [*(ends[0] * piece // pieces for piece in range(1, pieces)), *ends]
        starts = [new.start, *ends[:-1]]
        return [range(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]

    def _recall(self, before: AdapterState) -> tuple[Matrix, Matrix, int]:
        """The experts' thetas (4, columns, outputs) and losses (4,); the last arrival learned."""
        if before.memory:
            memory = {name: value.numpy() for name, value in before.memory.items()}
            return memory["thetas"], memory["losses"], int(memory["last"][0])
        shape = (len(NAMES), self._design.columns, self._design.outputs)
        return np.zeros(shape), np.zeros(len(NAMES)), NEVER

    def _refit(
        self,
        thetas: Matrix,
        a: Matrix,
        offset: Matrix,
        y: LabelArray,
        arrival: NDArray[np.int32],
    ) -> Matrix:
        """The experts' thetas (4, columns, outputs), fitted anew; the frozen one stays zero."""
        steps = np.unique(arrival)
        recent = arrival >= steps[-SHORT:][0]
        tail, outputs = self._tail, self._design.outputs
        solutions = np.zeros_like(thetas)
        for place, rows in ((1, recent), (2, slice(None))):
            part = a[rows, -tail:]
            goal = targets(part, y[rows], outputs)
            start = thetas[place, -tail:]
            solutions[place, -tail:] = fit(part, offset[rows], goal, self._ridge[-tail:], start)
        solutions[3] = fit(a, offset, targets(a, y, outputs), self._ridge, thetas[3])
        return solutions


def _discounted(
    losses: Matrix,
    thetas: Matrix,
    a: Matrix,
    offset: Matrix,
    y: LabelArray,
    arrival: NDArray[np.int32],
) -> Matrix:
    """How far each expert is behind the best, (4,), with these rows, which none of them knows."""
    for step in np.unique(arrival):
        rows = arrival == step
        fresh = [row_losses(offset[rows] + a[rows] @ theta, y[rows]).sum() for theta in thetas]
        losses = DISCOUNT * losses + np.array(fresh)
    behind: Matrix = np.minimum(losses - losses.min(), MOST_BEHIND)
    return behind


def _weights(losses: Matrix) -> Matrix:
    """Weights (4,) that sum to 1, by the experts' losses (4,)."""
    score = -TEMPER * losses
    score[0] += FROZEN_BONUS
    powers = np.exp(score - score.max())
    weights: Matrix = powers / powers.sum()
    return weights


def _memory(thetas: Matrix, losses: Matrix, last: int) -> dict[str, Tensor]:
    return {
        "thetas": torch.from_numpy(thetas),
        "losses": torch.from_numpy(losses),
        "last": torch.tensor([last]),
    }
