"""Full fine-tuning: every weight of the network goes on training on each labelled batch."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch

from selfheal_cli.model.adam import Adam
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.training import cross_entropy

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

STEPS = 5  # as many as a heal of the article's


class FineTune:
    """Adam at the training's learning rate; its moments go on from batch to batch."""

    def __init__(self, network: SelfHealingNetwork, learning_rate: float) -> None:
        self._network = deepcopy(network)
        self._network.requires_grad_(requires_grad=True)
        named = dict(self._network.named_parameters())
        self._optimiser = Adam(named, learning_rate=learning_rate)

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        return self._network.predict(x)

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """See `Peer`."""
        rows, labels = torch.from_numpy(x), torch.from_numpy(y).float()
        for _ in range(STEPS):
            self._optimiser.zero_grad()
            loss = cross_entropy(self._network(rows), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
