"""The row contract: made of the training rows, kept with the base, checked against later rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from selfheal_cli.sources.encoding import LARGEST_OF_OLD, occurred
from selfheal_cli.sources.profile import NEEDED, UNKNOWN, as_classes, as_labels, listed
from selfheal_cli.sources.values import RowContract, as_numbers, parsed
from selfheal_cli.sources.violation import SchemaViolation, first_of_each, no_label, no_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import Columns
    from selfheal_cli.sources.ndjson import Object


OUTSIDE = "values out of the training range"
UNSEEN = "unseen categories"


class NumberColumn(BaseModel):
    """A number from ``low`` to ``high``; both None where training held none.

    ``optional`` where it was missing in some training row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["number"] = "number"
    name: str
    optional: bool
    low: float | None
    high: float | None

    def strange(self, values: np.ndarray[Any, Any]) -> int:
        """How many of the values (n,) training did not have the like of."""
        if self.low is None or self.high is None:
            return 0
        return int(((values < self.low) | (values > self.high)).sum())

    def __str__(self) -> str:
        return f"number, {self.low:g} to {self.high:g}" if self.low is not None else "number"


class TextColumn(BaseModel):
    """One of the categories that the encoding has an input for.

    ``optional`` where it was missing in some training row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["text"] = "text"
    name: str
    optional: bool
    categories: tuple[str, ...]

    def strange(self, values: np.ndarray[Any, Any]) -> int:
        """How many of the values (n,) training did not have the like of."""
        present = values[~pd.isna(values)]
        return int((pd.Index(self.categories).get_indexer(pd.Index(present)) < 0).sum())

    def __str__(self) -> str:
        shown = ", ".join(self.categories[:5])
        more = f" and {len(self.categories) - 5} more" if len(self.categories) > 5 else ""
        return f"text: {shown}{more}"


ContractColumn = Annotated[NumberColumn | TextColumn, Field(discriminator="kind")]


class Contract(BaseModel):
    """The feature columns that every row has, each with its type and what it held in training."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    columns: tuple[ContractColumn, ...]

    def lines(self) -> list[tuple[str, str]]:
        """A name and a sentence for each column."""
        return [
            (column.name, f"{column}{', may be missing' if column.optional else ''}")
            for column in self.columns
        ]


class RangeViolations:
    """Counts of what was not as in training, in all and by column."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._columns: dict[str, Counter[str]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, columns: Columns) -> None:
        """Take rows as raw columns, (n,) each."""
        for column in self._contract.columns:
            count = column.strange(columns[column.name])
            if not count:
                continue
            what = OUTSIDE if column.kind == "number" else UNSEEN
            self._columns.setdefault(column.name, Counter())[what] += count
            if what == OUTSIDE:  # the encoding counts unseen categories itself
                self.counts[OUTSIDE] += count

    def notes(self) -> dict[str, int]:
        """What did occur, in all."""
        return occurred(self.counts)

    def columns(self) -> Mapping[str, Mapping[str, int]]:
        """What did occur, by column, the most frequent first."""
        ranked = sorted(self._columns.items(), key=lambda item: (-item[1].total(), item[0]))
        return {name: dict(counts) for name, counts in ranked}


def schema_violations(
    contract: Contract,
    target: str,
    labels: tuple[str, ...],
    objects: Sequence[Object],
    frame: pd.DataFrame,
    row_contract: RowContract = 2,
    *,
    unlabelled: bool,
) -> list[SchemaViolation]:
    """The first thing wrong with each row that has one, in the order of the rows.

    ``frame`` holds the same rows; of a number column what is no number is text in it.
    """
    wrong: list[SchemaViolation] = []
    required = {column.name for column in contract.columns if not column.optional}
    required |= set() if unlabelled else {target}
    for row, fields in enumerate(objects):
        if not required <= fields.keys():
            absent = f"column '{min(required - fields.keys())}' is missing"
            wrong.append(SchemaViolation(row, absent, absent))
    for column in contract.columns:
        if column.kind == "number":
            for row, reason in _no_numbers(frame[column.name], row_contract):
                where = f"column '{column.name}': {reason}"
                wrong.append(SchemaViolation(row, where, no_number(column.name)))
    for row, reason in _no_labels(frame[target], labels, row_contract, unlabelled=unlabelled):
        wrong.append(SchemaViolation(row, f"column '{target}': {reason}", no_label(target)))
    return first_of_each(wrong)


def _no_numbers(values: pd.Series[Any], contract: RowContract) -> list[tuple[int, str]]:
    if contract == 2:
        return [
            (row, f"{values.iloc[row]!r} is not a number") for row in _places(parsed(values)[1])
        ]
    numbers = as_numbers(values)
    strange = values.notna().to_numpy() & np.isnan(numbers)
    texts = [(row, f"{values.iloc[row]!r} is not a number") for row in _places(strange)]
    large = [
        (row, f"{values.iloc[row]} is beyond {LARGEST_OF_OLD:g}")
        for row in _places(np.abs(numbers) > LARGEST_OF_OLD)
    ]
    return texts + large


def _no_labels(
    values: pd.Series[Any], labels: tuple[str, ...], contract: RowContract, *, unlabelled: bool
) -> list[tuple[int, str]]:
    if contract == 2:  # a label that training did not have counts as unknown
        missing, unknown = as_labels(values).isna().to_numpy(), np.zeros(len(values), np.bool_)
    else:
        missing = values.isna().to_numpy()
        unknown = (as_classes(values, labels, 1) == UNKNOWN) & ~missing
    wrong = [
        (row, f"{values.iloc[row]!r} is not a value that training had; it had {listed(labels)}")
        for row in _places(unknown)
    ]
    if not unlabelled:
        wrong += [(row, f"the target is missing; {NEEDED}") for row in _places(missing)]
    return wrong


def _places(chosen: NDArray[np.bool_]) -> list[int]:
    return [int(row) for row in np.flatnonzero(chosen)]
