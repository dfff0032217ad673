"""Backbone, adapter and head as one network; and the plain network it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from selfheal_cli.model.adapter import ReflexiveLayer

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

Weights = Mapping[str, Tensor]


class Classifier(Protocol):
    """Anything that turns rows into the probability of the positive class."""

    def predict(self, x: FloatArray) -> FloatArray:
        """(n, d) float32 rows to (n,) probabilities."""


class _Predictor(nn.Module):
    """A module whose forward gives probabilities."""

    def predict(self, x: FloatArray) -> FloatArray:
        """(n, d) float32 rows to (n,) probabilities, without gradients."""
        with torch.inference_mode():
            probabilities: Any = self(torch.from_numpy(x)).numpy()
        return probabilities  # type: ignore[no-any-return]

    def freeze(self) -> None:
        """Evaluation mode, no gradients: from here on the weights stay as they are."""
        self.eval()
        self.requires_grad_(requires_grad=False)


class SelfHealingNetwork(_Predictor):
    """``head(adapter(backbone(x)))``, (n, inputs) to (n,) probabilities.

    With the article's sizes: 13,250 parameters, 8,321 of them in the adapter.
    """

    def __init__(self, backbone: nn.Sequential, adapter: ReflexiveLayer, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapter = adapter
        self.head = head

    @classmethod
    def build(cls, inputs: int, hidden: int) -> SelfHealingNetwork:
        """A network with torch's default initialisation, drawn in the order of the layers."""
        return cls(_backbone(inputs, hidden), ReflexiveLayer(hidden), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities of the positive class."""
        return self.decide(self.adapter(self.backbone(x)))

    def decide(self, features: Tensor) -> Tensor:
        """Adapted features (n, hidden) to probabilities (n,)."""
        return torch.sigmoid(self.head(features)).squeeze(-1)

    @property
    def sizes(self) -> tuple[int, int]:
        """Inputs, and features between backbone and head."""
        first: Any = self.backbone[0]
        return first.in_features, self.head.in_features

    def base_weights(self) -> dict[str, Tensor]:
        """The frozen part: backbone and head."""
        state = self.state_dict()
        return {name: value for name, value in state.items() if not name.startswith("adapter.")}

    def with_adapter(self, weights: Weights) -> SelfHealingNetwork:
        """A frozen network with an adapter of its own that shares this one's backbone and head.

        The weights are taken over, not copied. Raises RuntimeError where names or shapes differ.
        """
        with torch.device("meta"):  # no memory, no draw from the generator
            adapter = ReflexiveLayer(self.head.in_features)
        adapter.load_state_dict(dict(weights), assign=True)
        twin = SelfHealingNetwork(self.backbone, adapter, self.head)
        twin.freeze()
        return twin


class PlainNetwork(_Predictor):
    """The same sizes without an adapter: the article's baseline and shadow."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.backbone = _backbone(inputs, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities of the positive class, (n,)."""
        return torch.sigmoid(self.head(self.backbone(x))).squeeze(-1)


def rebuild(inputs: int, hidden: int, base: Weights, adapter: Weights) -> SelfHealingNetwork:
    """A frozen network from stored weights; raises RuntimeError where names or shapes differ."""
    with torch.device("meta"):
        network = SelfHealingNetwork.build(inputs, hidden)
    stored = {**base, **{f"adapter.{name}": value for name, value in adapter.items()}}
    network.load_state_dict(stored, assign=True)
    network.freeze()
    return network


def use_one_thread() -> None:
    """Networks this small are faster on one thread, and the same bytes come out each time."""
    torch.set_num_threads(1)


def _backbone(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
