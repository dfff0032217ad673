"""A small network on the inputs that goes on learning by gradient steps: what bends as it moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selfheal_cli.heal.experts.filters import BLOCK, class_probabilities, one_hot
from selfheal_cli.model.mixture import HIDDEN, layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

    Matrix = NDArray[np.float64]

# chosen on generated streams alone; the first moments' decay, and the second ones'
RATE, DECAYS, TINY = 0.005, (0.9, 0.999), 1e-8
EPOCHS = 5  # over the latest training rows, to begin with
SEED = 15
LARGEST = 30.0  # of a logit, beyond which it is as sure


class LearningNetwork:
    """Two hidden layers, trained by Adam; in numpy, since a step of torch costs ten times as much.

    ``steps`` for each `BLOCK` labelled rows, evenly spread, each on the latest `BLOCK`: how many
    come at once changes nothing. It begins with the latest training rows, ``trained`` (n, d) and
    (n,), standardised by ``mean`` and ``sd`` (d,), and begins so again where it gives no numbers.
    """

    name = "network"

    def __init__(
        self, mean: Matrix, sd: Matrix, margins: int, trained: tuple[Any, Any], steps: int,
        state: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self._mean, self._sd, self._margins = mean, sd, margins
        self._trained, self._steps = trained, steps
        if state:
            self._take_in(state["weights"].copy())
            self._moments = state["moments"].copy()
            self._taken, self._seen = map(int, state["counts"])
            self._x, self._y = state["x"], state["y"]
        else:
            self._begin()

    def state(self) -> dict[str, Any]:
        """What `LearningNetwork` begins from again."""
        return {
            "weights": self._weights,
            "moments": self._moments,
            "counts": np.array([self._taken, self._seen]),
            "x": self._x, "y": self._y,
        }  # fmt: skip

    def served(self) -> Tensor:
        """All weights in a row, (values,) float32, for inputs as they come."""
        first, constant = self._parts[0] / self._sd, self._parts[1]
        whole: list[Any] = [first, constant - first @ self._mean, *self._parts[2:]]
        return torch.from_numpy(np.concatenate([part.reshape(-1) for part in whole])).float()

    def predict(self, x: FloatArray) -> Matrix:
        """Probabilities (1, n, K) of rows (n, d)."""
        return class_probabilities(self._through(self._standardised(x))[-1][None])

    def learn(self, x: FloatArray, y: Any) -> bool:
        """From rows (n, d) and their classes (n,); whether it had to begin anew."""
        x, start = self._standardised(x), 0
        while start < len(y):
            due = self._seen * self._steps // BLOCK + 1
            stop = min(len(y), start + -(-due * BLOCK // self._steps) - self._seen)
            self._x = np.concatenate([self._x, x[start:stop]])[-BLOCK:]
            self._y = np.concatenate([self._y, y[start:stop]])[-BLOCK:]
            self._seen, start = self._seen + stop - start, stop
            for _ in range(due, self._seen * self._steps // BLOCK + 1):
                self._step(self._x, self._y)
        sound = bool(np.isfinite(self._weights).all())
        if not sound:
            self._begin()
        return not sound

    def _begin(self) -> None:
        draw = np.random.default_rng(SEED)
        self._take_in(_drawn(draw, len(self._mean), self._margins))
        self._moments = np.zeros((2, self._weights.size), dtype=np.float32)
        self._taken, self._seen = 0, 0
        x, y = self._standardised(self._trained[0]), self._trained[1]
        for rows in _blocks(draw, len(y)):
            self._step(x[rows], y[rows])
        self._x, self._y = x[-BLOCK:], y[-BLOCK:]

    def _take_in(self, weights: FloatArray) -> None:
        """All weights in a row, and the layers' as views of them."""
        shapes = layers(len(self._mean), self._margins)
        ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
        parts = zip(np.split(weights, ends), shapes, strict=True)
        self._weights, self._parts = weights, [part.reshape(shape) for part, shape in parts]

    def _standardised(self, x: FloatArray) -> FloatArray:
        return np.asarray((x - self._mean) / self._sd, dtype=np.float32)

    def _through(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What both hidden layers and the last one, (n, margins), give."""
        first, b1, second, b2, last, b3 = self._parts
        one = np.maximum(x @ first.T + b1, 0.0)
        two = np.maximum(one @ second.T + b2, 0.0)
        return one, two, np.clip(two @ last.T + b3, -LARGEST, LARGEST)

    def _step(self, x: FloatArray, y: Any) -> None:
        """One step of Adam (Kingma and Ba 2015) down the mean log loss of rows."""
        gradient = self._gradient(x, y)
        self._taken += 1
        mean, square = self._moments
        mean += (1.0 - DECAYS[0]) * (gradient - mean)
        square += (1.0 - DECAYS[1]) * (gradient**2 - square)
        size = RATE * np.sqrt(1.0 - DECAYS[1] ** self._taken) / (1.0 - DECAYS[0] ** self._taken)
        self._weights -= (size * mean / (np.sqrt(square) + TINY)).astype(np.float32)

    def _gradient(self, x: FloatArray, y: Any) -> FloatArray:
        _, _, second, _, last, _ = self._parts
        one, two, margin = self._through(x)
        target = one_hot(y, self._margins)
        p = class_probabilities(margin[None])[0][:, 1:]
        off = ((p - target) / len(y)).astype(np.float32)
        at_two = (off @ last) * (two > 0)
        at_one = (at_two @ second) * (one > 0)
        parts = [
            at_one.T @ x, at_one.sum(0), at_two.T @ one, at_two.sum(0), off.T @ two, off.sum(0)
        ]  # fmt: skip
        return np.concatenate([part.ravel() for part in parts])


def _drawn(draw: np.random.Generator, inputs: int, margins: int) -> FloatArray:
    """Weights in a row, drawn as by He et al. (2015), the last layer's small; constants of zero."""
    first = draw.normal(size=HIDDEN * inputs) * np.sqrt(2.0 / inputs)
    second = draw.normal(size=HIDDEN * HIDDEN) * np.sqrt(2.0 / HIDDEN)
    last = draw.normal(size=margins * HIDDEN) * np.sqrt(0.01 / HIDDEN)
    none = np.zeros(HIDDEN)
    whole = np.concatenate([first, none, second, none, last, np.zeros(margins)])
    return whole.astype(np.float32)


def _blocks(draw: np.random.Generator, rows: int) -> Iterator[Any]:
    """Places of the rows, shuffled in each epoch, in blocks."""
    for _ in range(EPOCHS):
        order = draw.permutation(rows)
        for start in range(0, rows, BLOCK):
            yield order[start : start + BLOCK]
