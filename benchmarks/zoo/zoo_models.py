"""Classes as people write them: what the libraries in `cases` do not bring by themselves."""

from __future__ import annotations

import threading
import time
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Answer = namedtuple("Answer", "logits features")


@dataclass
class Scored:
    """An output of several parts."""

    score: Tensor
    hidden: Tensor


class Net(nn.Module):
    """12 features, one hidden layer; ``last`` is its last step, ``form`` what it returns."""

    def __init__(self, last: str = "logit", outputs: int = 1, form: str = "tensor") -> None:
        super().__init__()
        self.last, self.outputs, self.form = last, outputs, form
        self.body = nn.Sequential(nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.1))
        self.out = nn.Linear(24, outputs)

    def forward(self, x: Tensor) -> Any:
        """By ``last`` and ``form``."""
        hidden = self.body(x)
        z = self.out(hidden)
        z = {
            "logit": lambda: z, "flat": lambda: z.squeeze(-1), "squeezed": z.squeeze,
            "sigmoid": lambda: torch.sigmoid(z), "softmax": lambda: torch.softmax(z, -1),
            "log_softmax": lambda: torch.log_softmax(z, -1), "temperature": lambda: z / 1.7,
            "calibrated": lambda: torch.sigmoid(z / 1.7), "tanh": lambda: torch.tanh(z),
            "softplus": lambda: functional.softplus(z), "sigmoids": lambda: torch.sigmoid(z),
            "price": lambda: 1000 + 300 * z, "argmax": lambda: z.argmax(-1),
        }[self.last]()  # fmt: skip
        return {
            "tensor": lambda: z, "dict": lambda: {"logits": z, "hidden": hidden},
            "tuple": lambda: (z, hidden.mean()), "two": lambda: (z, hidden),
            "named": lambda: Answer(z, hidden), "dataclass": lambda: Scored(z, hidden),
        }[self.form]()  # fmt: skip


class Renamed(nn.Module):
    """Its attributes are called otherwise than its arguments."""

    def __init__(self, n_in: int, n_hidden: int, activation: Any = functional.relu) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(n_in, n_hidden), nn.Linear(n_hidden, 1)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """A logit."""
        return self.fc2(self.activation(self.fc1(x)))


class PlainTensors(nn.Module):
    """Tensors that are no buffers, in a list and alone; a depth that is drawn when it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.mu, self.sd = torch.linspace(-0.1, 0.1, 12), torch.ones(12) * 1.1
        self.rates = [rate.item() for rate in torch.linspace(0, 0.2, 3)]
        self.knots = [torch.linspace(-1, 1, 5), torch.linspace(-2, 2, 5)]
        self.blocks = nn.ModuleList([nn.Linear(12, 12) for _ in range(3)])
        self.out = nn.Linear(22, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A logit."""
        x = (x - self.mu) / self.sd
        for rate, block in zip(self.rates, self.blocks, strict=True):
            x = x + torch.tanh(block(x)) * (1 - rate)
        near = torch.cat([torch.exp(-((x[:, :1] - knots) ** 2)) for knots in self.knots], 1)
        return self.out(torch.cat([x, near], 1))


class Functional(nn.Module):
    """Weights of its own and no layer at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(12, 24)
        self.weight = nn.Parameter(torch.randn(1, 24) / 5)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """A logit."""
        return functional.linear(torch.relu(self.inner(x)), self.weight, self.bias)


class Recurrent(nn.Module):
    """The 12 features as steps of time."""

    def __init__(self, kind: str = "LSTM") -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(1, 16, num_layers=2, batch_first=True, dropout=0.1)
        self.head = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Two logits."""
        states, _ = self.rnn(x.unsqueeze(-1))
        return self.head(states[:, -1])


class WideAndDeep(nn.Module):
    """Two ways that are added at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(12, 1)
        self.deep = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        """A logit."""
        return self.wide(x) + self.deep(x)


class Ensemble(nn.Module):
    """The mean of five networks."""

    def __init__(self, members: int = 5) -> None:
        super().__init__()
        self.members = nn.ModuleList([Net() for _ in range(members)])

    def forward(self, x: Tensor) -> Tensor:
        """A logit."""
        return torch.stack([member(x) for member in self.members]).mean(0)


class Mixture(nn.Module):
    """Experts and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(12, 2) for _ in range(4)])
        self.gate = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Two logits."""
        share = torch.softmax(self.gate(x), -1)
        return torch.einsum("ne,nek->nk", share, torch.stack([e(x) for e in self.experts], 1))


class TwoInputs(nn.Module):
    """Numbers and tokens, given apart."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 6)
        self.body = nn.Sequential(nn.Linear(8 + 4 * 6, 32), nn.ReLU())
        self.out = nn.Linear(32, 1)

    def forward(self, numbers: Tensor, tokens: Tensor) -> Tensor:
        """A logit."""
        return self.out(self.body(torch.cat([numbers, self.embedding(tokens).flatten(1)], 1)))


class FromDict(TwoInputs):
    """The same in one dictionary."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        """A logit."""
        return {"logits": super().forward(batch["numbers"], batch["tokens"])}


class Words(nn.Module):
    """A bag of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(32, 16, mode="mean")
        self.out = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, tokens: Tensor) -> Tensor:
        """Two logits."""
        return self.out(self.bag(tokens))


class Attention(nn.Module):
    """A transformer over tokens, with a padding mask made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 16, padding_idx=0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(16, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Two logits."""
        hidden = self.encoder(self.embedding(tokens), src_key_padding_mask=tokens == 0)
        return self.out(hidden.mean(1))


class Autocast(Net):
    """Computes in bfloat16 inside."""

    def forward(self, x: Tensor) -> Tensor:
        """A logit."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.out(self.body(x)).float()


class Convolutions(nn.Module):
    """3 x 16 x 16; ends in a convolution and a mean."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU(),
        )  # fmt: skip
        self.last = nn.Conv2d(16, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A logit a class."""
        return self.last(self.body(x)).mean((2, 3))


class Autoregressive(nn.Module):
    """An answer a token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(32, 8), nn.Linear(8, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, tokens, 5)."""
        return self.out(self.embedding(tokens))


class Locked(Net):
    """Takes a lock each time."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Any:
        """A logit."""
        with self.lock:
            return super().forward(x)


class Unlocked(Locked):
    """Holds one that it does not need."""

    def forward(self, x: Tensor) -> Any:
        """A logit."""
        return Net.forward(self, x)


class Drops(Net):
    """Dropout that no evaluation mode switches off."""

    def forward(self, x: Tensor) -> Any:
        """A logit."""
        return super().forward(functional.dropout(x, 0.2))


class ByBatch(Net):
    """Standardises by the batch at hand."""

    def forward(self, x: Tensor) -> Any:
        """A logit."""
        return super().forward((x - x.mean(0)) / (x.std(0) + 1e-3))


class Root(Net):
    """Takes the root of a feature that may be negative."""

    def forward(self, x: Tensor) -> Any:
        """A logit, or NaN."""
        return super().forward(x) + torch.sqrt(x[:, :1])


class Pairs(Net):
    """Gives one answer for two rows."""

    def forward(self, x: Tensor) -> Any:
        """(n / 2, 1)."""
        return super().forward(x)[: max(1, len(x) // 2)]


class Slow(Net):
    """Takes a second a call."""

    def forward(self, x: Tensor) -> Any:
        """A logit."""
        time.sleep(1)
        return super().forward(x)


class Hooked(nn.Module):
    """A hook that changes what a layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.net.body.register_forward_hook(lambda layer, given, gave: gave * 2)

    def forward(self, x: Tensor) -> Any:
        """A logit."""
        return self.net(x)


def make_net(width: int = 24) -> nn.Module:
    """A factory."""
    return nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 2))
