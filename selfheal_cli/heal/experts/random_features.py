"""Random features of the inputs, so that what is linear in them is curved in the inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from selfheal_cli.moments import floored

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

RANDOM = 128  # features
EACH = 3  # inputs in each of them
SEED = 14


def draw_features(x: FloatArray) -> tuple[Tensor, Tensor]:
    """Weights (random, inputs) and bias (random,) of ``relu(W x + b)``, by training rows ``x``.

    Each takes three inputs, standardised, with normal weights; it bends at one of the rows.
    Inputs that are constant there count as spread like the others: they may vary later.
    """
    wide = x.astype(np.float64)
    mean, sd = wide.mean(axis=0), wide.std(axis=0)
    varying = sd > 0
    scale = np.where(varying, floored(sd), np.median(sd[varying]) if varying.any() else 1.0)
    draw = np.random.default_rng(SEED)
    weight = np.zeros((RANDOM, x.shape[1]))
    bias = np.zeros(RANDOM)
    for feature in range(RANDOM):
        taken = draw.choice(len(sd), size=min(EACH, len(sd)), replace=False)
        drawn = draw.normal(size=len(taken)) / np.sqrt(EACH)
        weight[feature, taken] = drawn / scale[taken]
        projected = (wide[:, taken] - mean[taken]) / scale[taken] @ drawn
        # minus the value where it bends, of the standardised row, and of the row as it comes
        bend = np.quantile(projected, draw.random())
        bias[feature] = -bend - mean[taken] @ weight[feature, taken]
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()


def no_features(inputs: int) -> tuple[Tensor, Tensor]:
    """Weights and bias of none, for inputs that are no measured columns."""
    return torch.zeros(0, inputs), torch.zeros(0)
