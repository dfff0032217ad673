"""Where a log's tables lie: a file of SQLite's, or a schema of a PostgreSQL server's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from threading import Event
from typing import Any, Protocol


class StatementResult(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """Rows that it changed."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """The rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """The rows that are left, one by one."""


class Transaction(Protocol):
    """Statements with ``?`` for values, all of which count or none."""

    def execute(self, query: str, values: Sequence[Any] = (), /) -> StatementResult:
        """One statement."""

    def executemany(self, query: str, values: Iterable[Sequence[Any]], /) -> Any:
        """The same statement for each of the values."""


class LogDatabase(Protocol):
    """Tables of answers, labels, versions to serve and commands, in SQL that both kinds take.

    Any thread may call. Raises `StorageError` where it cannot be used; what was committed stays.
    """

    @property
    def below(self) -> str:
        """A condition beside others: numbers that no open transaction can still come before."""

    @property
    def shared(self) -> bool:
        """Whether replicas on other machines write into it, too."""

    def now(self) -> float:
        """Seconds since 1970, by the clock that all who share it go by."""

    def identity(self) -> int:
        """A number of this log, which one that takes its place does not have."""

    def earlier(self, identity: int) -> int | None:
        """Up to which number this log is a copy of one that had that identity, if it is one."""

    def end(self, table: str) -> int:
        """The last number that a row of a table may have, of those that can be read."""

    def writing(self) -> AbstractContextManager[Transaction]:
        """A transaction: all of it or nothing."""

    def erasing(self) -> AbstractContextManager[Transaction]:
        """The same, and what it overwrites or removes is gone from the disk afterwards."""

    def all(self, query: str, values: tuple[Any, ...] = (), /) -> list[Any]:
        """The rows that a query gives."""

    def wait(self, seconds: float, stop: Event) -> None:
        """Wait so long at most for something new to be published, or for ``stop``."""

    def held_back(self, seconds: float = 0.0) -> str:
        """Who keeps readers from what was committed already, for so long at least; empty where
        nobody does.
        """

    def close(self) -> None:
        """Close it; no call may follow."""
