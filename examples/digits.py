"""A small convolutional network on 8x8 digits, trained with plain PyTorch; then the camera ages.

``python examples/digits.py`` writes ``digits.safetensors``, ``digits_train.csv`` and
``digits_stream.csv``; ``docs/tutorial.md`` goes on from there.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional


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


def main() -> None:
    """Train, and write weights and tables."""
    digits = load_digits()
    pictures, labels = digits.images / 16.0, digits.target
    order = np.random.default_rng(0).permutation(len(labels))
    known, stream = order[:700], order[700:]
    x = torch.tensor(pictures[known], dtype=torch.float32)[:, None]
    network = trained(x, torch.tensor(labels[known]))
    save_file(network.state_dict(), "digits.safetensors")
    write("digits_train.csv", pictures[known], labels[known])
    half = len(stream) // 4
    drifting = pictures[stream].copy()
    drifting[half:] = aged(drifting[half:])
    rows = np.concatenate([pictures[known], drifting])
    write("digits_stream.csv", rows, labels[np.concatenate([known, stream])])


def write(path: str, pictures: np.ndarray, labels: np.ndarray) -> None:
    """A column a pixel, row by row, and the digit."""
    names = [f"p{row}{column}" for row in range(8) for column in range(8)]
    frame = pd.DataFrame(pictures.reshape(len(pictures), -1), columns=names)
    frame.assign(digit=labels).to_csv(path, index=False)


if __name__ == "__main__":
    main()
