"""A log in a schema of a PostgreSQL database, which replicas on any machine share.

Transactions commit in another order than they count in, so a row's number is made of the number of
its transaction (``xid << BITS`` plus its place in it), and a reader sees only what lies below the
oldest transaction that is still open in the whole cluster: nothing can come before that any more.
https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
"""

from __future__ import annotations

import hashlib
import secrets
import select
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from selfheal_cli.errors import ConfigurationError, StorageError, one_line
from selfheal_cli.masking import masked, masked_uri
from selfheal_cli.spool.postgres_schema import CREATE, FORMAT, PLACE

if TYPE_CHECKING:
    import psycopg

SCHEMES = ("postgresql://", "postgres://")
BITS = 20  # a transaction has fewer rows and labels than 2 ** BITS
LONGEST_NAME = 63  # bytes that PostgreSQL keeps of one
CONNECT_SECONDS = 3
HINT_SECONDS = 1.0  # a look so often is the truth, NOTIFY a hint
SLICE_SECONDS = 0.1
# what is ours must not be what holds the readers back, nor wait for ever for a network
LIMITS = {
    "statement_timeout": 20_000,
    "lock_timeout": 5_000,
    "idle_in_transaction_session_timeout": 10_000,
}
NETWORK = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
HELD_BACK = """
SELECT pid, datname, extract(epoch FROM clock_timestamp() - xact_start) FROM pg_stat_activity
WHERE backend_xid IS NOT NULL AND pid != pg_backend_pid()
  AND EXISTS (SELECT 1 FROM answered WHERE number >= horizon()
              UNION ALL SELECT 1 FROM labels WHERE number >= horizon())
ORDER BY age(backend_xid) DESC LIMIT 1
"""
PREPARED = """
SELECT gid, database, extract(epoch FROM clock_timestamp() - prepared) FROM pg_prepared_xacts
ORDER BY age(transaction) DESC LIMIT 1
"""


def schema_of(model: str) -> str:
    """The schema of a model's log."""
    name = f"selfheal_{model}"
    if len(name.encode()) <= LONGEST_NAME and "\0" not in name:
        return name
    return f"selfheal_{hashlib.blake2b(model.encode(), digest_size=16).hexdigest()}"


class PostgresDatabase:
    """`LogDatabase`: a connection to the model's schema, which is made where it is missing.

    It connects when it is used, and again after an error. Raises `ConfigurationError` for a URI
    that is none or a missing driver, `StorageError` where the server is away, refuses, or has a log
    that a later selfheal began.
    """

    below = "AND number < horizon()"
    shared = True

    def __init__(self, uri: str, model: str) -> None:
        self._psycopg = _driver()
        self._where = masked_uri(uri)
        self._schema = schema_of(model)
        self._settings = self._parsed(uri)
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[Any] | None = None
        self._listens = False
        self.identity()

    def identity(self) -> int:
        """See `LogDatabase`: it changes where the log was restored, upgraded or failed over."""
        return int(self.all("SELECT identity FROM log")[0][0])

    def earlier(self, identity: int) -> int | None:
        """See `LogDatabase`."""
        rows = self.all("SELECT until FROM earlier WHERE identity = ?", (identity,))
        return int(rows[0][0]) if rows else None

    def end(self, table: str) -> int:
        """See `LogDatabase`: all tables count in one order."""
        return int(self.all("SELECT horizon() - 1")[0][0])

    def now(self) -> float:
        """See `LogDatabase`."""
        return float(self.all("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0])

    @contextmanager
    def writing(self) -> Iterator[PostgresTransaction]:
        """See `LogDatabase`."""
        with self._translated(), self._lock:
            connection = self._connected()
            with connection.transaction(), connection.cursor() as cursor:
                yield PostgresTransaction(cursor)

    @contextmanager
    def erasing(self) -> Iterator[PostgresTransaction]:
        """See `LogDatabase`; copies in the server's archives and backups stay."""
        with self.writing() as transaction:
            yield transaction
        self.all("VACUUM answered, labels, told_labels, keys")

    def all(self, query: str, values: tuple[Any, ...] = (), /) -> list[Any]:
        """See `LogDatabase`."""
        with self._translated(), self._lock:
            cursor = self._connected().execute(_translate(query), values)
            return cursor.fetchall() if cursor.description is not None else []

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """See `LogDatabase`."""
        left = min(seconds, HINT_SECONDS)
        while left > 0 and not stop.is_set():
            if self._told(min(left, SLICE_SECONDS), stop):
                return
            left -= SLICE_SECONDS

    def held_back(self, seconds: float = 0.0) -> str:
        """See `LogDatabase`: the oldest open transaction of the cluster, in whichever database."""
        for query, kind in ((HELD_BACK, "pid"), (PREPARED, "prepared transaction")):
            held = self.all(query)
            if held:
                who, database, age = held[0]
                if age is not None and age < seconds:
                    return ""
                age = "its age is not shown to this role" if age is None else f"{age:.0f} s"
                return f"{kind} {who} of database '{database}' has a write open ({age})"
        return ""

    def close(self) -> None:
        """See `LogDatabase`."""
        with self._lock:
            self._drop()

    def _told(self, seconds: float, stop: threading.Event) -> bool:
        """Whether something was heard within so many seconds."""
        connection = self._connection
        try:
            if connection is None:
                stop.wait(seconds)
                return False
            if not self._listens:
                with self._lock:
                    connection.add_notify_handler(lambda told: None)
                    connection.execute(f"LISTEN {_quoted(self._schema)}".encode())
                    self._listens = True
            return bool(select.select([connection.fileno()], [], [], seconds)[0])
        except (self._psycopg.Error, OSError, ValueError):
            stop.wait(seconds)  # whoever looks hears of it
            return False

    def _parsed(self, uri: str) -> dict[str, Any]:
        try:
            given = self._psycopg.conninfo.conninfo_to_dict(uri)
        except self._psycopg.Error as exc:
            raise ConfigurationError(
                f"{self._where}: is no URI of PostgreSQL ({masked(one_line(exc))}); "
                "postgresql://USER@HOST/DATABASE is expected"
            ) from exc
        return {**NETWORK, "application_name": "selfheal", **given}

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._listens = False
            connection = self._psycopg.connect(**self._settings, autocommit=True)
            try:
                self._begin(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _begin(self, connection: psycopg.Connection[Any]) -> None:
        name = _quoted(self._schema)
        connection.execute(f"SET search_path = {name}".encode())
        for limit, value in LIMITS.items():
            connection.execute(f"SET {limit} = {value}".encode())
        if not _exists(connection):
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (self._schema,))
                if not _exists(connection):
                    connection.execute(CREATE.replace("SCHEMA_NAME", name).encode())
                    begun = (FORMAT, secrets.randbits(52))
                    query = f"INSERT INTO log SELECT true, %s, %s, ({PLACE}), 0"
                    connection.execute(query.encode(), begun)
        self._require_same(connection)

    def _require_same(self, connection: psycopg.Connection[Any]) -> None:
        """Where the log lies elsewhere than it was begun, begin another one behind it."""
        query = f"SELECT format, place = ({PLACE}) FROM log"  # noqa: S608 - our own words
        stored, same = connection.execute(query.encode()).fetchone() or (0, True)
        if stored > FORMAT:
            raise StorageError(
                f"{self._where}: the log is of format {stored}, which a later selfheal began; this "
                f"one reads formats up to {FORMAT}: use that one"
            )
        if not same:
            with connection.transaction():
                _begin_anew(connection)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self._psycopg.Error):
                connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of the server and of the network into `StorageError`."""
        try:
            yield
        except (self._psycopg.Error, OSError) as exc:
            with self._lock:
                self._drop()
            raise StorageError(
                f"{self._where}: the log cannot be read or written ({masked(one_line(exc))}); what "
                "is in it stays whole: see that the server is up, and what this role may do"
            ) from exc


class PostgresTransaction:
    """Statements with ``?`` for values."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    def execute(self, query: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        """See `Transaction`."""
        return self._cursor.connection.execute(_translate(query), values)

    def executemany(self, query: str, values: Iterable[Sequence[Any]], /) -> None:
        """See `Transaction`."""
        self._cursor.executemany(_translate(query), values)


def _begin_anew(connection: psycopg.Connection[Any]) -> None:
    """Another identity; what is written from now on counts behind all that is there, and behind
    all that may have been there before it was restored.
    """
    row = connection.execute(
        f"SELECT place = ({PLACE}), identity FROM log FOR UPDATE".encode()  # noqa: S608
    ).fetchone()
    if row is None or row[0]:
        return  # another process was first
    last = connection.execute(
        "SELECT greatest((SELECT max(number) FROM answered), (SELECT max(number) FROM labels), 0)"
    ).fetchone()
    until = int(last[0]) if last else 0
    connection.execute("UPDATE earlier SET until = least(until, %s)", (until,))
    connection.execute("INSERT INTO earlier VALUES (%s, %s)", (row[1], until))
    connection.execute(
        f"UPDATE log SET identity = %s, place = ({PLACE}), "  # noqa: S608 - our own words
        "shift = (%s >> %s) + 1 - pg_current_xact_id()::text::bigint".encode(),
        (secrets.randbits(52), until, BITS),
    )


def _exists(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT to_regclass('log') IS NOT NULL").fetchone()
    return bool(row and row[0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@lru_cache(maxsize=256)
def _translate(query: str) -> bytes:
    return query.replace("%", "%%").replace("?", "%s").encode()


def _driver() -> Any:
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError as exc:
        raise ConfigurationError(
            "a log in PostgreSQL needs psycopg: pip install 'selfheal-cli[postgres]'"
        ) from exc
    return psycopg
