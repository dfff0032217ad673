"""The article's generator: ten features, 15 % positives, one feature that drifts.

The order of the draws is part of the contract: it makes the article's figures come out to the
digit. Normals' V14 ~ N(0, 1), under drift N(-d, 1); positives' V14 ~ N(-2.5, 0.8); the other
nine columns are standard normal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.records import Batch, Limit, Rows
from selfheal_cli.source.encoding import Encoding
from selfheal_cli.source.limit import POSITIVE_MEAN, POSITIVE_SD, bayes_limit

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

NAMES = [f"V{number}" for number in range(7, 17)]  # V14 stands at index 7


class SyntheticSource:
    """A `Source` that draws everything from one seed."""

    labels = ("normal", "fraud")

    def __init__(
        self, settings: SyntheticSettings, *, seed: int, batch_size: int, batches: int | None
    ) -> None:
        self.encoding = Encoding.identity(NAMES)
        self.batch_count = 25 if batches is None else batches
        self._batch_size = batch_size
        self._settings = settings
        draw = np.random.RandomState(seed)
        self._training = self._draw(draw, settings.train_rows, drift=0.0)
        self._clean = self._draw(draw, settings.test_rows, drift=0.0)
        self._drifted = self._draw(draw, settings.test_rows, drift=settings.drift_strength)
        self._after_sets = draw.get_state()

    def training(self) -> Iterator[Rows]:
        """One block of clean rows."""
        yield self._training

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """Rows drawn with replacement from the drifted set, as the article draws them."""
        draw = np.random.RandomState()
        draw.set_state(self._after_sets)
        for index in range(1, self.batch_count + 1):
            chosen = draw.choice(len(self._drifted), self._batch_size)
            if index >= start:
                yield Batch(index, as_rows(self._drifted.x[chosen], self._drifted.y[chosen]))

    def held_out(self) -> Mapping[str, Rows]:
        """``clean`` rows, and the ``drifted`` rows that the stream is drawn from."""
        return {"clean": self._clean, "drifted": self._drifted}

    def limit(self) -> Limit:
        """The Bayes limit under this drift."""
        return bayes_limit(self._settings.drift_strength, self._settings.positive_share)

    def notes(self) -> Mapping[str, int]:
        """Nothing unusual in a generator."""
        return {}

    def _draw(self, draw: np.random.RandomState, rows: int, *, drift: float) -> Rows:
        positives = int(self._settings.positive_share * rows)
        normals = rows - positives
        sensitive = draw.normal(-drift, 1.0, normals)
        x_normal = np.insert(draw.randn(normals, 9), 7, sensitive, axis=1)
        sensitive = draw.normal(POSITIVE_MEAN, POSITIVE_SD, positives)
        x_positive = np.insert(draw.randn(positives, 9), 7, sensitive, axis=1)
        x = np.vstack([x_normal, x_positive]).astype(np.float32)
        y = np.repeat(np.array([0, 1], dtype=np.int8), [normals, positives])
        order = draw.permutation(rows)
        return as_rows(x[order], y[order])


def as_rows(x: FloatArray, y: LabelArray) -> Rows:
    """Rows whose columns are the inputs themselves."""
    return Rows(x, y, {name: x[:, position] for position, name in enumerate(NAMES)})
