"""One pass over a whole table before anything is written: its size, its kinds, its mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from selfheal_cli.errors import DataError
from selfheal_cli.inputs import BoundedSettings, RowSettings
from selfheal_cli.source.table_file import TableFile, as_numbers
from selfheal_cli.source.target import Target
from selfheal_cli.source.times import Times
from selfheal_cli.source.values import flags, is_plain, parsed

LARGEST = 1e100  # numbers beyond it have no standard deviation in float64


@dataclass(frozen=True, slots=True)
class Profile:
    """What the whole table is: rows, numeric and text features, its target, its times."""

    rows: int
    numeric: tuple[str, ...]
    text: tuple[str, ...]
    target: Target
    times: Times | None


@dataclass(slots=True)
class _Tally:
    """What one column held so far; rows count from 1, below the header."""

    numbers: int = 0
    first_text: tuple[int, str] | None = None
    texts: int = 0
    first_infinite: int | None = None

    def read(self, values: pd.Series[Any], offset: int) -> None:
        """Contract 2: a truth value alone makes no column of numbers, and is one among them."""
        numbers, texts = parsed(values)
        told = flags(values)
        self.numbers += int((~np.isnan(numbers) & ~told).sum())
        self.texts += int((texts | told).sum())
        if self.first_text is None and texts.any():
            at = int(np.argmax(texts))
            self.first_text = (offset + at + 1, str(values.iloc[at]))

    def add(self, values: pd.Series[Any], offset: int) -> None:
        numbers = as_numbers(values)
        present = values.notna().to_numpy()
        text = present & np.isnan(numbers)
        self.numbers += int(present.sum() - text.sum())
        self.texts += int(text.sum())
        if self.first_text is None and text.any():
            at = int(np.flatnonzero(text)[0])
            self.first_text = (offset + at + 1, str(values.iloc[at]))
        infinite = np.abs(numbers) > LARGEST
        if self.first_infinite is None and infinite.any():
            self.first_infinite = offset + int(np.flatnonzero(infinite)[0]) + 1


class Kinds:
    """Which features are numbers and which are text; those in ``categorical`` are text."""

    def __init__(
        self, table: TableFile, features: Sequence[str], categorical: Sequence[str]
    ) -> None:
        self._table, self._features = table, features
        self._tallies = {name: _Tally() for name in features if name not in categorical}

    def add(self, frame: pd.DataFrame, offset: int) -> None:
        """Take the rows after the first ``offset``; raises `DataError` for an odd type."""
        for name, tally in self._tallies.items():
            _refuse_odd_type(self._table, name, frame[name])
            if self._table.contract == 1:
                tally.add(frame[name], offset)
            else:
                tally.read(frame[name], offset)

    def found(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Numeric and text features; raises `DataError` for a text among numbers."""
        tallies = self._tallies
        numeric = tuple(name for name, tally in tallies.items() if tally.numbers >= tally.texts)
        for name in numeric:
            _require_finite_numbers(self._table, name, tallies[name])
        return numeric, tuple(name for name in self._features if name not in numeric)


def profile(table: TableFile, settings: RowSettings) -> Profile:
    """Read the table once.

    A column is numeric when most of its values are numbers; then a text in it is a mistake.
    Raises `DataError` naming file, row, column and value for the first mistake.
    """
    kinds = Kinds(table, _features(table, settings), settings.categorical)
    target = Target(
        table.where, settings.target, missing_allowed=settings.unlabelled, place=table.place,
        contract=table.contract,
    )  # fmt: skip
    times = None
    if isinstance(settings, BoundedSettings) and settings.time is not None:
        times = Times(table.where, settings.time, settings.label_time, place=table.place)
    rows = 0
    for frame in table.chunks(None):
        target.add(frame[settings.target], rows)
        if times is not None:
            times.check(frame, rows)
        kinds.add(frame, rows)
        rows += len(frame)
    if rows == 0:
        raise DataError(f"{table.where}: no rows below the header{_left_out(table)}")
    target.require_classes()
    numeric, text = kinds.found()
    return Profile(rows, numeric, text, target, times)


def _left_out(table: TableFile) -> str:
    return "".join(f"; {count:,} {reason}" for reason, count in table.notes().items())


def _features(table: TableFile, settings: RowSettings) -> list[str]:
    target = settings.target
    clocks = clocks_of(settings)
    for name in (target, *settings.drop, *settings.categorical, *clocks):
        require_column(table, name)
    if target in settings.drop:
        raise DataError(f"{table.where}: '{target}' is both the target and dropped")
    if target in clocks:
        raise DataError(f"{table.where}: '{target}' is both the target and a time; name another")
    apart = {target, *settings.drop, *clocks}
    features = [name for name in table.columns if name not in apart]
    if not features:
        raise DataError(f"{table.where}: no feature column is left beside the target '{target}'")
    return features


def clocks_of(settings: RowSettings) -> list[str]:
    """The columns that hold times."""
    if not isinstance(settings, BoundedSettings):
        return []
    return [name for name in (settings.time, settings.label_time) if name is not None]


def require_column(table: TableFile, name: str) -> None:
    """Raise `DataError` with the nearest name where the table has no such column."""
    if name not in table.columns:
        raise DataError(
            f"{table.where}: no column '{name}'{nearest(name, table.columns)}; "
            f"columns: {', '.join(table.columns)}"
        )


def nearest(name: str, known: Sequence[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    found = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""


def _require_finite_numbers(table: TableFile, name: str, tally: _Tally) -> None:
    if tally.first_text is not None:
        row, value = tally.first_text
        raise DataError(
            f"{table.place(row)}, column '{name}': {value!r} is not a number; "
            f"correct it, leave it empty, or give --categorical {name} or --drop {name}"
        )
    if tally.first_infinite is not None:
        raise DataError(
            f"{table.place(tally.first_infinite)}, column '{name}': an infinite value, or "
            f"one beyond {LARGEST:g}; leave it empty or correct it"
        )


def _refuse_odd_type(table: TableFile, name: str, values: pd.Series[Any]) -> None:
    kinds = pd.api.types
    plain = kinds.is_numeric_dtype(values) or kinds.is_string_dtype(values)
    if not (plain if table.contract == 1 else is_plain(values)):
        raise DataError(
            f"{table.where}: column '{name}' holds {values.dtype}; numbers and text are "
            f"supported: give --drop {name} or convert it"
        )
