"""The decision layer: from which probability on a row is flagged.

A calibrated heal looks worse than it is when it decides at 0.5 and something else is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.config import Objective, checked
from selfheal_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

RECENT = 1_000  # probabilities behind the threshold for F1
HALF = 0.5


def parse_objective(text: str, where: str = "--objective") -> Objective:
    """``accuracy``, ``f1`` or ``cost:FN,FP``; raises `ConfigurationError` from ``where``.

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
    """The threshold by the recent probabilities (n,), which need no labels.

    accuracy: 0.5. cost: fp / (fn + fp), the break-even point. f1: the threshold that maximises the
    F1 to be expected if the probabilities are right, 2 sum_(i<=k) p_i / (k + sum p) over the k
    most probable rows (Lipton, Elkan and Naryanaswamy 2014).

    >>> threshold_for(Objective(kind="cost", fn=5000, fp=200), np.array([0.1]))
    0.038461538461538464
    """
    if objective.kind == "cost":
        return objective.fp / (objective.fn + objective.fp)
    if objective.kind == "accuracy" or probabilities.ndim > 1 or not probabilities.any():
        return HALF  # of K classes the likeliest is taken, whatever the threshold
    ranked = np.sort(probabilities[-RECENT:].astype(np.float64))[::-1]
    caught = np.cumsum(ranked)
    expected = 2 * caught / (np.arange(1, len(ranked) + 1) + caught[-1])
    return float(ranked[int(np.argmax(expected))])
