"""What the training part of a table says: how columns become inputs, and what a row must be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError
from selfheal_cli.moments import Moments
from selfheal_cli.records import Rows
from selfheal_cli.source.blocks import Block
from selfheal_cli.source.contract import Contract, ContractColumn, NumberColumn, TextColumn
from selfheal_cli.source.encoding import (
    CategoricalColumn,
    Column,
    Encoding,
    NumericColumn,
    constant_sd,
)
from selfheal_cli.source.profile import require_column
from selfheal_cli.source.table_file import TableFile, as_text
from selfheal_cli.source.target import UNKNOWN, as_classes

if TYPE_CHECKING:
    import pandas as pd

    from selfheal_cli.inputs import RowSettings
    from selfheal_cli.source.contract import Departures
    from selfheal_cli.source.profile import Profile
    from selfheal_cli.source.times import Times

MAX_CATEGORIES = 64


@dataclass(slots=True)
class _Numbers:
    """A numeric column of the training part."""

    moments: Moments
    rows: int = 0
    low: float = inf
    high: float = -inf

    def add(self, values: np.ndarray[Any, Any]) -> None:
        self.moments.add(values)
        self.rows += len(values)
        present = values[~np.isnan(values)]
        if len(present):
            self.low = min(self.low, float(present.min()))
            self.high = max(self.high, float(present.max()))

    def contract(self, name: str) -> NumberColumn:
        known = self.low <= self.high
        return NumberColumn(
            name=name,
            optional=self.moments.count < self.rows,
            low=self.low if known else None,
            high=self.high if known else None,
        )

    def standardised(self, name: str) -> NumericColumn:
        mean, sd = self.moments.mean, self.moments.sd
        if sd <= constant_sd(mean):
            return NumericColumn(name=name, mean=mean, sd=1.0, constant=True)
        return NumericColumn(name=name, mean=mean, sd=sd)


@dataclass(frozen=True, slots=True)
class Fitted:
    """How raw rows are read from now on; ``labels`` are the target's values by class."""

    encoding: Encoding
    contract: Contract
    labels: tuple[str, ...]
    numeric: tuple[str, ...]
    target: str
    times: Times | None

    def block(self, frame: pd.DataFrame, seen: Departures | None = None) -> Block:
        """Rows of a table as they go through the rooms; ``seen`` counts what was unusual."""
        numeric = set(self.numeric)
        columns: dict[str, np.ndarray[Any, Any]] = {
            name: frame[name].to_numpy(dtype=np.float64)
            if name in numeric
            else as_text(frame[name]).to_numpy(dtype=object)
            for name in self.encoding.names
        }
        y = as_classes(frame[self.target], self.labels)
        if seen is not None:
            seen.add(columns)
        x = self.encoding.encode(columns, None if seen is None else seen.counts)
        rows = Rows(x, y, columns)
        if self.times is None:
            return Block(rows)
        at, label_at = self.times.of(frame)
        if label_at is not None:
            label_at[y == UNKNOWN] = np.nan  # a label that is not in the table never comes
        return Block(rows, at, label_at)


def fit(
    table: TableFile, found: Profile, frames: Iterable[pd.DataFrame], settings: RowSettings
) -> Fitted:
    """Means, standard deviations, ranges and categories of the training part alone, in one walk.

    Raises `DataError` where a wrapped model's input is not there as a number.
    """
    numbers = {name: _Numbers(Moments()) for name in found.numeric}
    texts: dict[str, Counter[str]] = {name: Counter() for name in found.text}
    rows = 0
    for frame in frames:
        for name, column in numbers.items():
            column.add(frame[name].to_numpy(dtype=np.float64))
        for name, counter in texts.items():
            counter.update(as_text(frame[name]).dropna())
        rows += len(frame)
    if settings.inputs:
        _require_inputs(table, found, settings.inputs)
    names = settings.inputs or [n for n in table.columns if n in numbers or n in texts]
    columns: list[Column] = []
    contract: list[ContractColumn] = []
    for name in names:
        if name in numbers:
            columns.append(numbers[name].standardised(name))
            contract.append(numbers[name].contract(name))
        else:
            known, optional = _most(texts[name]), texts[name].total() < rows
            columns.append(CategoricalColumn(name=name, categories=known))
            contract.append(TextColumn(name=name, optional=optional, categories=known))
    raw = bool(settings.inputs)
    return Fitted(
        Encoding.raw_columns(settings.inputs) if raw else Encoding(columns=tuple(columns)),
        Contract(columns=tuple(contract)),
        found.target.labels(settings.positive),
        found.numeric,
        settings.target,
        found.times,
    )


def _require_inputs(table: TableFile, found: Profile, inputs: Iterable[str]) -> None:
    """Every input of a wrapped model must be there, as a number."""
    for name in inputs:
        if name not in found.numeric:
            require_column(table, name)
            raise DataError(
                f"{table.where}: column '{name}' is an input of the model and holds text, or "
                "is the target or dropped; it must hold numbers"
            )


def _most(counts: Counter[str]) -> tuple[str, ...]:
    """The most frequent categories, in alphabetical order."""
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    return tuple(sorted(ranked[:MAX_CATEGORIES]))
