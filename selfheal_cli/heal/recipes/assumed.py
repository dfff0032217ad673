"""``assumed``: without labels, where one class and the base rate are as they were in training.

The mean of y a(x) over labelled rows is all that the anchored fit needs of the labels. Where the
positives (or the negatives) and the base rate are as in training, it is known without any label.
The fit then must reproduce it; where it cannot, the assumption is false and the heal is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import HealRefused
from selfheal_cli.heal.anchor import BINS, Anchor, Design
from selfheal_cli.heal.recipes.unmoved import require_moved
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask, require_finite
from selfheal_cli.logistic import fit, sigmoid
from selfheal_cli.model.network import SelfHealingNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

# largest rho: where positives are stable it is about 0.1 to 0.7, at 500 rows up to 1.2; where
# negatives are, a chance excess of the window goes straight into the target: less is tolerated
FALSIFIED = {"positives-stable": 1.5, "negatives-stable": 0.7}
RIDGE = 100.0  # stronger than with labels: the target is known, the rows' part in it is not
MISSING = 4.0  # standard errors by which rows of a class may be too few
INPUTS_RIDGE = 1e6  # inputs beside the features stay out: they bring variance and no label
LIGHT = 1e-3  # penalty of the intercept


class Assumed:
    """A `Recipe`: fits the logits so that the mean of y a(x) is what the assumption implies."""

    def __init__(self, network: SelfHealingNetwork, anchor: Anchor, settings: HealSettings) -> None:
        self._network = network
        self._anchor = anchor
        self._assume = settings.assume or "positives-stable"
        self._strictly = settings.assume_strictly
        self._design = Design(network, anchor)
        hidden = network.architecture.hidden
        self._ridge = np.full(self._design.columns, RIDGE)
        self._ridge[hidden : self._design.features] = INPUTS_RIDGE
        self._ridge[-2:] = (RIDGE, LIGHT)

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """As `Recipe.heal`. Measures ``rho``, the distance from what the assumption implies."""
        design, rows = self._design, task.rows
        offset = design.offset(rows.features)
        a = design.rows(rows.features, offset)
        if self._strictly:
            require_moved(self._anchor, rows.features[:, : design.features])
            self._require_rows_of_the_class(offset[:, 0])
        target = self._target(a)
        theta = fit(a, offset, target[:, None], self._ridge, np.zeros((design.columns, 1)))
        rho = self._rho(a, sigmoid(offset + a @ theta)[:, 0], target)
        most = FALSIFIED[self._assume]
        if not rho <= most:  # NaN is refused as well
            raise HealRefused(
                f"--assume {self._assume} does not hold on the last {len(rows):,} rows: "
                f"rho {rho:.2f} is above {most:g}; wait for labels"
            )
        folded = design.fold(theta)
        require_finite(folded, task, "check the rows of the window")
        return HealOutcome(
            task,
            AdapterState(folded, {}),
            self._network.with_adapter(before.weights).predict_features(rows.features),
            self._network.with_adapter(folded).predict_features(rows.features),
            {"rho": rho},
        )

    def _require_rows_of_the_class(self, margin: Matrix) -> None:
        """Where a class is as it was, so many rows at least are where it was: others only add.

        Its training rows fell into `BINS` ranges of the frozen logit alike; neighbours are looked
        at together, too, since a class that moved is missing from several.
        """
        label = 1 if self._assume == "positives-stable" else 0
        edges = self._anchor.margin_quantiles
        if not edges.size:
            return
        place = np.searchsorted(edges[label], margin, side="right")
        below = np.r_[0, np.cumsum(np.bincount(place, minlength=BINS))]
        first, last = np.triu_indices(BINS + 1, 1)
        rows, share = below[last] - below[first], (last - first) / BINS
        expected = len(margin) * self._anchor.class_share[label]
        trained = self._anchor.quantile_rows[0] * self._anchor.class_share[label]
        least = expected * share
        # the ranges are of a sample, too
        error = np.sqrt(least + expected**2 * share * (1 - share) / trained)
        worst = int(np.argmax((least - rows) / error))
        if least[worst] - rows[worst] > MISSING * error[worst]:
            raise HealRefused(
                f"--assume {self._assume} does not hold on the last {len(margin):,} rows: "
                f"{rows[worst]:,} of them are where {least[worst]:,.0f} of its class would be; "
                "wait for labels"
            )

    def _class_row(self, label: int) -> Matrix:
        """Mean of a(x) over a class of the training rows, (columns,)."""
        features = self._anchor.class_mean[label][None, :]
        row: Matrix = self._design.rows(features, self._design.offset(features))[0]
        return row

    def _target(self, a: Matrix) -> Matrix:
        """The mean of y a(x), (columns,), that the assumption implies."""
        negative, positive = self._anchor.class_share
        if self._assume == "positives-stable":
            return np.asarray(positive * self._class_row(1))
        return np.asarray(a.mean(axis=0) - negative * self._class_row(0))

    def _rho(self, a: Matrix, p: Matrix, target: Matrix) -> float:
        """Distance between the fit's mean of y a(x) and the target, in sampling errors."""
        kept = np.r_[0 : self._network.architecture.hidden, self._design.columns - 1]
        share = self._anchor.class_share[1 if self._assume == "positives-stable" else 0]
        gap = (p @ a / len(a) - target)[kept]
        # a's columns have variance 1 in training, the intercept none
        return float(np.linalg.norm(gap) / np.sqrt(share * (len(kept) - 1) / len(a)))
