"""river's learners as peers: they learn row by row, from the first training row on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.sources.base import Source

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

TREES = 10


class RiverModel:
    """A river classifier, row by row."""

    def __init__(self, model: Any, source: Source) -> None:
        self._model = model
        for rows in source.training():
            self.learn(rows.x, rows.y)

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        one = self._model.predict_proba_one
        probabilities = [one(dict(enumerate(row))).get(True, 0.0) for row in x.tolist()]
        return np.array(probabilities, dtype=np.float32)

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """See `Peer`."""
        for row, label in zip(x.tolist(), (y == 1).tolist(), strict=True):
            self._model.learn_one(dict(enumerate(row)), label)


def logistic(seed: int, source: Source) -> RiverModel:
    """Logistic regression by gradient steps, on running standardisation."""
    from river import linear_model, preprocessing

    return RiverModel(preprocessing.StandardScaler() | linear_model.LogisticRegression(), source)


def adaptive_tree(seed: int, source: Source) -> RiverModel:
    """Bifet and Gavaldà 2009."""
    from river import tree

    return RiverModel(tree.HoeffdingAdaptiveTreeClassifier(seed=seed), source)


def adaptive_forest(seed: int, source: Source) -> RiverModel:
    """Gomes et al. 2017."""
    from river import forest

    return RiverModel(forest.ARFClassifier(n_models=TREES, seed=seed), source)
