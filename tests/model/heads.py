"""One body under the heads that people put on it; its weights are drawn as if they were trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Last = Callable[[Tensor], Any]
HEADS: dict[str, tuple[int, Last]] = {
    "one logit": (1, lambda z: z),
    "a flat logit": (1, lambda z: z.squeeze(-1)),
    "two logits": (2, lambda z: z),
    "five logits": (5, lambda z: z),
    "five logits over a temperature": (5, lambda z: z / 1.7),
    "one logit over a temperature": (1, lambda z: z / 1.7),
    "softmax of two": (2, lambda z: torch.softmax(z, dim=1)),
    "softmax of five": (5, lambda z: torch.softmax(z, dim=1)),
    "the second of a softmax": (2, lambda z: torch.softmax(z, dim=1)[:, 1]),
    "both sides of a sigmoid": (
        1, lambda z: torch.cat([1 - torch.sigmoid(z), torch.sigmoid(z)], dim=1),
    ),
    "log_softmax of two": (2, lambda z: torch.log_softmax(z, dim=1)),
    "log_softmax of five": (5, lambda z: torch.log_softmax(z, dim=1)),
    "sigmoid": (1, torch.sigmoid),
    "calibrated sigmoid": (1, lambda z: torch.sigmoid(z / 1.7)),
    "shifted sigmoid": (1, lambda z: torch.sigmoid(z + 0.3)),
    "calibrated softmax": (5, lambda z: torch.softmax(z / 1.7, dim=1)),
    "smoothed sigmoid": (1, lambda z: 0.02 + 0.96 * torch.sigmoid(z)),
    "clamp": (1, lambda z: z.clamp(0, 1)),
    "hardsigmoid": (1, functional.hardsigmoid),
    "tanh": (1, torch.tanh),
    "logsigmoid": (1, functional.logsigmoid),
    "softplus": (1, functional.softplus),
    "three sigmoids": (3, torch.sigmoid),
    "two sigmoids": (2, torch.sigmoid),
    "three log-sigmoids": (3, functional.logsigmoid),
    "three tanh": (3, torch.tanh),
    "prices": (1, lambda z: 250_000 + 40_000 * z),
    "a dict": (1, lambda z: {"logits": z}),
    "a tuple": (1, lambda z: (z, z)),
    "an answer a token": (6, lambda z: z.reshape(len(z), 3, 2)),
    "one for all": (1, lambda z: z.mean(dim=0)),
    "labels": (5, lambda z: z.argmax(dim=1)),
    "always the same": (1, lambda z: z * 0),
    "the logarithm of a sum": (1, torch.log),
}  # fmt: skip


class Head(nn.Module):
    """Batch norm, two linear layers, and what comes last; ``bare``: the last has no module."""

    def __init__(self, kind: str = "one logit", *, bare: bool = False) -> None:
        super().__init__()
        self.kind, self.bare = kind, bare
        outputs, self._last = HEADS[kind]
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        if bare:
            self.weight, self.bias = (
                nn.Parameter(torch.zeros(outputs, 8)),
                nn.Parameter(torch.zeros(outputs)),
            )
        else:
            self.out = nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Any:
        """Whatever the head makes of it."""
        features = self.body(x)
        z = functional.linear(features, self.weight, self.bias) if self.bare else self.out(features)
        return self._last(z)


def trained(kind: str, *, bare: bool = False) -> Head:
    """With logits on both sides of zero, further out than any drawn at the start."""
    torch.manual_seed(5)
    head = Head(kind, bare=bare)
    with torch.no_grad():
        for name, value in head.named_parameters():
            if name.startswith(("out", "weight", "bias")):
                value.normal_(std=1.5)
        z = head.body(torch.randn(256, 4))
        last = functional.linear(z, head.weight) if bare else functional.linear(z, head.out.weight)
        (head.bias if bare else head.out.bias).copy_(-last.mean(dim=0))
    return head.eval()
