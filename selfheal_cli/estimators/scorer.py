"""Fitted objects that are loaded, by the hash of their bytes: encodings of many versions share one.

Each is asked on one thread: rows are few, and threads that wait for a busy core cost more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import ModelError
from selfheal_cli.estimators.loading import Predict, loaded

if TYPE_CHECKING:
    from selfheal_cli.estimators.spec import EstimatorSpec, Matrix
    from selfheal_cli.records import Columns, FloatArray

TRIES = 200  # to find the rows that it fails on; then the rest have no answer
KEPT = 4  # objects; a process serves one, and another while a base is replaced


@dataclass(frozen=True, slots=True)
class LoadedEstimator:
    """Asks a fitted object, stored as ``data``, for probabilities."""

    spec: EstimatorSpec
    predict: Predict
    data: bytes

    def score(self, columns: Columns, matrix: Matrix | None = None) -> FloatArray:
        """Raw columns (n,) each to (n, outputs) float32; NaN for a row that it has no answer to.

        ``matrix`` (n, inputs) holds the same numbers, where the caller has them.
        """
        spec = self.spec
        if spec.takes == "table":
            rows: Any = spec.table(columns)
        else:
            known = matrix is not None and spec.is_plain and spec.dtype == "float64"
            rows = matrix if known else spec.matrix(columns)
        return self._answers(rows).astype(np.float32)

    def _answers(self, rows: Any) -> Matrix:
        """Where it fails on some rows, the others have their answer all the same."""
        answers = np.full((len(rows), self.spec.outputs), np.nan)
        waiting, tries = [(0, len(rows))] if len(rows) else [], 0
        while waiting and tries < TRIES:
            start, end = waiting.pop()
            tries += 1
            try:
                table = np.asarray(self.predict(rows[start:end]), dtype=np.float64)
            except Exception:  # the library's or its author's code, which may raise anything
                if end - start > 1:
                    middle = (start + end) // 2
                    waiting += [(middle, end), (start, middle)]
                continue
            answers[start:end] = as_outputs(table, self.spec.outputs)
        return answers


def as_outputs(table: Matrix, outputs: int) -> Matrix:
    """Probabilities (n,) or (n, K) as (n, outputs): of two classes those of the second."""
    if outputs > 1:
        return table
    return table[:, None] if table.ndim == 1 else table[:, -1:]


_kept: OrderedDict[str, LoadedEstimator] = OrderedDict()


def keep(spec: EstimatorSpec, data: bytes, is_allowed: Callable[[str], bool]) -> LoadedEstimator:
    """Load an object, unless it is loaded; raises `ModelError`, as `loading.loaded` does."""
    kept = _kept.get(spec.sha256)
    if kept is None or kept.spec != spec:
        kept = _kept[spec.sha256] = LoadedEstimator(spec, loaded(spec, data, is_allowed), data)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return kept


def scorer_of(spec: EstimatorSpec) -> LoadedEstimator:
    """An object that was loaded; raises `ModelError` where it was not."""
    if spec.sha256 not in _kept:
        raise ModelError(f"the {spec.format} model {spec.sha256[:12]} is not loaded")
    return _kept[spec.sha256]
