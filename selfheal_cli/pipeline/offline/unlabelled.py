"""Peers that never see a label: how unusual a row is beside the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit
from threadpoolctl import threadpool_limits

from selfheal_cli.sources.base import Source

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

MOST_TRAINED = 5_000  # latest training rows: a one-class SVM takes their square
LEAST_SHARE = 0.001  # of training rows that are called unusual


class Unlabelled:
    """A detector of scikit-learn's, fitted once to inputs; its answers rank rows and no more.

    A row is flagged at 0.5: as many training rows are as there are positives among them. Above and
    below, the answer is the logistic function of the score in standard deviations of training's.
    """

    def __init__(self, source: Source, detector: Any, share: str) -> None:
        blocks = [(rows.x, rows.y) for rows in source.training()]
        x, y = (np.concatenate(part)[-MOST_TRAINED:] for part in zip(*blocks, strict=True))
        positives = min(max(float(np.mean(y == 1)), LEAST_SHARE), 0.5)
        self._detector = detector.set_params(**{share: positives})
        with threadpool_limits(limits=1):
            scores = -self._detector.fit(x).score_samples(x)
        self._level = float(np.quantile(scores, 1 - positives))
        self._spread = float(scores.std()) or 1.0

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        unusual = (-self._detector.score_samples(x) - self._level) / self._spread
        answer: FloatArray = expit(unusual).astype(np.float32)
        return answer

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """Nothing."""


def isolation_forest(seed: int, source: Source) -> Unlabelled:
    """Liu, Ting and Zhou 2008; 100 trees."""
    from sklearn.ensemble import IsolationForest

    return Unlabelled(source, IsolationForest(random_state=seed, n_jobs=1), "contamination")


def one_class_svm(seed: int, source: Source) -> Unlabelled:
    """Schölkopf et al. 2001, with a radial kernel of scikit-learn's width."""
    from sklearn.svm import OneClassSVM

    return Unlabelled(source, OneClassSVM(), "nu")
