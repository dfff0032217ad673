"""Generated streams that drift, as tables: river's generators, and own ones.

The first quarter of each is what a network is trained on. The seed decides the rows alone: where
and how a stream drifts stays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from river.datasets import synth

ROWS = 20_000  # of a stream; benchmarks/over_seeds.py sets fewer
Make = Callable[[int], pd.DataFrame]


def _drifting(parts: list[Any]) -> pd.DataFrame:
    """The same number of rows of each part, one after the other."""
    each = ROWS // len(parts)
    rows = [(x, y) for part in parts for x, y in islice(part, each)]
    frame = pd.DataFrame([x for x, _ in rows])
    frame.columns = [f"f{name}" for name in frame.columns]
    frame["y"] = [int(y) for _, y in rows]
    return frame


def agrawal(seed: int) -> pd.DataFrame:
    """Loans by four rules, one after the other."""
    numbers = (0, 0, 3, 6)
    return _drifting([
        synth.Agrawal(classification_function=number, seed=seed + place, perturbation=0.05)
        for place, number in enumerate(numbers)
    ])  # fmt: skip


def sea(seed: int) -> pd.DataFrame:
    """A line whose threshold moves; a tenth of the labels are noise."""
    return _drifting([synth.SEA(variant=v, noise=0.1, seed=seed + v) for v in (0, 0, 3, 1)])


def sine(seed: int) -> pd.DataFrame:
    """Above or below a curve, whose sides change."""
    return _drifting([
        synth.Sine(classification_function=number, seed=seed + place, has_noise=True)
        for place, number in enumerate((0, 0, 2, 1))
    ])  # fmt: skip


def stagger(seed: int) -> pd.DataFrame:
    """Three rules without noise."""
    return _drifting([
        synth.STAGGER(classification_function=number, seed=seed + place)
        for place, number in enumerate((0, 0, 1, 2))
    ])  # fmt: skip


def hyperplane(seed: int) -> pd.DataFrame:
    """A plane that turns slowly."""
    return _drifting([
        synth.Hyperplane(seed=seed, n_features=10, n_drift_features=5, mag_change=0.001)
    ])  # fmt: skip


def rbf(seed: int) -> pd.DataFrame:
    """Clusters that wander."""
    return _drifting([
        synth.RandomRBFDrift(
            seed_model=seed, seed_sample=seed + 1, n_features=10, n_centroids=20,
            change_speed=0.0005, n_drift_centroids=20,
        )
    ])  # fmt: skip


def random_tree(seed: int) -> pd.DataFrame:
    """Two random trees, the second from the middle on."""
    return _drifting([
        synth.RandomTree(seed_tree=seed + place // 2, seed_sample=seed + place, n_num_features=6,
                         n_cat_features=2, n_categories_per_feature=3)
        for place in range(4)
    ])  # fmt: skip


def _logistic(
    seed: int, width: int, thetas: list[np.ndarray], intercept: float, scale: float = 1.0
) -> pd.DataFrame:
    """Normal columns, and a logistic relation that is another in each part."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(ROWS, width))
    part = np.minimum(np.arange(ROWS) * len(thetas) // ROWS, len(thetas) - 1)
    logit = scale * np.einsum("ij,ij->i", x, np.stack(thetas)[part]) + intercept
    frame = pd.DataFrame(x.astype(np.float32), columns=[f"f{place}" for place in range(width)])
    frame["y"] = (draw.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int)
    return frame


def _directions(width: int, count: int) -> list[np.ndarray]:
    draw = np.random.default_rng(7)
    return [draw.normal(size=width) * 2.5 / np.sqrt(width) for _ in range(count)]


def abrupt(seed: int) -> pd.DataFrame:
    """Another relation from three eighths on."""
    first, second = _directions(12, 2)
    return _logistic(seed, 12, [first] * 3 + [second] * 5, -0.5)


def recurring(seed: int) -> pd.DataFrame:
    """Two relations that come back in turn."""
    first, second = _directions(12, 2)
    return _logistic(seed, 12, [first, first, second, first, second, first, second, first], -0.5)


def still(seed: int) -> pd.DataFrame:
    """No drift at all."""
    return _logistic(seed, 12, _directions(12, 1), -0.5)


def rare(seed: int) -> pd.DataFrame:
    """About 0.5 % positives; the relation changes from the middle on."""
    first, second = _directions(12, 2)
    return _logistic(seed, 12, [first, first, second, second], -8.5, scale=1.3)


def wide(seed: int) -> pd.DataFrame:
    """200 columns, of which interactions and curves tell; another relation from the middle on."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(ROWS, 200))
    later = np.arange(ROWS) >= ROWS // 2
    first = 2.0 * x[:, 0] + 1.5 * np.abs(x[:, 1]) - 1.5 * x[:, 2] * (x[:, 3] > 0) + x[:, 4] - 1.0
    second = 2.0 * x[:, 5] - 1.5 * np.abs(x[:, 1]) + 1.5 * x[:, 2] * (x[:, 6] > 0) - x[:, 4] + 1.0
    logit = 2.0 * np.where(later, second, first)
    frame = pd.DataFrame(x.astype(np.float32), columns=[f"f{place}" for place in range(200)])
    frame["y"] = (draw.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int)
    return frame


def _by_logit(x: np.ndarray, logit: np.ndarray, draw: np.random.Generator) -> pd.DataFrame:
    frame = pd.DataFrame(x.astype(np.float32), columns=[f"f{n}" for n in range(x.shape[1])])
    frame["y"] = (draw.random(len(x)) < 1 / (1 + np.exp(-logit))).astype(int)
    return frame


def _drawn(seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """A draw, eight normal columns, and where in the stream each row is, from 0 to 1."""
    draw = np.random.default_rng((5, seed))
    return draw, draw.normal(size=(ROWS, 8)), np.arange(ROWS) / ROWS


def mixed(seed: int) -> pd.DataFrame:
    """Two flags and a curve, whose sides change twice."""
    return _drifting([
        synth.Mixed(classification_function=number, seed=seed + place)
        for place, number in enumerate((0, 0, 1, 0))
    ])  # fmt: skip


def reversed_labels(seed: int) -> pd.DataFrame:
    """From the middle on each class is the other."""
    draw, x, at = _drawn(seed)
    logit = 2.0 * x[:, 0] - 1.5 * x[:, 1] + np.abs(x[:, 2])
    return _by_logit(x, np.where(at < 0.5, logit, -logit), draw)


def units(seed: int) -> pd.DataFrame:
    """One column is in another unit from the middle on, and nothing else moves."""
    draw, x, at = _drawn(seed)
    frame = _by_logit(x, 2.0 * x[:, 0] - 1.5 * x[:, 1] + x[:, 2] * x[:, 3], draw)
    frame.loc[at >= 0.5, "f0"] = 1.8 * frame["f0"][at >= 0.5] + 32
    return frame


def gradual(seed: int) -> pd.DataFrame:
    """One relation gives way to another over half of the stream."""
    draw, x, at = _drawn(seed)
    later = draw.random(ROWS) < np.clip((at - 0.4) / 0.5, 0, 1)
    logit = np.where(later, 2.0 * x[:, 4] - 2.0 * x[:, 5], 2.0 * x[:, 0] - 2.0 * x[:, 1])
    return _by_logit(x, logit, draw)


def interaction(seed: int) -> pd.DataFrame:
    """A line becomes the product of two columns."""
    draw, x, at = _drawn(seed)
    return _by_logit(x, np.where(at < 0.5, 2.0 * x[:, 0], 3.0 * x[:, 0] * x[:, 1]), draw)


def gone(seed: int) -> pd.DataFrame:
    """From the middle on no column tells anything."""
    draw, x, at = _drawn(seed)
    return _by_logit(x, np.where(at < 0.5, 2.0 * x[:, 0] - x[:, 1] ** 2, -0.5), draw)


def _clusters(seed: int, classes: int, later: np.ndarray) -> pd.DataFrame:
    """A cluster for each class in twelve columns; the share ``later`` of the way to others."""
    draw = np.random.default_rng((8, seed))
    first, second = draw.normal(size=(2, classes, 12)) * 1.6 / np.sqrt(2)
    y, share = draw.integers(classes, size=ROWS), later[:, None]
    x = (1 - share) * first[y] + share * second[y] + draw.normal(size=(ROWS, 12))
    frame = pd.DataFrame(x.astype(np.float32), columns=[f"f{place}" for place in range(12)])
    frame["y"] = [f"k{one}" for one in y]
    return frame


def five(seed: int) -> pd.DataFrame:
    """Five classes, whose clusters lie elsewhere from the middle on."""
    return _clusters(seed, 5, (np.arange(ROWS) >= ROWS // 2).astype(float))


def ten(seed: int) -> pd.DataFrame:
    """Ten classes, whose clusters wander from the middle on."""
    return _clusters(seed, 10, np.clip(2 * np.arange(ROWS) / ROWS - 1, 0, 1))


def eight_return(seed: int) -> pd.DataFrame:
    """Eight classes, whose clusters lie elsewhere for a fifth of the stream, twice."""
    at = np.arange(ROWS) / ROWS
    return _clusters(seed, 8, (((at > 0.4) & (at < 0.6)) | (at > 0.8)).astype(float))


STREAMS: dict[str, Make] = {
    make.__name__: make
    for make in (
        agrawal, sea, sine, stagger, hyperplane, rbf, random_tree, abrupt, recurring, still, rare,
        wide, five, ten, eight_return,
    )
}  # fmt: skip
# that nothing was chosen on
JUDGED: dict[str, Make] = {
    make.__name__: make for make in (mixed, reversed_labels, units, gradual, interaction, gone)
}
