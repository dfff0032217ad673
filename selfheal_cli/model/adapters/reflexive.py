"""The ReflexiveLayer, the article's adapter."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from selfheal_cli.model.adapters.base import Adapter, Room


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
        rows = self.room.apart(features)
        corrected: Tensor = rows + self.scale * self.adapter(rows)
        return self.room.together(corrected, len(features))
