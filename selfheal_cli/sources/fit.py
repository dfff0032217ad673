"""Fits the encoding and the row contract on the training part of a table, in one walk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError
from selfheal_cli.estimators.spec import EstimatorSpec
from selfheal_cli.moments import Moments
from selfheal_cli.records import Rows
from selfheal_cli.sources.base import Block
from selfheal_cli.sources.contract import Contract, ContractColumn, NumberColumn, TextColumn
from selfheal_cli.sources.encoding import (
    CategoricalColumn,
    Column,
    Encoding,
    NumericColumn,
    constant_sd,
)
from selfheal_cli.sources.first_contract import as_text
from selfheal_cli.sources.profile import UNKNOWN, as_classes, as_labels
from selfheal_cli.sources.table_file import TableFile, require_column
from selfheal_cli.sources.values import finite, numbers, texts

if TYPE_CHECKING:
    import pandas as pd

    from selfheal_cli.config_sources import RowSettings
    from selfheal_cli.sources.contract import RangeViolations
    from selfheal_cli.sources.profile import Profile
    from selfheal_cli.sources.times import Times

MAX_CATEGORIES = 64
LONGEST_CATEGORY = 1_000  # characters; a longer text is no category
UNKNOWN_LABELS = "labels that training did not have, taken as missing"


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
    """How raw rows are read after training; ``labels`` are the target's values by class.

    Columns ``beside`` the features are kept with the rows, as texts.
    """

    encoding: Encoding
    contract: Contract
    labels: tuple[str, ...]
    numeric: tuple[str, ...]
    target: str
    times: Times | None
    beside: tuple[str, ...] = ()

    def block(self, frame: pd.DataFrame, seen: RangeViolations | None = None) -> Block:
        """Rows of a table as a block; range violations are added to ``seen``."""
        raw, contract = self.encoding.raw(frame), self.encoding.contract
        columns = self.encoding.cleaned(raw)
        if self.beside:
            columns = {**columns, **{name: texts(frame[name]) for name in self.beside}}
        y = as_classes(frame[self.target], self.labels, contract)
        if seen is not None:
            seen.add(columns)
            if contract == 2:
                labelled = as_labels(frame[self.target]).notna().to_numpy()
                seen.counts[UNKNOWN_LABELS] += int((labelled & (y == UNKNOWN)).sum())
        x = self.encoding.encode(raw, None if seen is None else seen.counts)
        rows = Rows(x, y, columns)
        if self.times is None:
            return Block(rows)
        at, label_at = self.times.of(frame)
        if label_at is not None:
            label_at[y == UNKNOWN] = np.nan  # a label that is not in the table never comes
        return Block(rows, at, label_at)


def fit(
    table: TableFile, profile: Profile, frames: Iterable[pd.DataFrame], settings: RowSettings
) -> Fitted:
    """Means, standard deviations, ranges and categories of the training part alone, in one walk.

    Raises `DataError` where a wrapped model's input is not there as a number.
    """
    contract = table.contract
    held_numbers = {name: _Numbers(Moments()) for name in profile.numeric}
    held: dict[str, Counter[str]] = {name: Counter() for name in profile.text}
    rows = 0
    for frame in frames:
        for name, column in held_numbers.items():
            values = frame[name].to_numpy(dtype=np.float64)
            column.add(finite(values) if contract == 2 else values)
        for name, counter in held.items():
            if contract == 1:
                counter.update(as_text(frame[name]).dropna())
            else:
                counter.update(text for text in texts(frame[name]) if text is not None)
        rows += len(frame)
    model = None if settings.estimator is None else EstimatorSpec(**settings.estimator)
    if settings.inputs:
        _require_inputs(table, profile, settings.inputs, () if model is None else model.texts)
    names = settings.inputs or [n for n in table.columns if n in held_numbers or n in held]
    columns: list[Column] = []
    held_to: list[ContractColumn] = []
    for name in names:
        if name in held_numbers:
            columns.append(held_numbers[name].standardised(name))
            held_to.append(held_numbers[name].contract(name))
        else:
            known, optional = _most(held[name]), held[name].total() < rows
            columns.append(CategoricalColumn(name=name, categories=known))
            held_to.append(TextColumn(name=name, optional=optional, categories=known))
    raw = bool(settings.inputs) and model is None
    return Fitted(
        Encoding.raw_columns(settings.inputs, settings.missing, contract)
        if raw
        else Encoding(columns=tuple(columns), contract=contract, model=model),
        Contract(columns=tuple(held_to)),
        profile.target.labels(settings.positive),
        profile.numeric,
        settings.target,
        profile.times,
    )


def side_columns(frame: pd.DataFrame, model: EstimatorSpec) -> tuple[Column, ...]:
    """A model's columns as heals use them beside its answer, by some rows of a table."""
    columns: list[Column] = []
    for name in model.names:
        if name in model.texts:
            held = Counter(text for text in texts(frame[name]) if text is not None)
            columns.append(CategoricalColumn(name=name, categories=_most(held)))
        else:
            column = _Numbers(Moments())
            column.add(finite(numbers(frame[name])))
            columns.append(column.standardised(name))
    return tuple(columns)


def _require_inputs(
    table: TableFile, profile: Profile, inputs: Iterable[str], held_as_text: Collection[str]
) -> None:
    """Every input of a wrapped model must be there, as a number unless it takes text."""
    for name in inputs:
        if name not in (profile.text if name in held_as_text else profile.numeric):
            require_column(table, name)
            wanted, other = ("text", "numbers") if name in held_as_text else ("numbers", "text")
            raise DataError(
                f"{table.where}: column '{name}' is an input of the model and holds {other}, or "
                f"is the target or dropped; it must hold {wanted}"
            )


def _most(counts: Counter[str]) -> tuple[str, ...]:
    """The most frequent categories, in alphabetical order."""
    short = (value for value in counts if len(value) <= LONGEST_CATEGORY)
    ranked = sorted(short, key=lambda value: (-counts[value], value))
    return tuple(sorted(ranked[:MAX_CATEGORIES]))
