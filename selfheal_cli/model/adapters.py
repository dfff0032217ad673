"""The adapters, the room that one is put into, and `KINDS`: a new one is a class and a line there.

tests/model/test_adapters.py holds each to the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from selfheal_cli.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Room:
    """What an adapter is given and hands on, of one row.

    ``sizes`` of the features as the network computes them: (d,), (tokens, d) or (channels, h, w);
    they are kept flattened, (n, prod(sizes)). ``axis`` of ``sizes`` along which one thing (a
    token, a pixel) is described. ``hidden`` values go to what comes next; ``inputs`` is the width
    of the network's rows and ``outputs`` that of its logits. ``taken``: the first so many values
    along the axis are what a layer takes, the others what it gives; 0: they are not told apart.
    """

    inputs: int
    outputs: int
    sizes: tuple[int, ...]
    hidden: int
    axis: int = -1
    taken: int = 0

    @property
    def width(self) -> int:
        """Values that describe one token, pixel or row."""
        return self.sizes[self.axis]

    def apart(self, features: Tensor) -> Tensor:
        """Features (n, prod(sizes)), each token or pixel on its own: (m, width)."""
        if len(self.sizes) == 1:
            return features
        table = features.reshape(len(features), *self.sizes)
        return table.movedim(self._place, -1).reshape(-1, self.width)

    def together(self, rows: Tensor, count: int) -> Tensor:
        """The inverse of `apart` for ``count`` rows, whatever the width has become."""
        if len(self.sizes) == 1:
            return rows
        others = [size for place, size in enumerate(self.sizes, 1) if place != self._place]
        table = rows.reshape(count, *others, rows.shape[-1]).movedim(-1, self._place)
        return table.reshape(count, -1)

    @property
    def _place(self) -> int:
        return self.axis % len(self.sizes) + 1

    @classmethod
    def flat(cls, width: int) -> Room:
        """Rows of ``width`` values before a layer."""
        return cls(width, 1, (width,), width)


class Adapter(nn.Module):
    """The only part that learns after deployment.

    ``forward`` takes the backbone's features (n, features) and gives what comes next reads
    (n, hidden).
    """

    def around(self, tensors: Mapping[str, Tensor]) -> Self:
        """A frozen copy with these tensors for parameters, taken over and not copied."""
        known = dict(self.named_parameters())
        own = {}
        for name, value in tensors.items():
            own[id(known[name])] = nn.Parameter(value, requires_grad=False)
        copied: Self = deepcopy(self, own)
        copied.training = False
        return copied

    def learning(self) -> dict[str, nn.Parameter]:
        """The parameters that gradient steps move, by name."""
        return dict(self.named_parameters())

    @property
    def aligns(self) -> bool:
        """Whether it moves inputs, so that the frozen backbone's features are not what counts."""
        return False

    def align(self, x: Tensor) -> Tensor:
        """Inputs (n, inputs) on their way into the backbone; most adapters leave them alone."""
        return x


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
        """See `Adapter`; a flat module needs no deep copy, and every heal makes several."""
        copied = copy(self)
        copied._parameters = {
            name: nn.Parameter(value, requires_grad=False) for name, value in tensors.items()
        }
        copied.training = False
        return copied

    @classmethod
    def identity(cls, room: Room) -> Self:
        """One that changes nothing; ``direction`` is for whoever knows the head to fill in."""
        return cls(room.inputs, room.width, room.hidden, room.outputs)

    def learning(self) -> dict[str, nn.Parameter]:
        """See `Adapter`: what is added to the logits; moving inputs has no gradient in features."""
        return {"weight": self.weight, "bias": self.bias}

    @property
    def aligns(self) -> bool:
        """See `Adapter`."""
        return bool((self.scale != 1).any() or (self.shift != 0).any())

    def align(self, x: Tensor) -> Tensor:
        """Inputs moved back to where training had them."""
        return x * self.scale + self.shift

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, features) to what the head reads (n, hidden)."""
        hidden = features[:, : self.direction.shape[0]]
        added = nn.functional.linear(features, self.weight, self.bias)
        return hidden + nn.functional.linear(added, self.direction)


DEFAULT_RANK = 4


class LowRank(Adapter):
    """``y + up (down x)``: what a layer ``y = W x + b`` gives with W + up down for its weights.

    Features (n, features) hold ``x`` and ``y`` of each row or token beside one another, as the
    frozen layer took and gave them; (n, hidden) values of ``y`` go on. ``down`` (rank, taken) is
    drawn as in the paper, ``up`` (given, rank) starts at zero, so the update does. The paper's
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
        """What the updated layer gives."""
        rows = self.room.apart(features)
        x, y = rows[:, : self.room.taken], rows[:, self.room.taken :]
        low = nn.functional.linear(x, self.down)
        return self.room.together(y + nn.functional.linear(low, self.up), len(features))


class ReflexiveLayer(Adapter):
    """``h + scale * (W2 tanh(W1 h + b1) + b2)``: a correction on top of the backbone's features.

    ``scale`` starts at 0.1, so that the layer begins close to identity. Tokens and pixels are
    corrected one by one, by the same weights. Takes and returns (n, hidden). Source: the article
    "Self-healing neural networks" (see README).
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

    def forward(self, features: Tensor) -> Tensor:
        """Corrected features."""
        flat = len(self.room.sizes) == 1  # nothing to take apart
        rows = features if flat else self.room.apart(features)
        corrected: Tensor = rows + self.scale * self.adapter(rows)
        return corrected if flat else self.room.together(corrected, len(features))


REFLEXIVE, AFFINE, LORA = "reflexive", "affine", "lora"
MAX_RANK = 4_096


@dataclass(frozen=True, slots=True)
class AdapterKind:
    """What the rest of the house must know of an adapter.

    ``on``: it goes on a linear layer, whose input and output it both needs; others go before a
    layer. ``at_the_end``: only the linear layer that gives the logits will do. ``ranked``: its
    name may carry a rank, as in ``lora:8``.
    """

    identity: Callable[..., Adapter]
    on: bool = False
    at_the_end: bool = False
    ranked: bool = False


KINDS = {
    REFLEXIVE: AdapterKind(ReflexiveLayer.identity),
    AFFINE: AdapterKind(AffineAdapter.identity, at_the_end=True),
    LORA: AdapterKind(LowRank.identity, on=True, ranked=True),
}


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
    """Raises `ConfigurationError` naming what is allowed."""
    name, colon, rank = text.partition(":")
    kind = KINDS.get(name)
    if kind is None:
        known = ", ".join(f"{one}[:RANK]" if k.ranked else one for one, k in KINDS.items())
        raise ConfigurationError(f"adapter '{text}' is not known; allowed: {known}")
    if not colon:
        return Chosen(name, kind, DEFAULT_RANK if kind.ranked else None)
    if not kind.ranked:
        raise ConfigurationError(f"adapter '{text}': {name} has no rank; give '{name}' alone")
    if not (rank.isascii() and rank.isdigit() and 1 <= int(rank) <= MAX_RANK):
        raise ConfigurationError(
            f"adapter '{text}': the rank is a whole number from 1 to {MAX_RANK:,}, as in {name}:8"
        )
    return Chosen(name, kind, int(rank))
