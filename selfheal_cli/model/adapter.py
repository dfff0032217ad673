"""What every adapter is, and the ReflexiveLayer, the article's."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Self

import torch
from torch import Tensor, nn


class Adapter(nn.Module):
    """The only part that learns after deployment.

    ``forward`` takes the backbone's features (n, features) and gives what the head reads
    (n, hidden).
    """

    def around(self, tensors: Mapping[str, Tensor]) -> Self:
        """A frozen copy with these tensors for parameters, taken over and not copied."""
        known = dict(self.named_parameters())
        own = {id(known[n]): nn.Parameter(v, requires_grad=False) for n, v in tensors.items()}
        copied: Self = deepcopy(self, own)
        copied.training = False
        return copied

    @property
    def aligns(self) -> bool:
        """Whether it moves inputs, so that the frozen backbone's features are not what counts."""
        return False

    def align(self, x: Tensor) -> Tensor:
        """Inputs (n, inputs) on their way into the backbone; most adapters leave them alone."""
        return x


class ReflexiveLayer(Adapter):
    """``h + scale * (W2 tanh(W1 h + b1) + b2)``: a correction on top of the backbone's features.

    ``scale`` starts at 0.1, so that the layer begins close to identity. Takes and returns
    (n, width). Source: the article "Self-healing neural networks" (see README).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.adapter = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
        self.scale = nn.Parameter(torch.tensor(0.1))

    @classmethod
    def identity(cls, width: int) -> Self:
        """One that changes nothing until it has learned: its last matrix is zero."""
        layer = cls(width)
        for parameter in layer.adapter[2].parameters():
            nn.init.zeros_(parameter)
        return layer

    def forward(self, features: Tensor) -> Tensor:
        """Corrected features."""
        corrected: Tensor = features + self.scale * self.adapter(features)
        return corrected
