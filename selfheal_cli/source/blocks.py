"""Rows with their times, as they are read from a table: cut into batches, joined to blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.records import Batch, Rows

if TYPE_CHECKING:
    from selfheal_cli.records import Columns


@dataclass(frozen=True, slots=True)
class Block:
    """Rows, their times (n,) and those of their labels (n,), where the table has them."""

    rows: Rows
    at: NDArray[np.float64] | None = None
    label_at: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def cut(self, start: int, stop: int) -> Block:
        """The rows from ``start`` to before ``stop``."""
        part, rows = slice(start, stop), self.rows
        return Block(
            Rows(rows.x[part], rows.y[part], {name: v[part] for name, v in rows.columns.items()}),
            None if self.at is None else self.at[part],
            None if self.label_at is None else self.label_at[part],
        )

    def batch(self, index: int) -> Batch:
        """All rows as a batch."""
        now = None if self.at is None else float(self.at.max())
        return Batch(index, self.rows, now, self.label_at)


def joined(parts: Sequence[Block]) -> Block:
    """Blocks one below the other."""
    if len(parts) == 1:
        return parts[0]
    rows = [part.rows for part in parts]
    columns: Columns = {
        name: np.concatenate([part.columns[name] for part in rows]) for name in rows[0].columns
    }
    return Block(
        Rows(
            np.concatenate([part.x for part in rows]),
            np.concatenate([part.y for part in rows]),
            columns,
        ),
        _times([part.at for part in parts]),
        _times([part.label_at for part in parts]),
    )


def _times(parts: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None
