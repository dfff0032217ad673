"""What a batch's rows are answered, and which of them cannot be: those are left out and counted.

A row that the model fails on, or gives no finite number for, is in no figure and in no heal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.errors import DataError
from selfheal_cli.heal.engine import LiveModel
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.prepare.baseline import Prepared
from selfheal_cli.records import Answers, Batch, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

REFUSED = "rows that the model fails on, left out"
NOT_FINITE = "rows that the model gives no finite number for, left out"


@dataclass(frozen=True, slots=True)
class AnsweredBatch:
    """The rows of ``batch`` have answers; ``left_out`` counts those that have none, by reason."""

    batch: Batch
    features: FloatArray
    answers: Answers
    shadow: FloatArray
    left_out: Counter[str]


def answer(batch: Batch, prepared: Prepared, live: LiveModel) -> AnsweredBatch:
    """Score a batch with what serves now, unless its rows were answered elsewhere.

    Raises `DataError` where not one row has an answer.
    """
    left_out: Counter[str] = Counter()
    features, taken = _features(prepared.network, batch.rows.x)
    if not taken.all():
        left_out[REFUSED] = int((~taken).sum())
        batch, features = chosen(batch, taken), features[taken]
    serving = live.serving
    answers = batch.answers or Answers(
        serving.network.predict_features(features), serving.threshold
    )
    shadow = prepared.shadow.predict(batch.rows.x)
    finite = _finite(features) & _finite(answers.probabilities) & _finite(shadow)
    if not finite.all():
        left_out[NOT_FINITE] = int((~finite).sum())
        batch, features, shadow = chosen(batch, finite), features[finite], shadow[finite]
        answers = replace(answers, probabilities=answers.probabilities[finite])
    if not len(batch.rows):
        raise DataError("; ".join(f"{count} {reason}" for reason, count in left_out.items()))
    return AnsweredBatch(batch, features, answers, shadow, left_out)


def chosen(batch: Batch, rows: NDArray[np.bool_]) -> Batch:
    """The chosen rows (n,), each with the place that it has in the whole batch."""
    whole, answers, label_at = batch.rows, batch.answers, batch.label_at
    columns = {name: values[rows] for name, values in whole.columns.items()}
    return replace(
        batch,
        rows=Rows(whole.x[rows], whole.y[rows], columns),
        places=batch.place[rows],
        label_at=None if label_at is None else label_at[rows],
        answers=answers and replace(answers, probabilities=answers.probabilities[rows]),
    )


def _features(network: SelfHealingNetwork, x: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Features (n, f), and which rows (n,) have any; raises the network's own error for all rows.

    A network of somebody else's may fail on a single row, as for a token that it does not know:
    the rows are halved until that one is alone.
    """
    try:
        return network.features(x), np.ones(len(x), dtype=np.bool_)
    except Exception:
        if len(x) < 2:
            raise
    parts, failure = [], None
    for half in np.array_split(x, 2):
        try:
            parts.append(_features(network, half))
        except Exception as exc:
            failure = exc
            parts.append((np.empty((len(half), 0), np.float32), np.zeros(len(half), np.bool_)))
    if failure is not None and not any(taken.any() for _, taken in parts):
        raise failure
    width = max(features.shape[1] for features, _ in parts)
    wide = [
        features if features.shape[1] == width else np.full((len(taken), width), np.nan, np.float32)
        for features, taken in parts
    ]
    return np.concatenate(wide), np.concatenate([taken for _, taken in parts])


def _finite(values: FloatArray) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))
