"""Raw columns to network inputs: standardised numbers, one-hot categories, kept as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from selfheal_cli.estimators.scorer import scorer_of
from selfheal_cli.estimators.spec import EstimatorSpec
from selfheal_cli.segment_keys import codes_of
from selfheal_cli.sources.first_contract import as_text
from selfheal_cli.sources.values import LARGEST, RowContract, finite, numbers, texts

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray


CLIP = 10.0  # standard deviations; one extreme value shall not outweigh the rest of its row
LARGEST_OF_OLD = 1e100  # in a table, by contract 1
MISSING = "missing values"
TOO_LARGE = "numbers beyond 3.4e38, taken as missing"


def constant_sd(mean: float) -> float:
    """The standard deviation up to which numbers count as equal: that of rounding."""
    return 1e-12 * max(1.0, abs(mean))


class NumericColumn(BaseModel):
    """A number: (value - mean) / sd; a missing value is the training mean.

    A ``constant`` was always ``mean`` in training: the network never learned a weight for it, so
    that it comes through as -1, 0 or 1, below, at or above ``mean``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["numeric"] = "numeric"
    name: str
    mean: float
    sd: float
    constant: bool = False

    @property
    def width(self) -> int:
        """Inputs that the column takes."""
        return 1

    def encode(self, values: np.ndarray[Any, Any], out: FloatArray) -> dict[str, int]:
        """Write (n,) values into ``out`` (n, 1); returns counts of what was unusual."""
        missing = np.isnan(values)
        centred = values - self.mean
        if self.constant:
            moved = np.abs(centred) > constant_sd(self.mean)
            scaled = np.where(moved, np.sign(centred), 0.0)
        else:
            scaled = centred / self.sd
        out[:, 0] = np.clip(np.where(missing, 0.0, scaled), -CLIP, CLIP)
        return {MISSING: int(missing.sum())}


class RawColumn(BaseModel):
    """A number that goes in as it is, for a network that somebody else trained.

    ``missing`` is what goes in for a value that is not there: None is NaN, which some networks
    take, and others answer with NaN.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["raw"] = "raw"
    name: str
    missing: Annotated[float | None, Field(allow_inf_nan=False)] = 0.0

    @property
    def width(self) -> int:
        """Inputs that the column takes."""
        return 1

    def encode(self, values: np.ndarray[Any, Any], out: FloatArray) -> dict[str, int]:
        """Write (n,) values into ``out`` (n, 1); returns counts of what was unusual."""
        missing = np.isnan(values)
        fill = np.nan if self.missing is None else self.missing
        out[:, 0] = np.where(missing, fill, values)
        return {MISSING: int(missing.sum())}


class CategoricalColumn(BaseModel):
    """Text: one input a category, one for missing; a category not seen in training is all zero."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["categorical"] = "categorical"
    name: str
    categories: tuple[str, ...]

    @property
    def width(self) -> int:
        """Inputs that the column takes."""
        return len(self.categories) + 1

    def encode(self, values: np.ndarray[Any, Any], out: FloatArray) -> dict[str, int]:
        """Write (n,) texts into ``out`` (n, width); returns counts of what was unusual."""
        missing = pd.isna(values)
        codes = pd.Index(self.categories).get_indexer(pd.Index(np.where(missing, "", values)))
        codes[missing] = len(self.categories)
        seen = codes >= 0
        out[:] = 0.0
        out[np.flatnonzero(seen), codes[seen]] = 1.0
        return {
            MISSING: int(missing.sum()),
            "unseen categories": int((~seen).sum()),
        }


class SegmentColumn(BaseModel):
    """The column that says which segment a row is of, where it is no feature: no input is of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["segment"] = "segment"
    name: str

    @property
    def width(self) -> int:
        """Inputs that the column takes."""
        return 0

    def encode(self, values: np.ndarray[Any, Any], out: FloatArray) -> dict[str, int]:
        """Nothing to write; a value that is missing is nothing unusual."""
        return {}


TEXTS = ("categorical", "segment")  # kinds of columns that hold texts
Column = Annotated[
    NumericColumn | RawColumn | CategoricalColumn | SegmentColumn, Field(discriminator="kind")
]


class Encoding(BaseModel):
    """The columns in the order of the network's inputs; fitted once, immutable after.

    ``contract`` says what values mean: 2 as in `values`, 1 as in selfheal 0.1.0, whose encodings
    do not name one. A ``model`` that is no torch network takes the raw columns; the probabilities
    that it gives are the last inputs. What it transforms for a network are all of them.
    Behind the inputs go two numbers that say which ``segment`` a row is of (`segment_keys`), where
    a column has that name: it may be a feature, or else a `SegmentColumn`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    columns: tuple[Column, ...]
    contract: RowContract = 1
    model: EstimatorSpec | None = None
    segment: str | None = None

    @model_serializer(mode="wrap")
    def _as_of_its_contract(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what selfheal 0.1.0 did not write, so that its encodings keep their bytes."""
        values: dict[str, Any] = dump(self)
        if self.model is None:
            del values["model"]
        if self.segment is None:
            del values["segment"]
        if self.contract == 1:
            del values["contract"]
            for column in values["columns"]:
                column.pop("missing", None)
        return values

    @classmethod
    def raw_columns(
        cls,
        names: Sequence[str],
        missing: Sequence[float | None] = (),
        contract: RowContract = 2,
    ) -> Encoding:
        """Unscaled columns for a network that has its own preprocessing, in this order.

        ``missing`` is what each takes for a missing value; 0 by default.
        """
        fills = missing or [0.0] * len(names)
        pairs = zip(names, fills, strict=True)
        columns = tuple(RawColumn(name=name, missing=fill) for name, fill in pairs)
        return cls(columns=columns, contract=contract)

    @classmethod
    def identity(cls, names: list[str], contract: RowContract = 2) -> Encoding:
        """Columns that the network takes as they are."""
        columns = tuple(NumericColumn(name=name, mean=0.0, sd=1.0) for name in names)
        return cls(columns=columns, contract=contract)

    @property
    def names(self) -> list[str]:
        """Names of the columns that a row must have, in order."""
        return [column.name for column in self.columns]

    @property
    def features(self) -> list[str]:
        """Names of the features in order."""
        return [column.name for column in self.columns if column.kind != "segment"]

    def by_segment(self, name: str) -> Encoding:
        """The same, with the column that says which segment a row is of."""
        beside = () if name in self.names else (SegmentColumn(name=name),)
        return self.model_copy(update={"columns": (*self.columns, *beside), "segment": name})

    @property
    def numeric(self) -> list[str]:
        """Names of the numeric features."""
        return [column.name for column in self.columns if column.kind not in TEXTS]

    @property
    def text(self) -> list[str]:
        """Names of the text features."""
        return [column.name for column in self.columns if column.kind == "categorical"]

    @property
    def missing(self) -> tuple[float | None, ...]:
        """What goes in for a missing value of each raw column; nothing by contract 1."""
        if self.contract == 1:
            return ()
        return tuple(column.missing for column in self.columns if column.kind == "raw")

    @property
    def width(self) -> int:
        """Inputs of the network, without what says which segment a row is of."""
        given = 0 if self.model is None else self.model.outputs
        return given + (0 if self.transforms else sum(column.width for column in self.columns))

    @property
    def transforms(self) -> bool:
        """Whether the columns reach the network through a pipeline before it, and no other way."""
        return self.model is not None and self.model.gives == "inputs"

    @property
    def transformed(self) -> tuple[str, ...]:
        """Names of the inputs that a pipeline before the network gives, where one does."""
        count = self.model.outputs if self.model is not None and self.transforms else 0
        return tuple(f"f{place}" for place in range(count))

    @property
    def model_bytes(self) -> bytes | None:
        """The model as it is stored; None where there is none."""
        return None if self.model is None else scorer_of(self.model).data

    def encode(self, columns: Columns, counts: Counter[str] | None = None) -> FloatArray:
        """Raw columns, (n,) each, to (n, width) float32, by segment (n, width + 2); adds what was
        unusual to ``counts``.
        """
        rows = len(next(iter(columns.values())))
        beside = sum(column.width for column in self.columns)
        given_width = 0 if self.model is None else self.model.outputs
        x = np.empty((rows, beside + given_width), dtype=np.float32)
        start = 0
        taken: dict[str, np.ndarray[Any, Any]] = {}
        for column in self.columns:
            values = columns[column.name]
            beyond = 0
            if self.contract == 2 and column.kind not in TEXTS:
                given = int(np.isnan(values).sum())
                values = finite(values) + 0.0  # no -0.0
                beyond = int(np.isnan(values).sum()) - given
            taken[column.name] = values
            unusual = column.encode(values, x[:, start : start + column.width])
            start += column.width
            if counts is not None:
                counts.update(unusual)
                if beyond:
                    counts.update({MISSING: -beyond, TOO_LARGE: beyond})
        if self.model is not None:
            x[:, start:] = scorer_of(self.model).score(taken)
        x = np.ascontiguousarray(x[:, start:]) if self.transforms else x
        if self.segment is None:
            return x
        return np.concatenate([x, codes_of(columns[self.segment])], axis=1)

    def filled(self, x: FloatArray) -> FloatArray:
        """Raw columns side by side (n, d) as inputs: what goes in where a value is missing."""
        if isfinite(np.vdot(x, x)):  # one call tells for most rows that no value is missing
            return x
        absent = np.isnan(x)
        if not absent.any():
            return x
        fills = [column.missing for column in self.columns if column.kind == "raw"]
        known = np.array([np.nan if fill is None else fill for fill in fills], dtype=np.float32)
        return np.where(absent, known, x)

    def cleaned(self, columns: Columns) -> Columns:
        """Raw columns for all that measures them: of numbers, what is not finite is missing."""
        numeric = set(self.numeric)
        return {
            name: self._finite(values) if name in numeric else values
            for name, values in columns.items()
        }

    def _finite(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return finite(values, LARGEST if self.contract == 2 else LARGEST_OF_OLD)

    def raw(self, frame: pd.DataFrame) -> Columns:
        """A table as raw columns; raises KeyError naming what is missing, and ValueError for a text
        where a number must be.
        """
        absent = [name for name in self.names if name not in frame.columns]
        if absent:
            raise KeyError(f"missing columns: {', '.join(absent)}; expected: {self.names}")
        return {
            column.name: self._numbers(frame[column.name])
            if column.kind not in TEXTS
            else self._texts(frame[column.name])
            for column in self.columns
        }

    def _numbers(self, values: pd.Series[Any]) -> np.ndarray[Any, Any]:
        if self.contract == 1:
            return values.to_numpy(dtype=np.float64)
        try:
            return numbers(values)
        except ValueError as exc:
            raise ValueError(f"column '{values.name}': {exc}") from exc

    def _texts(self, values: pd.Series[Any]) -> np.ndarray[Any, Any]:
        return texts(values) if self.contract == 2 else as_text(values).to_numpy(dtype=object)


def occurred(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: count for name, count in counts.items() if count}


class QuickEncoding:
    """`Encoding.encode` of all columns in one step, to the last bit, for one request after another.

    ``exact``: every column is a number that varied in training; otherwise it takes the slow way.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        columns = encoding.columns
        plain = all(isinstance(c, NumericColumn) and not c.constant for c in columns)
        self.exact = plain and encoding.segment is None
        if self.exact:
            numeric: list[Any] = list(columns)
            self._mean = np.array([column.mean for column in numeric])
            self._sd = np.array([column.sd for column in numeric])
            self._largest = LARGEST if encoding.contract == 2 else np.inf

    def encode(self, columns: Columns, matrix: FloatArray | None) -> FloatArray:
        """Raw columns to (n, width) float32; ``matrix`` (n, columns) float64 holds the same
        numbers side by side, where the caller has them.
        """
        if matrix is None or not self.exact:
            return self.encoding.encode(columns)
        scaled = (matrix - self._mean) / self._sd
        scaled[~(np.abs(matrix) <= self._largest)] = 0.0
        if self.encoding.contract == 2:
            scaled += 0.0  # no -0.0
        encoded: FloatArray = np.clip(scaled, -CLIP, CLIP).astype(np.float32)
        if self.encoding.model is None:
            return encoded
        known = np.where(np.abs(matrix) <= self._largest, matrix, np.nan) + 0.0
        taken = dict(zip(self.encoding.names, known.T, strict=True))
        given = scorer_of(self.encoding.model).score(taken, known)
        return given if self.encoding.transforms else np.concatenate([encoded, given], axis=1)
