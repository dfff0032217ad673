"""The SQLite file of a served model, that its processes on one machine share."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfheal_cli.config import WORKSPACE
from selfheal_cli.errors import NotWritten

NAME = "spool.db"
LOCK_SECONDS = 30.0


def spool_path(model: str, workspace: Path = WORKSPACE) -> Path:
    """Where a model's spool is kept."""
    return workspace / "serving" / model / NAME


class SpoolFile:
    """One connection to it, with the tables of whoever opens it. A commit is on disk.

    Any thread may call. Raises `NotWritten` where the disk is full or the file cannot be used;
    what was committed before stays whole.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=LOCK_SECONDS, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(schema)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing."""
        with self._told(), self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")  # no reader that turns writer half-way
            yield self._database

    def all(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """The rows that a query gives."""
        with self._told(), self._lock:
            return self._database.execute(query, values).fetchall()

    def close(self) -> None:
        """No more calls."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise NotWritten(
                f"{self.path}: cannot be read or written ({exc}); what is in it stays whole: "
                "make room or give the rights"
            ) from exc
