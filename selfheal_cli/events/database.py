"""The SQLite files beside a log: a commit is on disk, and the format is one that is known."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from selfheal_cli.errors import EventLogError
from selfheal_cli.events.event import FIRST_FORMAT, FORMAT


def open_durable(path: Path, schema: str, patience: float) -> sqlite3.Connection:
    """A database that threads and processes share; each waits ``patience`` seconds for the others.

    The format stands where SQLite keeps an application's version. Raises `EventLogError` for one
    that is later than this program, and what SQLite raises.
    """
    database = sqlite3.connect(path, timeout=patience, check_same_thread=False)
    try:
        _require_format(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(schema)
    except BaseException:
        database.close()
        raise
    return database


def _require_format(database: sqlite3.Connection, path: Path) -> None:
    """Mark a file that is new; one without a mark is of the first format and stays so."""
    stored = int(database.execute("PRAGMA user_version").fetchone()[0]) or FIRST_FORMAT
    if stored > FORMAT:
        raise EventLogError(
            f"{path}: is of format {stored}, which a later selfheal wrote; this one reads formats "
            f"up to {FORMAT}: use that one"
        )
    if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
        database.execute(f"PRAGMA user_version = {FORMAT}")
