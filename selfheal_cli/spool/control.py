"""What a model's processes on one machine tell each other: what is to serve, how things stand,
what an operator wants done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfheal_cli.spool.file import SpoolFile

PUBLISHED_KEPT = 20
SCHEMA = """
CREATE TABLE IF NOT EXISTS published (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, snapshot TEXT NOT NULL, version INTEGER,
    threshold REAL NOT NULL, base TEXT NOT NULL, sha256 TEXT NOT NULL, adapter BLOB NOT NULL,
    reason TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS told (topic TEXT PRIMARY KEY, data TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS orders (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, argument TEXT NOT NULL,
    taken REAL, answer TEXT, at REAL NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Published:
    """What is to be served: an adapter (safetensors bytes, by hash) on a stored base.

    ``version`` is None until the registry has given it a number.
    """

    snapshot: str
    threshold: float
    base: str
    sha256: str
    adapter: bytes
    reason: str
    version: int | None = None
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """Something that an operator wants done by the process that talks to the registry."""

    number: int
    kind: str
    argument: Mapping[str, Any]


class ControlChannel:
    """Any thread and any process may call. Raises `StorageError` where the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._file = SpoolFile(path, SCHEMA)

    def publish(self, wanted: Published) -> int:
        """Have it served; returns its sequence number."""
        row = (
            wanted.snapshot, wanted.version, wanted.threshold, wanted.base, wanted.sha256,
            wanted.adapter, wanted.reason, time.time(),
        )  # fmt: skip
        with self._file.writing() as database:
            cursor = database.execute(
                "INSERT INTO published (snapshot, version, threshold, base, sha256, adapter, "
                "reason, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            sequence = int(cursor.lastrowid or 0)
            oldest = sequence - PUBLISHED_KEPT
            database.execute("DELETE FROM published WHERE sequence <= ?", (oldest,))
        return sequence

    def numbered(self, snapshot: str, version: int) -> None:
        """The registry gave a snapshot its version number."""
        with self._file.writing() as database:
            database.execute(
                "UPDATE published SET version = ? WHERE snapshot = ?", (version, snapshot)
            )

    def standing(self) -> tuple[int, int | None]:
        """Sequence and version number of what is to be served; (0, None) where nothing is."""
        rows = self._file.all(
            "SELECT sequence, version FROM published ORDER BY sequence DESC LIMIT 1"
        )
        return (rows[0][0], rows[0][1]) if rows else (0, None)

    def published(self) -> Published | None:
        """What is to be served."""
        rows = self._file.all(
            "SELECT snapshot, threshold, base, sha256, adapter, reason, version, sequence "
            "FROM published ORDER BY sequence DESC LIMIT 1"
        )
        return Published(*rows[0]) if rows else None

    def tell(self, topic: str, data: Mapping[str, Any]) -> None:
        """Put in the latest word on a topic (what the healer sees, who holds the lease)."""
        row = (topic, json.dumps(data, allow_nan=False), time.time())
        with self._file.writing() as database:
            database.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?)", row)

    def told(self, topic: str) -> tuple[dict[str, Any], float]:
        """The latest word on a topic and when it was said; ({}, 0.0) where nothing was."""
        rows = self._file.all("SELECT data, at FROM told WHERE topic = ?", (topic,))
        return (json.loads(rows[0][0]), rows[0][1]) if rows else ({}, 0.0)

    def order(self, kind: str, argument: Mapping[str, Any]) -> int:
        """Ask for something to be done; returns the order's number."""
        row = (kind, json.dumps(argument), time.time())
        with self._file.writing() as database:
            cursor = database.execute(
                "INSERT INTO orders (kind, argument, at) VALUES (?, ?, ?)", row
            )
            return int(cursor.lastrowid or 0)

    def take_order(self, not_before: float) -> Order | None:
        """The oldest order since ``not_before`` that nobody took yet; it is taken now."""
        waiting = "SELECT min(number) FROM orders WHERE taken IS NULL AND at >= ?"
        if self._file.all(waiting, (not_before,))[0][0] is None:
            return None  # a look costs no write
        with self._file.writing() as database:
            row = database.execute(
                "UPDATE orders SET taken = ? WHERE number = (SELECT min(number) FROM orders "
                "WHERE taken IS NULL AND at >= ?) RETURNING number, kind, argument",
                (time.time(), not_before),
            ).fetchone()
        return Order(row[0], row[1], json.loads(row[2])) if row else None

    def withdraw(self, number: int) -> bool:
        """Take an order back; False where somebody took it already."""
        with self._file.writing() as database:
            cursor = database.execute(
                "UPDATE orders SET taken = ? WHERE number = ? AND taken IS NULL",
                (time.time(), number),
            )
            return cursor.rowcount == 1

    def answer(self, number: int, answer: Mapping[str, Any]) -> None:
        """Say what came of an order."""
        with self._file.writing() as database:
            database.execute(
                "UPDATE orders SET answer = ? WHERE number = ?", (json.dumps(answer), number)
            )

    def answer_of(self, number: int) -> dict[str, Any] | None:
        """What came of an order, once somebody said."""
        rows = self._file.all("SELECT answer FROM orders WHERE number = ?", (number,))
        return json.loads(rows[0][0]) if rows and rows[0][0] is not None else None

    def identity(self) -> int:
        """See `SpoolFile`."""
        return self._file.identity()

    def close(self) -> None:
        """No more calls."""
        self._file.close()
