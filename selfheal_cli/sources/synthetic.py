"""The article's generator: ten features, 15 % positives, one feature that drifts.

The order of the draws is part of the contract: it makes the article's figures come out to the
digit. Normals' V14 ~ N(0, 1), under drift N(-d, 1); positives' V14 ~ N(-2.5, 0.8), shifted where
the settings say so; the other nine columns are standard normal.

Only V14 tells the classes apart, so the posterior depends on it alone: p(v) = q N(v; m, 0.8) /
(q N(v; m, 0.8) + (1 - q) N(v; -d, 1)), m = -2.5 unless the positives moved. Ranking rows by it
gives the best possible ROC and precision-recall curves (Neyman and Pearson 1933).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.records import Batch, Limit, Rows
from selfheal_cli.sources.base import Around
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.sources.values import RowContract

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray


Grid = NDArray[np.float64]
GRID = 200_001
POSITIVE_MEAN, POSITIVE_SD = -2.5, 0.8  # of V14
SPAN = 12.0  # standard deviations beyond both means
NAMES = [f"V{number}" for number in range(7, 17)]
V14 = NAMES.index("V14")
BATCHES = 25
RULE = "V14 < -1.5 => 1"


def posterior(
    v14: NDArray[Any], drift: float, positive_share: float, positive_mean: float = POSITIVE_MEAN
) -> Grid:
    """Probability (n,) that rows with these V14 (n,) are positive; no model ranks them better.

    >>> posterior(np.array([-2.5, 0.0]), 0.0, 0.15).round(3).tolist()
    [0.834, 0.002]
    """
    v = np.asarray(v14, dtype=np.float64)
    z_positive, z_negative = (v - positive_mean) / POSITIVE_SD, v + drift
    log_odds = (
        np.log(positive_share / (1 - positive_share) / POSITIVE_SD)
        - 0.5 * z_positive**2
        + 0.5 * z_negative**2
    )
    return np.asarray(np.exp(-np.logaddexp(0.0, -log_odds)))


@lru_cache(maxsize=8)  # every seed of a comparison asks for the same
def bayes_limit(drift: float, positive_share: float, positive_mean: float = POSITIVE_MEAN) -> Limit:
    """The Bayes-optimal figures: densities on a fine grid, from the highest posterior down.

    >>> limit = bayes_limit(2.2, 0.15)
    >>> round(limit.accuracy, 3), round(limit.f1, 3), round(limit.roc_auc, 3)
    (0.85, 0.295, 0.606)
    """
    means = (positive_mean, -drift)
    v = np.linspace(min(means) - SPAN, max(means) + SPAN, GRID)
    positive = positive_share * _normal(v, positive_mean, POSITIVE_SD)
    negative = (1 - positive_share) * _normal(v, -drift, 1.0)
    step = v[1] - v[0]
    order = np.argsort(-posterior(v, drift, positive_share, positive_mean), kind="stable")
    true_positives = np.cumsum(positive[order]) * step
    false_positives = np.cumsum(negative[order]) * step
    flagged = true_positives + false_positives
    f1 = 2 * true_positives / (positive_share + flagged)
    best = int(np.argmax(f1))
    recall, precision = true_positives / positive_share, true_positives / flagged
    return Limit(
        accuracy=float(np.sum(np.maximum(positive, negative)) * step),
        f1=float(f1[best]),
        recall=float(recall[best]),
        roc_auc=float(np.trapezoid(recall, false_positives / (1 - positive_share))),
        pr_auc=float(np.trapezoid(precision, recall)),
    )


def _normal(v: Grid, mean: float, sd: float) -> Grid:
    density = np.exp(-0.5 * ((v - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    return np.asarray(np.maximum(density, 1e-300))


class SyntheticSource(Around):
    """A `Source` that draws everything from one seed."""

    labels: tuple[str, ...] = ("normal", "fraud")
    contract = None

    def __init__(
        self,
        settings: SyntheticSettings,
        *,
        seed: int,
        batch_size: int,
        batches: int | None,
        contract: RowContract = 2,
    ) -> None:
        self.encoding = Encoding.identity(NAMES, contract)
        self.batch_count = _count(settings, batches)
        self._batch_size = batch_size
        self._settings = settings
        self._positive_mean = POSITIVE_MEAN + settings.positive_shift
        stream_share = settings.stream_positive_share
        self._share = settings.positive_share if stream_share is None else stream_share
        self._drift = settings.phases[-1][1] if settings.phases else settings.drift_strength
        clean = (0.0, settings.positive_share, POSITIVE_MEAN)
        draw = np.random.RandomState(seed)
        self._training = draw_set(draw, settings.train_rows, *clean)
        self._clean = draw_set(draw, settings.test_rows, *clean)
        self._drifted = draw_set(
            draw, settings.test_rows, self._drift, self._share, self._positive_mean
        )
        self._after_sets = draw.get_state()

    def training(self) -> Iterator[Rows]:
        """One block of clean rows."""
        yield self._training

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """Rows from the drifted set with replacement, as the article draws them, or new ones."""
        draw = np.random.RandomState()
        draw.set_state(self._after_sets)
        if self._settings.fresh or self._settings.phases:
            stream = self._new_rows(draw)
        else:
            stream = self._resampled(draw)
        for index, rows in zip(range(1, self.batch_count + 1), stream, strict=False):
            if index >= start:
                yield Batch(index, rows)

    def held_out(self) -> Mapping[str, Rows]:
        """``clean`` rows, and ``drifted`` ones.

        The stream is drawn from the drifted rows, unless it is fresh or has phases: then they are
        rows that it does not contain, at the last phase's drift.
        """
        return {"clean": self._clean, "drifted": self._drifted}

    def limit(self) -> Limit:
        """The Bayes limit on the ``drifted`` rows' distribution: that of the last phase."""
        return bayes_limit(self._drift, self._share, self._positive_mean)

    def departures(self) -> Mapping[str, Mapping[str, int]]:
        """Nothing: there is no row contract."""
        return {}

    def notes(self) -> Mapping[str, int]:
        """Nothing unusual in a generator."""
        return {}

    def _resampled(self, draw: np.random.RandomState) -> Iterator[Rows]:
        while True:
            chosen = draw.choice(len(self._drifted), self._batch_size)
            yield as_rows(self._drifted.x[chosen], self._drifted.y[chosen])

    def _new_rows(self, draw: np.random.RandomState) -> Iterator[Rows]:
        phases = self._settings.phases or ((self.batch_count, self._drift),)
        for batches, drift in phases:
            for _ in range(batches):
                y = (draw.random_sample(self._batch_size) < self._share).astype(np.int8)
                x = draw.randn(self._batch_size, len(NAMES))
                moved = self._positive_mean + POSITIVE_SD * x[:, V14]
                x[:, V14] = np.where(y == 1, moved, x[:, V14] - drift)
                yield as_rows(x.astype(np.float32), y)


def as_rows(x: FloatArray, y: LabelArray) -> Rows:
    """Rows whose columns are the inputs themselves."""
    return Rows(x, y, {name: x[:, position] for position, name in enumerate(NAMES)})


def _count(settings: SyntheticSettings, batches: int | None) -> int:
    if not settings.phases:
        return BATCHES if batches is None else batches
    in_phases = sum(count for count, _ in settings.phases)
    return in_phases if batches is None else min(batches, in_phases)


def draw_set(
    draw: np.random.RandomState,
    rows: int,
    drift: float,
    share: float,
    positive_mean: float = POSITIVE_MEAN,
    *,
    spread: float = 1.0,
) -> Rows:
    """Rows in random order; ``spread`` is the normals' of V14."""
    positives = int(share * rows)
    normals = rows - positives
    sensitive = draw.normal(-drift, spread, normals)
    x_normal = np.insert(draw.randn(normals, 9), V14, sensitive, axis=1)
    sensitive = draw.normal(positive_mean, POSITIVE_SD, positives)
    x_positive = np.insert(draw.randn(positives, 9), V14, sensitive, axis=1)
    x = np.vstack([x_normal, x_positive]).astype(np.float32)
    y = np.repeat(np.array([0, 1], dtype=np.int8), [normals, positives])
    order = draw.permutation(rows)
    return as_rows(x[order], y[order])
