"""What can be seen of a table that nobody has described yet: kinds, likely target, likely ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from selfheal_cli.errors import DataError
from selfheal_cli.sources.files import TableFile
from selfheal_cli.sources.profile import MOST_CLASSES
from selfheal_cli.sources.times import as_seconds
from selfheal_cli.sources.values import flags, is_plain, parsed, texts

MOST_DISTINCT = 200_000  # values of a column that are told apart, to see whether one comes twice
FEWEST_ROWS = 20  # below, every column may look like an id
TARGETS = (
    "target", "label", "class", "y", "outcome", "response", "fraud", "churn", "churned", "default",
    "defaulted", "converted", "clicked", "survived", "status", "result",
)  # fmt: skip
ASKS = re.compile(r"^(is|has|was|will)_|_(label|target|class|flag)$|^(is|has)[A-Z]")
COMMAS = re.compile(r"[+-]?(\d+,\d+|\d{1,3}(\.\d{3})+(,\d+)?)", re.ASCII)  # 0,5 and 1.234,5
THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", re.ASCII)  # 1,234.5
NAMED_ID = re.compile(r"(^|[_ -])(id|uuid|guid|key|index|nr|number)$|^id[_ -]|[a-z]I[dD]$", re.I)


@dataclass(slots=True)
class ColumnProfile:
    """One column. ``values`` counts each, None where there are more than a target may have."""

    name: str
    kind: Literal["number", "text", "time", "other", "empty"] = "empty"
    rows: int = 0
    missing: int = 0
    first_missing: int | None = None
    values: Counter[str] | None = field(default_factory=Counter)
    first_rows: dict[str, int] = field(default_factory=dict)
    unique: bool = True
    low: float = np.inf
    high: float = -np.inf
    whole: bool = True
    rising: bool = True
    spelled: str = ""  # how numbers are written that are texts here, where all are
    _commas: bool = True
    _thousands: bool = True
    _numbers: int = 0
    _texts: int = 0
    _stamps: bool = True
    _last: float = -np.inf
    _known: set[str] = field(default_factory=set)

    def add(self, values: pd.Series[Any]) -> None:
        """Take the next rows."""
        if self.kind == "other" or not is_plain(values):
            self.kind, self.values, self.unique = "other", None, False
            self.rows += len(values)
            return
        held = pd.Series(texts(values), index=values.index, dtype="str")
        absent = held.isna().to_numpy()
        if self.first_missing is None and absent.any():
            self.first_missing = self.rows + int(np.flatnonzero(absent)[0])
        present = held[~absent]
        self._count(present, np.flatnonzero(~absent))
        numbers, none = parsed(values[~absent])
        none = none | flags(values[~absent])
        self._measure(present, np.where(none, np.nan, numbers), none)
        self.rows += len(values)
        self.missing += int(absent.sum())

    def close(self) -> None:
        """No more rows: which kind is it?"""
        held = self.rows - self.missing
        if held and self.kind != "other":
            stamps = self._stamps and self._texts == held
            self.kind = "time" if stamps else "number" if self._numbers >= self._texts else "text"
        if self.kind == "text":
            self.spelled = "decimal commas" if self._commas else ""
            self.spelled = "separators of thousands" if self._thousands else self.spelled
        self.rising = self.rising and held > 0 and self.missing == 0
        self.unique = self.unique and held > FEWEST_ROWS
        self._known.clear()

    def _count(self, present: pd.Series[Any], places: np.ndarray[Any, Any]) -> None:
        if self.values is None and not (self.unique and len(self._known) < MOST_DISTINCT):
            return
        codes, distinct = pd.factorize(present)
        counts = np.bincount(codes, minlength=len(distinct)).tolist()
        names = [str(value) for value in distinct]
        self.unique = self.unique and max(counts, default=1) == 1
        self.unique = self.unique and self._known.isdisjoint(names)
        if self.unique:
            self._known.update(names)
        if self.values is None:
            return
        for code, (name, count) in enumerate(zip(names, counts, strict=True)):
            if name not in self.first_rows and len(self.values) <= MOST_CLASSES:
                self.first_rows[name] = self.rows + int(places[np.argmax(codes == code)])
            self.values[name] += count
            if len(self.values) > MOST_CLASSES:
                self.values = None
                return

    def _measure(
        self, present: pd.Series[Any], numbers: np.ndarray[Any, Any], none: np.ndarray[Any, Any]
    ) -> None:
        known = numbers[~np.isnan(numbers)]
        self._numbers += len(known)
        self._texts += int(none.sum())
        if self._commas or self._thousands:
            odd = present[none]
            self._commas = self._commas and bool(odd.str.fullmatch(COMMAS).all())
            self._thousands = self._thousands and bool(odd.str.fullmatch(THOUSANDS).all())
        if len(known):
            self.low, self.high = min(self.low, known.min()), max(self.high, known.max())
            self.whole = self.whole and bool((known == np.floor(known)).all())
        ordered = numbers
        if len(known) < len(numbers):
            self._stamps = self._stamps and not len(known)
            if not self._stamps:
                self.rising = False
                return
            ordered = as_seconds(present)
            self._stamps = not bool(np.isnan(ordered).any())
        line = np.concatenate([[self._last], ordered])
        self.rising = self.rising and bool((line[1:] >= line[:-1]).all())
        self._last = float(line[-1])

    @property
    def constant(self) -> bool:
        """Whether it never varies."""
        return self.values is not None and len(self.values) <= 1


def look_at(table: TableFile) -> tuple[ColumnProfile, ...]:
    """Walk through a table once, with bounded memory. Raises `DataError` where it has no rows."""
    by_name = {name: ColumnProfile(name) for name in table.columns}
    for frame in table.chunks(None):
        for name, column in by_name.items():
            column.add(frame[name])
    for column in by_name.values():
        column.close()
    if not any(column.rows for column in by_name.values()):
        raise DataError(f"{table.where}: no rows below the header")
    return tuple(by_name.values())


def likely_targets(seen: Sequence[ColumnProfile], trained: float) -> list[str]:
    """Columns that may be the target, likeliest first; the first ``trained`` share has labels."""
    ranked = []
    for place, column in enumerate(seen):
        values = column.values
        if column.kind not in ("number", "text") or values is None or len(values) < 2:
            continue
        if column.first_missing is not None and column.first_missing < column.rows * trained:
            continue
        if column.kind == "number" and not column.whole and len(values) > 2:
            continue
        named = 3 * (column.name.strip().lower() in TARGETS) or 2 * bool(ASKS.search(column.name))
        score = named + 2 * (place == len(seen) - 1) + (len(values) == 2)
        ranked.append((-score, place, column.name))
    spoken = [one for one in ranked if one[0] < 0] or ranked
    return [name for _, _, name in sorted(spoken)]


def likely_ids(seen: Sequence[ColumnProfile]) -> list[str]:
    """Columns that number or name the rows: each value once, and a text, a count or an id's name.

    Their values say nothing of rows to come.
    """
    return [
        column.name
        for column in seen
        if column.unique
        and (
            column.kind == "text"
            or (column.kind == "number" and column.whole and column.rising)
            or (column.kind == "number" and NAMED_ID.search(column.name) is not None)
        )
    ]
