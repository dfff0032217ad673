"""The notices of a model on disk, and how far each target was told of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfheal_cli.serve.notify.notice import Notice
from selfheal_cli.spool.file import SpoolFile, spool_path
from selfheal_cli.workspace import WORKSPACE

NAME = "notices.db"
SHORTEST, LONGEST = 1.0, 600.0  # seconds between two tries
PATIENCE = 3 * 86_400.0  # seconds from the first try until a notice is set aside
KEPT = 30 * 86_400.0  # seconds that a notice is kept
SCHEMA = """
CREATE TABLE IF NOT EXISTS notices (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    text TEXT NOT NULL, body TEXT NOT NULL, put REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS targets (name TEXT PRIMARY KEY, since INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    target TEXT NOT NULL, sequence INTEGER NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL,
    first REAL NOT NULL, due REAL NOT NULL, error TEXT NOT NULL,
    PRIMARY KEY (target, sequence)
);
"""


@dataclass(frozen=True, slots=True)
class Due:
    """A notice that a target is to be told now, for the ``tries`` + first time."""

    sequence: int
    id: str
    kind: str
    text: str
    body: str
    tries: int


class NoticeStore:
    """Any thread and any process may call. Raises `StorageError` where the file cannot be used."""

    def __init__(
        self, model: str, workspace: Path = WORKSPACE, clock: Callable[[], float] = time.time
    ) -> None:
        self.model = model
        self._file = SpoolFile(spool_path(model, workspace).with_name(NAME), SCHEMA)
        self._clock = clock

    def put(self, notices: Iterable[Notice]) -> None:
        """Keep what is new; what has been told of before is passed over. All of it or nothing."""
        with self._file.writing() as database:
            for one in notices:
                known = database.execute("SELECT 1 FROM notices WHERE id = ?", (one.id,))
                if known.fetchone() is not None:
                    continue
                last = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'notices'"
                number = database.execute(last).fetchone()[0] + 1
                row = (number, one.id, one.kind, one.text, self._body(one, number), self._clock())
                database.execute("INSERT INTO notices VALUES (?, ?, ?, ?, ?, ?)", row)

    def _body(self, one: Notice, number: int) -> str:
        """In the form of MLflow's webhooks; it never changes, however often it is sent."""
        data = {"model": self.model, "sequence": number, "id": one.id, "text": one.text, **one.data}
        told = {"entity": "selfheal_model", "action": one.kind, "timestamp": one.at, "data": data}
        return json.dumps(told, ensure_ascii=False, allow_nan=False)

    def introduce(self, targets: Sequence[str]) -> None:
        """A target that is new is told of what comes from now on. What is old is forgotten."""
        with self._file.writing() as database:
            for name in targets:
                database.execute(
                    "INSERT OR IGNORE INTO targets "
                    "SELECT ?, coalesce(max(sequence), 0) FROM notices",
                    (name,),
                )
            old = (self._clock() - KEPT,)
            database.execute("DELETE FROM notices WHERE put < ?", old)
            database.execute(
                "DELETE FROM deliveries WHERE sequence NOT IN (SELECT sequence FROM notices)"
            )

    def knows(self, target: str) -> bool:
        """Whether a target was introduced."""
        return bool(self._file.all("SELECT 1 FROM targets WHERE name = ?", (target,)))

    def due(self, target: str, kinds: Sequence[str]) -> Due | None:
        """The oldest notice of these kinds that a target is to be told of now."""
        now = self._clock()
        rows = self._file.all(
            "SELECT n.sequence, n.id, n.kind, n.text, n.body, coalesce(d.tries, 0) FROM notices n "
            "JOIN targets t ON t.name = ? AND n.sequence > t.since "
            "LEFT JOIN deliveries d ON d.target = t.name AND d.sequence = n.sequence "
            "WHERE n.kind IN (SELECT value FROM json_each(?)) AND (d.state IS NULL OR "
            "d.state = 'waiting' AND (d.due <= ? OR d.due > ?)) ORDER BY n.sequence LIMIT 1",
            (
                target,
                json.dumps(list(kinds)),
                now,
                now + LONGEST,
            ),  # beyond that only by a clock that was put back
        )
        return Due(*rows[0]) if rows else None

    def done(self, target: str, sequence: int) -> None:
        """The target has it."""
        self._set(target, sequence, "done", "")

    def failed(self, target: str, sequence: int, error: str) -> bool:
        """Try again later; after `PATIENCE` it is set aside. Returns whether it was."""
        rows = self._file.all(
            "SELECT first FROM deliveries WHERE target = ? AND sequence = ?", (target, sequence)
        )
        aside = bool(rows) and self._clock() - rows[0][0] >= PATIENCE
        self._set(target, sequence, "aside" if aside else "waiting", error)
        return aside

    def _set(self, target: str, sequence: int, state: str, error: str) -> None:
        now = self._clock()
        with self._file.writing() as database:
            database.execute(
                "INSERT INTO deliveries VALUES (?, ?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "state = excluded.state, tries = tries + 1, error = excluded.error, "
                "due = ? + min(?, ? * (1 << min(tries, 20)))",
                (target, sequence, state, now, now + SHORTEST, error, now, LONGEST, SHORTEST),
            )

    def resend(self, target: str | None = None) -> int:
        """Have what was set aside sent again; returns how many."""
        with self._file.writing() as database:
            cursor = database.execute(
                "UPDATE deliveries SET state = 'waiting', tries = 0, first = ?, due = 0 "
                "WHERE state = 'aside' AND (? IS NULL OR target = ?)",
                (self._clock(), target, target),
            )
            return cursor.rowcount

    def counts(self) -> dict[tuple[str, str], int]:
        """Notices by target and state: waiting, done, aside; of those that were tried."""
        rows = self._file.all("SELECT target, state, count(*) FROM deliveries GROUP BY 1, 2")
        return {(target, state): count for target, state, count in rows}

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """The latest notices, each with its deliveries."""
        rows = self._file.all(
            "SELECT sequence, id, kind, text, body FROM notices ORDER BY sequence DESC LIMIT ?",
            (limit,),
        )
        told = self._file.all("SELECT sequence, target, state, tries, error FROM deliveries")
        return [
            {
                "sequence": sequence, "id": number, "kind": kind, "text": text,
                "at": json.loads(body)["timestamp"],
                "targets": [
                    {"target": target, "state": state, "tries": tries, "error": error}
                    for of, target, state, tries, error in told if of == sequence
                ],
            }
            for sequence, number, kind, text, body in rows
        ]  # fmt: skip

    def close(self) -> None:
        """Close the file; no call may follow."""
        self._file.close()
