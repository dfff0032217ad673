"""What every peer does: predict, then learn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.model.network import Classifier, SelfHealingNetwork
from selfheal_cli.model.training import Adam, cross_entropy
from selfheal_cli.sources.base import Source
from selfheal_cli.sources.synthetic import POSITIVE_MEAN, V14, posterior

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray


class Peer(Protocol):
    """A model of two classes that sees each batch before its labels."""

    def predict(self, x: FloatArray) -> FloatArray:
        """(n, inputs) to the probability of class 1, (n,) float32."""

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """Labels that came with a batch, of rows predicted before: (n, inputs) and (n,)."""


MakePeer = Callable[[int, Source], Peer]  # from a seed and the stream, whose training part it knows
LAST = 10  # batches behind the label rate


class Frozen:
    """No heal: the network as trained."""

    def __init__(self, network: Classifier) -> None:
        self._network = network

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        return self._network.predict(x)

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """Nothing."""


class Constant:
    """Every row gets one probability: 0 flags nothing."""

    def __init__(self, probability: float) -> None:
        self._probability = probability

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        return np.full(len(x), self._probability, dtype=np.float32)

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """Nothing."""


class Posterior:
    """The limit: the generator's own fraud posterior under its drift; no model can do better."""

    def __init__(self, settings: SyntheticSettings) -> None:
        share = settings.stream_positive_share
        self._share = settings.positive_share if share is None else share
        self._mean = POSITIVE_MEAN + settings.positive_shift
        self._drift = settings.drift_strength

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        v14 = x[:, V14].astype(np.float64)
        return posterior(v14, self._drift, self._share, self._mean).astype(np.float32)

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """Nothing."""


class LabelRate:
    """The share of positives among the last ten labelled batches."""

    def __init__(self, trained_share: float) -> None:
        self._trained = trained_share
        self._last: deque[tuple[int, int]] = deque(maxlen=LAST)

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        rows = sum(count for count, _ in self._last)
        share = sum(positive for _, positive in self._last) / rows if rows else self._trained
        return np.full(len(x), share, dtype=np.float32)

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """See `Peer`."""
        self._last.append((len(y), int((y == 1).sum())))


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
