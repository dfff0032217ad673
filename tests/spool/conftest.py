"""Every place where a log may lie, as a fixture: a file of SQLite's, a schema of PostgreSQL's."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.database import LogDatabase
from selfheal_cli.spool.postgres import PostgresDatabase
from selfheal_cli.spool.store import Spool
from selfheal_cli.spool.tellers import Tellers
from tests.registry.stores import Postgres


@dataclass(frozen=True)
class Place:
    """Each call opens it once more, as another process would."""

    open: Callable[[], Path | LogDatabase]

    def spool(self) -> Spool:
        return Spool(self.open())

    def channel(self) -> ControlChannel:
        return ControlChannel(self.open())

    def tellers(self) -> Tellers:
        return Tellers(self.open())


@pytest.fixture(scope="session")
def log_database(postgres: Postgres) -> Iterator[str]:
    """The URI of a database in which each test has a schema of its own."""
    name = f"logs_{uuid.uuid4().hex[:8]}"
    postgres.execute(f'CREATE DATABASE "{name}"')
    yield postgres.uri(name)
    postgres.drop(name)


@pytest.fixture
def log_uri(log_database: str) -> str:
    return log_database


@pytest.fixture
def model() -> str:
    """A name that no other test has."""
    return f"m{uuid.uuid4().hex}"


@pytest.fixture
def in_postgres(log_uri: str, model: str) -> Iterator[Place]:
    opened: list[PostgresDatabase] = []

    def open_again() -> PostgresDatabase:
        opened.append(PostgresDatabase(log_uri, model))
        return opened[-1]

    yield Place(open_again)
    for database in opened:
        database.close()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(lambda: tmp_path / "spool.db")
    in_postgres: Place = request.getfixturevalue("in_postgres")
    return in_postgres
