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
        self._model, self._classes = model, len(source.labels)
        for rows in source.training():
            self.learn(rows.x, rows.y)

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        one, classes = self._model.predict_proba_one, range(self._classes)
        answers = (one(dict(enumerate(row))) for row in x.tolist())
        if self._classes == 2:
            return np.array([answer.get(True, 0.0) for answer in answers], dtype=np.float32)
        rows = [[answer.get(label, 0.0) for label in classes] for answer in answers]
        return np.array(rows, dtype=np.float32).reshape(-1, self._classes)

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """See `Peer`."""
        labels = (y == 1).tolist() if self._classes == 2 else y.tolist()
        for row, label in zip(x.tolist(), labels, strict=True):
            self._model.learn_one(dict(enumerate(row)), label)


def logistic(seed: int, source: Source) -> RiverModel:
    """Logistic regression by gradient steps, on running standardisation; of more than two classes
    each against the rest.
    """
    from river import linear_model, multiclass, preprocessing

    two = linear_model.LogisticRegression()
    model = two if len(source.labels) == 2 else multiclass.OneVsRestClassifier(two)
    return RiverModel(preprocessing.StandardScaler() | model, source)


def adaptive_tree(seed: int, source: Source) -> RiverModel:
    """Bifet and Gavaldà 2009."""
    from river import tree

    return RiverModel(tree.HoeffdingAdaptiveTreeClassifier(seed=seed), source)


def adaptive_forest(seed: int, source: Source) -> RiverModel:
    """Gomes et al. 2017."""
    from river import forest

    return RiverModel(forest.ARFClassifier(n_models=TREES, seed=seed), source)
