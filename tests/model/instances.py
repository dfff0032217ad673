"""Models as they come out of a program: built by arguments that nobody kept, changed afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class Renamed(nn.Module):
    """Attributes of other names than the arguments, a function, tensors in a list, a lock."""

    def __init__(self, n_in: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(n_in, 12), nn.Linear(14, 1)
        self.activation = activation
        self.mean = torch.full((n_in,), 0.1)
        self.knots = [torch.linspace(-1, 1, 2)]
        self.shared = nn.ModuleList([self.fc1])
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1) logits."""
        hidden = self.activation(self.fc1(x - self.mean))
        near = torch.cat([torch.exp(-((x[:, :1] - knots) ** 2)) for knots in self.knots], 1)
        logits: Tensor = self.fc2(torch.cat([hidden, near], 1))
        return logits


class Added(nn.Module):
    """Two ways that are added at the end: no layer gives the logits."""

    def __init__(self, last: Callable[[Tensor], Tensor] = nn.Identity()) -> None:  # noqa: B008
        super().__init__()
        self.wide = nn.Linear(8, 1)
        self.deep = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1)."""
        given: Tensor = self.last(self.wide(x) + self.deep(x))
        return given


class Recurrent(nn.Module):
    """Steps of time; its forward gives the states as well."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(1, 8, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two logits and what is no answer a row."""
        states, last = self.rnn(x.unsqueeze(-1))
        return self.out(states[:, -1]), last


class TwoInputs(nn.Module):
    """Five numbers and three tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.out = nn.Sequential(nn.Linear(14, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, numbers: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Three logits and the hidden values."""
        joined = torch.cat([numbers, self.embedding(tokens).flatten(1)], 1)
        return {"hidden": joined, "score": self.out(joined)}


class InHalf(nn.Module):
    """Computes in bfloat16 under autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(8, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Two logits."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.out(torch.relu(self.inner(x))).float()  # type: ignore[no-any-return]


@dataclass
class Fitted:
    """As skorch keeps it."""

    module_: nn.Module


class Odd(nn.Module):
    """One linear layer, and something that no service wants."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.lock = threading.Lock()
        self.out = nn.Linear(8, 1)
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Any:
        """By its kind."""
        if self.kind == "running":
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
            x = x - self.mean
        if self.kind == "dropout":
            x = nn.functional.dropout(x, 0.5)
        if self.kind == "batch":
            x = x - x.mean(0)
        if self.kind == "nan":
            x = torch.log(x)
        if self.kind == "half":
            return self.out(x[: len(x) // 2])
        return self.out(x)


def replaced() -> nn.Module:
    """A head that its constructor does not make, by a function that nobody can import."""
    net = Renamed(8, torch.tanh)
    net.fc2 = nn.Sequential(nn.Linear(14, 6), nn.ReLU(), nn.Linear(6, 2))  # type: ignore[assignment]
    return net


def small_network(inputs: int) -> nn.Sequential:
    """The same one each time, of two classes, that learned nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, 1)).eval()


def doubled(inputs: int = 3) -> nn.Module:
    """What its first layer gives is doubled by a hook, which is no layer and no attribute."""
    network = small_network(inputs=inputs)
    network[0].register_forward_hook(lambda _module, _given, values: 2 * values)
    return network
