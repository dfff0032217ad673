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
from selfheal_cli.sources.table_file import TableFile
from selfheal_cli.sources.times import as_seconds
from selfheal_cli.sources.values import flags, is_plain, parsed, texts

MOST_CLASSES = 64
MOST_DISTINCT = 200_000  # values of a column that are told apart
IDENTIFIES = 0.9  # share of different texts from which on a text names the row
FEWEST_A_VALUE = 5  # rows of each value of a text, on average; with fewer, most are new in a stream
MANY = 64  # categories; of more, a network tells the most frequent apart
FEWEST_ROWS = 20  # below, every column may look like an id
TARGETS = (
    "target", "label", "class", "y", "outcome", "response", "fraud", "churn", "churned", "default",
    "defaulted", "converted", "clicked", "survived", "status", "result",
)  # fmt: skip
ASKS = re.compile(r"^(is|has|was|will)_|_(label|target|class|flag)$|^(is|has)[A-Z]")
NAMED_ID = re.compile(r"(^|[_ -])(id|uuid|guid|key|index|nr|no|number)$|^id[_ -]|[a-z]I[dD]$", re.I)
NAMED_TIME = re.compile(
    r"(^|[_ -])(time|timestamp|date|datetime|ts|at|on|day|when|epoch)([_ -]|$)"
    r"|[a-z](Time|Date|At)$",
    re.I,
)
NESTED = "neither numbers nor text: give what matters in it a column of its own"
TRUTHS = {"True", "False"}  # as texts
EPOCHS = ((0.5e9, 4e9), (0.5e12, 4e12))  # seconds and milliseconds since 1970, from 1985 to 2096


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
    distinct: int = 0  # of texts; of numbers, while none came twice
    first_fall: int | None = None  # the first row, from 0, that lies below an earlier one
    _counted: int = 0
    _numbers: int = 0
    _texts: int = 0
    _stamps: bool = True
    _highest: float = -np.inf
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
        numbers, none = parsed(values[~absent])
        none = none | flags(values[~absent])
        self._count(present, np.flatnonzero(~absent), bool(none.all()))
        places = self.rows + np.flatnonzero(~absent)
        self._measure(present, np.where(none, np.nan, numbers), none, places)
        self.rows += len(values)
        self.missing += int(absent.sum())

    def close(self) -> None:
        """No more rows: which kind is it?"""
        held = self.rows - self.missing
        if held and self.kind != "other":
            stamps = self._stamps and self._texts == held
            self.kind = "time" if stamps else "number" if self._numbers >= self._texts else "text"
            if self.kind == "number" and self._is_epoch():
                self.kind = "time"
        alike = held > 0 and held in (self._numbers, self._texts * (self.kind == "time"))
        self.rising = alike and self.first_fall is None and self.missing == 0
        self.unique = self.unique and held > FEWEST_ROWS
        self.distinct = max(len(self._known), 0 if self.values is None else len(self.values))
        self._known.clear()

    def _is_epoch(self) -> bool:
        """Whether numbers are seconds or milliseconds since 1970, going by name and size."""
        inside = any(low <= self.low and self.high <= high for low, high in EPOCHS)
        return inside and NAMED_TIME.search(self.name) is not None

    @property
    def identifies(self) -> bool:
        """Whether a text is another one in nearly every row."""
        return (
            self.kind == "text"
            and self._counted > FEWEST_ROWS
            and self.distinct >= IDENTIFIES * self._counted
        )

    def _count(self, present: pd.Series[Any], places: np.ndarray[Any, Any], words: bool) -> None:
        """Tell values apart: few with counts, more texts by name, numbers until one is twice."""
        many = len(self._known) < MOST_DISTINCT and (self.unique or words)
        if self.values is None and not many:
            return
        codes, distinct = pd.factorize(present)
        counts = np.bincount(codes, minlength=len(distinct)).tolist()
        names = [str(value) for value in distinct]
        self.unique = self.unique and max(counts, default=1) == 1
        self.unique = self.unique and self._known.isdisjoint(names)
        if many:
            self._known.update(names)
            self._counted += len(present)
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
        self,
        present: pd.Series[Any],
        numbers: np.ndarray[Any, Any],
        none: np.ndarray[Any, Any],
        places: np.ndarray[Any, Any],
    ) -> None:
        known = numbers[~np.isnan(numbers)]
        self._numbers += len(known)
        self._texts += int(none.sum())
        if len(known):
            self.low, self.high = min(self.low, known.min()), max(self.high, known.max())
            self.whole = self.whole and bool((known == np.floor(known)).all())
        ordered = numbers
        if len(known) < len(numbers):
            self._stamps = self._stamps and not len(known)
            if not self._stamps:
                return
            ordered = as_seconds(present)
            self._stamps = not bool(np.isnan(ordered).any())
        highest = np.maximum.accumulate(np.concatenate([[self._highest], ordered]))
        falls = np.flatnonzero(ordered < highest[:-1])
        if self.first_fall is None and len(falls):
            self.first_fall = int(places[falls[0]])
        self._highest = float(highest[-1])

    @property
    def scattered(self) -> bool:
        """Whether a text has many values of few rows each, as the hash of a card has."""
        many = self.kind == "text" and self.distinct > MANY
        return many and self.distinct * FEWEST_A_VALUE > self._counted

    @property
    def shown_kind(self) -> str:
        """Its kind as people call it."""
        if self.kind == "text" and self.values and self.values.keys() <= TRUTHS:
            return "true or false"
        return "nested" if self.kind == "other" else self.kind

    @property
    def constant(self) -> bool:
        """Whether it never varies."""
        return self.values is not None and len(self.values) <= 1


def look_at(table: TableFile, most: int | None = None) -> tuple[ColumnProfile, ...]:
    """Walk through a table once, with bounded memory; through about ``most`` rows of it.

    Raises `DataError` where it has no rows.
    """
    by_name = {name: ColumnProfile(name) for name in table.columns}
    rows = 0
    for frame in table.chunks(None):
        for name, column in by_name.items():
            column.add(frame[name])
        rows += len(frame)
        if most is not None and rows >= most:
            break
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
    """Columns that number or name the rows: a text that is another one in nearly every row, or
    whole numbers of which none comes twice, in rising order or under an id's name.

    Their values say nothing of rows to come.
    """
    return [
        column.name
        for column in seen
        if column.identifies
        or (
            column.unique
            and column.kind == "number"
            and ((column.whole and column.rising) or NAMED_ID.search(column.name) is not None)
        )
    ]


def no_features(seen: Sequence[ColumnProfile]) -> dict[str, str]:
    """Columns that a network can make nothing of, each with the reason."""
    ids = likely_ids(seen)
    kinds = {"other": NESTED, "time": "a time", "empty": "always empty"}
    why = {column.name: kinds[column.kind] for column in seen if column.kind in kinds}
    why |= dict.fromkeys(ids, "an identifier")
    return why | {
        column.name: f"too many values: {column.distinct:,} in {column.rows:,} rows"
        for column in seen
        if column.name not in why and column.scattered
    }


def many_values(column: ColumnProfile) -> str:
    """What is to be known of a text of many different values; nothing of another column."""
    if column.kind != "text" or column.distinct <= MANY:
        return ""
    more = "more than " if column.distinct >= MOST_DISTINCT else ""
    return (
        f"{more}{column.distinct:,} different values, of which the {MANY} most frequent are told "
        "apart"
    )
