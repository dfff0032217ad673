"""What a base says of a model that is no torch network: how its bytes are read, what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import Columns

    Matrix = NDArray[np.float64]

Kind = Literal["float", "integer", "flag", "text", "category"]
Format = Literal["skops", "lightgbm", "xgboost", "catboost", "pyfunc"]
FLAGS = {"True": 1.0, "1": 1.0, "False": 0.0, "0": 0.0}


class EstimatorInput(BaseModel):
    """A column as the model was trained on it; the ``categories`` of one are in their order.

    Numbers may be categories, too: then ``kind`` is category and so are their values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: Kind = "float"
    categories: tuple[str | int | float, ...] = ()

    @property
    def holds_text(self) -> bool:
        """Whether its values are texts, as those of true and false are in every source."""
        return self.kind in ("text", "flag") or any(isinstance(one, str) for one in self.categories)

    def codes(self, values: NDArray[Any]) -> Matrix:
        """Values (n,) as numbers: of a category its place, NaN where it is missing or unknown."""
        if self.kind == "flag":
            return np.array([FLAGS.get(one, np.nan) for one in values])
        if self.kind != "category":
            return values
        places = pd.Index(self.categories).get_indexer(pd.Index(values))
        return np.where(places < 0, np.nan, places.astype(np.float64))

    def series(self, values: NDArray[Any]) -> pd.Series[Any]:
        """Values (n,) as pandas had them in training; a missing one is NaN."""
        if self.kind == "category":
            return pd.Series(pd.Categorical(values, categories=list(self.categories)))
        if self.kind == "text":
            return pd.Series([np.nan if one is None else one for one in values], dtype=object)
        values = self.codes(values)
        if self.kind == "float" or np.isnan(values).any():
            return pd.Series(values)
        return pd.Series(values.astype(np.bool_ if self.kind == "flag" else np.int64))


class EstimatorSpec(BaseModel):
    """A fitted object of another library, by the hash of its bytes.

    It ``gives`` probabilities, or a network's inputs. ``outputs``: 1 for the probability of class
    1, else a probability for each of K classes; of inputs their number.
    ``takes`` a table as in training, or a matrix of numbers alone, which costs less; ``dtype`` is
    the type of its numbers where they are not whole. It decides for class 1 where that is as likely
    as ``decides_from``, or more. ``types`` are those in its file that skops
    does not load by itself, and of a pyfunc that runs code of its own the name of that;
    ``libraries`` are what it was stored with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Format
    sha256: str
    inputs: tuple[EstimatorInput, ...]
    outputs: int = 1
    takes: Literal["table", "matrix"] = "table"
    types: tuple[str, ...] = ()
    libraries: dict[str, str] = {}
    gives: Literal["probabilities", "inputs"] = "probabilities"
    dtype: Literal["float64", "float32"] = "float64"
    decides_from: float = 0.5

    @model_serializer(mode="wrap")
    def _as_it_was(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what classifiers did not say before others came."""
        values: dict[str, Any] = dump(self)
        said = (("gives", "probabilities"), ("dtype", "float64"), ("decides_from", 0.5))
        return {k: v for k, v in values.items() if (k, v) not in said}

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that it takes, in their order."""
        return tuple(one.name for one in self.inputs)

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns that hold texts."""
        return tuple(one.name for one in self.inputs if one.holds_text)

    @property
    def is_plain(self) -> bool:
        """Whether every column goes in as the number that it is."""
        return all(one.kind in ("float", "integer") for one in self.inputs)

    def table(self, columns: Columns) -> pd.DataFrame:
        """Raw columns (n,) each as the table that it was trained on."""
        table = {one.name: one.series(columns[one.name]) for one in self.inputs}
        if self.dtype != "float64":
            floats = (name for name, values in table.items() if values.dtype == np.float64)
            table |= {name: table[name].astype(self.dtype) for name in floats}
        return pd.DataFrame(table)

    def matrix(self, columns: Columns) -> Matrix:
        """Raw columns (n,) each side by side (n, inputs), categories by their place."""
        matrix = np.column_stack([one.codes(columns[one.name]) for one in self.inputs])
        return matrix.astype(self.dtype, copy=False)
