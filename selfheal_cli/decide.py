"""The decisions of a batch: whether it starts a heal, whether the model rolls back, and the
threshold that an objective asks for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.config import Objective, Policy, checked
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.records import Conflicts, DriftReading
from selfheal_cli.scores import AnyScores

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to heal; ``reason`` reads as the second half of "healed because ..."."""

    heal: bool
    reason: str


def decide(
    reading: DriftReading, conflicts: Conflicts, policy: Policy, alarms: Sequence[str] = ()
) -> Decision:
    """Heal when the sensitive feature drifts, or rules and network conflict often enough.

    ``alarms`` are the reasons of monitors that may start a heal.

    >>> decide(DriftReading("V14", 0.2, False), Conflicts(7, 0.0), Policy())
    Decision(heal=True, reason='7 conflicts >= 5')
    """
    reasons = []
    if reading.drifting:
        reasons.append(f"{reading.feature} drifts: z {reading.z:.3f} > {policy.fidi_threshold:g}")
    if conflicts.count >= policy.conflict_min:
        reasons.append(f"{conflicts.count} conflicts >= {policy.conflict_min}")
    reasons += alarms
    return Decision(bool(reasons), " and ".join(reasons) or "no signal")


class State(StrEnum):
    """HEALING lasts while a heal is in flight beside live scoring."""

    HEALTHY = "HEALTHY"
    DRIFTING = "DRIFTING"
    HEALING = "HEALING"
    ROLLED_BACK = "ROLLED_BACK"


def state_after(*, drifting: bool, in_flight: bool, rolled_back: bool) -> State:
    """The state at the end of a batch.

    >>> state_after(drifting=True, in_flight=False, rolled_back=False)
    <State.DRIFTING: 'DRIFTING'>
    """
    if rolled_back:
        return State.ROLLED_BACK
    if in_flight:
        return State.HEALING
    return State.DRIFTING if drifting else State.HEALTHY


class Health:
    """The scores of the last heals against those of the first."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._baseline: AnyScores | None = None
        self._accuracy: deque[float] = deque(maxlen=policy.health_window)
        self._f1: deque[float] = deque(maxlen=policy.health_window)
        self._heals = 0

    def observe(self, healed: AnyScores) -> str | None:
        """Take a heal's scores; returns the reason to roll back, or None."""
        if self._baseline is None:
            self._baseline = healed
        self._heals += 1
        self._accuracy.append(healed.accuracy)
        self._f1.append(healed.f1)
        enough = min(self._policy.health_min_heals, self._policy.health_window)
        if self._heals < self._policy.health_min_heals or len(self._f1) < enough:
            return None
        return self._fallen("F1", self._f1, self._baseline.f1, self._policy.rollback_f1_drop) or (
            self._fallen(
                "accuracy",
                self._accuracy,
                self._baseline.accuracy,
                self._policy.rollback_acc_drop,
            )
        )

    @staticmethod
    def _fallen(name: str, window: deque[float], baseline: float, drop: float) -> str | None:
        mean = fmean(window)
        if mean >= baseline - drop:
            return None
        return (
            f"mean {name} of the last {len(window)} heals {mean:.3f} is more than {drop:g} "
            f"below the first heal's {baseline:.3f}"
        )


RECENT = 1_000  # probabilities behind the threshold for F1
HALF = 0.5


def parse_objective(text: str, where: str = "--objective") -> Objective:
    """``accuracy``, ``f1`` or ``cost:FN,FP``; else `ConfigurationError`, which names ``where``.

    >>> str(parse_objective("cost:5000,200"))
    'cost:5000,200'
    """
    kind, _, costs = text.partition(":")
    if not costs and text in ("accuracy", "f1"):
        return checked(Objective, {"kind": text}, where=where)
    parts = costs.split(",")
    if kind != "cost" or len(parts) != 2:
        raise ConfigurationError(
            f"{where} {text!r}: 'accuracy', 'f1' or 'cost:FN,FP' is allowed, such as "
            "cost:5000,15 where a missed positive costs 5000 and a false alarm 15"
        )
    values = {"kind": kind, "fn": parts[0], "fp": parts[1]}
    return checked(Objective, values, where=f"{where} {text!r}")


def threshold_for(objective: Objective, probabilities: FloatArray) -> float:
    """The threshold that serves the objective, by the recent probabilities (n,) without labels.

    accuracy: 0.5. cost: fp / (fn + fp), the break-even point. f1: the threshold that maximises the
    F1 to be expected if the probabilities are calibrated, 2 sum_(i<=k) p_i / (k + sum p) over the
    k most probable rows (Lipton, Elkan and Naryanaswamy 2014).

    >>> threshold_for(Objective(kind="cost", fn=5000, fp=200), np.array([0.1]))
    0.038461538461538464
    """
    if objective.kind == "cost":
        return objective.fp / (objective.fn + objective.fp)
    if objective.kind == "accuracy" or probabilities.ndim > 1 or not probabilities.any():
        return HALF  # of K classes the likeliest is taken, whatever the threshold
    ranked = np.sort(probabilities[-RECENT:].astype(np.float64))[::-1]
    true_positives = np.cumsum(ranked)  # expected, if the k most probable rows are flagged
    expected = 2 * true_positives / (np.arange(1, len(ranked) + 1) + true_positives[-1])
    return float(ranked[int(np.argmax(expected))])
