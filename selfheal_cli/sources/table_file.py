"""What a file of rows offers, whatever its form."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from selfheal_cli.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from selfheal_cli.sources.values import RowContract

CHUNK_ROWS = 8_192
MOST_COLUMNS = 10_000
VALUE = re.compile(r"-\d+|-?\d*\.\d+(e[-+]?\d+)?")  # a number that counts nothing


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that cannot be read; in the table's frames it has no values."""

    reason: str
    kind: str
    text: str


class TableFile(Protocol):
    """Rows of named columns, read from the start as often as wanted."""

    where: str  # what messages call it
    columns: list[str]
    contract: RowContract  # what its values mean

    def place(self, row: int) -> str:
        """Where the row is found; rows count from 1."""

    def keep(self, path: Path) -> None:
        """Write all of it to a file."""

    def chunks(self, numeric: Sequence[str] | None, skip: int = 0) -> Iterator[pd.DataFrame]:
        """Frames of up to `CHUNK_ROWS` rows after the first ``skip``.

        Columns in ``numeric`` come as float64 and the rest as text; with None, all as they are.
        """

    def notes(self) -> dict[str, int]:
        """Counts of rows that could not be read and are left out, by reason."""

    def broken(self) -> Mapping[int, Broken]:
        """Rows that cannot be read and are in the frames, by number, among those read so far."""


def require_names(columns: Sequence[str], *, where: str) -> None:
    """Raise `DataError` unless each of at most `MOST_COLUMNS` columns has a name of its own."""
    if len(columns) > MOST_COLUMNS:
        raise DataError(f"{where}: {len(columns):,} columns; at most {MOST_COLUMNS:,} are read")
    repeated = sorted(name for name, count in Counter(columns).items() if count > 1)
    if repeated:
        at = {one: [n for n, name in enumerate(columns, 1) if name == one] for one in repeated}
        said = "; ".join(f"{name} is columns {', '.join(map(str, at[name]))}" for name in repeated)
        raise DataError(
            f"{where}: duplicate column names: {', '.join(repeated)}; rename them ({said})"
        )
    if "" in columns:
        position = list(columns).index("") + 1
        raise DataError(f"{where}: column {position} has no name; name it in the header")


def require_column(table: TableFile, name: str) -> None:
    """Raise `DataError` with the nearest name where the table has no such column."""
    if name not in table.columns:
        raise DataError(
            f"{table.where}: no column '{name}'{nearest(name, table.columns)}; "
            f"columns: {', '.join(table.columns)}{_headless(table.columns)}"
        )


def _headless(columns: Sequence[str]) -> str:
    """A question where most names are numbers; whole ones may count columns."""
    values = sum(VALUE.fullmatch(name) is not None for name in columns)
    return "; is the first row a header? It looks like values" if 2 * values > len(columns) else ""


def nearest(name: str, known: Sequence[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    matches = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""
