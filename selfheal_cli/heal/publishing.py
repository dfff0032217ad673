"""Whether a heal is worth a version: by how much it changes decisions."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import rel_entr

from selfheal_cli.config import Policy
from selfheal_cli.heal.task import HealOutcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.model.network import SelfHealingNetwork
    from selfheal_cli.records import FloatArray

    Matrix = NDArray[np.float64]

LATEST = 50  # heals by which the stream raises what is asked of the next one
SMALLEST = 1e-6  # probability


class Publishing:
    """What is asked of a heal before it is published.

    A heal must change decisions by ``publish_change`` at least. Where more than ``publish_share``
    of the latest heals do, only those that change most are published: the stream raises the bar.
    """

    def __init__(self, policy: Policy, batch_size: int) -> None:
        self._least = policy.publish_change
        self._share = policy.publish_share
        self._rows = batch_size
        self._changes: deque[float] = deque(maxlen=LATEST)

    def change(
        self,
        outcome: HealOutcome,
        before: float,
        after: float,
        kept: SelfHealingNetwork | None = None,
    ) -> float:
        """By how much a heal changes decisions on the latest rows of a batch's number: from those
        of what serves, or of what was ``kept`` instead of published last.

        ``before`` and ``after`` are the thresholds that go with the two adapters.
        """
        latest = slice(-self._rows, None)
        then, now = outcome.probabilities_before[latest], outcome.probabilities_after[latest]
        if kept is not None:
            then = kept.predict_features(outcome.task.rows.features[latest])
        return changed(now, then, after, before)

    def needed(self, change: float) -> float:
        """What ``change`` must reach for its heal to be published; it counts for the next ones."""
        if np.isfinite(change):  # what is not is for the gate
            self._changes.append(change)
        if self._share >= 1.0:
            return self._least
        return max(self._least, float(np.quantile(self._changes, 1.0 - self._share)))


def changed(now: FloatArray, then: FloatArray, after: float, before: float) -> float:
    """By how much answers ``now`` are others than ``then``, or the decisions by their thresholds
    ``after`` and ``before``, whichever is more.
    """
    decided = _seen_from(now, after), _seen_from(then, before)
    return max(divergence(now, then), divergence(*decided))


def divergence(now: FloatArray | Matrix, then: FloatArray | Matrix) -> float:
    """Mean Kullback-Leibler divergence of ``now`` from ``then``, (n,) or (n, K), in nats.

    >>> round(divergence(np.array([0.6, 0.5]), np.array([0.5, 0.5])), 4)
    0.0101
    """
    p, q = _distributions(now), _distributions(then)
    return float(rel_entr(p, q).sum(axis=1).mean()) if len(p) else 0.0


def _distributions(probabilities: FloatArray | Matrix) -> Matrix:
    """(n, K) that sum to 1, none of them 0."""
    wide = probabilities.astype(np.float64)
    wide = np.stack([1.0 - wide, wide], axis=1) if wide.ndim == 1 else wide
    cut: Matrix = np.maximum(wide, SMALLEST)
    cut /= cut.sum(axis=1, keepdims=True)
    return cut


def _seen_from(probabilities: FloatArray, threshold: float) -> FloatArray | Matrix:
    """Probabilities (n,) with the threshold moved to a half; those of K classes have none."""
    if probabilities.ndim > 1:
        return probabilities
    p = np.clip(probabilities.astype(np.float64), SMALLEST, 1.0 - SMALLEST)
    t = min(max(threshold, SMALLEST), 1.0 - SMALLEST)
    seen: Matrix = p * (1.0 - t) / (p * (1.0 - t) + (1.0 - p) * t)
    return seen
