"""The format of the SQLite files beside a log, kept where SQLite keeps an application's version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from selfheal_cli.errors import EventLogError
from selfheal_cli.events.types import FIRST_FORMAT, FORMAT


def require_format(database: sqlite3.Connection, path: Path) -> None:
    """Mark a file that is new; one without a mark is of the first format and stays so.

    Raises `EventLogError` for a later one.
    """
    stored = int(database.execute("PRAGMA user_version").fetchone()[0]) or FIRST_FORMAT
    if stored > FORMAT:
        database.close()
        raise EventLogError(
            f"{path}: is of format {stored}, which a later selfheal wrote; this one reads formats "
            f"up to {FORMAT}: use that one"
        )
    if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
        database.execute(f"PRAGMA user_version = {FORMAT}")
