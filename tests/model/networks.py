"""Networks as others write them: layers in a row, convolutions, attention; and odd ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """Standardises inside; batch norm and dropout; one activation that is used throughout."""

    def __init__(self, inputs: int = 8, outputs: int = 1, width: int = 16) -> None:
        super().__init__()
        self.inputs, self.outputs, self.width = inputs, outputs, width
        self.register_buffer("mean", torch.full((inputs,), 0.5))
        self.register_buffer("sd", torch.full((inputs,), 2.0))
        self.first = nn.Linear(inputs, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.4)
        self.second = nn.Linear(width, width, bias=False)
        self.act = nn.ReLU()
        self.out = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, outputs), or (n,) of one."""
        x = (x - self.mean) / self.sd
        x = self.act(self.norm(self.first(x)))
        logits: Tensor = self.out(self.act(self.second(self.drop(x))))
        return logits.squeeze(-1) if self.outputs == 1 else logits


class Convolutional(nn.Module):
    """Gives probabilities of three classes; its batch norm has seen rows."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.two = nn.Conv2d(4, 6, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.drop = nn.Dropout2d(0.3)
        self.out = nn.Linear(24, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities."""
        batch = len(x)  # no tracer would take this
        x = torch.relu(self.norm(self.one(x)))
        x = self.drop(self.pool(torch.relu(self.two(x))))
        return torch.softmax(self.out(x.reshape(batch, -1)), dim=-1)


class Transformer(nn.Module):
    """Over tokens, from torch's own layers, with a buffer that no state dictionary holds."""

    def __init__(self, layers: int = 3, width: int = 16, kinds: int = 20, length: int = 6) -> None:
        super().__init__()
        self.embedding = nn.Embedding(kinds, width)
        self.register_buffer("places", torch.arange(length) / length, persistent=False)
        self.summary = nn.Parameter(torch.randn(1, 1, width))
        layer = nn.TransformerEncoderLayer(width, 2, 32, batch_first=True, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, length) tokens to (n, 2) logits."""
        x = self.embedding(tokens) + self.places[:, None]
        x = torch.cat([self.summary.expand(len(x), -1, -1), x], dim=1)
        logits: Tensor = self.out(self.norm(self.encoder(x))[:, 0])
        return logits


class ShortTransformer(Transformer):
    """Of two blocks, for what is tried at every layer."""

    def __init__(self) -> None:
        super().__init__(layers=2)


class Residual(nn.Module):
    """What goes around a layer cannot be had after it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One logit."""
        logits: Tensor = self.out(x + torch.tanh(self.inner(x)))
        return logits


class Twice(nn.Module):
    """Runs a layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One logit."""
        logits: Tensor = self.out(self.inner(torch.tanh(self.inner(x))))
        return logits


class ByValue(nn.Module):
    """Decides by the values of rows before a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.after = nn.Linear(8, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One logit."""
        if bool((x > 100).any()):
            x = x / 100
        logits: Tensor = self.out(torch.relu(self.after(torch.relu(self.inner(x)))))
        return logits


class NoLinearEnd(nn.Module):
    """A convolution gives the logits."""

    def __init__(self, *, probabilities: bool = False) -> None:
        super().__init__()
        self.probabilities = probabilities
        self.one = nn.Conv1d(2, 4, 3, padding=1)
        self.two = nn.Conv1d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 2, 4) to (n, 3)."""
        logits = self.two(torch.relu(self.one(x))).mean(dim=2)
        return torch.softmax(logits, dim=1) if self.probabilities else logits


class Tied(nn.Module):
    """Its last layer has the embedding's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.inner = nn.Linear(8, 8)
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, length) tokens to (n, 20) logits."""
        logits: Tensor = self.out(torch.relu(self.inner(self.embedding(tokens).mean(dim=1))))
        return logits
