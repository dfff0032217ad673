"""What the linear experts see of a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.heal.anchor import Anchor, frozen_logits
from selfheal_cli.model.mixture import read_by_trees
from selfheal_cli.model.network import SelfHealingNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

    Matrix = NDArray[np.float64]
    Places = NDArray[np.intp]

MOST_INPUTS = 256  # inputs that a filter takes beside the frozen features; of more, the best


class ExpertDesign:
    """The design matrix of all linear experts: [standardised features, standardised margins, 1].

    The features are the frozen ones, the inputs where they lie beside them, and random ones. Each
    expert takes some of the ``columns``: ``tail`` are margins and intercept, ``plain`` and
    ``random`` places of features (with the tail), ``alone`` those of inputs and the intercept.
    """

    def __init__(self, network: SelfHealingNetwork, anchor: Anchor) -> None:
        size = network.architecture
        self._network, self._anchor = network, anchor
        self.margins = max(1, size.outputs - 1)
        self.features = size.features
        self.columns = size.features + self.margins + 1
        self.inputs = slice(size.hidden, size.hidden + size.inputs if size.beside else size.hidden)
        self.read = read_by_trees(size.hidden, size.moved, size.features)
        self.reads = self.read.stop - self.read.start
        self.tail = np.arange(size.features, self.columns)
        first_random = size.features - size.random
        inputs = self._best_inputs()
        self.plain = np.concatenate([np.arange(size.hidden), inputs, self.tail])
        self.alone = np.concatenate([inputs, self.tail[-1:]])
        self.random = np.concatenate([np.arange(first_random, size.features), self.tail])
        self._center, self._spread = _of_margins(anchor)
        self._head, self._bias = _margins_of_head(network)

    def margin(self, features: FloatArray) -> Matrix:
        """The frozen logit of class 1 (n, 1), or those of the classes against the first (n, K - 1),
        of features (n, features).
        """
        logits = frozen_logits(self._network, features)
        return logits if logits.shape[1] == 1 else logits[:, 1:] - logits[:, :1]

    def rows(self, features: FloatArray, margin: Matrix) -> Matrix:
        """The design matrix (n, columns), float64."""
        a = np.empty((len(features), self.columns))
        np.subtract(features, self._anchor.mean, out=a[:, : self.features])
        a[:, : self.features] /= self._anchor.sd
        a[:, self.features : -1] = (margin - self._center) / self._spread
        a[:, -1] = 1.0
        return a

    def fold(self, theta: Matrix) -> tuple[Matrix, Matrix]:
        """Weights (margins, features) of the features as they come, and a constant (margins,), that
        add ``rows @ theta`` to the margins, theta (columns, margins).
        """
        anchor, head, bias = self._anchor, self._head, self._bias
        on_features = theta[: self.features] / anchor.sd[:, None]
        on_margins = theta[self.features : -1] / self._spread[:, None]
        constant = theta[-1] - anchor.mean @ on_features + (bias - self._center) @ on_margins
        on_features[: head.shape[1]] += head.T @ on_margins
        return on_features.T, constant

    def _best_inputs(self) -> Places:
        """Places of the inputs, at most `MOST_INPUTS`: those whose classes lie furthest apart."""
        places = np.arange(self.inputs.start, self.inputs.stop)
        if len(places) <= MOST_INPUTS:
            return places
        anchor = self._anchor
        apart = np.abs((anchor.class_mean - anchor.mean) / anchor.sd).max(axis=0)[places]
        return np.sort(places[np.argsort(-apart, kind="stable")[:MOST_INPUTS]])


def _margins_of_head(network: SelfHealingNetwork) -> tuple[Matrix, Matrix]:
    """Weights (margins, hidden) and bias (margins,) that give the frozen margins."""
    head, bias = (tensor.numpy() for tensor in network.linear_head())
    return (head, bias) if len(head) == 1 else (head[1:] - head[:1], bias[1:] - bias[:1])


def _of_margins(anchor: Anchor) -> tuple[Matrix, Matrix]:
    """Mean and spread (margins,) of the frozen margins in training."""
    mean, sd = anchor.logit_mean, anchor.logit_sd
    if len(mean) == 1:
        return mean, sd
    return mean[1:] - mean[:1], np.hypot(sd[1:], sd[:1])
