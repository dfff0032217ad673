"""Raw columns to network inputs: standardised numbers, one-hot categories, kept as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from selfheal_cli.source.table_file import as_text

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray

CLIP = 10.0  # standard deviations; one wild value shall not drown the rest of its row


def constant_sd(mean: float) -> float:
    """The standard deviation up to which numbers are one and the same: what rounding makes."""
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
        return {"missing values": int(missing.sum())}


class RawColumn(BaseModel):
    """A number that goes in as it is, for a network that somebody else trained; missing is 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["raw"] = "raw"
    name: str

    @property
    def width(self) -> int:
        """Inputs that the column takes."""
        return 1

    def encode(self, values: np.ndarray[Any, Any], out: FloatArray) -> dict[str, int]:
        """Write (n,) values into ``out`` (n, 1); returns counts of what was unusual."""
        missing = np.isnan(values)
        out[:, 0] = np.where(missing, 0.0, values)
        return {"missing values": int(missing.sum())}


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
            "missing values": int(missing.sum()),
            "unseen categories": int((~seen).sum()),
        }


Column = Annotated[NumericColumn | RawColumn | CategoricalColumn, Field(discriminator="kind")]


class Encoding(BaseModel):
    """The columns in the order of the network's inputs; fitted once, immutable after."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    columns: tuple[Column, ...]

    @classmethod
    def raw_columns(cls, names: Sequence[str]) -> Encoding:
        """Columns for a network that has its own way with them: untouched, in this order."""
        return cls(columns=tuple(RawColumn(name=name) for name in names))

    @classmethod
    def identity(cls, names: list[str]) -> Encoding:
        """Columns that the network takes as they are."""
        return cls(columns=tuple(NumericColumn(name=name, mean=0.0, sd=1.0) for name in names))

    @property
    def names(self) -> list[str]:
        """Feature names in order."""
        return [column.name for column in self.columns]

    @property
    def numeric(self) -> list[str]:
        """Names of the numeric features."""
        return [column.name for column in self.columns if column.kind != "categorical"]

    @property
    def width(self) -> int:
        """Inputs of the network."""
        return sum(column.width for column in self.columns)

    def encode(self, columns: Columns, counts: Counter[str] | None = None) -> FloatArray:
        """Raw columns, (n,) each, to (n, width) float32; adds what was unusual to ``counts``."""
        rows = len(next(iter(columns.values())))
        x = np.empty((rows, self.width), dtype=np.float32)
        start = 0
        for column in self.columns:
            unusual = column.encode(columns[column.name], x[:, start : start + column.width])
            start += column.width
            if counts is not None:
                counts.update(unusual)
        return x

    def raw(self, frame: pd.DataFrame) -> Columns:
        """A caller's DataFrame as raw columns; raises KeyError naming what is missing."""
        absent = [name for name in self.names if name not in frame.columns]
        if absent:
            raise KeyError(f"missing columns: {', '.join(absent)}; expected: {self.names}")
        return {
            column.name: frame[column.name].to_numpy(dtype=np.float64)
            if column.kind != "categorical"
            else as_text(frame[column.name]).to_numpy(dtype=object)
            for column in self.columns
        }


def occurred(counts: Mapping[str, int]) -> dict[str, int]:
    """Only what did occur."""
    return {name: count for name, count in counts.items() if count}
