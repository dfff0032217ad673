"""Which rows were drawn to be asked for a label, with what chance, and what was answered, on disk.

Beside the spool of a served model, or in a run's folder. No value of a row is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.labels.sampled import AskedRows
from selfheal_cli.labels.sampling import AskPlan
from selfheal_cli.labels.selection import lots_of
from selfheal_cli.spool.file import SpoolFile

if TYPE_CHECKING:
    import sqlite3

    from selfheal_cli.records import FloatArray, LabelArray

ASKING = "asking.db"
BLOCK = 100  # rows in their order that the bootstrap takes together
Place = tuple[int, int]  # a request's number, or a batch's, and the row's place in it

SCHEMA = """
CREATE TABLE IF NOT EXISTS asking (
    plan TEXT NOT NULL, source INTEGER NOT NULL, last INTEGER NOT NULL, rows INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS cells (
    stratum INTEGER NOT NULL, chance REAL NOT NULL, rows INTEGER NOT NULL,
    PRIMARY KEY (stratum, chance)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (
    part INTEGER NOT NULL, place INTEGER NOT NULL, name TEXT NOT NULL, stratum INTEGER NOT NULL,
    chance REAL NOT NULL, lot REAL NOT NULL, block INTEGER NOT NULL, probabilities BLOB NOT NULL,
    threshold REAL NOT NULL, told INTEGER NOT NULL, y INTEGER NOT NULL, PRIMARY KEY (part, place)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows that were scored together, under a ``number`` that rises and a ``name`` of their own.

    ``probabilities`` (n,) or (n, K), the ``threshold`` that decided, and ``y`` (n,), the labels
    that are known by now, -1 where none is.
    """

    number: int
    name: str
    probabilities: FloatArray
    threshold: float
    y: LabelArray


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """A row that was asked for; ``name`` is that of the rows it came with."""

    part: int
    place: int
    name: str
    chance: float

    @property
    def id(self) -> str:
        """By which the row is labelled."""
        return f"{self.name}:{self.place}"


class Asking:
    """The file; raises `StorageError` where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._file = SpoolFile(path, SCHEMA)

    def plan(self, source: int) -> AskPlan | None:
        """How rows of ``source``, a spool's identity, are drawn; None before the first time."""
        rows = self._file.all("SELECT plan FROM asking WHERE source = ?", (source,))
        return AskPlan.from_json(rows[0][0]) if rows else None

    @property
    def last(self) -> int:
        """The number of the last rows that were drawn from."""
        rows = self._file.all("SELECT last FROM asking")
        return int(rows[0][0]) if rows else 0

    def begin(self, plan: AskPlan, source: int, *, anew: bool) -> None:
        """Draw by a plan from here on, or ``anew`` from the first rows that are still there.

        A larger share draws the rows of a smaller one again: what was answered of them is kept.
        """
        with self._file.writing() as database:
            row = database.execute("SELECT source FROM asking").fetchone()
            if row is not None and row[0] != source:  # of a spool that is gone
                database.execute("DELETE FROM asked")
            last, rows = (0, 0) if anew else _reached(database)
            if anew:
                database.execute("DELETE FROM cells")
                database.execute("UPDATE asked SET stratum = -1")
            database.execute("DELETE FROM asking")
            values = (plan.as_json(), source, last, rows)
            database.execute("INSERT INTO asking VALUES (?, ?, ?, ?)", values)

    def draw(self, plan: AskPlan, parts: Iterable[Answered]) -> None:
        """Draw of further rows, and count all of them."""
        with self._file.writing() as database:
            last, rows = _reached(database)
            for part in parts:
                _draw(database, plan, part, rows)
                last, rows = part.number, rows + len(part.probabilities)
            database.execute("UPDATE asking SET last = ?, rows = ?", (last, rows))
            database.execute("DELETE FROM asked WHERE stratum < 0 AND part <= ?", (last,))

    def drawn(self) -> list[DrawnRow]:
        """All rows that were asked for, in the order of their lots: the first are a sample, too."""
        rows = self._file.all("SELECT part, place, name, chance FROM asked ORDER BY lot / chance")
        return [DrawnRow(*row) for row in rows]

    def places(self) -> list[Place]:
        """The rows that figures are made of, in the order of `rows`."""
        query = "SELECT part, place FROM asked WHERE stratum >= 0 ORDER BY part, place"
        return [(int(part), int(place)) for part, place in self._file.all(query)]

    def answer(self, labels: Mapping[Place, int]) -> None:
        """Keep labels of rows that were asked for, where no spool does."""
        with self._file.writing() as database:
            database.executemany(
                "UPDATE asked SET y = ? WHERE part = ? AND place = ?",
                [(y, *place) for place, y in labels.items()],
            )

    def answers(self) -> dict[Place, int]:
        """The labels that were kept here."""
        return {(part, place): y for part, place, y in
                self._file.all("SELECT part, place, y FROM asked WHERE y >= 0")}  # fmt: skip

    def rows(self, labels: Mapping[Place, int]) -> AskedRows | None:
        """What figures are made of, with the labels that are known; None where none was drawn."""
        rows = self._file.all(
            "SELECT part, place, stratum, chance, block, probabilities, threshold, told FROM asked "
            "WHERE stratum >= 0 ORDER BY part, place"
        )
        if not rows:
            return None
        counted = self._file.all("SELECT stratum, chance, rows FROM cells")
        cells = {(stratum, chance): at for at, (stratum, chance, _) in enumerate(counted)}
        p = np.stack([np.frombuffer(row[5], "<f4") for row in rows])
        return AskedRows(
            p[:, 0] if p.shape[1] == 1 else p,
            np.array([row[6] for row in rows]),
            np.array([labels.get(row[:2], -1) for row in rows], dtype=np.int8),
            np.array([row[7] for row in rows], dtype=np.bool_),
            np.array([row[4] for row in rows]),
            np.array([cells[row[2:4]] for row in rows]),
            np.array([count for _, _, count in counted]),
        )

    def forget(self, places: Iterable[Place]) -> None:
        """Take rows out that somebody erased."""
        with self._file.writing() as database:
            database.executemany("DELETE FROM asked WHERE part = ? AND place = ?", places)

    def close(self) -> None:
        """Close the file; no call may follow."""
        self._file.close()


def _reached(database: sqlite3.Connection) -> tuple[int, int]:
    row = database.execute("SELECT last, rows FROM asking").fetchone()
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


def _draw(database: sqlite3.Connection, plan: AskPlan, part: Answered, before: int) -> None:
    """``before`` is how many rows came before these."""
    p = part.probabilities
    usable = np.isfinite(p.reshape(len(p), -1)).all(axis=1)  # an erased row has none
    strata, lots = plan.strata(p), lots_of(part.name, 0, len(p), plan.lot_key())
    chances = np.array(plan.chances)[strata]
    for stratum in np.unique(strata[usable]).tolist():
        database.execute(
            "INSERT INTO cells VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET rows = rows + "
            "excluded.rows",
            (stratum, plan.chances[stratum], int((usable & (strata == stratum)).sum())),
        )
    for place in np.flatnonzero(usable & (lots < chances)).tolist():
        told = int(part.y[place] >= 0)
        values = (
            part.number, place, part.name, int(strata[place]), float(chances[place]),
            float(lots[place]), (before + place) // BLOCK, p[place].astype("<f4").tobytes(),
            part.threshold, told, -1,
        )  # fmt: skip
        database.execute(
            "INSERT INTO asked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "stratum = excluded.stratum, chance = excluded.chance",
            values,
        )
