"""Backbone, adapter and head as one network; and the plain network it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from selfheal_cli.model import cutting
from selfheal_cli.model.adapter import Adapter
from selfheal_cli.model.adapters import (
    AFFINE,
    MIXTURE,
    REFLEXIVE,
    ReflexiveLayer,
    Unchanged,
    parse_adapter,
)
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.extent import MOST_BESIDE, MOST_COLUMNS, is_one_tensor
from selfheal_cli.model.interface import WHOLE
from selfheal_cli.model.mixture import RandomFeatures
from selfheal_cli.model.segmented import SegmentedAdapter
from selfheal_cli.segment_keys import CODE_COLUMNS

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

Weights = Mapping[str, Tensor]
DRAWN = 1e-3  # of another model's probabilities, so that those of 0 and 1 have a logit


class Classifier(Protocol):
    """Anything that turns rows into probabilities."""

    def predict(self, x: FloatArray) -> FloatArray:
        """(n, d) float32 rows to (n,) probabilities of class 1, or (n, K) for K > 2 classes."""


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

    def __init__(self, trunk: nn.Module, reflexive: Adapter, *, beside: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.reflexive = reflexive
        self.beside = beside

    def forward(self, x: Tensor) -> Tensor:
        """The features that the frozen head gets before any heal."""
        features: Tensor = self.reflexive(self.trunk(x))
        return torch.cat([features, x], dim=1) if self.beside else features


class OwnLogits(nn.Module):
    """In place of a backbone where another model gave the probabilities, the last inputs of a row.

    Gives (n, outputs + inputs): their logits, and the inputs beside them. A probability of 0 has no
    logit, so all are drawn towards the middle by a share of `DRAWN`, which keeps their order.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (n, inputs) to features."""
        own = x[:, -self.outputs :].double()
        if self.outputs == 1:
            logits = torch.logit(DRAWN / 2 + (1 - DRAWN) * own)
        else:
            logits = torch.log(DRAWN / self.outputs + (1 - DRAWN) * own)
        return torch.cat([logits.float(), x], dim=1)


class NoBackbone(nn.Module):
    """In place of a backbone where only features are scored, never rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Raises `RuntimeError`."""
        raise RuntimeError(f"{len(x)} rows came to a network that was given no backbone")


class SelfHealingNetwork(_Predictor):
    """``head(adapter(backbone(adapter.align(x))))``, (n, inputs) to probabilities.

    With the article's sizes: 13,250 parameters, 8,321 of them in the adapter.
    """

    def __init__(
        self, architecture: Architecture, backbone: nn.Module, adapter: Adapter, head: nn.Module
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = backbone
        self.adapter = adapter
        self.head = head

    @classmethod
    def build(cls, architecture: Architecture) -> SelfHealingNetwork:
        """A network with torch's default initialisation, drawn in the order of the layers."""
        size, other = architecture, architecture.other
        head: nn.Module | None = None
        if size.scored:
            head = nn.Linear(size.outputs, size.outputs)
            trunk: nn.Module = OwnLogits(size.outputs)
        elif other is None:
            trunk = _trunk(size.inputs, size.hidden)
        else:
            trunk, head = cutting.build(other)
        backbone = trunk
        if size.behind and not size.scored:
            frozen = ReflexiveLayer(size.hidden)
            backbone = AnchoredBackbone(trunk, frozen, beside=size.beside)
        if size.random:
            backbone = RandomFeatures(backbone, size.inputs, size.random)
        adapter = _adapter(size)
        return cls(size, backbone, adapter, head or nn.Linear(size.hidden, size.outputs))

    def anchored(self, *, beside: bool, adapter: str = AFFINE) -> SelfHealingNetwork:
        """A twin that decides as this one, bit for bit, with an adapter of another kind, which
        changes nothing yet, on its features.

        Raises `TypeError` for another network than a ReflexiveLayer before a linear head.
        """
        if not (isinstance(self.adapter, ReflexiveLayer) and self.ends_in_linear):
            raise TypeError("only a network with a ReflexiveLayer before a linear head is anchored")
        moves = not is_one_tensor(self.architecture.foreign)
        size = replace(self.architecture, adapter=adapter, beside=beside, moves=moves)
        backbone = AnchoredBackbone(self.backbone, self.adapter, beside=beside)
        identity = _adapter(size)
        if adapter == AFFINE:
            weight, _ = self.linear_head()
            identity.direction = nn.Parameter(torch.linalg.pinv(weight).float())
        twin = SelfHealingNetwork(size, backbone, identity, self.head)
        twin.freeze()
        return twin

    def mixed(self, weight: Tensor, bias: Tensor) -> SelfHealingNetwork:
        """A twin that decides as this one, bit for bit, with a mixture for its adapter, which
        changes nothing yet, and random features beside the others: ``weight`` (random, inputs) and
        ``bias`` (random,) of `RandomFeatures`.
        """
        size = replace(self.architecture, adapter=MIXTURE, random=len(bias))
        backbone = RandomFeatures(self.backbone, size.inputs, size.random) if size.random else None
        if backbone is not None:
            backbone.random.load_state_dict({"weight": weight, "bias": bias})
        twin = SelfHealingNetwork(size, backbone or self.backbone, _adapter(size), self.head)
        twin.freeze()
        return twin

    def keyed(self) -> SelfHealingNetwork:
        """A twin that takes rows which end in what says their segment, and leaves that out."""
        size = replace(self.architecture, keyed=True)
        twin = SelfHealingNetwork(size, self.backbone, self.adapter, self.head)
        twin.training = self.training
        return twin

    def segmented(self, directions: Sequence[int]) -> SelfHealingNetwork:
        """A twin that decides as this one, bit for bit, with room for adapters of segments' own."""
        size = replace(self.architecture, directions=tuple(directions))
        own = SegmentedAdapter(self.adapter, size.directions, max(1, size.outputs - 1))
        twin = SelfHealingNetwork(size, self.backbone, own, self.head)
        twin.freeze()
        return twin

    @property
    def whole(self) -> SelfHealingNetwork:
        """The network with the adapter for all rows alone; its features say no segment."""
        if not isinstance(self.adapter, SegmentedAdapter):
            return self
        size = replace(self.architecture, directions=())
        twin = SelfHealingNetwork(size, self.backbone, self.adapter.whole, self.head)
        twin.training = False
        return twin

    @classmethod
    def around_scores(cls, inputs: int, outputs: int) -> SelfHealingNetwork:
        """A frozen network for probabilities that another model gave, the last of ``inputs``.

        Its features are their logits and the inputs; its affine adapter changes nothing yet.
        """
        size = Architecture(inputs, outputs, outputs, AFFINE, beside=True, scored=True)
        network = cls.build(size)
        identity = torch.eye(outputs)
        state = network.state_dict()
        state.update({"head.weight": identity, "adapter.direction": identity.clone()})
        state["head.bias"].zero_()
        network.load_state_dict(state)
        network.freeze()
        return network

    @property
    def may_look_beside(self) -> bool:
        """Whether the inputs may be features as well: they are few, and no token numbers; another
        model's probabilities among them do not move as the columns do that they come from.
        """
        few = self.architecture.inputs <= MOST_BESIDE
        return few and self.measures and not self.architecture.scored

    @property
    def measures(self) -> bool:
        """Whether no input is a whole number, as that of a token."""
        other = self.architecture.other
        return other is None or all(one.dtype not in WHOLE for one in other.called.inputs)

    @property
    def has_columns(self) -> bool:
        """Whether its inputs are columns of a table: not one tensor of more values than that."""
        columns = not is_one_tensor(self.architecture.foreign)
        return columns and self.architecture.inputs <= MOST_COLUMNS

    @property
    def ends_in_linear(self) -> bool:
        """Whether the layer after the adapter is the linear one that gives the logits."""
        return isinstance(self.head, nn.Linear)

    def linear_head(self) -> tuple[Tensor, Tensor]:
        """Weights (outputs, hidden) and bias (outputs,) of a linear head, float64.

        Raises `TypeError` for another head.
        """
        if not isinstance(self.head, nn.Linear):
            raise TypeError(f"the head is a {type(self.head).__name__}, not a linear layer")
        weight = self.head.weight.detach().double()
        bias: Tensor | None = self.head.bias
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach().double()

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities: of class 1 (n,), or of each class (n, K)."""
        if self.architecture.keyed:
            features = self._keyed_features(x, self.adapter.align)
        else:
            features = self.backbone(self.adapter.align(x))
        return self._answer(self.adapter(features), features)

    def _keyed_features(self, x: Tensor, align: Callable[[Tensor], Tensor]) -> Tensor:
        """The backbone's, and what says the segment where adapters of segments read it."""
        features: Tensor = self.backbone(align(x[:, :-CODE_COLUMNS].contiguous()))
        if not isinstance(self.adapter, SegmentedAdapter):
            return features
        return torch.cat([features, x[:, -CODE_COLUMNS:]], dim=1)

    def decide(self, adapted: Tensor) -> Tensor:
        """Adapted features (n, hidden) to probabilities, (n,) or (n, K)."""
        return as_probabilities(self.head(adapted))

    def _answer(self, adapted: Tensor, features: Tensor, adapter: Adapter | None = None) -> Tensor:
        """Probabilities by features before and after the adapter.

        Where another model gave them and the adapter changes nothing they are that model's own,
        also at 0 and 1, of which there are no logits.
        """
        by = self.adapter if adapter is None else adapter
        if isinstance(by, SegmentedAdapter):
            plain = features[:, :-CODE_COLUMNS].contiguous()
            return by.by_segment(self._answer(adapted, plain, by.whole), features)
        if by.answers:
            logits = self.head(adapted)
            return by.answer(self._frozen(features, logits), logits, features)
        healed = self.decide(adapted)
        if not self.architecture.scored:
            return healed
        size = self.architecture.outputs
        own, same = features[:, -size:], (adapted == features[:, :size]).all(dim=1)
        if size == 1:
            return torch.where(same, own[:, 0], healed)
        return torch.where(same[:, None], own, healed)

    def _frozen(self, features: Tensor, logits: Tensor) -> Tensor:
        """The probabilities of the network as trained, by its features and its logits."""
        if not self.architecture.scored:
            return as_probabilities(logits)
        size = self.architecture.outputs
        own = features[:, self.architecture.features - self.architecture.random - size :][:, :size]
        return own[:, 0] if size == 1 else own

    def features(self, x: FloatArray) -> FloatArray:
        """The frozen backbone's features (n, features) float32 of rows (n, inputs); with adapters
        of segments (n, features + 2), the last two say which.
        """
        given = torch.from_numpy(x)
        with torch.inference_mode():
            if self.architecture.keyed:
                features: Any = self._keyed_features(given, _as_they_are)
            else:
                features = self.backbone(given)
        return features.numpy()  # type: ignore[no-any-return]

    def predict_features(self, features: FloatArray) -> FloatArray:
        """Probabilities of rows whose features (n, features) are known.

        An adapter that moves inputs takes them from beside the features.
        """
        if self.adapter.aligns:
            size = self.architecture
            return self.predict(np.ascontiguousarray(features[:, size.hidden : size.plain]))
        with torch.inference_mode():
            given = torch.from_numpy(features)
            probabilities: Any = self._answer(self.adapter(given), given).numpy()
        return probabilities  # type: ignore[no-any-return]

    def without_backbone(self) -> SelfHealingNetwork:
        """The same adapter and head without the backbone, for callers that have features."""
        return SelfHealingNetwork(self.architecture, NoBackbone(), self.adapter, self.head)

    def for_scoring(self) -> SelfHealingNetwork:
        """A frozen twin that gives the same probabilities by fewer layers: a ReflexiveLayer that
        never learned is two matrices of the features' width, and half of a small network's time.
        """
        backbone, adapter = self.backbone, self.adapter
        # another model's probabilities are answered as they are, which the whole network sees to
        idle = adapter.is_idle and not self.architecture.scored
        if isinstance(backbone, AnchoredBackbone):
            reflexive = Unchanged() if backbone.reflexive.is_idle else backbone.reflexive
            beside = backbone.beside and not idle
            backbone = AnchoredBackbone(backbone.trunk, reflexive, beside=beside)
        kind = SelfHealingNetwork if adapter.aligns else _Unhealed if idle else _Unmoved
        twin = kind(self.architecture, backbone, adapter, self.head)
        twin.training = False  # its parts are frozen already
        return twin

    def base_weights(self) -> dict[str, Tensor]:
        """The frozen part: backbone and head."""
        state = self.state_dict()
        return {name: value for name, value in state.items() if not name.startswith("adapter.")}

    def with_adapter(self, weights: Weights) -> SelfHealingNetwork:
        """A network with a frozen adapter of its own that shares this frozen one's other parts.

        The weights are taken over, not copied. Raises `RuntimeError` where names or shapes differ.
        """
        _require_fit(dict(self.adapter.named_parameters()), weights, self.adapter.texts)
        adapter = self.adapter.around(weights)
        twin = SelfHealingNetwork(self.architecture, self.backbone, adapter, self.head)
        twin.training = False  # backbone and head are frozen already
        return twin


class _Unhealed(SelfHealingNetwork):
    """One whose adapter is idle, which so is not asked."""

    def forward(self, x: Tensor) -> Tensor:
        """As of `SelfHealingNetwork`."""
        keyed = self.architecture.keyed
        features = self._keyed_features(x, _as_they_are) if keyed else self.backbone(x)
        return self.decide(features)


class _Unmoved(SelfHealingNetwork):
    """One whose adapter leaves the inputs alone, and so is not asked about them."""

    def forward(self, x: Tensor) -> Tensor:
        """As of `SelfHealingNetwork`."""
        keyed = self.architecture.keyed
        features = self._keyed_features(x, _as_they_are) if keyed else self.backbone(x)
        return self._answer(self.adapter(features), features)


class PlainNetwork(_Predictor):
    """The same sizes without an adapter: the article's baseline and shadow."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.inputs = architecture.inputs
        self.backbone = _trunk(architecture.inputs, architecture.hidden)
        self.head = nn.Linear(architecture.hidden, architecture.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities, (n,) or (n, K)."""
        return as_probabilities(self.head(self.backbone(x[:, : self.inputs].contiguous())))


def _as_they_are(x: Tensor) -> Tensor:
    return x


def _require_fit(known: Weights, given: Weights, texts: Collection[str]) -> None:
    """Raise `RuntimeError` where names or shapes differ; ``texts`` have no shape to fit."""
    odd = sorted(known.keys() ^ given.keys())
    if odd:
        state = "missing" if odd[0] in known else "unexpected"
        raise RuntimeError(f"{state} weight '{odd[0]}'; expected: {', '.join(known)}")
    for name, value in given.items():
        if value.shape != known[name].shape and name not in texts:
            shapes = f"{tuple(value.shape)}, expected {tuple(known[name].shape)}"
            raise RuntimeError(f"size mismatch: '{name}' has shape {shapes}")


def as_probabilities(logits: Tensor) -> Tensor:
    """(n, 1) or (n, 2) logits to the probability of class 1 (n,); (n, K) to (n, K)."""
    if logits.shape[-1] == 1:
        return torch.sigmoid(logits).squeeze(-1)
    probabilities = torch.softmax(logits, dim=-1)
    return probabilities[:, 1] if logits.shape[-1] == 2 else probabilities


def rebuild(
    architecture: Architecture, base: Weights, adapter: Weights, *, backbone: bool = True
) -> SelfHealingNetwork:
    """A frozen network from stored weights; without its ``backbone`` it takes features only.

    Raises `RuntimeError` where names or shapes differ.
    """

    def build() -> SelfHealingNetwork:
        network = SelfHealingNetwork.build(architecture)
        return network if backbone else network.without_backbone()

    stored = {**base, **{f"adapter.{name}": value for name, value in adapter.items()}}
    other = architecture.other
    computed = other is not None and other.computes
    if not computed:
        # without values, so that the layers' random initialisation is not paid for
        with torch.device("meta"):
            network = build()
        network.load_state_dict(stored, assign=True)
        # 0.1.0 did not write down that a constructor computes buffers that are not stored
        computed = any(buffer.is_meta for buffer in network.buffers())
    if computed:
        network = build()
        network.load_state_dict(stored, assign=True)
    network.freeze()
    return network


def unshared(weights: Weights) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory, as layers with tied weights do."""
    separate: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for name, weight in weights.items():
        value = weight.contiguous()
        address = value.untyped_storage().data_ptr()
        separate[name] = value.clone() if address in addresses else value
        addresses.add(address)
    return separate


def _trunk(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())


def _adapter(size: Architecture) -> Any:
    """The adapter before training; a reflexive one is trained with the network: no identity."""
    one = (
        ReflexiveLayer.of(size.room)
        if size.adapter == REFLEXIVE
        else parse_adapter(size.adapter).build(size.room)
    )
    if not size.directions:
        return one
    return SegmentedAdapter(one, size.directions, max(1, size.outputs - 1))
