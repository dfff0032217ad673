"""The spool: answered requests and the labels that came for their rows, in order, on disk.

The server appends; the healer reads on from its cursor.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError
from selfheal_cli.spool import early, fence
from selfheal_cli.spool.database import LogDatabase, Transaction
from selfheal_cli.spool.entries import (
    REVOKED,
    Corrects,
    Cursor,
    Feedback,
    Joined,
    Kept,
    Label,
    LoggedRequest,
    mark_of,
    pack_columns,
    unpack_columns,
)
from selfheal_cli.spool.file import SpoolFile

if TYPE_CHECKING:
    pass


SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS answered (
    number INTEGER PRIMARY KEY AUTOINCREMENT, request TEXT UNIQUE NOT NULL, rows INTEGER NOT NULL,
    classes INTEGER NOT NULL, columns BLOB NOT NULL, probabilities BLOB NOT NULL,
    snapshot TEXT NOT NULL, threshold REAL NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS keys (
    key TEXT PRIMARY KEY, answered INTEGER NOT NULL, place INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_of ON keys (answered);
CREATE TABLE IF NOT EXISTS shared (request TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS labels (
    number INTEGER PRIMARY KEY AUTOINCREMENT, answered INTEGER NOT NULL, place INTEGER NOT NULL,
    y INTEGER NOT NULL, UNIQUE (answered, place)
);
CREATE TABLE IF NOT EXISTS told_labels (
    answered INTEGER NOT NULL, place INTEGER NOT NULL, y INTEGER NOT NULL, caller TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS told_labels_of ON told_labels (answered, place);
CREATE TABLE IF NOT EXISTS taken (
    lease INTEGER NOT NULL, run TEXT NOT NULL, batch INTEGER NOT NULL, cursor TEXT NOT NULL,
    safe INTEGER NOT NULL, PRIMARY KEY (run, batch)
);
"""
    + early.SCHEMA
    + fence.SCHEMA
)
COMMIT = (
    "INSERT INTO taken VALUES (?, ?, ?, ?, ?) ON CONFLICT (run, batch) DO UPDATE SET "
    "lease = excluded.lease, cursor = excluded.cursor"
)
BATCHES_KEPT = 1_000  # whose places are known, should the champion be of one of them
MOST_ROWS = 20_000  # that a reader has in memory
ROWS = (
    "SELECT request, classes, columns, probabilities, snapshot, threshold, at, number "
    "FROM answered "
)
AFTER = (
    "WHERE number IN (SELECT number FROM (SELECT number, sum(rows) OVER (ORDER BY number) - rows "
    "AS before FROM answered WHERE number > ? {below} ORDER BY number LIMIT ?) AS t "
    "WHERE before < ?) ORDER BY number"
)
TAKEN_BACK = "DELETE FROM labels WHERE answered = ? AND place = ? AND y < 0"  # is no label
BEYOND = "SELECT count(*) FROM (SELECT 1 FROM labels WHERE number > ? {below} LIMIT ?) AS t"
LABELS = "SELECT number, answered, place, y FROM labels WHERE "


class Spool:
    """`AnswerLog`: answered requests and labels, in the order of their commits.

    Any thread may call, and any process that reaches the file or the database. Raises
    `StorageError` where the disk is full or it cannot be used.
    """

    def __init__(self, place: Path | LogDatabase) -> None:
        self._file = SpoolFile(place, SCHEMA) if isinstance(place, Path) else place

    def identity(self) -> int:
        """As `LogDatabase.identity`."""
        return self._file.identity()

    def append(self, answers: Sequence[LoggedRequest]) -> Kept:
        """Keep answered requests, all or none.

        A request whose id is there already is not kept again. If it has other rows, labels find
        no rows by that id any more.
        """
        new = conflicting = 0
        with self._file.writing() as database:
            if self._file.shared:
                database.execute(early.APPENDING)
            wait = early.some_wait(database)
            for request in answers:
                number = _insert(database, request)
                if number is not None:
                    new += 1
                    for place, y, by, at in (
                        early.waiting_for(
                            database, request.request, len(request), request.keys or ()
                        )
                        if wait
                        else ()
                    ):
                        _tell(database, (number, place), y, by, at, by.__eq__)
                elif _is_shared(database, request):
                    conflicting += len(request)
        return Kept(new, conflicting)

    def here(self, cursor: Cursor) -> Cursor | None:
        """A cursor of this log, or of one that this is a copy of; None for any other. What was
        read of the other and is not in the copy is not there to be read.
        """
        if cursor.spool in (0, self.identity()):
            return cursor
        until = self._file.earlier(cursor.spool)
        if until is None:
            return None
        labels, spool = min(cursor.labels, until), self.identity()
        if cursor.last > until:
            return Cursor(until, 0, labels, spool)
        return replace(cursor, labels=labels, spool=spool)

    def fence(self) -> int:
        """As `fence_of`."""
        return fence.fence_of(self._file)

    def set_fence(self, seen: int, lease: int) -> bool:
        """As `fence.set_fence`."""
        return fence.set_fence(self._file, seen, lease)

    def commit(self, run: str, batch: int, cursor: Cursor, lease: int) -> None:
        """Write down how far a run has come with a batch, so that another one goes on there, on
        whichever machine. Raises `LeaseHeld` where its lease was taken over.
        """
        row = (lease, run, batch, json.dumps(cursor.as_dict()), int(not batch))
        with self._file.writing() as database:
            fence.pass_fence(database, lease)
            database.execute(COMMIT, row)
            database.execute(
                "DELETE FROM taken WHERE safe = 0 AND (lease < ? OR batch < ?)",
                (lease, batch - BATCHES_KEPT),
            )

    def settle(self, run: str, batch: int, lease: int) -> None:
        """The registry has all that came of a run's batches up to this one; as `commit`."""
        with self._file.writing() as database:
            fence.pass_fence(database, lease)
            database.execute("UPDATE taken SET safe = 1 WHERE run = ? AND batch = ?", (run, batch))
            database.execute(
                "DELETE FROM taken WHERE safe = 1 AND NOT (run = ? AND batch = ?)", (run, batch)
            )

    def committed(self, run: str, batch: int) -> tuple[Cursor, str] | None:
        """Where to go on, and which run wrote it down last: behind all that is in the registry,
        whose champion is of this ``run`` and ``batch``.
        """
        last = self._file.all("SELECT run FROM taken ORDER BY lease DESC, batch DESC LIMIT 1")
        rows = self._file.all(
            "SELECT cursor FROM taken WHERE safe = 1 OR (run = ? AND batch = ?)", (run, batch)
        )
        if not rows:
            return None
        cursors = (Cursor(**json.loads(row[0])) for row in rows)
        return max(cursors, key=lambda one: (one.answered, one.place)), str(last[0][0])

    def holds(self, cursor: Cursor) -> bool:
        """Whether this is the spool that was read up to a cursor."""
        if cursor.spool not in (0, self.identity()):
            return False
        ends = ((cursor.last, "answered"), (cursor.labels, "labels"))
        if any(last > self._file.end(table) for last, table in ends):
            return False
        row = self._file.all("SELECT request, at FROM answered WHERE number = ?", (cursor.last,))
        return not row or cursor.mark in (0, mark_of(*row[0]))  # without a row: removed since

    def label(
        self, labels: Sequence[Feedback], caller: str = "", at: float = 0.0,
        corrects: Corrects | None = None, *, beside: bool = False,
    ) -> Joined:  # fmt: skip
        """Join labels to rows that were answered; a row keeps its first label, unless the caller
        ``corrects`` who told it. A corrected label is a new one, behind all others.

        Who told it, and when (seconds since 1970), is kept with each label that is a row's first
        or another one than that. Where others write rows ``beside`` this process, as on a shared
        log, a label that finds no row waits for it, though it counts as unknown by now.
        """
        waits = beside or self._file.shared
        told = Counter[str]()
        strangers: list[str] = []
        with self._file.writing() as database:

            def find() -> list[tuple[int, int] | None]:
                return [_find(database, label) for label in labels]

            rows = early.rows_of(database, find) if self._file.shared else find()
            for label, row in zip(labels, rows, strict=True):
                if row is None:
                    told["unknown"] += 1
                    strangers += [] if label.key is None else [label.key]
                    if waits:
                        missing = label.request, label.place, label.key
                        early.keep(database, missing, label.y, caller, at, shared=self._file.shared)
                else:
                    told.update(_tell(database, row, label.y, caller, at, corrects))
        repeated = len(labels) - told["joined"] - told["unknown"]
        return Joined(told["joined"], repeated, told["unknown"], told["other"], tuple(strangers),
                      told["corrected"])  # fmt: skip

    def rows_after(
        self, number: int, limit: int, most_rows: int = MOST_ROWS
    ) -> list[LoggedRequest]:
        """Answered requests after ``number``, in the order of their commits.

        At most ``limit``, and no more once they have ``most_rows`` rows; one request alone may
        have more rows.
        """
        query = ROWS + AFTER.format(below=self._file.below)
        return list(map(_answered, self._file.all(query, (number, limit, most_rows))))

    def first_within(self, rows: int, last: int) -> int:
        """The first of the latest requests up to ``last`` that have at most ``rows`` rows."""
        fetched = self._file.all(
            "SELECT min(number) FROM (SELECT number, sum(rows) OVER (ORDER BY number DESC) "
            "AS newer FROM answered WHERE number <= ?) AS t WHERE newer <= ?",
            (last, rows),
        )
        return last + 1 if fetched[0][0] is None else int(fetched[0][0])

    def labels_after(self, number: int, limit: int) -> list[Label]:
        """Labels in the order in which they were joined."""
        query = f"{LABELS}number > ? {self._file.below} ORDER BY number LIMIT ?"
        rows = self._file.all(query, (number, limit))
        return [Label(*row) for row in rows]

    def labels_beyond(self, number: int, limit: int) -> int:
        """Number of labels after ``number``, counted up to ``limit``."""
        query = BEYOND.format(below=self._file.below)
        return int(self._file.all(query, (number, limit))[0][0])

    def labels_of(self, requests: Sequence[int]) -> list[Label]:
        """Labels of the rows of some requests."""
        marks = ",".join("?" * len(requests))
        rows = self._file.all(LABELS + f"answered IN ({marks}) ORDER BY number", tuple(requests))
        return [Label(*row) for row in rows]

    def keys_of(self, requests: Sequence[int]) -> dict[tuple[int, int], str]:
        """What callers named the rows of some requests, by number and place."""
        marks = ",".join("?" * len(requests))
        query = f"SELECT answered, place, key FROM keys WHERE answered IN ({marks})"  # noqa: S608
        rows = self._file.all(query, tuple(requests))
        return {(answered, place): str(key) for answered, place, key in rows}

    def find(self, label: Feedback) -> tuple[int, int] | None:
        """The row that a label is for, its request's number and its place; None where there is
        none.
        """
        with self._file.writing() as database:
            return _find(database, label)

    def told_of(self, request: str, place: int = 0) -> list[tuple[int, str, float]]:
        """What a row's labels were said to be: class, caller and time, the first one first."""
        rows = self._file.all(
            "SELECT y, caller, l.at FROM told_labels l JOIN answered ON number = l.answered "
            "WHERE request = ? AND place = ? ORDER BY l.rowid",
            (request, place),
        )
        return [(int(y), str(caller), float(at)) for y, caller, at in rows]

    def last(self) -> int:
        """Number of the request that came last, or a later one; 0 before there is one."""
        return self._file.end("answered")

    def rows_beyond(self, number: int, requests: int = 2**62) -> int:
        """Number of rows of the requests after ``number``, or of the first ``requests`` of them."""
        query = (
            "SELECT coalesce(sum(rows), 0) FROM (SELECT rows FROM answered WHERE number > ? "
            "ORDER BY number LIMIT ?) AS t"
        )
        return int(self._file.all(query, (number, requests))[0][0])

    def count(self, read_to: int) -> tuple[int, int]:
        """Number of rows, and of those after request ``read_to``."""
        query = (
            "SELECT coalesce(sum(rows), 0), coalesce(sum(CASE WHEN number > ? THEN rows END), 0) "
            "FROM answered"
        )
        kept, unread = self._file.all(query, (read_to,))[0]
        return int(kept), int(unread)

    def forget(self, keep_rows: int, before: int | None = None) -> int:
        """Remove the oldest requests beyond ``keep_rows`` rows, with their keys and labels.

        None from ``before`` on is removed; returns how many were.
        """
        edge = self._file.all(
            "SELECT number FROM (SELECT number, sum(rows) OVER (ORDER BY number DESC) AS newer "
            "FROM answered) AS t WHERE newer > ? ORDER BY number DESC LIMIT 1",
            (keep_rows,),
        )
        if not edge:
            return 0
        last = (edge[0][0] if before is None else min(edge[0][0], before - 1),)
        with self._file.writing() as database:
            database.execute(
                "DELETE FROM shared WHERE request IN "
                "(SELECT request FROM answered WHERE number <= ?)", last,
            )  # fmt: skip
            database.execute("DELETE FROM keys WHERE answered <= ?", last)
            database.execute("DELETE FROM labels WHERE answered <= ?", last)
            database.execute("DELETE FROM told_labels WHERE answered <= ?", last)
            return database.execute("DELETE FROM answered WHERE number <= ?", last).rowcount

    @property
    def shared(self) -> bool:
        """As `LogDatabase.shared`."""
        return self._file.shared

    def held_back(self, seconds: float = 0.0) -> str:
        """As `LogDatabase.held_back`."""
        return self._file.held_back(seconds)

    def close(self) -> None:
        """Close it; no call may follow."""
        self._file.close()


def _insert(database: Transaction, request: LoggedRequest) -> int | None:
    """Its number; None where its id is there already."""
    p = request.probabilities
    row = database.execute(
        "INSERT INTO answered (request, rows, classes, columns, probabilities, snapshot, "
        "threshold, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (request) DO NOTHING "
        "RETURNING number",
        (request.request, len(p), 1 if p.ndim == 1 else p.shape[1], pack_columns(request.columns),
         p.astype("<f4", copy=False).tobytes(), request.snapshot, request.threshold, request.at),
    ).fetchone()  # fmt: skip
    if row is not None and request.y is not None:
        known = np.flatnonzero(request.y >= 0).tolist()
        database.executemany(
            "INSERT INTO labels (answered, place, y) VALUES (?, ?, ?)",
            [(row[0], place, int(request.y[place])) for place in known],
        )
    if row is not None and request.keys is not None:
        database.executemany(
            "INSERT INTO keys VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "answered = excluded.answered, place = excluded.place",
            [(key, row[0], place) for place, key in enumerate(request.keys)],
        )
    return None if row is None else int(row[0])


def _is_shared(database: Transaction, request: LoggedRequest) -> bool:
    """Whether the request that is kept under this one's id has other rows."""
    query = "SELECT columns FROM answered WHERE request = ?"
    if database.execute(query, (request.request,)).fetchone()[0] == pack_columns(request.columns):
        return False
    database.execute("INSERT INTO shared VALUES (?) ON CONFLICT DO NOTHING", (request.request,))
    return True


def _find(database: Transaction, label: Feedback) -> tuple[int, int] | None:
    """The row that a label is for: its request's number and its place in it."""
    if label.key is not None:
        query = "SELECT answered, place FROM keys WHERE key = ?"
        located: tuple[int, int] | None = database.execute(query, (label.key,)).fetchone()
        return located
    row = database.execute(
        "SELECT number FROM answered WHERE request = ? AND rows > ? "
        "AND request NOT IN (SELECT request FROM shared)",
        (label.request, label.place),
    ).fetchone()
    return None if row is None or label.place < 0 else (row[0], label.place)


def _tell(
    database: Transaction, row: tuple[int, int], y: int, caller: str, at: float,
    corrects: Corrects | None,
) -> list[str]:  # fmt: skip
    """Give a row a label, or write down that another one was told; returns what to count."""
    new = _join(database, row, y)
    if not new and database.execute(TAKEN_BACK, row).rowcount:
        new = _join(database, row, y)
    contradicts = not new and _is_other(database, row, y)
    counts = ["joined"] * new
    if contradicts and corrects is not None and corrects(_teller(database, row)):
        database.execute("DELETE FROM labels WHERE answered = ? AND place = ?", row)
        counts += ["corrected"] * _join(database, row, y)
    elif contradicts:
        counts.append("other")
    if counts:
        values = (*row, y, caller, at)
        database.execute(
            "INSERT INTO told_labels (answered, place, y, caller, at) VALUES (?, ?, ?, ?, ?)",
            values,
        )
    return counts


def _join(database: Transaction, row: tuple[int, int], y: int) -> int:
    """Give a row its label; 0 where it has one."""
    query = "INSERT INTO labels (answered, place, y) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    return database.execute(query, (*row, y)).rowcount


def _teller(database: Transaction, row: tuple[int, int]) -> str:
    """Who told a row's first label; empty where that is not known."""
    query = (
        "SELECT caller FROM told_labels WHERE answered = ? AND place = ? AND caller NOT LIKE ? "
        "ORDER BY rowid LIMIT 1"
    )
    told = database.execute(query, (*row, f"%{REVOKED}")).fetchone()
    return "" if told is None else str(told[0])


def _is_other(database: Transaction, row: tuple[int, int], y: int) -> bool:
    """Whether the label that a row has is not ``y``."""
    query = "SELECT y FROM labels WHERE answered = ? AND place = ?"
    return bool(database.execute(query, row).fetchone()[0] != y)


def _answered(row: tuple[Any, ...]) -> LoggedRequest:
    request, classes, packed, probabilities, snapshot, threshold, at, number = row
    p = np.frombuffer(probabilities, "<f4")
    p = p if classes == 1 else p.reshape(-1, classes)
    try:
        columns = unpack_columns(packed)
    except DataError:
        columns = {}  # `SpoolSource` leaves them out and counts them
    return LoggedRequest(request, columns, p, snapshot, threshold, at, None, number)
