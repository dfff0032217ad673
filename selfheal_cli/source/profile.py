"""One pass over a whole table before anything is written: its size, its kinds, its mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from selfheal_cli.errors import DataError
from selfheal_cli.source.table_file import TableFile, as_text

TRUE_WORDS = ("1", "1.0", "true", "yes", "y", "t", "positive", "pos", "fraud", "up")
MOST_LISTED = 5
LARGEST = 1e100  # numbers beyond it have no standard deviation in float64


@dataclass(frozen=True, slots=True)
class Profile:
    """What the whole table is: rows, numeric and text features, the target's values."""

    rows: int
    numeric: tuple[str, ...]
    text: tuple[str, ...]
    target_values: Counter[str]


@dataclass(slots=True)
class _Tally:
    """What one column held so far; rows count from 1, below the header."""

    numbers: int = 0
    first_text: tuple[int, str] | None = None
    texts: int = 0
    first_infinite: int | None = None

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


def profile(
    table: TableFile, *, target: str, drop: Sequence[str], categorical: Sequence[str]
) -> Profile:
    """Read the table once.

    A column is numeric when most of its values are numbers; then a text in it is a mistake.
    Raises `DataError` naming file, row, column and value for the first mistake.
    """
    for name in (target, *drop, *categorical):
        require_column(table, name)
    if target in drop:
        raise DataError(f"{table.path}: '{target}' is both the target and dropped")
    features = [name for name in table.columns if name != target and name not in drop]
    if not features:
        raise DataError(f"{table.path}: no feature column is left beside the target '{target}'")
    tallies = {name: _Tally() for name in features if name not in categorical}
    values: Counter[str] = Counter()
    rows = 0
    for frame in table.chunks(None):
        values.update(_targets(table, frame[target], target, rows))
        for name, tally in tallies.items():
            _refuse_odd_type(table, name, frame[name])
            tally.add(frame[name], rows)
        rows += len(frame)
    if rows == 0:
        raise DataError(f"{table.path}: no rows below the header")
    _require_two(table, target, values)
    numeric = tuple(name for name, tally in tallies.items() if tally.numbers >= tally.texts)
    for name in numeric:
        _require_finite_numbers(table, name, tallies[name])
    text = tuple(name for name in features if name not in numeric)
    return Profile(rows, numeric, text, values)


def as_numbers(values: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers as float64; NaN where a value is missing or no number."""
    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def order_labels(values: Counter[str], positive: str | None, *, where: str) -> tuple[str, str]:
    """(negative, positive): the named one, else a word for true, else the rarer value.

    >>> order_labels(Counter({"no": 9, "yes": 1}), None, where="t.csv")
    ('no', 'yes')
    """
    if positive is not None and positive not in values:
        raise DataError(
            f"{where}: '{positive}' is not a value of the target; it has {_listed(values)}"
        )
    if positive is None:
        spoken = [value for value in values if value.lower() in TRUE_WORDS]
        positive = spoken[0] if len(spoken) == 1 else min(values, key=lambda v: (values[v], v))
    negative = next(value for value in values if value != positive)
    return negative, positive


def require_column(table: TableFile, name: str) -> None:
    """Raise `DataError` with the nearest name where the table has no such column."""
    if name not in table.columns:
        raise DataError(
            f"{table.path}: no column '{name}'{nearest(name, table.columns)}; "
            f"columns: {', '.join(table.columns)}"
        )


def nearest(name: str, known: Sequence[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    found = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""


def _targets(table: TableFile, column: pd.Series[Any], target: str, offset: int) -> Iterator[str]:
    missing = column.isna().to_numpy()
    if missing.any():
        row = offset + int(np.flatnonzero(missing)[0]) + 1
        raise DataError(
            f"{table.path}: row {row}, column '{target}': the target is missing; "
            "every row needs one"
        )
    return iter(as_text(column))


def _require_two(table: TableFile, target: str, values: Counter[str]) -> None:
    if len(values) != 2:
        raise DataError(
            f"{table.path}: target '{target}' has {len(values)} "
            f"value{'s' if len(values) > 1 else ''} ({_listed(values)}); "
            "exactly two are allowed, such as 0 and 1 or no and yes"
        )


def _require_finite_numbers(table: TableFile, name: str, tally: _Tally) -> None:
    if tally.first_text is not None:
        row, value = tally.first_text
        raise DataError(
            f"{table.path}: row {row}, column '{name}': {value!r} is not a number; "
            f"correct it, leave it empty, or give --categorical {name} or --drop {name}"
        )
    if tally.first_infinite is not None:
        raise DataError(
            f"{table.path}: row {tally.first_infinite}, column '{name}': an infinite value, or "
            f"one beyond {LARGEST:g}; leave it empty or correct it"
        )


def _refuse_odd_type(table: TableFile, name: str, values: pd.Series[Any]) -> None:
    kinds = pd.api.types
    if not (kinds.is_numeric_dtype(values) or kinds.is_string_dtype(values)):
        raise DataError(
            f"{table.path}: column '{name}' holds {values.dtype}; numbers and text are "
            f"supported: give --drop {name} or convert it"
        )


def _listed(values: Counter[str]) -> str:
    names = sorted(values)
    more = f", and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(repr(name) for name in names[:MOST_LISTED]) + more
