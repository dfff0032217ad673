"""What is still to be written to the registry, kept on disk until it is: one file a run.

SQLite does the work of a durable queue: a put is on disk, whole or not at all, when it returns.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfheal_cli.errors import RegistryError
from selfheal_cli.events.database import open_durable
from selfheal_cli.forks import at_work, close_at_fork
from selfheal_cli.workspace import OWNERS_FOLDER

NAME = "outbox.db"
ENDED = "ended"  # key of what is known of a run that was killed behind its last event
LOCK_SECONDS = 60.0
PART = 1 << 20  # bytes of a file in memory
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, kind TEXT NOT NULL,
    data TEXT NOT NULL, blob BLOB, result TEXT
);
CREATE INDEX IF NOT EXISTS undone ON jobs (number) WHERE result IS NULL;
CREATE TABLE IF NOT EXISTS lineage (data TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A write that is wanted. ``key`` is its own for ever: the same key twice is one write.

    ``file`` is kept with it, as many bytes of it as ``size``; `Outbox.write_file` gives it back.
    """

    key: str
    kind: str
    data: Mapping[str, Any]
    blob: bytes | None = None
    number: int = 0
    file: Path | None = None
    size: int = 0


class Outbox:
    """Jobs in the order in which they were put. Any thread may call.

    Raises `RegistryError` where the disk is full or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        with self._using():
            close_at_fork(self)

    def put(self, jobs: Sequence[Job]) -> None:
        """Keep jobs, all or none; on disk when it returns. Keys that are known are passed over."""
        with self._using() as database, database:
            for job in jobs:
                put = database.execute(
                    "INSERT OR IGNORE INTO jobs (key, kind, data, blob) "
                    "VALUES (?, ?, ?, ifnull(?, zeroblob(?)))",
                    (job.key, job.kind, json.dumps(job.data), job.blob, job.size),
                )
                if put.rowcount and job.file is not None:
                    _fill(database, int(put.lastrowid or 0), job.file, job.size)

    def write_file(self, job: Job, path: Path) -> None:
        """The file that was kept with a job."""
        with (
            self._using() as database,
            path.open("wb") as stream,
            database.blobopen("jobs", "blob", job.number, readonly=True) as blob,
        ):
            while part := blob.read(PART):
                stream.write(part)

    def know(self, key: str, kind: str, result: Mapping[str, Any]) -> None:
        """Keep the result of something that was done elsewhere."""
        row = (key, kind, json.dumps(result))
        with self._using() as database, database:
            database.execute(
                "INSERT OR IGNORE INTO jobs (key, kind, data, result) VALUES (?, ?, '{}', ?)", row
            )

    def next(self) -> Job | None:
        """The oldest job that is not done."""
        with self._using() as database:
            row = database.execute(
                "SELECT key, kind, data, iif(kind = 'file', NULL, blob), number FROM jobs "
                "WHERE result IS NULL ORDER BY number LIMIT 1"
            ).fetchone()
        return Job(row[0], row[1], json.loads(row[2]), row[3], row[4]) if row else None

    def done(self, job: Job, result: Mapping[str, Any]) -> None:
        """Note a job's result and let go of its bytes."""
        with self._using() as database, database:
            database.execute(
                "UPDATE jobs SET result = ?, blob = NULL WHERE number = ?",
                (json.dumps(result), job.number),
            )

    def kept(self, key: str) -> Job | None:
        """A job by its key, done or not, without its bytes."""
        with self._using() as database:
            row = database.execute(
                "SELECT key, kind, data, NULL, number FROM jobs WHERE key = ?", (key,)
            ).fetchone()
        return Job(row[0], row[1], json.loads(row[2]), None, row[4]) if row else None

    def result(self, key: str) -> Mapping[str, Any] | None:
        """The result of a job that is done."""
        with self._using() as database:
            row = database.execute("SELECT result FROM jobs WHERE key = ?", (key,)).fetchone()
        return None if row is None or row[0] is None else json.loads(row[0])

    def last_version(self) -> Mapping[str, Any] | None:
        """The result of the last snapshot that was registered."""
        with self._using() as database:
            row = database.execute(
                "SELECT result FROM jobs WHERE kind = 'version' AND result IS NOT NULL "
                "ORDER BY number DESC LIMIT 1"
            ).fetchone()
        return json.loads(row[0]) if row else None

    def results(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Kind and result of every job that is done, in order."""
        with self._using() as database:
            rows = database.execute(
                "SELECT kind, result FROM jobs WHERE result IS NOT NULL ORDER BY number"
            ).fetchall()
        return ((kind, json.loads(result)) for kind, result in rows)

    @property
    def pending(self) -> int:
        """Jobs that are not done."""
        with self._using() as database:
            row = database.execute("SELECT count(*) FROM jobs WHERE result IS NULL")
            return int(row.fetchone()[0])

    @property
    def lineage(self) -> Mapping[str, Any] | None:
        """Whose versions these are; set once."""
        with self._using() as database:
            row = database.execute("SELECT data FROM lineage").fetchone()
        return json.loads(row[0]) if row else None

    @lineage.setter
    def lineage(self, data: Mapping[str, Any]) -> None:
        with self._using() as database, database:
            database.execute("DELETE FROM lineage")
            database.execute("INSERT INTO lineage VALUES (?)", (json.dumps(data),))

    def close(self) -> None:
        """No more calls."""
        with at_work(), self._lock:
            self.close_for_fork()

    def close_for_fork(self) -> None:
        """See `ClosedAtFork`."""
        if self._database is not None:
            self._database.close()
            self._database = None

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        try:
            with at_work(), self._lock:
                if self._database is None:
                    self.path.parent.mkdir(OWNERS_FOLDER, parents=True, exist_ok=True)
                    self._database = open_durable(self.path, SCHEMA, LOCK_SECONDS)
                yield self._database
        except (sqlite3.Error, OSError) as exc:
            raise RegistryError(
                f"{self.path}: cannot be read or written ({exc}); what is in it stays whole: "
                "make room or give the rights, then 'selfheal run --resume' the run"
            ) from exc


def _fill(database: sqlite3.Connection, number: int, path: Path, size: int) -> None:
    """Copy a file into its job, a part at a time."""
    with path.open("rb") as stream, database.blobopen("jobs", "blob", number) as blob:
        left = size
        while left and (part := stream.read(min(left, PART))):
            blob.write(part)
            left -= len(part)
    if left:
        raise OSError(f"{path} has become shorter while it was kept")


def pending_in(path: Path) -> int:
    """Jobs of a file that are not done; whoever asks changes nothing of it."""
    return _count(path, "result IS NULL")


def knows_end(path: Path) -> bool:
    """Whether the run's end was handed over, or told to the registry without it (`ENDED`)."""
    return _count(path, f"key LIKE 'end:%' OR key = '{ENDED}'") > 0


def _count(path: Path, condition: str) -> int:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone():
                return 0  # whoever was to make it was killed first
            row = database.execute(f"SELECT count(*) FROM jobs WHERE {condition}").fetchone()  # noqa: S608
    except sqlite3.Error as exc:
        raise RegistryError(f"{path}: cannot be read ({exc})") from exc
    return int(row[0])
