"""Backbone, adapter and head as one network; and the plain network it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from selfheal_cli.model import foreign
from selfheal_cli.model.adapter import Adapter, ReflexiveLayer
from selfheal_cli.model.affine import AffineAdapter

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

Weights = Mapping[str, Tensor]
AdapterKind = Literal["reflexive", "affine"]


class Classifier(Protocol):
    """Anything that turns rows into probabilities."""

    def predict(self, x: FloatArray) -> FloatArray:
        """(n, d) float32 rows to (n,) probabilities of class 1, or (n, K) for K > 2 classes."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a network's tensors are. ``outputs`` is 1 for two classes, else their number.

    ``beside``: the backbone gives its inputs beside the features, for the adapter to use.
    ``foreign``: the network is another's, as `foreign.Foreign` has it; None: it is our own.
    """

    inputs: int
    hidden: int
    outputs: int = 1
    adapter: AdapterKind = "reflexive"
    beside: bool = False
    foreign: Mapping[str, Any] | None = None

    @property
    def features(self) -> int:
        """Width of what the backbone gives to the adapter."""
        return self.hidden + (self.inputs if self.beside else 0)

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the base's document."""
        found = asdict(self)
        if self.foreign is None:
            del found["foreign"]
        return found


class _Predictor(nn.Module):
    """A module whose forward gives probabilities."""

    def predict(self, x: FloatArray) -> FloatArray:
        """(n, d) float32 rows to probabilities, (n,) or (n, K), without gradients."""
        with torch.inference_mode():
            probabilities: Any = self(torch.from_numpy(x)).numpy()
        return probabilities  # type: ignore[no-any-return]

    def freeze(self) -> None:
        """Evaluation mode, no gradients: from here on the weights stay as they are."""
        self.eval()
        self.requires_grad_(requires_grad=False)


class AnchoredBackbone(nn.Module):
    """The trained backbone with its trained ReflexiveLayer, frozen together.

    Gives (n, hidden), or with ``beside`` (n, hidden + inputs).
    """

    def __init__(self, trunk: nn.Module, reflexive: ReflexiveLayer, *, beside: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.reflexive = reflexive
        self.beside = beside

    def forward(self, x: Tensor) -> Tensor:
        """What the frozen head sees before any heal."""
        features: Tensor = self.reflexive(self.trunk(x))
        return torch.cat([features, x], dim=1) if self.beside else features


class SelfHealingNetwork(_Predictor):
    """``head(adapter(backbone(adapter.align(x))))``, (n, inputs) to probabilities.

    With the article's sizes: 13,250 parameters, 8,321 of them in the adapter.
    """

    def __init__(
        self, architecture: Architecture, backbone: nn.Module, adapter: Adapter, head: nn.Linear
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = backbone
        self.adapter = adapter
        self.head = head

    @classmethod
    def build(cls, architecture: Architecture) -> SelfHealingNetwork:
        """A network with torch's default initialisation, drawn in the order of the layers."""
        size = architecture
        head: nn.Linear | None = None
        if size.foreign is None:
            trunk: nn.Module = _trunk(size.inputs, size.hidden)
        else:
            trunk, head = foreign.build(foreign.Foreign.model_validate(size.foreign))
        if size.adapter == "affine":
            frozen = ReflexiveLayer(size.hidden)
            backbone: nn.Module = AnchoredBackbone(trunk, frozen, beside=size.beside)
        else:
            backbone = trunk
        adapter = _adapter(size)
        return cls(size, backbone, adapter, head or nn.Linear(size.hidden, size.outputs))

    def anchored(self, *, beside: bool) -> SelfHealingNetwork:
        """A twin that decides as this one, bit for bit, with an affine adapter on its features."""
        if not isinstance(self.adapter, ReflexiveLayer):
            raise TypeError("only a network with a ReflexiveLayer can be anchored")
        size = replace(self.architecture, adapter="affine", beside=beside)
        backbone = AnchoredBackbone(self.backbone, self.adapter, beside=beside)
        adapter = _adapter(size)
        adapter.direction = nn.Parameter(torch.linalg.pinv(self.head.weight.double()).float())
        twin = SelfHealingNetwork(size, backbone, adapter, self.head)
        twin.freeze()
        return twin

    def unanchored(self) -> SelfHealingNetwork:
        """The inverse of `anchored`: the network with its trained ReflexiveLayer as its adapter."""
        if not isinstance(self.backbone, AnchoredBackbone):
            raise TypeError("only an anchored network can be unanchored")
        size = replace(self.architecture, adapter="reflexive", beside=False)
        twin = SelfHealingNetwork(size, self.backbone.trunk, self.backbone.reflexive, self.head)
        twin.freeze()
        return twin

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities: of class 1 (n,), or of each class (n, K)."""
        return self.decide(self.adapter(self.backbone(self.adapter.align(x))))

    def decide(self, adapted: Tensor) -> Tensor:
        """Adapted features (n, hidden) to probabilities, (n,) or (n, K)."""
        return as_probabilities(self.head(adapted))

    def features(self, x: FloatArray) -> FloatArray:
        """What the frozen backbone makes of rows (n, inputs): (n, features) float32."""
        with torch.inference_mode():
            found: Any = self.backbone(torch.from_numpy(x)).numpy()
        return found  # type: ignore[no-any-return]

    def predict_features(self, features: FloatArray) -> FloatArray:
        """Probabilities of rows whose features (n, features) are known.

        An adapter that moves inputs takes them from beside the features.
        """
        if self.adapter.aligns:
            return self.predict(np.ascontiguousarray(features[:, self.architecture.hidden :]))
        with torch.inference_mode():
            found: Any = self.decide(self.adapter(torch.from_numpy(features))).numpy()
        return found  # type: ignore[no-any-return]

    def base_weights(self) -> dict[str, Tensor]:
        """The frozen part: backbone and head."""
        state = self.state_dict()
        return {name: value for name, value in state.items() if not name.startswith("adapter.")}

    def with_adapter(self, weights: Weights) -> SelfHealingNetwork:
        """A network with a frozen adapter of its own that shares this frozen one's other parts.

        The weights are taken over, not copied. Raises RuntimeError where names or shapes differ.
        """
        _require_fit(dict(self.adapter.named_parameters()), weights)
        adapter = self.adapter.around(weights)
        twin = SelfHealingNetwork(self.architecture, self.backbone, adapter, self.head)
        twin.training = False  # backbone and head are frozen already
        return twin


class PlainNetwork(_Predictor):
    """The same sizes without an adapter: the article's baseline and shadow."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = _trunk(architecture.inputs, architecture.hidden)
        self.head = nn.Linear(architecture.hidden, architecture.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities, (n,) or (n, K)."""
        return as_probabilities(self.head(self.backbone(x)))


def _require_fit(known: Weights, given: Weights) -> None:
    """Raise RuntimeError where names or shapes differ."""
    odd = sorted(known.keys() ^ given.keys())
    if odd:
        state = "missing" if odd[0] in known else "unexpected"
        raise RuntimeError(f"{state} weight '{odd[0]}'; expected: {', '.join(known)}")
    for name, value in given.items():
        if value.shape != known[name].shape:
            shapes = f"{tuple(value.shape)}, expected {tuple(known[name].shape)}"
            raise RuntimeError(f"size mismatch: '{name}' has shape {shapes}")


def as_probabilities(logits: Tensor) -> Tensor:
    """(n, 1) or (n, 2) logits to the probability of class 1 (n,); (n, K) to (n, K)."""
    if logits.shape[-1] == 1:
        return torch.sigmoid(logits).squeeze(-1)
    probabilities = torch.softmax(logits, dim=-1)
    return probabilities[:, 1] if logits.shape[-1] == 2 else probabilities


def rebuild(architecture: Architecture, base: Weights, adapter: Weights) -> SelfHealingNetwork:
    """A frozen network from stored weights; raises RuntimeError where names or shapes differ."""
    with torch.device("meta"):
        network = SelfHealingNetwork.build(architecture)
    stored = {**base, **{f"adapter.{name}": value for name, value in adapter.items()}}
    network.load_state_dict(stored, assign=True)
    if any(buffer.is_meta for buffer in network.buffers()):  # computed by a constructor, not stored
        network = SelfHealingNetwork.build(architecture)
        network.load_state_dict(stored, assign=True)
    network.freeze()
    return network


def use_one_thread() -> None:
    """Networks this small are faster on one thread, and the same bytes come out each time.

    The same holds for numpy's linear algebra: threads that wait for a busy core cost seconds.
    """
    torch.set_num_threads(1)
    threadpool_limits(limits=1, user_api="blas")


def _trunk(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())


def _adapter(size: Architecture) -> Any:
    if size.adapter == "affine":
        return AffineAdapter(size.inputs, size.features, size.hidden, size.outputs)
    return ReflexiveLayer(size.hidden)
