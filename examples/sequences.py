"""A small transformer over sequences of events, trained with plain PyTorch; then habits change.

``python examples/sequences.py`` trains, wraps, streams, heals and rolls back, with a table at the
end. The adapter corrects each token before the last block, so recipe `gradient` heals it.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from healed import Story, show
from torch import Tensor, nn
from torch.nn import functional

LENGTH, EVENTS = 12, 16
RISKY = (9, 10, 11)  # events that customers who leave have often
QUIET = (12, 13, 14)  # the same after the new release, under other names


class EventNet(nn.Module):
    """(n, 12) numbers of events to (n, 2) logits: stays, leaves."""

    def __init__(self, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        self.width, self.blocks = width, blocks
        self.events = nn.Embedding(EVENTS, width)
        self.register_buffer("places", torch.linspace(-1, 1, LENGTH)[:, None], persistent=False)
        block = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)
        self.out = nn.Linear(width, 2)

    def forward(self, events: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.out(self.encoder(self.events(events) + self.places).mean(dim=1))
        return logits


def histories(rows: int, seed: int, *, released: bool) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of events; 35 % leave. With the release, risky events come under other names, and
    everybody has some of the old ones.
    """
    drawn = np.random.default_rng(seed)
    leaves = drawn.random(rows) < 0.35
    events = drawn.integers(0, 9, (rows, LENGTH))
    often = drawn.random((rows, LENGTH)) < np.where(leaves, 0.35, 0.08)[:, None]
    telling = drawn.choice(QUIET if released else RISKY, (rows, LENGTH))
    events = np.where(often, telling, events)
    if released:
        for_all = drawn.random((rows, LENGTH)) < 0.2
        events = np.where(for_all & ~often, drawn.choice(RISKY, (rows, LENGTH)), events)
    return events.astype(np.int64), leaves.astype(np.int64)


def trained(x: np.ndarray, y: np.ndarray, epochs: int) -> EventNet:
    """A network fitted to histories before the release."""
    torch.set_num_threads(1)  # faster, for a network this small
    torch.manual_seed(0)
    network = EventNet()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    rows, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(y)), 64):
            optimiser.zero_grad()
            functional.cross_entropy(network(rows[chosen]), labels[chosen]).backward()
            optimiser.step()
    network.eval()
    return network


def main(rows: int = 4_000, epochs: int = 8, name: str = "events") -> Story:
    """Train, drift, heal, roll back."""
    known = histories(2_000, 0, released=False)
    network = trained(*known, epochs)
    before = histories(rows // 4, 1, released=False)
    after = histories(rows - rows // 4, 2, released=True)
    stream = tuple(np.concatenate(parts) for parts in zip(before, after, strict=True))
    return show(
        network, known, stream, name=name, at="encoder.layers.1", recipe="gradient",
        settings={"learning_rate": 0.01, "steps": 10},
    )  # fmt: skip


if __name__ == "__main__":
    import sequences  # so that the class has a name that others can import

    sequences.main(*map(int, sys.argv[1:]))
