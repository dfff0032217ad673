"""What every peer does: predict, then learn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.model.network import Classifier, SelfHealingNetwork
from selfheal_cli.model.training import Adam, cross_entropy
from selfheal_cli.sources.base import Source
from selfheal_cli.sources.synthetic import POSITIVE_MEAN, V14, posterior

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray


class Peer(Protocol):
    """A model that sees each batch before its labels."""

    def predict(self, x: FloatArray) -> FloatArray:
        """(n, inputs) to the probability of class 1, (n,) float32; of more classes (n, K)."""

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
    """Every row gets the same answer: shares of the classes; all of the first flags nothing."""

    def __init__(self, shares: Sequence[float]) -> None:
        self._shares = tuple(shares)

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        return _everywhere(self._shares, len(x))

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
    """The classes' shares among the last ten labelled batches."""

    def __init__(self, trained: Sequence[int]) -> None:
        self._trained = np.array(trained)
        self._last: deque[NDArray[np.int64]] = deque(maxlen=LAST)

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        counts = np.sum(self._last, axis=0) if self._last else self._trained
        return _everywhere((counts / counts.sum()).tolist(), len(x))

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """See `Peer`."""
        self._last.append(np.bincount(y, minlength=len(self._trained)))


def _everywhere(shares: Sequence[float], rows: int) -> FloatArray:
    """The same for all rows: (n,) of class 1, or (n, K)."""
    one = np.asarray(shares[1] if len(shares) == 2 else shares, dtype=np.float32)
    answers: FloatArray = np.tile(one, (rows, 1)) if one.ndim else np.full(rows, one)
    return answers


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
