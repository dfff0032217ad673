"""The adapters: a new one is a class here and a line in `KINDS`, or comes from another package.

tests/model/test_adapters.py checks each against the contract. Sources: ``reflexive``, the article
(see docs/article.md); ``lora``, Hu et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.installed import choices, load, part_of, require, take_over
from selfheal_cli.model.adapter import Adapter, Room
from selfheal_cli.model.allowed import require_allowed
from selfheal_cli.model.mixture import MixtureAdapter

REFLEXIVE, AFFINE, LORA, MIXTURE = "reflexive", "affine", "lora", "mixture"
DEFAULT_RANK = 4
MAX_RANK = 4_096


class Unchanged(Adapter):
    """In place of an adapter that is idle, inside a frozen backbone."""

    def forward(self, features: Tensor) -> Tensor:
        """The features themselves."""
        return features


class AffineAdapter(Adapter):
    """``h + D (V f + u)`` before the head, ``x * scale + shift`` before the backbone.

    ``f`` (n, features) begins with ``h`` (n, hidden), the features that the head reads. With
    ``D`` (hidden, outputs) the pseudo-inverse of the head's weights, ``V f + u`` is added to the
    logits and nothing else happens. It starts as identity: V, u and shift zero, scale one.
    """

    def __init__(self, inputs: int, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, features))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.direction = nn.Parameter(torch.zeros(hidden, outputs))
        self.scale = nn.Parameter(torch.ones(inputs))
        self.shift = nn.Parameter(torch.zeros(inputs))

    def around(self, tensors: Mapping[str, Tensor]) -> Self:
        """As `Adapter.around`, without a deep copy, since every heal makes several."""
        copied = copy(self)
        copied._parameters = {
            name: nn.Parameter(value, requires_grad=False) for name, value in tensors.items()
        }
        copied.training = False
        return copied

    @classmethod
    def identity(cls, room: Room) -> Self:
        """One that changes nothing; the caller fills in ``direction``, by the head's weights."""
        return cls(room.inputs, room.width, room.hidden, room.outputs)

    def learning(self) -> dict[str, nn.Parameter]:
        """The parameters of the logits' correction; moving inputs has no gradient in features."""
        return {"weight": self.weight, "bias": self.bias}

    @property
    def is_idle(self) -> bool:
        """Whether it is the identity still."""
        return not (self.aligns or self.weight.any() or self.bias.any())

    @property
    def aligns(self) -> bool:
        """Whether ``scale`` or ``shift`` is not that of the identity."""
        return bool((self.scale != 1).any() or (self.shift != 0).any())

    def align(self, x: Tensor) -> Tensor:
        """Inputs (n, inputs), moved back to the scale of training."""
        return x * self.scale + self.shift if len(self.scale) else x

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, features) to the head's input (n, hidden)."""
        hidden = features[:, : self.direction.shape[0]]
        added = nn.functional.linear(features, self.weight, self.bias)
        return hidden + nn.functional.linear(added, self.direction)


class LowRank(Adapter):
    """``y + up (down x)``: the output of a layer ``y = W x + b`` with W + up down for its weights.

    Features (n, features) hold ``x`` and ``y`` of each row or token beside one another, the frozen
    layer's input and output; (n, hidden) values of ``y`` go on. ``down`` (rank, taken) is drawn as
    in the paper; ``up`` (width - taken, rank) starts at zero, and with it the update. The paper's
    factor alpha / rank is 1.
    """

    def __init__(self, room: Room, rank: int) -> None:
        super().__init__()
        self.room = room
        self.down = nn.Parameter(torch.empty(rank, room.taken))
        self.up = nn.Parameter(torch.zeros(room.width - room.taken, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    @classmethod
    def identity(cls, room: Room, rank: int = DEFAULT_RANK) -> Self:
        """One whose update is zero."""
        return cls(room, rank)

    def forward(self, features: Tensor) -> Tensor:
        """The updated layer's output."""
        rows = self.room.apart(features)
        x, y = rows[:, : self.room.taken], rows[:, self.room.taken :]
        low = nn.functional.linear(x, self.down)
        return self.room.together(y + nn.functional.linear(low, self.up), len(features))


class ReflexiveLayer(Adapter):
    """``h + scale * (W2 tanh(W1 h + b1) + b2)``: a correction on top of the backbone's features.

    ``scale`` starts at 0.1, so that the layer begins close to identity. Tokens and pixels are
    corrected one by one, by the same weights. Takes and returns (n, hidden). Source: the article
    "Self-healing neural networks" (see docs/article.md).
    """

    def __init__(self, width: int, room: Room | None = None) -> None:
        super().__init__()
        self.room = room or Room.flat(width)
        self.adapter = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
        self.scale = nn.Parameter(torch.tensor(0.1))

    @classmethod
    def of(cls, room: Room) -> Self:
        """One with torch's default initialisation, as it is trained with the network."""
        return cls(room.width, room)

    @classmethod
    def identity(cls, room: Room) -> Self:
        """One that changes nothing until it has learned: its last matrix is zero."""
        layer = cls.of(room)
        for parameter in layer.adapter[2].parameters():
            nn.init.zeros_(parameter)
        return layer

    @property
    def is_idle(self) -> bool:
        """Whether the last matrix and its bias are zero."""
        return not any(bool(one.any()) for one in self.adapter[2].parameters())

    def forward(self, features: Tensor) -> Tensor:
        """Corrected features."""
        flat = len(self.room.sizes) == 1  # nothing to take apart
        rows = features if flat else self.room.apart(features)
        corrected: Tensor = rows + self.scale * self.adapter(rows)
        return corrected if flat else self.room.together(corrected, len(features))


@dataclass(frozen=True, slots=True)
class AdapterKind:
    """The properties of an adapter that wrapping and the commands depend on.

    ``on``: it goes on a linear layer, whose input and output it both needs; others go before a
    layer. ``at_the_end``: it goes before the linear layer that gives the logits, and nowhere else.
    ``ranked``: its name may carry a rank, as in ``lora:8``. ``wraps``: a model may be wrapped with
    it; otherwise a recipe brings it.
    """

    identity: Callable[..., Adapter]
    on: bool = False
    at_the_end: bool = False
    ranked: bool = False
    wraps: bool = True


KINDS = {
    REFLEXIVE: AdapterKind(ReflexiveLayer.identity),
    AFFINE: AdapterKind(AffineAdapter.identity, at_the_end=True),
    LORA: AdapterKind(LowRank.identity, on=True, ranked=True),
    MIXTURE: AdapterKind(MixtureAdapter.identity, at_the_end=True, wraps=False),
}


class OwnAdapter(Adapter):
    """A module of another package as one of ours; it knows nothing of selfheal.

    Raises `PartError` for what cannot be stored: anything but float32 parameters.
    """

    def __init__(self, name: str, room: Room) -> None:
        super().__init__()
        part = load("adapter", name)
        try:
            module = part(room)
        except Exception as exc:
            raise part_of("adapter", name).failed(exc) from exc
        if not isinstance(module, nn.Module):
            raise part_of("adapter", name).failed(f"is {type(module).__name__}, not a torch module")
        learning = dict(module.named_parameters())
        for tensor, value in module.state_dict().items():
            if tensor not in learning or value.dtype != torch.float32:
                raise part_of("adapter", name).failed(
                    f"keeps '{tensor}' ({value.dtype}): float32 parameters alone are stored"
                )
        self.module = module

    def forward(self, features: Tensor) -> Tensor:
        """What the module gives."""
        adapted: Tensor = self.module(features)
        return adapted


def _own(name: str) -> AdapterKind:
    """An adapter of another package, or a class that a program handed over, by its module's name;
    raises `ConfigurationError` where there is none.
    """
    module = name.rpartition(".")[0]
    if module and name not in choices("adapter"):
        require_allowed(module)
        take_over("adapter", name)
    require("adapter", name)
    return AdapterKind(partial(OwnAdapter, name))


@dataclass(frozen=True, slots=True)
class Chosen:
    """An adapter as a user names it: ``reflexive``, ``affine``, ``lora`` or ``lora:RANK``."""

    name: str
    kind: AdapterKind
    rank: int | None = None

    def build(self, room: Room) -> Adapter:
        """One that changes nothing yet; draws from torch's global generator."""
        build = self.kind.identity if self.rank is None else partial(self.kind.identity,
                                                                     rank=self.rank)  # fmt: skip
        return build(room)

    def __str__(self) -> str:
        return self.name if self.rank is None else f"{self.name}:{self.rank}"


def parse_adapter(text: str) -> Chosen:
    """The adapter that a text names; raises `ConfigurationError` with the allowed ones."""
    name, colon, rank = text.partition(":")
    kind = KINDS.get(name) or _own(name)
    if not colon:
        return Chosen(name, kind, DEFAULT_RANK if kind.ranked else None)
    if not kind.ranked:
        raise ConfigurationError(f"adapter '{text}': {name} has no rank; give '{name}' alone")
    if not (rank.isascii() and rank.isdigit() and 1 <= int(rank) <= MAX_RANK):
        raise ConfigurationError(
            f"adapter '{text}': the rank is a whole number from 1 to {MAX_RANK:,}, as in {name}:8"
        )
    return Chosen(name, kind, int(rank))
