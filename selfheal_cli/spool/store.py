"""The spool: answered requests and the labels that came for their rows, in order, on disk.

The server appends; the healer reads on from its cursor.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError
from selfheal_cli.spool.file import SpoolFile

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray, LabelArray


_HEAD = struct.Struct("<I")
Corrects = Callable[[str], bool]  # whether who told a label is corrected by who tells it now
REVOKED = " (revoked)"  # behind the name of who told a label that was taken back
NOBODY_ASKED = -1.0  # threshold of rows without an answer


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """The rows of one request with their answers.

    ``columns`` are raw, (n,) each: float64 numbers or texts, None where missing.
    ``probabilities`` (n,) or (n, K) by ``snapshot``, which decided at ``threshold``. ``keys`` name
    the rows for labels that come later, where rows have keys; ``at`` is in seconds since 1970.
    ``number`` is its place in the spool, 0 before it is there. ``y`` (n,) are labels that come
    with the rows, -1 where unknown. `unanswered` rows are answered by whoever reads them.
    """

    request: str
    columns: Columns
    probabilities: FloatArray
    snapshot: str
    threshold: float
    at: float
    keys: tuple[str, ...] | None = None
    number: int = 0
    y: LabelArray | None = None

    @classmethod
    def unanswered(
        cls, request: str, columns: Columns, rows: int, classes: int, at: float, y: LabelArray
    ) -> LoggedRequest:
        """Rows that somebody shows, with their labels, and nobody asked about."""
        nothing = np.zeros(rows if classes == 2 else (rows, classes), dtype=np.float32)
        return cls(request, columns, nothing, "", NOBODY_ASKED, at, y=y)

    def __len__(self) -> int:
        return len(self.probabilities)


def pack_columns(columns: Columns) -> bytes:
    """Columns (n,) to bytes; the inverse of `unpack_columns`."""
    numbers = [name for name, values in columns.items() if values.dtype.kind != "O"]
    texts = {name: values.tolist() for name, values in columns.items() if name not in numbers}
    matrix = np.stack([columns[name] for name in numbers]) if numbers else np.empty((0, 0))
    header = {"order": list(columns), "numbers": numbers, "texts": texts, "rows": matrix.shape[1]}
    text = json.dumps(header).encode()
    return _HEAD.pack(len(text)) + text + matrix.astype("<f8", copy=False).tobytes()


def unpack_columns(data: bytes) -> Columns:
    """Bytes to columns (n,); raises `DataError` for what `pack_columns` did not write."""
    try:
        (length,) = _HEAD.unpack_from(data)
        header: dict[str, Any] = json.loads(data[_HEAD.size : _HEAD.size + length])
        matrix = np.frombuffer(data, "<f8", offset=_HEAD.size + length)
        matrix = matrix.reshape(len(header["numbers"]), header["rows"])
        columns = dict(zip(header["numbers"], matrix, strict=True))
        columns |= {
            name: np.array(values, dtype=object) for name, values in header["texts"].items()
        }
        return {name: columns[name] for name in header["order"]}
    except (struct.error, ValueError, KeyError, TypeError) as exc:
        raise DataError(f"rows in the spool cannot be read ({exc})") from exc


SCHEMA = """
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
"""
MOST_ROWS = 20_000  # that a reader has in memory
ROWS = (
    "SELECT request, classes, columns, probabilities, snapshot, threshold, at, number "
    "FROM answered "
)
AFTER = (
    "WHERE number IN (SELECT number FROM (SELECT number, sum(rows) OVER (ORDER BY number) - rows "
    "AS before FROM answered WHERE number > ? ORDER BY number LIMIT ?) WHERE before < ?) "
    "ORDER BY number"
)
ENDS = "SELECT seq FROM sqlite_sequence WHERE name = ?"
TAKEN_BACK = "DELETE FROM labels WHERE answered = ? AND place = ? AND y < 0"  # is no label
LABELS = "SELECT number, answered, place, y FROM labels WHERE "


@dataclass(frozen=True, slots=True)
class Feedback:
    """A row's class: the row by ``key``, or by ``request`` and its ``place`` in it."""

    y: int
    request: str | None = None
    place: int = 0
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """Counts of labels: ``joined`` to their rows; ``repeated`` for rows that have one already,
    ``other`` of them another one that does not count, ``corrected`` one that counts from now on;
    ``unknown``, whose row never came or was removed. ``strangers`` are the keys of the latter.
    """

    joined: int
    repeated: int
    unknown: int
    other: int = 0
    strangers: tuple[str, ...] = ()
    corrected: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """Counts of appended requests: ``new`` ones, and ``conflicting`` rows that were not kept,
    because their request's id belongs to other rows already.
    """

    new: int
    conflicting: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to where a spool was read: all requests up to ``answered``, ``place`` rows of the next
    one, and the labels up to ``labels``.

    ``spool`` is the identity of its file, and ``mark`` that of the request that was read last (see
    `mark_of`); both are 0 where they were not recorded.
    """

    answered: int = 0
    place: int = 0
    labels: int = 0
    spool: int = 0
    mark: int = 0

    @property
    def last(self) -> int:
        """Number of the request that was read last, if only in part."""
        return self.answered + (self.place > 0)

    def is_beyond(self, other: Cursor) -> bool:
        """Whether more rows were read."""
        return (self.answered, self.place) > (other.answered, other.place)

    def as_dict(self) -> dict[str, int]:
        """The offsets that are recorded with a batch."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Label:
    """A joined label of row ``place`` of the request ``answered``; ``number`` counts labels. A
    label that was taken back is -1.
    """

    number: int
    answered: int
    place: int
    y: int


class Spool:
    """Answered requests and labels, each in the order of their commits.

    Any thread and any process of this machine may call. Raises `StorageError` where the disk is
    full or the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._file = SpoolFile(path, SCHEMA)

    def identity(self) -> int:
        """As `SpoolFile.identity`."""
        return self._file.identity()

    def append(self, answers: Sequence[LoggedRequest]) -> Kept:
        """Keep answered requests, all or none.

        A request whose id is there already is not kept again. If it has other rows, labels find
        no rows by that id any more.
        """
        new = conflicting = 0
        with self._file.writing() as database:
            for request in answers:
                if _insert(database, request):
                    new += 1
                elif _is_shared(database, request):
                    conflicting += len(request)
        return Kept(new, conflicting)

    def holds(self, cursor: Cursor) -> bool:
        """Whether this is the spool that was read up to a cursor."""
        if cursor.spool not in (0, self.identity()):
            return False
        ends = ((cursor.last, "answered"), (cursor.labels, "labels"))
        for last, table in ends:
            row = self._file.all(ENDS, (table,))
            if last > (row[0][0] if row else 0):
                return False
        row = self._file.all("SELECT request, at FROM answered WHERE number = ?", (cursor.last,))
        return not row or cursor.mark in (0, mark_of(*row[0]))  # without a row: removed since

    def label(
        self, labels: Sequence[Feedback], caller: str = "", at: float = 0.0,
        corrects: Corrects | None = None,
    ) -> Joined:  # fmt: skip
        """Join labels to rows that were answered; a row keeps its first label, unless the caller
        ``corrects`` who told it. A corrected label is a new one, behind all others.

        Who told it, and when (seconds since 1970), is kept with each label that is a row's first
        or another one than that.
        """
        joined = unknown = other = corrected = 0
        strangers: list[str] = []
        with self._file.writing() as database:
            for label in labels:
                row = _find(database, label)
                if row is None:
                    unknown += 1
                    strangers += [] if label.key is None else [label.key]
                    continue
                new = _join(database, row, label.y)
                if not new and database.execute(TAKEN_BACK, row).rowcount:
                    new = _join(database, row, label.y)
                joined += new
                contradicts = not new and _is_other(database, row, label.y)
                if contradicts and corrects is not None and corrects(_teller(database, row)):
                    database.execute("DELETE FROM labels WHERE answered = ? AND place = ?", row)
                    corrected += _join(database, row, label.y)
                else:
                    other += contradicts
                if new or contradicts:
                    values = (*row, label.y, caller, at)
                    database.execute("INSERT INTO told_labels VALUES (?, ?, ?, ?, ?)", values)
        repeated = len(labels) - joined - unknown
        return Joined(joined, repeated, unknown, other, tuple(strangers), corrected)

    def rows_after(
        self, number: int, limit: int, most_rows: int = MOST_ROWS
    ) -> list[LoggedRequest]:
        """Answered requests after ``number``, in the order of their commits.

        At most ``limit``, and no more once they have ``most_rows`` rows; one request alone may
        have more rows.
        """
        values = (number, limit, most_rows)
        return list(map(_answered, self._file.all(ROWS + AFTER, values)))

    def first_within(self, rows: int, last: int) -> int:
        """The first of the latest requests up to ``last`` that have at most ``rows`` rows."""
        fetched = self._file.all(
            "SELECT min(number) FROM (SELECT number, sum(rows) OVER (ORDER BY number DESC) "
            "AS newer FROM answered WHERE number <= ?) WHERE newer <= ?",
            (last, rows),
        )
        return last + 1 if fetched[0][0] is None else int(fetched[0][0])

    def labels_after(self, number: int, limit: int) -> list[Label]:
        """Labels in the order in which they were joined."""
        rows = self._file.all(LABELS + "number > ? ORDER BY number LIMIT ?", (number, limit))
        return [Label(*row) for row in rows]

    def labels_beyond(self, number: int, limit: int) -> int:
        """Number of labels after ``number``, counted up to ``limit``."""
        query = "SELECT count(*) FROM (SELECT 1 FROM labels WHERE number > ? LIMIT ?)"
        return int(self._file.all(query, (number, limit))[0][0])

    def labels_of(self, requests: Sequence[int]) -> list[Label]:
        """Labels of the rows of some requests."""
        marks = ",".join("?" * len(requests))
        rows = self._file.all(LABELS + f"answered IN ({marks}) ORDER BY number", tuple(requests))
        return [Label(*row) for row in rows]

    def told_of(self, request: str, place: int = 0) -> list[tuple[int, str, float]]:
        """What a row's labels were said to be: class, caller and time, the first one first."""
        rows = self._file.all(
            "SELECT y, caller, l.at FROM told_labels l JOIN answered ON number = l.answered "
            "WHERE request = ? AND place = ? ORDER BY l.rowid",
            (request, place),
        )
        return [(int(y), str(caller), float(at)) for y, caller, at in rows]

    def last(self) -> int:
        """Number of the request that came last; 0 before there is one."""
        row = self._file.all(ENDS, ("answered",))
        return int(row[0][0]) if row else 0

    def rows_beyond(self, number: int, requests: int = -1) -> int:
        """Number of rows of the requests after ``number``, or of the first ``requests`` of them."""
        query = (
            "SELECT coalesce(sum(rows), 0) FROM (SELECT rows FROM answered WHERE number > ? "
            "ORDER BY number LIMIT ?)"
        )
        return int(self._file.all(query, (number, requests))[0][0])

    def count(self, read_to: int) -> tuple[int, int]:
        """Number of rows, and of those after request ``read_to``."""
        query = "SELECT total(rows), total(rows * (number > ?)) FROM answered"
        kept, unread = self._file.all(query, (read_to,))[0]
        return int(kept), int(unread)

    def forget(self, keep_rows: int, before: int | None = None) -> int:
        """Remove the oldest requests beyond ``keep_rows`` rows, with their keys and labels.

        None from ``before`` on is removed; returns how many were.
        """
        edge = self._file.all(
            "SELECT number FROM (SELECT number, sum(rows) OVER (ORDER BY number DESC) AS newer "
            "FROM answered) WHERE newer > ? ORDER BY number DESC LIMIT 1",
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

    def close(self) -> None:
        """Close the file; no call may follow."""
        self._file.close()


def mark_of(request: str, at: float) -> int:
    """A hash by which a request is recognised, by its id and its time in seconds."""
    text = f"{request}\n{at!r}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest())


def _insert(database: sqlite3.Connection, request: LoggedRequest) -> int:
    p = request.probabilities
    cursor = database.execute(
        "INSERT OR IGNORE INTO answered (request, rows, classes, columns, probabilities, snapshot, "
        "threshold, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (request.request, len(p), 1 if p.ndim == 1 else p.shape[1], pack_columns(request.columns),
         p.astype("<f4", copy=False).tobytes(), request.snapshot, request.threshold, request.at),
    )  # fmt: skip
    if cursor.rowcount and request.y is not None:
        known = np.flatnonzero(request.y >= 0).tolist()
        database.executemany(
            "INSERT INTO labels (answered, place, y) VALUES (?, ?, ?)",
            [(cursor.lastrowid, place, int(request.y[place])) for place in known],
        )
    if cursor.rowcount and request.keys is not None:
        database.executemany(
            "INSERT OR REPLACE INTO keys VALUES (?, ?, ?)",
            [(key, cursor.lastrowid, place) for place, key in enumerate(request.keys)],
        )
    return cursor.rowcount


def _is_shared(database: sqlite3.Connection, request: LoggedRequest) -> bool:
    """Whether the request that is kept under this one's id has other rows."""
    query = "SELECT columns FROM answered WHERE request = ?"
    if database.execute(query, (request.request,)).fetchone()[0] == pack_columns(request.columns):
        return False
    database.execute("INSERT OR IGNORE INTO shared VALUES (?)", (request.request,))
    return True


def _find(database: sqlite3.Connection, label: Feedback) -> tuple[int, int] | None:
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


def _join(database: sqlite3.Connection, row: tuple[int, int], y: int) -> int:
    """Give a row its label; 0 where it has one."""
    query = "INSERT OR IGNORE INTO labels (answered, place, y) VALUES (?, ?, ?)"
    return database.execute(query, (*row, y)).rowcount


def _teller(database: sqlite3.Connection, row: tuple[int, int]) -> str:
    """Who told a row's first label; empty where that is not known."""
    query = (
        "SELECT caller FROM told_labels WHERE answered = ? AND place = ? AND caller NOT LIKE ? "
        "ORDER BY rowid LIMIT 1"
    )
    told = database.execute(query, (*row, f"%{REVOKED}")).fetchone()
    return "" if told is None else str(told[0])


def _is_other(database: sqlite3.Connection, row: tuple[int, int], y: int) -> bool:
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
