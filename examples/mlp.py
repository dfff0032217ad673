"""A perceptron for a table of transactions, trained with plain PyTorch; then the world moves.

``python examples/mlp.py`` trains, wraps, streams, heals and rolls back, with a table at the end.
The module standardises its inputs itself, as any module must that is given raw columns.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from healed import Story, show
from torch import Tensor, nn
from torch.nn import functional


class TransactionNet(nn.Module):
    """(n, 6) raw columns to (n,) logits, as scikit-learn's pipeline of scaler and MLP would."""

    def __init__(self, inputs: int = 6, width: int = 32) -> None:
        super().__init__()
        self.inputs, self.width = inputs, width
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("sd", torch.ones(inputs))
        self.layers = nn.Sequential(
            nn.Linear(inputs, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers((x - self.mean) / self.sd)
        return logits.squeeze(-1)


def transactions(rows: int, seed: int, moved: float) -> tuple[np.ndarray, np.ndarray]:
    """Amount, hour, age of the account, distance, tries, score; 20 % are fraud.

    As ``moved`` goes from 0 to 1, everybody's amounts and distances rise to what only fraud had.
    """
    drawn = np.random.default_rng(seed)
    fraud = drawn.random(rows) < 0.2
    amount = np.exp(drawn.normal(3.5 + 1.2 * fraud + 1.2 * moved, 0.7))
    hour = drawn.uniform(0, 24, rows)
    age = drawn.gamma(2.0, np.where(fraud, 200.0, 400.0))
    distance = drawn.gamma(1.5, np.where(fraud, 60.0, 20.0) * (1 + 2 * moved))
    tries = drawn.poisson(np.where(fraud, 1.2, 0.4))
    score = drawn.normal(fraud * 1.0, 1.0)
    x = np.column_stack([amount, hour, age, distance, tries, score]).astype(np.float32)
    return x, fraud.astype(np.int64)


def trained(x: np.ndarray, y: np.ndarray, epochs: int) -> TransactionNet:
    """A network fitted to clean rows."""
    torch.set_num_threads(1)  # faster, for a network this small
    torch.manual_seed(0)
    network = TransactionNet()
    network.mean.copy_(torch.from_numpy(x.mean(axis=0)))
    network.sd.copy_(torch.from_numpy(x.std(axis=0)))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    rows, labels = torch.from_numpy(x), torch.from_numpy(y).float()
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(y)), 64):
            optimiser.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(
                network(rows[chosen]), labels[chosen]
            )
            loss.backward()
            optimiser.step()
    network.eval()
    return network


def main(rows: int = 4_000, epochs: int = 15, name: str = "transactions") -> Story:
    """Train, drift, heal, roll back."""
    known = transactions(3_000, 0, 0.0)
    network = trained(*known, epochs)
    before, after = transactions(rows // 4, 1, 0.0), transactions(rows - rows // 4, 2, 1.0)
    x, y = (np.concatenate(parts) for parts in zip(before, after, strict=True))
    columns = ("amount", "hour", "age", "distance", "tries", "score")
    return show(network, known, (x, y), name=name, columns=columns)


if __name__ == "__main__":
    import mlp  # so that the class has a name that others can import

    mlp.main(*map(int, sys.argv[1:]))
