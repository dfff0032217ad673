"""Ordinary networks whose constructors or forwards do what a description cannot foresee."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Sliced(nn.Module):
    """Feeds a slice of tokens to a linear layer, as an FT-Transformer's last block does: torch
    folds the product otherwise where a weight wants a gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Linear(8, 7 * 24)
        self.inner = nn.Linear(24, 32)
        self.out = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 8) to (n, 1)."""
        tokens = torch.tanh(self.spread(x)).reshape(len(x), 7, 24)
        logits: Tensor = 4 * self.out(torch.relu(self.inner(tokens[:, :1]))[:, 0])
        return logits


class Stacks(nn.Module):
    """Takes its rows apart, and cannot put none of them together again."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 16)
        self.out = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 8) to (n, 1)."""
        logits: Tensor = self.out(torch.relu(self.inner(torch.stack([row - 1 for row in x]))))
        return logits


class Computes(nn.Module):
    """Its constructor makes values: a plain tensor, and numbers taken out of one."""

    def __init__(self) -> None:
        super().__init__()
        self.places = torch.linspace(-1, 1, 8)
        self.rates = [rate.item() for rate in torch.linspace(0.5, 1.5, 3)]
        self.inner = nn.Linear(8, 16)
        self.out = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 8) to (n, 1)."""
        logits: Tensor = self.out(torch.relu(self.inner(x * self.places)) * sum(self.rates))
        return logits


class PlainTensor(Computes):
    """Only the plain tensor."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.places = torch.linspace(-1, 1, 8)
        self.rates = [1.0, 4.0]
        self.inner = nn.Linear(8, 16)
        self.out = nn.Linear(16, 1)


class Normed(nn.Module):
    """A weight that a hook computes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 16)
        self.out = nn.utils.weight_norm(nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 8) to (n, 1)."""
        logits: Tensor = self.out(torch.relu(self.inner(x)))
        return logits


class Parametrised(nn.Module):
    """The same as torch has it now."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 16)
        self.out = nn.utils.parametrizations.weight_norm(nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 8) to (n, 1)."""
        logits: Tensor = 9 * self.out(torch.relu(self.inner(x)))
        return logits


class Overwrites(Parametrised):
    """Changes the rows that it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, 8) to (n, 1)."""
        return super().forward(x.clamp_(-1, 1))


class ByCount(Parametrised):
    """Gives ``count`` rows otherwise than others: pads them, or fails."""

    def __init__(self, count: int = 7, *, fails: bool = False) -> None:
        super().__init__()
        self.count, self.fails = count, fails

    def forward(self, x: Tensor) -> Tensor:
        """(n, 8) to (n, 1), or a row more."""
        logits = super().forward(x)
        if len(x) != self.count:
            return logits
        if self.fails:
            raise ValueError("no group of this size")
        return torch.cat([logits, logits[:1]])


class Exponential(nn.Module):
    """Overflows on a large value."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 4) to (n, 1)."""
        logits: Tensor = self.out(3 * (torch.exp(x) - torch.exp(-x)))
        return logits


class Fails(nn.Module):
    """Raises something of its own, unless its kind is ``nothing``."""

    def __init__(self, kind: str = "attribute") -> None:
        super().__init__()
        self.kind = kind
        if kind == "constructor":
            raise KeyError("no such group")
        self.out = nn.Linear(8, 1)

    def forward(self, x: Any) -> Any:
        """What the kind says."""
        if self.kind == "attribute":
            return [x].to("cpu")  # type: ignore[attr-defined]
        if self.kind == "nothing":
            return self.out(x)
        raise ZeroDivisionError(self.kind)
