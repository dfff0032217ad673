"""The affine adapter: what the anchored recipe folds its answer into."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Self

import torch
from torch import Tensor, nn

from selfheal_cli.model.adapters.base import Adapter, Room


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
