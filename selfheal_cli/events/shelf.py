"""What a run is folded into, kept on disk: however many batches it has, the memory is the same."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TypeVar

from selfheal_cli.errors import StorageError
from selfheal_cli.forks import at_work

K = TypeVar("K", int, str)
V = TypeVar("V")
AT_ONCE = 256  # entries that an iteration holds in memory


class DiskDict:
    """A temporary SQLite database: a few megabytes in memory, the rest in a file without a name.

    Raises `StorageError` where the disk for temporary files is full.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._tables = 0
        weakref.finalize(self, self._database.close)

    def row(self, query: str, *values: object) -> Any:
        """The first row that a query gives, None where there is none."""
        with _told():
            return self._database.execute(query, values).fetchone()

    def rows(self, query: str, *values: object) -> list[Any]:
        """All rows that a query gives."""
        with _told():
            return self._database.execute(query, values).fetchall()

    def new_table(self, key_type: str) -> str:
        """An empty table; its name."""
        self._tables += 1
        name = f"t{self._tables}"
        key = f"key {key_type} UNIQUE NOT NULL, " if key_type == "TEXT" else ""
        self.row(f"CREATE TABLE {name} (place INTEGER PRIMARY KEY, {key}value TEXT NOT NULL)")
        return name


class Shelved(MutableMapping[K, V]):
    """A mapping on a shelf: by number in the order of the numbers, by text in order of arrival.

    What is taken from it is a copy; put it back to change it.

    >>> letters = Shelved[int, str](DiskDict(), int)
    >>> letters[2] = "b"; letters[1] = "a"; letters[2] += "!"
    >>> list(letters.items()), len(letters), 3 in letters
    ([(1, 'a'), (2, 'b!')], 2, False)
    """

    def __init__(
        self,
        shelf: DiskDict,
        keys: type[K],
        encode: Callable[[V], Any] = lambda value: value,
        decode: Callable[[Any], V] = lambda stored: stored,
    ) -> None:
        self._shelf, self._encode, self._decode = shelf, encode, decode
        self._key = "place" if keys is int else "key"
        self._table = shelf.new_table("INTEGER" if keys is int else "TEXT")

    def __getitem__(self, key: K) -> V:
        row = self._shelf.row(f"SELECT value FROM {self._table} WHERE {self._key} = ?", key)  # noqa: S608
        if row is None:
            raise KeyError(key)
        return self._decode(json.loads(row[0]))

    def __setitem__(self, key: K, value: V) -> None:
        self._shelf.row(
            f"INSERT INTO {self._table} ({self._key}, value) VALUES (?, ?) "  # noqa: S608
            f"ON CONFLICT ({self._key}) DO UPDATE SET value = excluded.value",
            key,
            json.dumps(self._encode(value)),
        )

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        self._shelf.row(f"DELETE FROM {self._table} WHERE {self._key} = ?", key)  # noqa: S608

    def __contains__(self, key: object) -> bool:
        query = f"SELECT 1 FROM {self._table} WHERE {self._key} = ?"  # noqa: S608
        return self._shelf.row(query, key) is not None

    def __len__(self) -> int:
        return int(self._shelf.row(f"SELECT count(*) FROM {self._table}")[0])  # noqa: S608

    def __bool__(self) -> bool:
        return self._shelf.row(f"SELECT 1 FROM {self._table} LIMIT 1") is not None  # noqa: S608

    def __iter__(self) -> Iterator[K]:
        return (key for key, _ in self._walk())

    def items(self) -> Any:
        """Pairs in order, a few at a time; what is put in meanwhile may or may not come."""
        return ((key, self._decode(json.loads(value))) for key, value in self._walk())

    def values(self) -> Any:
        """Values in order, as `items`."""
        return (value for _, value in self.items())

    def _walk(self) -> Iterator[tuple[K, str]]:
        place = -(2**63)
        while True:
            rows = self._shelf.rows(
                f"SELECT place, {self._key}, value FROM {self._table} "  # noqa: S608
                f"WHERE place > ? ORDER BY place LIMIT {AT_ONCE}",
                place,
            )
            yield from ((key, value) for _, key, value in rows)
            if len(rows) < AT_ONCE:
                return
            place = rows[-1][0]


@contextmanager
def _told() -> Iterator[None]:
    try:
        with at_work():
            yield
    except sqlite3.Error as exc:
        raise StorageError(
            f"{tempfile.gettempdir()}: temporary files cannot be written ({exc}); make room, or "
            "name another folder in SQLITE_TMPDIR"
        ) from exc
