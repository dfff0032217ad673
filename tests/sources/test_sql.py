"""Rows of a SQL query, on SQLite and on PostgreSQL; its password is shown nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.config import RunConfig, checked
from selfheal_cli.config_sources import SqlSettings
from selfheal_cli.errors import ConfigurationError, DataError
from selfheal_cli.masking import without_secrets
from selfheal_cli.sources import sql
from selfheal_cli.sources.sql import FETCHED, open_query
from tests.registry.stores import PASSWORD, Postgres, postgres_server
from tests.sources.kinds import into_database, numbers, opened, plain, written
from tests.sources.test_table import same

QUERY = "SELECT number, wave, kind, y FROM t ORDER BY place"
ROWS = 2 * FETCHED + 95


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as database:
        database.execute("CREATE DATABASE shop")
        into_database(plain(ROWS), database.uri("shop"))
        yield database


@pytest.fixture
def lite(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/t.db"
    into_database(plain(ROWS), url)
    return url


def rows_of(url: str, query: str) -> list[dict[str, Any]]:
    table = open_query(SqlSettings(url=url, query=query, target="y"))
    return [row for chunk in table.chunks(None) for row in chunk.to_dict("records")]


def test_postgresql_gives_the_rows_in_the_querys_order(server: Postgres, tmp_path: Path) -> None:
    query = "SELECT number::float, wave, kind, y FROM t WHERE kind LIKE '%' OR 1=1 ORDER BY place"
    source = opened(SqlSettings(url=server.uri("shop"), query=query, target="y"), batch_size=100)
    assert [row for batch in numbers(source.batches()) for row in batch] == [
        float(row) for row in range(ROWS // 4, ROWS)
    ]
    other = opened(written("csv", plain(ROWS), tmp_path), batch_size=100)
    assert same(list(source.batches()), list(other.batches()))


def test_postgresql_streams_by_a_cursor_of_the_server(server: Postgres) -> None:
    """A named cursor is what psycopg's server-side cursors show in the server's own table."""
    query = "SELECT name, statement AS y FROM pg_cursors"
    (cursor,) = rows_of(server.uri("shop"), query)
    assert cursor["name"].startswith("c_")


def test_types_of_a_database_become_numbers_and_texts(server: Postgres) -> None:
    query = (
        "SELECT 1.5::numeric AS a, true AS b, DATE '2026-01-31' AS c, 'x:y' AS d, "
        "'NaN'::float8 AS e, NULL::int AS f"
    )
    (row,) = rows_of(server.uri("shop"), query)
    assert (row["a"], row["b"], row["c"], row["d"]) == (1.5, True, "2026-01-31", "x:y")
    assert row["e"] is None
    assert row["f"] is None


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT nowhere FROM t", "no such column: nowhere"),
        ("SELECT * FROM t WHERE 1=0", "gives no rows"),
        ("CREATE TABLE u (a int)", "the query gives no rows; give a SELECT"),
        ("SELECT x'00' AS a, 1 AS y", "row 1, column 'a': it holds bytes"),
        ("SELECT 1 AS y, 2 AS y", "duplicate column names: y"),
    ],
)
def test_a_query_that_fails_is_told_with_database_and_reason(
    query: str, message: str, lite: str
) -> None:
    with pytest.raises(DataError, match=message) as raised:
        rows_of(lite, query)
    assert str(raised.value).startswith(f"query on {lite}")


def test_a_password_is_in_no_message_and_in_nothing_that_is_written_down(server: Postgres) -> None:
    url = server.uri("shop")
    settings = SqlSettings(url=url, query=QUERY, target="y")
    config = RunConfig(source=settings)
    shown = f"postgresql://selfheal@127.0.0.1:{server.port}/shop"
    assert settings.url == shown
    told = f"{config!r} {config.model_dump_json()} {config.model_dump()} {config.parameters()}"
    assert PASSWORD not in told
    assert shown in config.model_dump_json()
    assert open_query(settings).where == f"query on {shown}"
    for bad in (
        {"url": url, "query": "SELECT nothing", "target": "y"},
        {"url": url.replace("/shop", "/none"), "query": QUERY, "target": "y"},
        {"url": url.replace("selfheal:", "nobody:"), "query": QUERY, "target": "y"},
    ):
        with pytest.raises(DataError) as raised:
            open_query(SqlSettings.model_validate(bad))
        assert PASSWORD not in str(raised.value)


def test_a_configuration_that_was_written_down_takes_the_password_from_outside(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = SqlSettings(url=server.uri("shop"), query=QUERY, target="y")
    again = SqlSettings.model_validate(given.model_dump(mode="json"))
    with pytest.raises(DataError, match="password"):
        open_query(again)
    monkeypatch.setenv("SELFHEAL_SQL_PASSWORD", PASSWORD)
    assert open_query(again).columns == ["number", "wave", "kind", "y"]


def test_only_what_a_user_sets_is_a_setting() -> None:
    assert "address" not in SqlSettings.model_fields
    settings = SqlSettings(url="postgresql://ann:s3cret@db/x", query=QUERY, target="y")
    again = settings.model_copy(update={"drop": ("wave",)})
    assert again.address.get_secret_value() == "postgresql://ann:s3cret@db/x"
    assert "s3cret" not in f"{again!r} {again} {again.model_dump()} {again.model_dump_json()}"


def test_a_complaint_about_settings_shows_no_password() -> None:
    for values in ({"target": "y"}, {"target": "y", "query": QUERY, "frop": 1}):
        with pytest.raises(ConfigurationError) as raised:
            checked(SqlSettings, {"url": "postgresql://ann:s3cret@db/x", **values}, where="here")
        assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://ann:a:b@c@db:5432/x", "postgresql+psycopg://ann@db:5432/x"),
        ("postgresql://db/x?user=ann&password=a&sslmode=prefer", "postgresql://db/x?user=ann&sslmode=prefer"),
        ("postgresql://db/x?PASSWORD=a", "postgresql://db/x"),
        ("sqlite:///shop.db", "sqlite:///shop.db"),
    ],
)  # fmt: skip
def test_what_is_shown_of_a_url_holds_no_secret(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_a_url_that_is_none_and_a_driver_that_is_missing_are_told() -> None:
    with pytest.raises(DataError, match="not a database URL that SQLAlchemy knows"):
        rows_of("shop.db", QUERY)
    with pytest.raises(DataError, match="the driver oracledb is not installed"):
        rows_of("oracle+oracledb://db/x", QUERY)


def test_the_temporary_file_goes_with_the_table(lite: str) -> None:
    table = open_query(SqlSettings(url=lite, query=QUERY, target="y"))
    path = table.path
    assert path.exists()
    assert path.stat().st_mode & 0o077 == 0
    del table
    assert not path.exists()


def test_without_sqlalchemy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'selfheal-cli\[sql\]'"):
        rows_of("sqlite://", QUERY)
