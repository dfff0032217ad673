"""The contract of every source of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.records import Batch, Limit, Rows
from selfheal_cli.sources.contract import Contract
from selfheal_cli.sources.encoding import Encoding

if TYPE_CHECKING:
    from selfheal_cli.records import Columns


class Around(Protocol):
    """The methods of a source that a session calls around its batches.

    What is answered here is right where all rows are there from the beginning. An ``endless``
    source is read once, and ended by being stopped. ``remarks`` say what it made of the columns.
    """

    endless: bool = False
    remarks: tuple[str, ...] = ()

    def positions(self) -> Mapping[str, Mapping[str, int]]:
        """By partition, where it was read from (``begin``) and where its stream began."""
        return {}

    def history(self) -> Iterator[Batch]:
        """Batches before the stream, to learn from once more; their labels may still come."""
        return iter(())

    def behind(self) -> str:
        """Why healing should pause, if it should: more rows come than can be looked at."""
        return ""

    def attend(self, folder: Path, idle: Callable[[], bool]) -> None:
        """The stream is about to begin; what is put aside or kept goes to ``folder``.

        ``idle`` is called several times a second while nothing comes; True ends the stream.
        """
        return

    def settle(self, keep: Callable[[], None], held: Callable[[], bool]) -> None:
        """The batches that were given are scored; ``keep`` brings that to disk.

        ``held`` says whether the run still heals its model.
        """
        return

    def make_beside(self, encoding: Encoding | None) -> None:
        """Have batches bring `Batch.others` as this makes them; None for no such thing any more."""
        return

    def close(self) -> None:
        """No more is read."""
        return


class Source(Around, Protocol):
    """Rows in time order: a part to train on, then a stream.

    ``labels`` names the target's values in the order of the classes; of two, the second is the
    positive. ``batch_count`` is None where it is not known.
    """

    @property
    def encoding(self) -> Encoding:
        """How raw columns become the network's inputs, fitted on the training part alone."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The target's values; ``Rows.y`` holds positions in it."""

    @property
    def batch_count(self) -> int | None:
        """Batches in the stream."""

    def training(self) -> Iterator[Rows]:
        """The training part, in blocks that fit in memory; may be read again."""

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """The stream from batch ``start`` on."""

    def held_out(self) -> Mapping[str, Rows]:
        """Rows that no network trains on, by stage; empty where there are none but the stream's."""

    def limit(self) -> Limit | None:
        """The Bayes-optimal figures on the stream, where the generator is known."""

    @property
    def contract(self) -> Contract | None:
        """What every row must be; None where rows are drawn, not read."""

    def departures(self) -> Mapping[str, Mapping[str, int]]:
        """Counts of range violations so far, by column."""

    def notes(self) -> Mapping[str, int]:
        """Counts of unusual values so far (missing ones, unseen categories), by kind."""


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
        return Batch(index, self.rows, now, self.label_at, at=self.at)


def labelled(rows: Rows) -> Rows:
    """Those of the rows that can train a network: their label is known."""
    known = rows.y >= 0
    if known.all():
        return rows
    return Rows(rows.x[known], rows.y[known], {n: v[known] for n, v in rows.columns.items()})


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
