"""The adapter of recipe ``ensemble``: several experts, and how much each one counts."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from selfheal_cli.model.adapter import Adapter, Room
from selfheal_cli.model.boosters import boosters_of, probabilities

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

LEAST = 1e-3  # probability that an expert may give: one that is sure and wrong costs no more
LINEAR = 17  # experts that are linear in the features
TREES = 2  # experts that are boosted trees
HIDDEN = 64  # units in each hidden layer of the network that learns
BYTES = ("trees",)  # tensors that hold text


class MixtureAdapter(Adapter):
    """``sum_k share_k p_k``: the frozen network, linear corrections of its logits, and trees.

    ``weight`` (linear, margins, features) and ``bias`` (linear, margins) are added to ``begins``
    (linear,) times the frozen margins, the logit of class 1 or those of the classes against the
    first: 1 corrects them, 0 begins without. ``share`` (experts,) sums to 1. ``trees`` are the
    texts of LightGBM's, in bytes; where there is none, its share is the frozen network's. The first
    share is the frozen network's and the last those of the trees, which read the columns ``read``
    of the features. As built all is the frozen network's, which then decides as it did, bit for
    bit. ``network`` holds, in a row, the `layers` of a network that reads what the trees do; where
    there is one its share is the last of all. ``scale`` and ``shift`` (inputs,) move the inputs
    before the backbone, where there are any.
    """

    answers: ClassVar[bool] = True
    texts: ClassVar[tuple[str, ...]] = ("trees", "network", "share", "scale", "shift")

    def __init__(self, features: int, hidden: int, outputs: int, read: slice) -> None:
        super().__init__()
        self.hidden, self.read = hidden, read
        margins = max(1, outputs - 1)
        share = torch.zeros(1 + LINEAR + TREES)
        share[0] = 1.0
        self.share = nn.Parameter(share)
        self.weight = nn.Parameter(torch.zeros(LINEAR, margins, features))
        self.bias = nn.Parameter(torch.zeros(LINEAR, margins))
        self.begins = nn.Parameter(torch.ones(LINEAR))
        self.trees = nn.Parameter(torch.zeros(0, dtype=torch.uint8), requires_grad=False)
        self.network = nn.Parameter(torch.zeros(0), requires_grad=False)
        self.scale = nn.Parameter(torch.zeros(0))
        self.shift = nn.Parameter(torch.zeros(0))
        self._alone = True
        self._boosters: tuple[Any, ...] = ()

    @classmethod
    def identity(cls, room: Room) -> Self:
        """One that changes nothing yet."""
        read = read_by_trees(room.hidden, room.inputs, room.width)
        return cls(room.width, room.hidden, room.outputs, read)

    def around(self, tensors: Mapping[str, Tensor]) -> Self:
        """As `Adapter.around`, without a deep copy, since every heal makes several."""
        copied = copy(self)
        copied._parameters = {
            name: nn.Parameter(value, requires_grad=False) for name, value in tensors.items()
        }
        copied.training = False
        copied._take_in()
        return copied

    def _load_from_state_dict(self, state: Any, prefix: str, *others: Any) -> None:
        for name in self.texts:  # as long as they are in what is loaded
            if f"{prefix}{name}" in state:
                empty = torch.empty_like(state[f"{prefix}{name}"])
                setattr(self, name, nn.Parameter(empty, requires_grad=False))
        super()._load_from_state_dict(state, prefix, *others)
        if not self.share.is_meta:
            self._take_in()

    def _take_in(self) -> None:
        """Know what the tensors say: whether anything was learned, and the trees."""
        self._alone = bool(self.share[0] == 1.0)
        self._boosters = boosters_of(self.trees)

    def learning(self) -> dict[str, nn.Parameter]:
        """None: it is fitted, and no gradient moves it."""
        return {}

    @property
    def aligns(self) -> bool:
        """Whether it moves inputs."""
        return len(self.scale) > 0

    def align(self, x: Tensor) -> Tensor:
        """Inputs (n, inputs), moved back to the scale of training."""
        return x * self.scale + self.shift if len(self.scale) else x

    def forward(self, features: Tensor) -> Tensor:
        """The head's input as the frozen network has it."""
        return features[:, : self.hidden]

    def answer(self, frozen: Tensor, logits: Tensor, features: Tensor) -> Tensor:
        """As `Adapter.answer`."""
        if self._alone:
            return frozen
        x, others = features[:, self.read], [frozen] * TREES
        if self._boosters:
            wide = x.double().numpy()
            others = [frozen if one is None else _of_trees(one, wide) for one in self._boosters]
        if len(self.network):
            others.append(_of_margins(self._of_network(x), frozen))
        p = self._known(frozen, logits, features)
        p = torch.cat([p, torch.stack(others, dim=1)], dim=1)
        if frozen.ndim == 1:
            return p.clamp(LEAST, 1.0 - LEAST) @ self.share
        p = p.clamp(min=LEAST / (p.shape[-1] - 1))
        return torch.einsum("nec,e->nc", p / p.sum(dim=-1, keepdim=True), self.share)

    def _known(self, frozen: Tensor, logits: Tensor, features: Tensor) -> Tensor:
        """Probabilities of the frozen network and the linear experts, (n, 1 + linear) or with a
        last dimension of K classes.
        """
        linear, margins, _ = self.weight.shape
        moved = nn.functional.linear(features, self.weight.flatten(0, 1), self.bias.flatten())
        begun = margins_of(logits)[:, None, :] * self.begins[:, None]
        moved = moved.view(-1, linear, margins) + begun
        return torch.cat([frozen[:, None], _of_margins(moved, frozen)], dim=1)

    def _of_network(self, x: Tensor) -> Tensor:
        """Margins (n, margins) by the network, of what it reads (n, d)."""
        shapes = layers(x.shape[1], self.bias.shape[1])
        parts = torch.split(self.network, [torch.Size(shape).numel() for shape in shapes])
        first, b1, second, b2, last, b3 = (
            part.view(shape) for part, shape in zip(parts, shapes, strict=True)
        )
        hidden = torch.relu(nn.functional.linear(x, first, b1))
        return nn.functional.linear(torch.relu(nn.functional.linear(hidden, second, b2)), last, b3)


def layers(inputs: int, margins: int) -> list[tuple[int, ...]]:
    """Shapes of weights and constants of the network that learns, layer by layer."""
    widths = ((HIDDEN, inputs), (HIDDEN, HIDDEN), (margins, HIDDEN))
    return [shape for width in widths for shape in (width, width[:1])]


def _of_margins(margins: Tensor, frozen: Tensor) -> Tensor:
    """Probabilities as ``frozen`` has them, of class 1 or (..., K), by margins (..., margins)."""
    if frozen.ndim == 1:
        return torch.sigmoid(margins[..., 0])
    return torch.softmax(nn.functional.pad(margins, (1, 0)), dim=-1)


def _of_trees(booster: Any, x: FloatArray) -> Tensor:
    return torch.from_numpy(probabilities(booster, x)).float()


def read_by_trees(hidden: int, inputs: int, features: int) -> slice:
    """The features that trees read: the inputs, or the frozen features where these are all there
    is. Random features, if any, come after the inputs and are fewer than inputs that are not there.
    """
    beside = 0 < inputs <= features - hidden
    return slice(hidden, hidden + inputs) if beside else slice(0, hidden)


def margins_of(logits: Tensor) -> Tensor:
    """Logits (n, 1), or (n, K) against the first class: (n, max(1, K - 1))."""
    return logits if logits.shape[1] == 1 else logits[:, 1:] - logits[:, :1]


class RandomFeatures(nn.Module):
    """A frozen network's features, and beside them ``relu(W x + b)`` of its inputs.

    ``W`` (random, inputs) has three values a row other than zero.
    """

    def __init__(self, backbone: nn.Module, inputs: int, random: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.random = nn.Linear(inputs, random)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (n, inputs) to (n, features + random)."""
        return torch.cat([self.backbone(x), torch.relu(self.random(x))], dim=1)
