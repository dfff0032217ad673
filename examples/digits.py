"""A small convolutional network on 8x8 digits, trained with plain PyTorch; then the camera ages.

``python examples/digits.py`` writes ``digits.safetensors``, ``digits_train.csv`` and
``digits_stream.csv``; ``docs/tutorial.md`` goes on from there. ``python examples/digits.py heal``
streams, heals and rolls back by itself, with a table at the end.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from healed import Story

Rows = tuple[np.ndarray, np.ndarray]


class DigitNet(nn.Module):
    """(n, 1, 8, 8) grey values from 0 to 1 to (n, 10) logits."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.dropout = nn.Dropout(0.2)
        self.hidden = nn.Linear(width * 16, 64)
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        features = self.convolutions(x).flatten(1)
        logits: Tensor = self.out(torch.relu(self.hidden(self.dropout(features))))
        return logits


def trained(x: Tensor, y: Tensor, epochs: int = 15) -> DigitNet:
    """A network fitted to clean pictures."""
    torch.set_num_threads(1)  # faster, for a network this small
    torch.manual_seed(0)
    network = DigitNet()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(y)), 64):
            optimiser.zero_grad()
            functional.cross_entropy(network(x[chosen]), y[chosen]).backward()
            optimiser.step()
    network.eval()
    return network


def aged(pictures: np.ndarray) -> np.ndarray:
    """The camera loses contrast, and is mounted a pixel lower."""
    return np.roll(0.35 + 0.45 * pictures, 1, axis=1)


def rows() -> tuple[Rows, Rows]:
    """Clean pictures (n, 8, 8) with digits, and a stream whose camera ages after a quarter."""
    digits = load_digits()
    pictures, labels = digits.images / 16.0, digits.target
    order = np.random.default_rng(0).permutation(len(labels))
    known, stream = order[:700], order[700:]
    quarter = len(stream) // 4
    drifting = pictures[stream].copy()
    drifting[quarter:] = aged(drifting[quarter:])
    return (pictures[known], labels[known]), (drifting, labels[stream])


def fitted(known: Rows, epochs: int = 15) -> DigitNet:
    """A network trained on clean rows."""
    x = torch.tensor(known[0], dtype=torch.float32)[:, None]
    return trained(x, torch.tensor(known[1]), epochs)


def main() -> None:
    """Train, and write weights and tables."""
    known, stream = rows()
    save_file(fitted(known).state_dict(), "digits.safetensors")
    write("digits_train.csv", *known)
    write(
        "digits_stream.csv", *(np.concatenate(parts) for parts in zip(known, stream, strict=True))
    )


def heal(count: int = 1_097, epochs: int = 15, name: str = "digits") -> Story:
    """Train, drift, heal, roll back, on at most so many rows of the stream."""
    from healed import show

    known, stream = rows()
    every = np.linspace(0, len(stream[1]) - 1, count).astype(int)
    first, then = ((x[:, None].astype(np.float32), y) for x, y in (known, stream))
    return show(fitted(known, epochs), first, (then[0][every], then[1][every]), name=name)


def write(path: str, pictures: np.ndarray, labels: np.ndarray) -> None:
    """A column a pixel, row by row, and the digit."""
    names = [f"p{row}{column}" for row in range(8) for column in range(8)]
    frame = pd.DataFrame(pictures.reshape(len(pictures), -1), columns=names)
    frame.assign(digit=labels).to_csv(path, index=False)


if __name__ == "__main__":
    import digits  # so that the class has a name that others can import

    digits.heal() if sys.argv[1:] == ["heal"] else digits.main()
