"""Rows as the anchored recipes' regression sees them, and its answer as an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selfheal_cli.heal.anchor import Anchor
from selfheal_cli.model.network import SelfHealingNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

    Matrix = NDArray[np.float64]


class Design:
    """Rows as the regression sees them: [(f - mean) / sd, standardised frozen logits, 1].

    ``columns`` is features + outputs + 1. The frozen logits stand apart so that they can be
    scaled as a whole with hardly any penalty (Platt 1999).
    """

    def __init__(self, network: SelfHealingNetwork, anchor: Anchor) -> None:
        self.network = network
        self.anchor = anchor
        size = network.architecture
        self.features, self.outputs = size.features, size.outputs
        self.columns = size.features + size.outputs + 1
        self._head, self._bias = (one.numpy() for one in network.linear_head())
        self._inverse = _tensor(np.linalg.pinv(self._head))

    def offset(self, features: FloatArray) -> Matrix:
        """Logits (n, outputs) before any heal."""
        hidden = self._head.shape[1]
        found: Matrix = features[:, :hidden].astype(np.float64) @ self._head.T + self._bias
        return found

    def rows(self, features: FloatArray, offset: Matrix) -> Matrix:
        """(n, columns) float64."""
        a = np.empty((len(features), self.columns))
        np.subtract(features, self.anchor.mean, out=a[:, : self.features])
        a[:, : self.features] /= self.anchor.sd
        a[:, self.features : -1] = (offset - self.anchor.logit_mean) / self.anchor.logit_sd
        a[:, -1] = 1.0
        return a

    def fold(self, theta: Matrix) -> dict[str, Tensor]:
        """The affine adapter that adds ``rows @ theta`` (columns, outputs) to the logits."""
        anchor, size = self.anchor, self.network.architecture
        on_features = theta[: self.features] / anchor.sd[:, None]
        on_logits = theta[self.features : -1] / anchor.logit_sd[:, None]
        constant = (
            theta[-1] - anchor.mean @ on_features + (self._bias - anchor.logit_mean) @ on_logits
        )
        on_features[: size.hidden] += self._head.T @ on_logits
        return {
            "weight": _tensor(on_features.T),
            "bias": _tensor(constant),
            "direction": self._inverse,
            "scale": torch.ones(size.inputs),
            "shift": torch.zeros(size.inputs),
        }


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
