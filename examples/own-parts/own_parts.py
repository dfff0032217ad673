"""A recipe, a monitor, an adapter, a source and a rule of one's own; docs/own-parts.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selfheal_cli.parts import BatchView, FeatureReading, Lesson, Room


def steepest(lesson: Lesson) -> Mapping[str, Tensor]:
    """A recipe: twenty steps down the log loss of the labelled rows."""
    weights = lesson.weights
    for _ in range(20):
        moved = {name: weights[name].requires_grad_() for name in lesson.learning}
        slopes = torch.autograd.grad(lesson.loss(weights | moved), list(moved.values()))
        for (name, value), slope in zip(moved.items(), slopes, strict=True):
            weights[name] = (value - 0.5 * slope).detach()
    return weights


class Tails:
    """A monitor: how many more values lie beyond training's outermost per cent."""

    threshold = 0.1
    reads = ("numeric features",)

    def fit(self, reference: BatchView, features: Sequence[str]) -> None:
        """Where the tails begin."""
        self._limits = {
            name: np.quantile(reference.values(name), (0.005, 0.995)) for name in features
        }

    def update(self, view: BatchView) -> Iterable[FeatureReading]:
        """The share beyond, and how likely that many are by chance (Hoeffding's inequality)."""
        for name, (low, high) in self._limits.items():
            values = view.values(name)
            if len(values):
                more = max(0.0, float(np.mean((values < low) | (values > high))) - 0.01)
                yield FeatureReading(name, more, float(np.exp(-2 * len(values) * more**2)))


class Shift(nn.Module):
    """An adapter: one number added to each feature."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        self.room = room
        self.by = nn.Parameter(torch.zeros(room.width))

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, prod(sizes)), shifted."""
        return self.room.together(self.room.apart(features) + self.by, len(features))


class ShiftedByLabels:
    """A recipe for that adapter alone."""

    adapter = Shift
    takes = (Shift,)
    heal = staticmethod(steepest)


def tickets(rows: str = "2000", seed: str = "1") -> Iterator[dict[str, Any]]:
    """A source: support tickets, of which those by night are urgent more often as time goes on."""
    draw = np.random.default_rng(int(seed))
    for row in range(int(rows)):
        hour, words = draw.integers(24), draw.gamma(2.0, 40.0)
        logit = words / 80 - 2 + (hour < 6) * 4 * row / int(rows)
        urgent = draw.random() < 1 / (1 + np.exp(-logit))
        yield {"hour": hour, "words": round(words, 1), "urgent": "yes" if urgent else "no"}


def by_night(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """A rule's condition: the ticket came between midnight and six."""
    return columns["hour"] < 6
