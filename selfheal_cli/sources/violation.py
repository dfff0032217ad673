"""Schema violations: what is wrong with a row, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

UNREADABLE = "no JSON object of numbers and texts"
MOST_SHOWN = 10_000  # characters of a row


@dataclass(frozen=True, slots=True)
class SchemaViolation:
    """A row and what is wrong with it; ``kind`` is that without the value.

    ``row`` is its place in the batch, from 0, or its number in a table, from 1. ``hint`` says what
    to do about it, and ``text`` is the row where its source cannot give it again.
    """

    row: int
    reason: str
    kind: str
    hint: str = ""
    text: str = ""

    def message(self, place: str) -> str:
        """The error message for a row that is found at ``place``."""
        return at(place, self.reason) + (f"; {self.hint}" if self.hint else "")


def first_of_each(violations: Iterable[SchemaViolation]) -> list[SchemaViolation]:
    """The first violation of each row, in the order of the rows."""
    by_row: dict[int, SchemaViolation] = {}
    for violation in violations:
        by_row.setdefault(violation.row, violation)
    return [by_row[row] for row in sorted(by_row)]


def no_number(column: str) -> str:
    """The kind of a text among numbers."""
    return f"column '{column}' holds no number"


def no_label(target: str) -> str:
    """The kind of a row without a label that it needs."""
    return f"column '{target}' has no label"


def at(place: str, reason: str) -> str:
    """Where something is wrong, and what.

    >>> at("t.csv: row 3", "column 'a': 'x' is not a number")
    "t.csv: row 3, column 'a': 'x' is not a number"
    """
    return f"{place}{', ' if reason.startswith('column ') else ': '}{reason}"
