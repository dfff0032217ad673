"""Models fitted anew every so many batches on the latest labelled rows, or fitted once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from selfheal_cli.config import NetworkSettings
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.training import SpooledRows, seeded, train
from selfheal_cli.pipeline.offline.baselines import Constant
from selfheal_cli.records import Rows
from selfheal_cli.sources.base import Source

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

    Block = tuple[FloatArray, LabelArray]
    Predict = Callable[[FloatArray], FloatArray]
    Fit = Callable[[FloatArray, LabelArray, int], Predict]  # the last is the number of classes

EVERY = 10  # batches with labels between two fits
LATEST = 10_000  # labelled rows that a fit learns from
MOST_TRAINED = 200_000  # latest training rows that the first fit learns from, to bound memory
TREES = {
    "num_leaves": 31, "learning_rate": 0.1, "deterministic": True,
    "force_row_wise": True, "num_threads": 1, "verbosity": -1,
}  # fmt: skip
ROUNDS = 100
ITERATIONS = 200


@dataclass(frozen=True, slots=True)
class RefitSchedule:
    """When a model is fitted again, and on how many labelled rows; None: on all."""

    every: int = EVERY
    rows: int | None = LATEST

    def __str__(self) -> str:
        of = "" if self.rows == LATEST else " on the last {:,} rows"
        of = " on all rows" if self.rows is None else of.format(self.rows)
        return f"every {self.every} batches{of}"


class Refitted:
    """A peer that is fitted on the training part, and anew when labels came with enough batches.

    Without ``refit`` it stays as it was fitted first. It keeps its last fit while the latest rows
    are of one class, and before there is one it says the classes' shares.
    """

    def __init__(self, source: Source, fit: Fit, refit: RefitSchedule | None = None) -> None:
        self._fit, self._refit, self._classes = fit, refit, len(source.labels)
        first = None if refit and refit.rows is None else MOST_TRAINED
        self._blocks = latest([(rows.x, rows.y) for rows in source.training()], first)
        y = np.concatenate([y for _, y in self._blocks])
        shares = np.bincount(y, minlength=self._classes) / len(y)
        self._predict: Predict = Constant(shares.tolist()).predict
        self._batches = 0  # with labels, since the last fit
        self._fit_again()

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        return self._predict(x).astype(np.float32)

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """See `Peer`."""
        if self._refit is None:
            return
        self._blocks = latest([*self._blocks, (x, y)], self._refit.rows)
        self._batches += 1
        if self._batches >= self._refit.every:
            self._fit_again()

    def _fit_again(self) -> None:
        self._batches = 0
        x, y = (np.concatenate(part) for part in zip(*self._blocks, strict=True))
        if len(np.unique(y)) > 1:
            with threadpool_limits(limits=1):  # the same sums on every machine
                self._predict = self._fit(x, y, self._classes)


def latest(blocks: Sequence[Block], most: int | None) -> list[Block]:
    """The last ``most`` rows, oldest first; None: all."""
    surplus = 0 if most is None else sum(len(y) for _, y in blocks) - most
    kept = []
    for x, y in blocks:
        if surplus < len(y):
            cut = max(0, surplus)
            kept.append((x[cut:], y[cut:]))
        surplus -= len(y)
    return kept


def fit_trees(seed: int, x: FloatArray, y: LabelArray, classes: int) -> Predict:
    """LightGBM as it comes: 100 trees of 31 leaves, of more than two classes for each."""
    from lightgbm import Dataset
    from lightgbm import train as boost

    many = {"objective": "multiclass", "num_class": classes}
    kind = {"objective": "binary"} if classes == 2 else many
    booster = boost({**TREES, **kind, "seed": seed}, Dataset(x, y), ROUNDS)
    return partial(_by_booster, booster)


def _by_booster(booster: Any, x: FloatArray) -> FloatArray:
    probabilities: FloatArray = booster.predict(x, num_threads=1)
    return probabilities


def fit_logistic(x: FloatArray, y: LabelArray, classes: int) -> Predict:
    """scikit-learn's as it comes, on standardised inputs."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    return partial(_of_classes, model, classes)


def _of_classes(model: Any, classes: int, x: FloatArray) -> FloatArray:
    """Of a class that it was not fitted to, 0."""
    probabilities: FloatArray = np.zeros((len(x), classes), dtype=np.float32)
    probabilities[:, model.classes_] = model.predict_proba(x)
    return probabilities[:, 1] if classes == 2 else probabilities


def fit_network(
    settings: NetworkSettings, seed: int, x: FloatArray, y: LabelArray, classes: int
) -> Predict:
    """The network as a run trains it, from nothing."""
    from selfheal_cli.model.selection import train_selected

    rows = SpooledRows(iter([Rows(x, y, {})]))
    outputs = 1 if classes == 2 else classes
    with seeded(seed):
        network = SelfHealingNetwork.build(Architecture(x.shape[1], settings.hidden, outputs))
        if settings.validation:
            network = train_selected(network, rows, settings, lambda: None).network
        else:
            train(network, rows, settings, lambda: None)
    return network.predict
