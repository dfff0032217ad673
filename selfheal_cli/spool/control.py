"""The control channel of a served model's processes: versions to serve, status, and an operator's
commands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from selfheal_cli.spool import fence
from selfheal_cli.spool.database import LogDatabase
from selfheal_cli.spool.file import SpoolFile

PUBLISHED_KEPT = 20
WATCHES = "watches "  # before the name of a holder of the turn that heals nothing
SCHEMA = (
    """
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
CREATE TABLE IF NOT EXISTS turn (
    one INTEGER PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL
);
"""
    + fence.SCHEMA
)
TOLD = (
    "INSERT INTO told VALUES (?, ?, ?) ON CONFLICT (topic) DO UPDATE SET data = excluded.data, "
    "at = excluded.at"
)


@dataclass(frozen=True, slots=True)
class Published:
    """A version to serve: an adapter (safetensors bytes, by hash) on a stored base.

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
class OperatorCommand:
    """A command of an operator to the process that talks to the registry."""

    number: int
    kind: str
    argument: Mapping[str, Any]


class ControlChannel:
    """A table each for versions to serve, status and commands, in the spool's file.

    Any thread and any process may call. Raises `StorageError` where the file cannot be used.
    """

    def __init__(self, place: Path | LogDatabase) -> None:
        self._file = SpoolFile(place, SCHEMA) if isinstance(place, Path) else place

    def fence(self) -> int:
        """As `fence_of`."""
        return fence.fence_of(self._file)

    def publish(self, serving: Published, lease: int | None = None) -> int:
        """Have a version served; returns its sequence number.

        ``lease`` is that of the run which decided it, or the `fence` before the registry was asked
        for it. Raises `LeaseHeld` where a later lease has written; None asks for no such thing.
        """
        row = (
            serving.snapshot, serving.version, serving.threshold, serving.base, serving.sha256,
            serving.adapter, serving.reason, self._file.now(),
        )  # fmt: skip
        with self._file.writing() as database:
            if lease is not None:
                fence.pass_fence(database, lease)
            sequence = database.execute(
                "INSERT INTO published (snapshot, version, threshold, base, sha256, adapter, "
                "reason, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING sequence",
                row,
            ).fetchone()[0]
            oldest = sequence - PUBLISHED_KEPT
            database.execute("DELETE FROM published WHERE sequence <= ?", (oldest,))
        return int(sequence)

    def set_version(self, snapshot: str, version: int, lease: int | None = None) -> None:
        """Write down the version number that the registry gave a snapshot; as `publish`."""
        with self._file.writing() as database:
            if lease is not None:
                fence.pass_fence(database, lease)
            database.execute(
                "UPDATE published SET version = ? WHERE snapshot = ?", (version, snapshot)
            )

    def current(self) -> tuple[int, int | None]:
        """Sequence and version number of the version to serve; (0, None) where there is none."""
        rows = self._file.all(
            "SELECT sequence, version FROM published ORDER BY sequence DESC LIMIT 1"
        )
        return (rows[0][0], rows[0][1]) if rows else (0, None)

    def published(self) -> Published | None:
        """The version to serve, if there is one."""
        rows = self._file.all(
            "SELECT snapshot, threshold, base, sha256, adapter, reason, version, sequence "
            "FROM published ORDER BY sequence DESC LIMIT 1"
        )
        return Published(*rows[0]) if rows else None

    def after(self, seen: int) -> Published | None:
        """The version to serve, where it was published after ``seen``."""
        sequence, _ = self.current()
        return self.published() if sequence > seen else None

    def wait(self, seconds: float, stop: Event) -> None:
        """As `LogDatabase.wait`."""
        self._file.wait(seconds, stop)

    def take_turn(self, holder: str, seconds: float, *, heals: bool = True) -> bool:
        """Be the one process that asks the registry and heals, for so many seconds from now on;
        False where another one is. Zero seconds give it back. One that only watches gives way to
        one that ``heals``.
        """
        name = holder if heals else f"{WATCHES}{holder}"
        until = self._file.now()
        with self._file.writing() as database:
            database.execute("INSERT INTO turn VALUES (1, '', 0) ON CONFLICT DO NOTHING")
            query = "UPDATE turn SET holder = ?, until = ? WHERE holder = ? OR until < ?"
            if heals:
                query += f" OR holder LIKE '{WATCHES}%'"
            values = (name, until + seconds, name, until)
            return database.execute(query, values).rowcount == 1

    @property
    def shared(self) -> bool:
        """As `LogDatabase.shared`."""
        return self._file.shared

    def set_status(self, topic: str, data: Mapping[str, Any], lease: int | None = None) -> None:
        """Replace the status of a topic (the healer's state, the lease's holder); as `publish`."""
        row = (topic, json.dumps(data, allow_nan=False), self._file.now())
        with self._file.writing() as database:
            if lease is not None:
                fence.pass_fence(database, lease)
            database.execute(TOLD, row)

    def status(self, topic: str) -> tuple[dict[str, Any], float]:
        """The status of a topic and when it was written; ({}, 0.0) where there is none."""
        rows = self._file.all("SELECT data, at FROM told WHERE topic = ?", (topic,))
        return (json.loads(rows[0][0]), rows[0][1]) if rows else ({}, 0.0)

    def statuses(self, beginning: str) -> list[dict[str, Any]]:
        """The status of each topic that begins so."""
        rows = self._file.all(
            "SELECT data FROM told WHERE substr(topic, 1, ?) = ? ORDER BY topic",
            (len(beginning), beginning),
        )
        return [json.loads(row[0]) for row in rows]

    def forget_statuses(self, beginning: str, before: float) -> None:
        """Remove those of them that were written before a moment."""
        with self._file.writing() as database:
            database.execute(
                "DELETE FROM told WHERE substr(topic, 1, ?) = ? AND at < ?",
                (len(beginning), beginning, before),
            )

    def send_command(self, kind: str, argument: Mapping[str, Any]) -> int:
        """Queue a command; returns its number."""
        row = (kind, json.dumps(argument), self._file.now())
        with self._file.writing() as database:
            query = "INSERT INTO orders (kind, argument, at) VALUES (?, ?, ?) RETURNING number"
            return int(database.execute(query, row).fetchone()[0])

    def take_command(self, not_before: float) -> OperatorCommand | None:
        """Take the oldest command since ``not_before`` that was not taken yet."""
        waiting = "SELECT min(number) FROM orders WHERE taken IS NULL AND at >= ?"
        if self._file.all(waiting, (not_before,))[0][0] is None:
            return None  # without a write, since the healer looks several times a second
        with self._file.writing() as database:
            row = database.execute(
                "UPDATE orders SET taken = ? WHERE number = (SELECT min(number) FROM orders "
                "WHERE taken IS NULL AND at >= ?) RETURNING number, kind, argument",
                (self._file.now(), not_before),
            ).fetchone()
        return OperatorCommand(row[0], row[1], json.loads(row[2])) if row else None

    def withdraw(self, number: int) -> bool:
        """Withdraw a command; False where it was taken already."""
        with self._file.writing() as database:
            cursor = database.execute(
                "UPDATE orders SET taken = ? WHERE number = ? AND taken IS NULL",
                (self._file.now(), number),
            )
            return cursor.rowcount == 1

    def answer(self, number: int, answer: Mapping[str, Any]) -> None:
        """Write down the result of a command."""
        with self._file.writing() as database:
            database.execute(
                "UPDATE orders SET answer = ? WHERE number = ?", (json.dumps(answer), number)
            )

    def answer_of(self, number: int) -> dict[str, Any] | None:
        """The result of a command, once there is one."""
        rows = self._file.all("SELECT answer FROM orders WHERE number = ?", (number,))
        return json.loads(rows[0][0]) if rows and rows[0][0] is not None else None

    def now(self) -> float:
        """As `LogDatabase.now`."""
        return self._file.now()

    def identity(self) -> int:
        """As `LogDatabase.identity`."""
        return self._file.identity()

    def close(self) -> None:
        """Close the file; no call may follow."""
        self._file.close()
