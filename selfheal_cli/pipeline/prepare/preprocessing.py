"""A pipeline of scikit-learn's before a torch network: fitted elsewhere, stored with the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.errors import DataError, ModelError, one_line
from selfheal_cli.estimators.describing import columns_of, describe, dtypes_of
from selfheal_cli.estimators.scorer import keep
from selfheal_cli.estimators.spec import EstimatorSpec
from selfheal_cli.estimators.taking import FittedClassifier, on_one_thread
from selfheal_cli.pipeline.prepare.foreign import Sample, StoredModel, several_of
from selfheal_cli.pipeline.prepare.inputs import AskedInput, place_inputs
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.sources.fit import side_columns

if TYPE_CHECKING:
    import pandas as pd

    from selfheal_cli.records import FloatArray


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is stored of a pipeline, and how columns go through it to the inputs ``x`` (n, d)."""

    data: bytes
    spec: EstimatorSpec
    encoding: Encoding
    x: FloatArray

    def sample(self, stored: StoredModel, asked: Sequence[AskedInput]) -> Sample:
        """Rows as the network behind it takes them; raises `DataError` where they do not fit."""
        wanted = asked or (AskedInput(None, stored.takes_tokens),)
        inputs, order = place_inputs(wanted, self.encoding.transformed, "what --preprocess gives")
        whole = self.x[np.isfinite(self.x).all(axis=1)]
        if not len(whole):
            raise DataError("--preprocess gives no row of numbers alone: every one misses a value")
        first = inputs[0]
        return Sample(
            np.ascontiguousarray(whole), order, first.shape, first.dtype,
            several=several_of(inputs), before=self.encoding, before_data=self.data,
        )  # fmt: skip


def preprocessing(fitted: FittedClassifier, frame: pd.DataFrame, where: str) -> Preprocessing:
    """A pipeline that gives, stored, what it gives itself of the rows ``frame``, which are from
    ``where``; raises `ModelError` and `DataError`.
    """
    names = columns_of(fitted, list(frame.columns), None)
    fitted = on_one_thread(fitted)
    try:
        theirs = fitted.ask(frame[list(names)]).astype(np.float32)
    except Exception as exc:  # its own code
        raise ModelError(
            f"the {fitted.kind} does not transform the rows of {where}: {one_line(exc)[:300]}"
        ) from exc
    if theirs.ndim != 2 or len(theirs) != len(frame):
        raise ModelError(f"the {fitted.kind} gives {theirs.shape} for {len(frame)} rows")
    usual = describe(fitted, theirs.shape[1], frame, names)
    for dtype in dtypes_of(frame):
        spec = usual.model_copy(update={"gives": "inputs", "dtype": dtype})
        keep(spec, fitted.data, frozenset(fitted.types).__contains__)
        encoding = Encoding(columns=side_columns(frame, spec), contract=2, model=spec)
        x = encoding.encode(encoding.raw(frame))
        if np.array_equal(x, theirs, equal_nan=True):
            return Preprocessing(fitted.data, spec, encoding, x)
    raise ModelError(
        f"the {fitted.kind} gives something else once it is stored, on {len(frame)} rows: its "
        "columns or their types are others than in training"
    )
