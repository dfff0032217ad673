"""``aligned``: without labels, where only the inputs' means and standard deviations moved.

Each input is moved back to the mean and standard deviation that it had in training, before the
backbone gets it. Where that was all that happened, each input's distribution has the shape that it
had in training; where it has not, the assumption is false and the heal is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import HealRefused
from selfheal_cli.heal.anchor import Anchor, quantiles
from selfheal_cli.heal.recipes.unmoved import require_moved
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask, require_finite
from selfheal_cli.model.network import SelfHealingNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

    Matrix = NDArray[np.float64]

FALSIFIED = 1.5  # largest rho: where the assumption holds, 1 of 25 windows exceeds it
SMALLEST = 1e-6  # standard deviation below which an input is not stretched


class Aligned:
    """A `Recipe` for networks whose backbone gives the inputs beside the features."""

    def __init__(self, network: SelfHealingNetwork, anchor: Anchor, settings: HealSettings) -> None:
        self._network = network
        self._anchor = anchor
        self._strictly = settings.assume_strictly

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """As `Recipe.heal`. Measures ``rho``, how far the inputs' shapes are from training's."""
        size = self._network.architecture
        features = task.rows.features[:, : size.plain]
        if self._strictly:
            require_moved(self._anchor, features)
        x = features[:, size.hidden :]
        mean, sd = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        varies = sd > SMALLEST
        scale = np.where(varies, self._anchor.input_sd / np.where(varies, sd, 1.0), 1.0)
        shift = np.where(varies, self._anchor.input_mean - mean * scale, 0.0)
        start = self._network.adapter.state_dict()
        folded = {
            **start,
            "scale": torch.from_numpy(scale.astype(np.float32)),
            "shift": torch.from_numpy(shift.astype(np.float32)),
        }
        require_finite(folded, task, "check the rows of the window")
        rho = self._rho(x, mean, sd)
        if not rho <= FALSIFIED:
            raise HealRefused(
                f"--assume inputs-shifted does not hold on the last {len(x):,} rows: an input's "
                f"distribution has another shape than in training, rho {rho:.2f} is above "
                f"{FALSIFIED:g}; wait for labels"
            )
        return HealOutcome(
            task,
            AdapterState(folded, {}),
            self._network.with_adapter(before.weights).predict(x),
            self._network.with_adapter(folded).predict(x),
            {"rho": rho},
        )

    def _rho(self, x: FloatArray, mean: Matrix, sd: Matrix) -> float:
        """The largest mean distance of an input's quantiles from training's, once both are
        standardised, in sampling errors.
        """
        anchor, rows = self._anchor, len(x)
        current = quantiles(x, mean, np.where(sd > SMALLEST, sd, 1.0))
        gap = np.abs(current - anchor.input_quantiles).mean(axis=0)
        # both quantiles are of samples: their errors add up as those of two means do
        trained = float(anchor.quantile_rows[0])
        return float(np.sqrt(rows * trained / (rows + trained)) * gap.max())
