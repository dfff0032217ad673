"""Who told which labels: how each name compares with others and with itself, and what is taken back
of it; and what is known of one row, which may be erased.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfheal_cli.spool.asking import ASKING, Asking
from selfheal_cli.spool.database import LogDatabase, Transaction
from selfheal_cli.spool.entries import REVOKED, pack_columns, unpack_columns
from selfheal_cli.spool.file import SpoolFile
from selfheal_cli.spool.store import SCHEMA

CLOCK = 0.5  # share of a name's labels, in the order of their telling, that are its past


@dataclass(frozen=True, slots=True)
class Teller:
    """A name and its labels: ``first`` and ``last`` in seconds since 1970.

    Of ``compared`` rows others told a label, too: of ``other`` another class. ``positives`` of its
    ``labels`` are of class 1 or above; ``past`` and ``lately`` count (labels, positives) of the
    earlier and the later half. A name of ``one_class`` never tells another: that is its business.
    """

    name: str
    labels: int
    positives: int
    first: float
    last: float
    compared: int
    other: int
    past: tuple[int, int]
    lately: tuple[int, int]

    @property
    def one_class(self) -> bool:
        """Whether it tells one class alone, as a feed of chargebacks does."""
        return self.positives in (0, self.labels)


@dataclass(frozen=True, slots=True)
class Revocation:
    """Labels that count by the word of one name: of ``labels`` rows, ``replaced`` of which others
    told a label of, too; ``first`` was told at, in seconds since 1970.
    """

    labels: int
    replaced: int
    first: float


OF_NAME = "SELECT DISTINCT answered, place FROM told_labels WHERE caller = ? AND at >= ?"
# whose word a row's label is: the latest of those that say what it says
BY = (
    "SELECT caller, at FROM told_labels t WHERE t.answered = l.answered AND t.place = l.place "
    "AND t.y = l.y AND t.caller NOT LIKE '% (revoked)' ORDER BY t.rowid DESC LIMIT 1"
)
FORGET = (
    "DELETE FROM told_labels WHERE answered = ? AND place = ?",
    "DELETE FROM keys WHERE answered = ? AND place = ?",
)


class Tellers:
    """The told labels of a spool; raises `StorageError` where it cannot be used."""

    def __init__(self, place: Path | LogDatabase) -> None:
        self._file = SpoolFile(place, SCHEMA) if isinstance(place, Path) else place
        self._asked = place.with_name(ASKING) if isinstance(place, Path) else None

    def all(self) -> list[Teller]:
        """Each name, the one with most labels first."""
        names = self._file.all("SELECT caller, count(*) FROM told_labels GROUP BY caller "
                               "ORDER BY 2 DESC, 1")  # fmt: skip
        return [self._teller(str(name)) for name, _ in names]

    def _teller(self, name: str) -> Teller:
        told = self._file.all(
            "SELECT y, at FROM told_labels WHERE caller = ? ORDER BY at, rowid", (name,)
        )
        both = self._file.all(
            "SELECT m.y, (SELECT o.y FROM told_labels o WHERE o.answered = m.answered "
            "AND o.place = m.place AND o.caller != m.caller ORDER BY o.rowid LIMIT 1) "
            "FROM told_labels m WHERE m.caller = ?",
            (name,),
        )
        compared = [(mine, theirs) for mine, theirs in both if theirs is not None]
        positive = [int(y > 0) for y, _ in told]
        half = round(len(told) * CLOCK)
        return Teller(
            name, len(told), sum(positive), told[0][1], told[-1][1], len(compared),
            sum(mine != theirs for mine, theirs in compared),
            (half, sum(positive[:half])), (len(told) - half, sum(positive[half:])),
        )  # fmt: skip

    def plan(self, name: str, since: float) -> Revocation:
        """What would be taken back of a name's labels that were told at ``since`` or later."""
        with self._file.writing() as database:
            rows = _counting(database, name, since)
            replaced = sum(_instead(database, row[:2], name, since) is not None for row in rows)
        return Revocation(len(rows), replaced, min((row[2] for row in rows), default=0.0))

    def revoke(self, name: str, since: float) -> Revocation:
        """Take them back: each row has the label that others told, or the name told before, or
        none. That is a new label, behind all others; who told what stays to be read.
        """
        replaced = 0
        with self._file.writing() as database:
            rows = _counting(database, name, since)
            for answered, place, _ in rows:
                instead = _instead(database, (answered, place), name, since)
                replaced += instead is not None
                _set(database, (answered, place), -1 if instead is None else instead)
            database.execute(
                "UPDATE told_labels SET caller = ? WHERE caller = ? AND at >= ?",
                (name + REVOKED, name, since),
            )
        return Revocation(len(rows), replaced, min((row[2] for row in rows), default=0.0))

    def rows_of(self, key: str | None, request: str | None, place: int | None) -> int:
        """How many rows `erase` would erase."""
        with self._file.writing() as database:
            return len(_rows(database, key, request, place))

    def erase(self, key: str | None, request: str | None, place: int | None) -> int:
        """Erase rows by key, or by request and place (None: all of its rows): values, answers,
        labels, who told them, and the key go; that a row was there stays. Returns how many.
        """
        with self._file.erasing() as database:
            rows = _rows(database, key, request, place)
            for row in rows:
                _blank(database, row)
                _set(database, row, -1)
                for query in FORGET:
                    database.execute(query, row)
        if self._asked is not None and self._asked.exists():
            with closing(Asking(self._asked)) as asking:
                asking.forget(rows)
        return len(rows)

    def close(self) -> None:
        """Close the file; no call may follow."""
        self._file.close()


def _counting(database: Transaction, name: str, since: float) -> list[tuple[int, int, float]]:
    """Rows whose label is by the word of a name since then, and when that was told."""
    rows = database.execute(
        f"SELECT l.answered, l.place, ({BY.replace('caller, at', 'at')}) FROM labels l "  # noqa: S608
        f"WHERE l.y >= 0 AND (l.answered, l.place) IN ({OF_NAME}) "
        f"AND ({BY.replace('caller, at', 'caller')}) = ? ORDER BY l.number",
        (name, since, name),
    ).fetchall()
    return [(a, p, at) for a, p, at in rows if at >= since]


def _instead(database: Transaction, row: tuple[int, int], name: str, since: float) -> int | None:
    """The class that others told first, or the name last before; None where nobody did."""
    for condition, order in (("caller != ? AND caller NOT LIKE ?", "rowid"),
                             ("caller = ? AND at < ?", "rowid DESC")):  # fmt: skip
        values: tuple[Any, ...] = (name, since if "at <" in condition else f"%{REVOKED}")
        told = database.execute(
            f"SELECT y FROM told_labels WHERE answered = ? AND place = ? AND {condition} "  # noqa: S608
            f"ORDER BY {order} LIMIT 1",
            (*row, *values),
        ).fetchone()
        if told is not None:
            return int(told[0])
    return None


def _set(database: Transaction, row: tuple[int, int], y: int) -> None:
    database.execute("DELETE FROM labels WHERE answered = ? AND place = ?", row)
    database.execute("INSERT INTO labels (answered, place, y) VALUES (?, ?, ?)", (*row, y))


def _rows(
    database: Transaction, key: str | None, request: str | None, place: int | None
) -> list[tuple[int, int]]:
    if key is not None:
        query = "SELECT answered, place FROM keys WHERE key = ?"
        return [(int(a), int(p)) for a, p in database.execute(query, (key,))]
    query = "SELECT number, rows FROM answered WHERE request = ?"
    located = database.execute(query, (request,)).fetchone()
    if located is None:
        return []
    number, rows = located
    return [(number, at) for at in range(rows) if place in (None, at)]


def _blank(database: Transaction, row: tuple[int, int]) -> None:
    """Overwrite the values and the answer of a row by missing ones."""
    query = "SELECT columns, probabilities, classes FROM answered WHERE number = ?"
    packed, probabilities, classes = database.execute(query, row[:1]).fetchone()
    columns = {name: values.copy() for name, values in unpack_columns(packed).items()}
    for values in columns.values():
        values[row[1]] = None if values.dtype.kind == "O" else np.nan
    p = np.frombuffer(probabilities, "<f4").copy().reshape(-1, classes)
    p[row[1]] = np.nan
    database.execute(
        "UPDATE answered SET columns = ?, probabilities = ? WHERE number = ?",
        (pack_columns(columns), p.tobytes(), row[0]),
    )
