"""The gate: whether a heal may be published, judged on rows that it did not learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selfheal_cli.heal.task import HealOutcome
from selfheal_cli.model.network import SelfHealingNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

    Matrix = NDArray[np.float64]

DISCOUNT = 0.5  # of a held-out row's weight, per arrival: a drift may just have ended
SMALLEST = 1e-12  # probability of the true class, so that its logarithm is finite
FEWEST = 2  # held-out rows that are any evidence
NORM_LIMIT = 100.0  # how many times longer than before a row's features may become


@dataclass(frozen=True, slots=True)
class Judgement:
    """The gate's verdict; ``rejected`` says why the heal is not published, or is empty.

    ``worse_by`` is the mean log loss after minus before on the ``rows`` held-out rows, and
    ``error`` its standard error; both None where no labelled row was held out.
    """

    rejected: str
    rows: int
    worse_by: float | None = None
    error: float | None = None


def judge(
    frozen: SelfHealingNetwork,
    healed: SelfHealingNetwork,
    outcome: HealOutcome,
    tolerance: float,
    slack: float = 0.0,
) -> Judgement:
    """Whether to publish ``healed``: it must not have collapsed, nor be worse on held-out rows.

    Collapse is measured against the ``frozen`` baseline. A heal may be worse by ``tolerance``
    standard errors or ``slack`` at most, whichever is more; one that gives every row the same
    class, where the adapter before it did not, must be better by one error.
    """
    collapse = collapsed(frozen, healed, outcome)
    if collapse:
        return Judgement(collapse, 0)
    rows = outcome.task.rows
    chosen = rows.held_out & (rows.y >= 0)
    if chosen.sum() < FEWEST:
        # without any label the recipe has tested its own assumption, base rate included
        return Judgement(_one_class(outcome) if (rows.y >= 0).any() else "", 0)
    y = rows.y[chosen]
    before, after = (
        log_losses(p[chosen], y)
        for p in (outcome.probabilities_before, outcome.probabilities_after)
    )
    weight = None if rows.weight is None else rows.weight[chosen]
    worse_by, error = _discounted(after - before, rows.arrival[chosen], weight)
    count = int(chosen.sum())
    if worse_by > max(tolerance * error, slack):
        reason = (
            f"log loss on {count} held-out rows rises by {worse_by:.4f}, more than {tolerance:g} "
            f"standard errors ({error:.4f})"
        )
        return Judgement(reason, count, worse_by, error)
    one_class = _one_class(outcome)
    if one_class and worse_by > -error:
        return Judgement(f"{one_class}, and log loss does not fall", count, worse_by, error)
    return Judgement("", count, worse_by, error)


def compare(before: FloatArray, after: FloatArray, y: Any, arrival: Any) -> tuple[float, float]:
    """Mean log loss after minus before on labelled rows, and its standard error.

    ``before`` and ``after`` are probabilities, (n,) or (n, K), ``y`` (n,); recent rows count more,
    by their ``arrival`` (n,).
    """
    return _discounted(log_losses(after, y) - log_losses(before, y), arrival)


def collapsed(frozen: SelfHealingNetwork, healed: SelfHealingNetwork, outcome: HealOutcome) -> str:
    """Why the healed network has collapsed, or nothing.

    Its probabilities are not finite or all the same, or its features have blown up.
    """
    after = outcome.probabilities_after
    if not np.isfinite(after).all():
        return "a probability is not finite"
    if len(after) > 1 and not _varies(after) and _varies(outcome.probabilities_before):
        return "every row gets the same probability"
    features = torch.from_numpy(outcome.task.rows.features)
    with torch.inference_mode():
        before, now = (float(n.adapter(features).abs().max()) for n in (frozen, healed))
    if now > NORM_LIMIT * max(before, 1.0):
        return f"adapted features grew from {before:.3g} to {now:.3g}"
    return ""


def _varies(probabilities: FloatArray) -> bool:
    return bool(np.ptp(probabilities, axis=0).max() > 0)


def _one_class(outcome: HealOutcome) -> str:
    """Why the decisions have collapsed, or nothing: all rows get one class, and did not before."""
    before, after = (
        np.unique(p >= 0.5 if p.ndim == 1 else p.argmax(axis=1))
        for p in (outcome.probabilities_before, outcome.probabilities_after)
    )
    return "every row gets the same class" if len(after) == 1 < len(before) else ""


def log_losses(probabilities: FloatArray, y: Any) -> Matrix:
    """Log loss (n,) of each row, from probabilities (n,) or (n, K)."""
    wide = probabilities.astype(np.float64)
    if wide.ndim == 1:
        chosen = np.where(y == 1, wide, 1.0 - wide)
    else:
        chosen = np.take_along_axis(wide, np.asarray(y, dtype=np.int64)[:, None], axis=1)[:, 0]
    losses: Matrix = -np.log(np.maximum(chosen, SMALLEST))
    return losses


def _discounted(
    difference: Matrix, arrival: Any, stands_for: FloatArray | None = None
) -> tuple[float, float]:
    """Mean of paired differences (n,), weighted by arrival (n,) and by the number of rows that each
    ``stands_for`` (n,), and its standard error.
    """
    _, order = np.unique(arrival, return_inverse=True)
    weight = DISCOUNT ** (order.max() - order)
    weight = weight if stands_for is None else weight * stands_for
    weight = weight / weight.sum()
    mean = float(weight @ difference)
    rows = len(difference)
    # of a weighted mean, with the correction n / (n - 1) of a sample's variance
    variance = float((weight**2) @ (difference - mean) ** 2) * rows / max(rows - 1, 1)
    return mean, float(np.sqrt(variance))
