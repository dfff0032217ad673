"""What a row must be: made of the training rows, kept with the base, held against later rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from selfheal_cli.source.encoding import occurred

if TYPE_CHECKING:
    from selfheal_cli.records import Columns

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


class Departures:
    """Counts of what was not as in training, in all and by column."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._columns: dict[str, Counter[str]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, columns: Columns) -> None:
        """Take rows as raw columns, (n,) each."""
        for column in self._contract.columns:
            found = column.strange(columns[column.name])
            if not found:
                continue
            what = OUTSIDE if column.kind == "number" else UNSEEN
            self._columns.setdefault(column.name, Counter())[what] += found
            if what == OUTSIDE:  # the encoding counts unseen categories itself
                self.counts[OUTSIDE] += found

    def notes(self) -> dict[str, int]:
        """What did occur, in all."""
        return occurred(self.counts)

    def columns(self) -> Mapping[str, Mapping[str, int]]:
        """What did occur, by column, the most frequent first."""
        ranked = sorted(self._columns.items(), key=lambda one: (-one[1].total(), one[0]))
        return {name: dict(counts) for name, counts in ranked}
