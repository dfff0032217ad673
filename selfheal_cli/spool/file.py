"""The SQLite file of a served model, which its processes on one machine share."""

from __future__ import annotations

import os
import secrets
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from selfheal_cli.errors import StorageError
from selfheal_cli.events.database import open_durable
from selfheal_cli.forks import at_work, close_at_fork
from selfheal_cli.workspace import OWNER_ONLY, OWNERS_FOLDER, WORKSPACE

NAME = "spool.db"
LOCK_SECONDS = 30.0
LOOK_SECONDS = 0.05
IDENTITY = "CREATE TABLE IF NOT EXISTS identity (number INTEGER NOT NULL)"
CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
BESIDE = ("-wal", "-shm")  # SQLite's own, of the file that was opened and of no other
Inode = tuple[int, int] | None


def spool_path(model: str, workspace: Path = WORKSPACE) -> Path:
    """The path of a model's spool."""
    return workspace / "serving" / model / NAME


class SpoolFile:
    """`LogDatabase`: a connection to the file, with the tables of ``schema``. A commit is on disk.

    Any thread may call. Raises `StorageError` where the disk is full or the file cannot be used;
    earlier commits stay whole. A corrupt file is set aside under another name, and one that was
    removed or replaced is not written to any more: in both cases work goes on with the file that
    is at the path then, which has another identity.
    """

    below = ""  # one writes at a time
    shared = False

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._schema = schema
        self._lock = threading.Lock()
        self._inodes: tuple[Inode, ...] = (None,)
        self._open_now = False
        with self._translated(), at_work(), self._alone():
            try:
                self._open()
            except sqlite3.DatabaseError as exc:
                if not _is_corrupt(exc):
                    raise
                self._set_aside(exc)
        close_at_fork(self)

    def identity(self) -> int:
        """A random number of this file, which one that takes its place does not have."""
        with self._translated(), at_work(), self._lock:
            self._require_same()
            return self._identity

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing."""
        with self._translated(), at_work(), self._lock:
            self._require_same()
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")  # no reader that turns writer half-way
                yield self._database

    def all(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """The rows that a query gives."""
        with self._translated(), at_work(), self._lock:
            self._require_same()
            return self._database.execute(query, values).fetchall()

    @contextmanager
    def erasing(self) -> Iterator[sqlite3.Connection]:
        """See `LogDatabase`."""
        self.all("PRAGMA secure_delete = ON")
        with self.writing() as database:
            yield database
        self.all("PRAGMA wal_checkpoint(TRUNCATE)")

    def earlier(self, identity: int) -> int | None:
        """A copy of a file has the identity of the file."""
        return None

    def end(self, table: str) -> int:
        """See `LogDatabase`; rows that were removed count."""
        row = self.all("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
        return int(row[0][0]) if row else 0

    def now(self) -> float:
        """See `LogDatabase`."""
        return time.time()

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """A look at the file is cheap."""
        stop.wait(min(seconds, LOOK_SECONDS))

    def held_back(self, seconds: float = 0.0) -> str:
        """Nobody: one writes at a time."""
        return ""

    def close(self) -> None:
        """Close the file; no call may follow."""
        with at_work(), self._lock:
            self._database.close()

    def close_for_fork(self) -> None:
        """See `ClosedAtFork`."""
        self._database.close()
        self._open_now = False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from opening or replacing the file within the block."""
        self.path.parent.mkdir(OWNERS_FOLDER, parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            yield

    def _open(self) -> None:
        with suppress(FileExistsError):  # one that exists is SQLite's alone to open and close
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER_ONLY))
            for beside in self._beside():
                beside.unlink(missing_ok=True)  # of a file that is gone
        self._database = open_durable(self.path, f"{self._schema};{IDENTITY}", LOCK_SECONDS)
        try:
            self._identity = self._identified()
        except BaseException:
            self._database.close()
            raise
        self._inodes = (_inode(self.path), *map(_inode, self._beside()))
        self._open_now = True

    def _identified(self) -> int:
        row = self._database.execute("SELECT number FROM identity").fetchone()
        if row is None:
            with self._database:
                self._database.execute(
                    "INSERT INTO identity SELECT ? WHERE NOT EXISTS (SELECT 1 FROM identity)",
                    (secrets.randbits(52),),
                )
            row = self._database.execute("SELECT number FROM identity").fetchone()
        return int(row[0])

    def _require_same(self) -> None:
        """Open the file at the path again where that is another one by now."""
        if _inode(self.path) == self._inodes[0]:
            if not self._open_now:
                with self._alone():
                    self._open()
            return
        with self._alone():
            self._database.close()  # SQLite sees that its file has gone, and leaves the path alone
            for beside, before in zip(self._beside(), self._inodes[1:], strict=True):
                if _inode(beside) == before:
                    beside.unlink(missing_ok=True)  # it would be taken for the new file's
            self._open()

    def _set_aside(self, why: Exception) -> None:
        """Give a corrupt file another name, unless another process has done so by now."""
        if self._inodes[0] in (None, _inode(self.path)):
            aside = self.path.with_name(f"{NAME}.corrupt-{time.time_ns() // 1_000_000}")
            for beside, end in zip(self._beside(), BESIDE, strict=True):
                if beside.exists():
                    beside.replace(f"{aside}{end}")
            self.path.replace(aside)
            sys.stderr.write(
                f"selfheal: {self.path}: corrupt ({why}); it is kept as {aside.name} and a new one "
                "is begun: rows in it that nobody healed on are not healed on\n"
            )
        self._open()

    def _beside(self) -> list[Path]:
        return [self.path.with_name(f"{self.path.name}{end}") for end in BESIDE]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of SQLite and of the disk into `StorageError`."""
        try:
            yield
        except sqlite3.DatabaseError as exc:
            if _is_corrupt(exc):
                self._begin_anew(exc)
                raise StorageError(
                    f"{self.path}: was corrupt ({exc}); it was set aside and a new one is begun"
                ) from exc
            raise self._unusable(exc) from exc
        except (sqlite3.Error, OSError) as exc:
            raise self._unusable(exc) from exc

    def _begin_anew(self, why: Exception) -> None:
        try:
            with at_work(), self._lock, self._alone():
                self._database.close()
                self._set_aside(why)
        except (sqlite3.Error, OSError) as exc:
            raise self._unusable(exc) from exc

    def _unusable(self, exc: Exception) -> StorageError:
        return StorageError(
            f"{self.path}: cannot be read or written ({exc}); what is in it stays whole: "
            "make room or give the rights"
        )


def _is_corrupt(exc: sqlite3.Error) -> bool:
    code = getattr(exc, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in CORRUPT


def _inode(path: Path) -> Inode:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
