"""Boosted trees as peers: fitted once, or again every so many batches on the latest rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from selfheal_cli.pipeline.offline.baselines import Constant, MakePeer, Peer
from selfheal_cli.sources.base import Source

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

    Block = tuple[FloatArray, LabelArray]

LATEST = 10_000  # labelled rows that a refit learns from
MOST_TRAINED = 200_000  # latest training rows that the first fit learns from, to bound memory
FROZEN = "boosted trees, frozen"


class Trees:
    """scikit-learn's `HistGradientBoostingClassifier` as it comes, on the network's inputs.

    Fitted on the training part; then anew on the last `LATEST` labelled rows each time labels came
    with ``every`` batches, or never (None). It keeps its last fit while the latest rows are of one
    class, and before there is one it says the share of positives.
    """

    def __init__(self, source: Source, seed: int, every: int | None = None) -> None:
        self._seed, self._every = seed, every
        self._blocks = _latest([(rows.x, rows.y) for rows in source.training()], MOST_TRAINED)
        share = float(np.mean(np.concatenate([y for _, y in self._blocks]) == 1))
        self._model: Any = None
        self._until_then = Constant(share)
        self._batches = 0  # with labels, since the last fit
        self._fit()

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        if self._model is None:
            return self._until_then.predict(x)
        probabilities: FloatArray = self._model.predict_proba(x)[:, 1].astype(np.float32)
        return probabilities

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """See `Peer`."""
        if self._every is None:
            return
        self._blocks = _latest([*self._blocks, (x, y)], LATEST)
        self._batches += 1
        if self._batches >= self._every:
            self._fit()

    def _fit(self) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        self._batches = 0
        x, y = (np.concatenate(part) for part in zip(*self._blocks, strict=True))
        if len(np.unique(y)) < 2:
            return
        model = HistGradientBoostingClassifier(random_state=self._seed)
        with threadpool_limits(limits=1, user_api="openmp"):  # the same sums on every machine
            self._model = model.fit(x, y)


def _latest(blocks: Sequence[Block], most: int) -> list[Block]:
    """The last ``most`` rows, oldest first."""
    surplus = sum(len(y) for _, y in blocks) - most
    kept = []
    for x, y in blocks:
        if surplus < len(y):
            cut = max(0, surplus)
            kept.append((x[cut:], y[cut:]))
        surplus -= len(y)
    return kept


def tree_peers(every: int) -> dict[str, MakePeer]:
    """Makers by title: frozen, and refitted every so many batches."""

    def frozen(seed: int, source: Source) -> Peer:
        return Trees(source, seed)

    def refitted(seed: int, source: Source) -> Peer:
        return Trees(source, seed, every)

    return {FROZEN: frozen, refitted_title(every): refitted}


def refitted_title(every: int) -> str:
    """How the refitted trees are called.

    >>> refitted_title(10)
    'boosted trees, refitted every 10 batches'
    """
    return f"boosted trees, refitted every {every} batches"
