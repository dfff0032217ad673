"""A rule's condition: a tree of frozen nodes, evaluated on whole columns.

A comparison with a missing value is neither true nor false, as in SQL: ``holds`` gives the rows
where a condition is true, ``fails`` those where it is false, and a row may be in neither. Only
``is missing`` is always one of the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selfheal_cli.errors import PartError, RuleError
from selfheal_cli.rules.own import ask

if TYPE_CHECKING:
    from selfheal_cli.records import Columns

    BoolArray = NDArray[np.bool_]


COMPARE = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
PLAIN_NAME = re.compile(r"[A-Za-z_][\w.\-]*")
RESERVED = ("and", "or", "not", "in", "between", "is")
NUMBERS = "fiub"  # numpy's kinds of dtype
LISTED = 20  # known features that an error names


@dataclass(frozen=True, slots=True)
class Comparison:
    """``feature operator value``; text compares with ``==`` and ``!=`` only."""

    feature: str
    operator: str
    value: float | str

    def holds(self, table: RuleTable) -> BoolArray:
        """(n,) bool; False where the value is missing."""
        return _compared(table, self.feature, self.operator, self.value)

    def fails(self, table: RuleTable) -> BoolArray:
        """(n,) bool; False where the value is missing."""
        return _compared(table, self.feature, OPPOSITE[self.operator], self.value)

    def __str__(self) -> str:
        return f"{quoted_name(self.feature)} {self.operator} {written(self.value)}"


@dataclass(frozen=True, slots=True)
class Between:
    """``feature between low and high``, both included."""

    feature: str
    low: float
    high: float

    def holds(self, table: RuleTable) -> BoolArray:
        """(n,) bool; False where the value is missing."""
        values = table.numbers(self.feature)
        inside: BoolArray = (values >= self.low) & (values <= self.high)
        return inside

    def fails(self, table: RuleTable) -> BoolArray:
        """(n,) bool; False where the value is missing."""
        values = table.numbers(self.feature)
        outside: BoolArray = (values < self.low) | (values > self.high)
        return outside

    def __str__(self) -> str:
        return f"{quoted_name(self.feature)} between {written(self.low)} and {written(self.high)}"


@dataclass(frozen=True, slots=True)
class In:
    """``feature in {value, ...}``: all numbers, or all texts."""

    feature: str
    values: tuple[float, ...] | tuple[str, ...]

    def holds(self, table: RuleTable) -> BoolArray:
        """(n,) bool; False where the value is missing."""
        if isinstance(self.values[0], str):
            return table.where_text(self.feature, frozenset(self.values).__contains__)
        column = table.numbers(self.feature)
        return reduce(np.logical_or, (column == value for value in self.values))

    def fails(self, table: RuleTable) -> BoolArray:
        """(n,) bool; False where the value is missing."""
        return ~self.holds(table) & ~table.missing(self.feature)

    def __str__(self) -> str:
        return f"{quoted_name(self.feature)} in {{{', '.join(map(written, self.values))}}}"


@dataclass(frozen=True, slots=True)
class IsMissing:
    """``feature is missing``."""

    feature: str

    def holds(self, table: RuleTable) -> BoolArray:
        """(n,) bool."""
        return table.missing(self.feature)

    def fails(self, table: RuleTable) -> BoolArray:
        """(n,) bool."""
        return ~table.missing(self.feature)

    def __str__(self) -> str:
        return f"{quoted_name(self.feature)} is missing"


@dataclass(frozen=True, slots=True)
class OwnCondition:
    """``name()``, a condition of another package; it has no feature or threshold that is known."""

    name: str

    def holds(self, table: RuleTable) -> BoolArray:
        """(n,) bool."""
        return table.asked(self.name)[0]

    def fails(self, table: RuleTable) -> BoolArray:
        """(n,) bool."""
        return table.asked(self.name)[1]

    def __str__(self) -> str:
        return f"{quoted_name(self.name)}()"


@dataclass(frozen=True, slots=True)
class Not:
    """``not condition``; unknown stays unknown."""

    condition: Condition

    def holds(self, table: RuleTable) -> BoolArray:
        """(n,) bool."""
        return self.condition.fails(table)

    def fails(self, table: RuleTable) -> BoolArray:
        """(n,) bool."""
        return self.condition.holds(table)

    def __str__(self) -> str:
        inner = self.condition
        if isinstance(inner, IsMissing):
            return f"{quoted_name(inner.feature)} is not missing"
        if isinstance(inner, In | Between):
            name = quoted_name(inner.feature)
            return f"{name} not {str(inner).removeprefix(name).lstrip()}"
        return f"not ({inner})" if isinstance(inner, And | Or) else f"not {inner}"


@dataclass(frozen=True, slots=True)
class And:
    """All of two or more ``conditions``."""

    conditions: tuple[Condition, ...]

    def holds(self, table: RuleTable) -> BoolArray:
        """(n,) bool."""
        return reduce(np.logical_and, (part.holds(table) for part in self.conditions))

    def fails(self, table: RuleTable) -> BoolArray:
        """(n,) bool: one that is false is enough, whatever is unknown."""
        return reduce(np.logical_or, (part.fails(table) for part in self.conditions))

    def __str__(self) -> str:
        return " and ".join(
            f"({part})" if isinstance(part, And | Or) else str(part) for part in self.conditions
        )


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of two or more ``conditions``."""

    conditions: tuple[Condition, ...]

    def holds(self, table: RuleTable) -> BoolArray:
        """(n,) bool: one that is true is enough, whatever is unknown."""
        return reduce(np.logical_or, (part.holds(table) for part in self.conditions))

    def fails(self, table: RuleTable) -> BoolArray:
        """(n,) bool."""
        return reduce(np.logical_and, (part.fails(table) for part in self.conditions))

    def __str__(self) -> str:
        return " or ".join(
            f"({part})" if isinstance(part, Or) else str(part) for part in self.conditions
        )


Leaf = Comparison | Between | In | IsMissing
Condition = Leaf | OwnCondition | Not | And | Or


def leaves(condition: Condition) -> Iterator[Leaf]:
    """The comparisons of one feature each, in the order in which they are written."""
    if isinstance(condition, Not):
        yield from leaves(condition.condition)
    elif isinstance(condition, And | Or):
        for part in condition.conditions:
            yield from leaves(part)
    elif not isinstance(condition, OwnCondition):
        yield condition


def own_conditions(condition: Condition) -> Iterator[str]:
    """The conditions of other packages, by name."""
    if isinstance(condition, OwnCondition):
        yield condition.name
    elif isinstance(condition, Not):
        yield from own_conditions(condition.condition)
    elif isinstance(condition, And | Or):
        for part in condition.conditions:
            yield from own_conditions(part)


def mapped(condition: Condition, change: Callable[[Leaf], Leaf]) -> Condition:
    """The same tree with ``change`` applied to each leaf, in the order of the text."""
    if isinstance(condition, Not):
        return Not(mapped(condition.condition, change))
    if isinstance(condition, And | Or):
        return type(condition)(tuple(mapped(part, change) for part in condition.conditions))
    return condition if isinstance(condition, OwnCondition) else change(condition)


def quoted_name(name: str) -> str:
    """A feature's name as the language writes it: between backticks where it must be."""
    if PLAIN_NAME.fullmatch(name) and name.lower() not in RESERVED:
        return name
    return "`" + name.replace("`", "``") + "`"


def written(value: float | str) -> str:
    """A value as the language writes it."""
    if not isinstance(value, str):
        return repr(float(value))
    if "'" in value and '"' not in value:
        return f'"{value}"'
    return "'" + value.replace("'", "''") + "'"


def _compared(table: RuleTable, feature: str, operator: str, value: float | str) -> BoolArray:
    if isinstance(value, str):
        equal = operator == "=="
        return table.where_text(feature, lambda text: bool(text == value) is equal)
    values = table.numbers(feature)
    holds: BoolArray = COMPARE[operator](values, value)
    return holds & ~table.missing(feature) if operator == "!=" else holds


class RuleTable:
    """Columns (n,) by name: numbers with NaN, or texts with None or NaN where one is missing.

    Where it ``goes_on``, a condition of another package that fails is unknown, and ``failures``
    says why; else that is raised.
    """

    def __init__(self, columns: Columns | pd.DataFrame, *, goes_on: bool = False) -> None:
        self._columns = columns
        self._goes_on = goes_on
        self._asked: dict[str, tuple[BoolArray, BoolArray]] = {}
        self.failures: dict[str, str] = {}
        self._texts: dict[str, tuple[NDArray[np.intp], list[Any]]] = {}
        if isinstance(columns, pd.DataFrame):
            self.rows = len(columns)
        else:
            self.rows = len(next(iter(columns.values()))) if columns else 0

    @classmethod
    def of(cls, columns: Columns | pd.DataFrame | RuleTable) -> RuleTable:
        """``columns`` as a table; one that is a table already keeps its coded texts."""
        return columns if isinstance(columns, RuleTable) else cls(columns)

    def numbers(self, name: str) -> NDArray[Any]:
        """The (n,) numbers of a column as they are stored; raises `RuleError` for a text column."""
        values = self._values(name)
        if values.dtype.kind not in NUMBERS:
            raise RuleError(f"'{name}' is text; compare it with quoted text, such as {name} == 'a'")
        return values

    def where_text(self, name: str, matches: Callable[[Any], bool]) -> BoolArray:
        """(n,) bool: rows whose text ``matches``; False where it is missing.

        Raises `RuleError` for a column of numbers. Each different text is tested once.
        """
        if self._values(name).dtype.kind in NUMBERS:
            raise RuleError(f"'{name}' is a number; compare it with numbers, such as {name} > 1")
        codes, texts = self._coded(name)
        by_code: BoolArray = np.array([*map(matches, texts), False])
        matching: BoolArray = by_code[codes]  # the code of a missing text is -1
        return matching

    def asked(self, name: str) -> tuple[BoolArray, BoolArray]:
        """(n,) bool twice: where another package's condition is true, and where it is false.

        Each is asked once. Raises `PartError` where it fails, unless the table goes on.
        """
        if name not in self._asked:
            try:
                columns = {name: self._values(name) for name in map(str, self._columns)}
                true = ask(name, columns, self.rows)
                self._asked[name] = true, ~true
            except PartError as exc:
                if not self._goes_on:
                    raise
                self.failures[name] = str(exc)
                self._asked[name] = np.zeros(self.rows, bool), np.zeros(self.rows, bool)
        return self._asked[name]

    def missing(self, name: str) -> BoolArray:
        """(n,) bool: rows without a value."""
        values = self._values(name)
        if values.dtype.kind == "f":
            absent: BoolArray = np.isnan(values)
            return absent
        if values.dtype.kind in NUMBERS:
            return np.zeros(len(values), dtype=bool)
        return self._coded(name)[0] < 0

    def _coded(self, name: str) -> tuple[NDArray[np.intp], list[Any]]:
        if name not in self._texts:
            codes, texts = pd.factorize(self._values(name))
            self._texts[name] = codes, list(texts)
        return self._texts[name]

    def _values(self, name: str) -> NDArray[Any]:
        if name not in self._columns:
            raise RuleError(unknown(name, [str(known) for known in self._columns]))
        column: Any = self._columns[name]
        if not isinstance(column, pd.Series):
            return np.asarray(column)
        if pd.api.types.is_extension_array_dtype(column.dtype) and (
            pd.api.types.is_numeric_dtype(column.dtype)
        ):
            return column.to_numpy(dtype=np.float64, na_value=np.nan)
        return column.to_numpy()


def unknown(name: str, known: list[str]) -> str:
    """The message ``unknown feature 'x'; did you mean 'y'? known: ...``."""
    near = get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"did you mean '{near[0]}'? " if near else ""
    more = f", and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"unknown feature '{name}'; {hint}known: {', '.join(known[:LISTED]) or 'none'}{more}"
