"""Online learners of the river library, on the same encoded inputs. Needs selfheal-cli[compare]."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

TREES = 10


class RiverModel:
    """A river classifier, row by row."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        one = self._model.predict_proba_one
        found = [one(dict(enumerate(row))).get(True, 0.0) for row in x.tolist()]
        return np.array(found, dtype=np.float32)

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """See `Peer`."""
        for row, label in zip(x.tolist(), (y == 1).tolist(), strict=True):
            self._model.learn_one(dict(enumerate(row)), label)


def river_peers() -> dict[str, Callable[[int], RiverModel]]:
    """Makers of the three by title, from a seed; raises `ConfigurationError` without river."""
    try:
        from river import forest, linear_model, preprocessing, tree
    except ImportError as exc:
        raise ConfigurationError(
            "river is not installed: pip install 'selfheal-cli[compare]', or leave out --river"
        ) from exc

    def linear(seed: int) -> RiverModel:
        return RiverModel(preprocessing.StandardScaler() | linear_model.LogisticRegression())

    def adaptive_tree(seed: int) -> RiverModel:
        return RiverModel(tree.HoeffdingAdaptiveTreeClassifier(seed=seed))

    def adaptive_forest(seed: int) -> RiverModel:
        return RiverModel(forest.ARFClassifier(n_models=TREES, seed=seed))

    return {
        "river LogisticRegression": linear,
        "river HoeffdingAdaptiveTree": adaptive_tree,
        f"river ARF, {TREES} trees": adaptive_forest,
    }
