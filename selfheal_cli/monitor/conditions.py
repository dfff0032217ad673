"""What a rule asks of a row: a tree of frozen nodes, evaluated on whole columns.

A question about a missing value is neither true nor false, as in SQL: ``holds`` gives the rows
where a condition is true, ``fails`` those where it is false, and a row may be in neither. Only
``is missing`` always has an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from selfheal_cli.monitor.rule_table import BoolArray, RuleTable

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
        found: BoolArray = (values >= self.low) & (values <= self.high)
        return found

    def fails(self, table: RuleTable) -> BoolArray:
        """(n,) bool; False where the value is missing."""
        values = table.numbers(self.feature)
        found: BoolArray = (values < self.low) | (values > self.high)
        return found

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
class Missing:
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
        if isinstance(inner, Missing):
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


Leaf = Comparison | Between | In | Missing
Condition = Leaf | Not | And | Or


def leaves(condition: Condition) -> Iterator[Leaf]:
    """The questions about one feature each, in the order in which they are written."""
    if isinstance(condition, Not):
        yield from leaves(condition.condition)
    elif isinstance(condition, And | Or):
        for part in condition.conditions:
            yield from leaves(part)
    else:
        yield condition


def mapped(condition: Condition, change: Callable[[Leaf], Leaf]) -> Condition:
    """The same tree with each leaf changed, asked for in the order in which they are written."""
    if isinstance(condition, Not):
        return Not(mapped(condition.condition, change))
    if isinstance(condition, And | Or):
        return type(condition)(tuple(mapped(part, change) for part in condition.conditions))
    return change(condition)


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
    found: BoolArray = COMPARE[operator](values, value)
    return found & ~table.missing(feature) if operator == "!=" else found
