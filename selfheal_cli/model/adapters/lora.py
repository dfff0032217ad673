"""A low-rank update of one linear layer (Hu et al. 2022, "LoRA")."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from selfheal_cli.model.adapters.base import Adapter, Room

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
