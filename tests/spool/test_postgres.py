"""A log on a PostgreSQL server: nothing is skipped whoever has a write open, one that was restored
is another log that goes on where it was read to, and what a URI must not tell is not told.
"""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from selfheal_cli.errors import ConfigurationError, StorageError
from selfheal_cli.spool.entries import Cursor, Feedback, mark_of
from selfheal_cli.spool.postgres import PostgresDatabase, schema_of
from selfheal_cli.spool.store import Spool
from tests.conftest import until
from tests.registry.stores import PASSWORD, Postgres, free_port, postgres_binaries, postgres_server
from tests.spool.conftest import Place
from tests.spool.test_spool import answered


class Naive(PostgresDatabase):
    """Reads whatever was committed."""

    below = ""


class Reader:
    """Goes on behind the last row that it saw, as the healer does."""

    def __init__(self, spool: Spool) -> None:
        self.seen: list[str] = []
        self._spool = spool
        self._at = 0

    def read(self) -> None:
        for request in self._spool.rows_after(self._at, 100):
            self.seen.append(request.request)
            self._at = request.number


Open = Callable[..., Spool]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens a log by its URI and model; all are closed at the end."""
    spools: list[Spool] = []

    def open_log(uri: str, model: str, kind: type[PostgresDatabase] = PostgresDatabase) -> Spool:
        spools.append(Spool(kind(uri, model)))
        return spools[-1]

    yield open_log
    for spool in spools:
        spool.close()


@pytest.fixture
def writing(in_postgres: Place) -> Iterator[Any]:
    """Appends a request in a transaction that stays open until it is called again."""
    database = in_postgres.open()
    assert isinstance(database, PostgresDatabase)
    opened = database.writing()
    transaction = opened.__enter__()
    transaction.execute(
        "INSERT INTO answered (request, rows, classes, columns, probabilities, snapshot, "
        "threshold, at) VALUES ('slow', 0, 1, '', '', 's', 0.5, 1.0)"
    )
    yield lambda: opened.__exit__(None, None, None)


@pytest.mark.parametrize("kind", [PostgresDatabase, Naive])
def test_a_row_is_read_whose_transaction_was_open_when_a_later_one_was_read(
    kind: type[PostgresDatabase], log_uri: str, model: str, in_postgres: Place, writing: Any,
    opened: Open,
) -> None:  # fmt: skip
    reader = Reader(opened(log_uri, model, kind))
    in_postgres.spool().append([answered("quick")])
    reader.read()
    writing()
    reader.read()
    seen = {PostgresDatabase: ["slow", "quick"], Naive: ["quick"]}  # which loses a row for ever
    assert reader.seen == seen[kind]


def test_of_four_writers_that_pause_each_row_is_read_once(in_postgres: Place) -> None:
    reader, spools = Reader(in_postgres.spool()), [in_postgres.spool() for _ in range(4)]
    done = threading.Event()

    def write(number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - no secret
        for group in range(10):
            with spools[number]._file.writing() as transaction:
                for one in range(3):
                    transaction.execute(
                        "INSERT INTO answered (request, rows, classes, columns, probabilities, "
                        "snapshot, threshold, at) VALUES (?, 0, 1, '', '', 's', 0.5, 1.0)",
                        (f"{number}-{group}-{one}",),
                    )
                    transaction.execute("SELECT pg_sleep(?)", (dice.random() / 100,))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    reading = threading.Thread(target=lambda: [reader.read() for _ in iter(done.is_set, True)])
    for thread in (*threads, reading):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reading.join()
    reader.read()
    assert len(reader.seen) == len(set(reader.seen)) == 120
    for number in range(4):
        own = [name for name in reader.seen if name.startswith(f"{number}-")]
        assert own == [f"{number}-{group}-{one}" for group in range(10) for one in range(3)]


def test_a_write_that_is_open_in_another_database_holds_rows_back_and_is_named(
    postgres: Postgres, in_postgres: Place
) -> None:
    spool = in_postgres.spool()
    with psycopg.connect(postgres.uri("postgres")) as other:
        other.execute("CREATE TEMPORARY TABLE idle (a int)")
        spool.append([answered("a")])
        assert spool.rows_after(0, 9) == []
        said = spool.held_back()
        assert f"pid {other.info.backend_pid} of database 'postgres' has a write open" in said
        other.rollback()
    assert [one.request for one in spool.rows_after(0, 9)] == ["a"]
    assert spool.held_back() == ""


def test_a_label_before_its_row_waits_for_it_at_whichever_replica(in_postgres: Place) -> None:
    one, other = in_postgres.spool(), in_postgres.spool()
    told = other.label(
        [Feedback(1, "a", 1), Feedback(1, key="k"), Feedback(0, "a", 7), Feedback(1, "a", 1)],
        "bank", 1.0,
    )  # fmt: skip
    assert (told.joined, told.unknown) == (0, 4)
    one.append([answered("a"), answered("b", 1, keys=("k",))])
    numbers = [request.number for request in one.rows_after(0, 9)]
    labels = other.labels_after(0, 9)
    assert [(label.answered, label.place, label.y) for label in labels] == [
        (numbers[0], 1, 1), (numbers[1], 0, 1),
    ]  # fmt: skip
    assert one.told_of("a", 1) == [(1, "bank", 1.0)]
    assert other.label([Feedback(1, "a", 1)], "bank", 2.0).repeated == 1


def test_a_label_waits_for_a_row_that_is_just_being_written(in_postgres: Place) -> None:
    database, other = in_postgres.open(), in_postgres.spool()
    assert isinstance(database, PostgresDatabase)
    joined: list[int] = []
    teller = threading.Thread(
        target=lambda: joined.append(other.label([Feedback(1, "a")], "bank", 1.0).joined)
    )
    from selfheal_cli.spool import early
    from selfheal_cli.spool.store import _insert

    with database.writing() as transaction:
        transaction.execute(early.APPENDING)
        _insert(transaction, answered("a"))
        teller.start()
        teller.join(0.2)
        assert teller.is_alive()
    teller.join()
    assert joined == [1]


def test_rows_and_labels_count_in_one_order(in_postgres: Place) -> None:
    spool = in_postgres.spool()
    for name in "abc":
        spool.append([answered(name)])
        spool.label([Feedback(1, name)])
    rows = [one.number for one in spool.rows_after(0, 9)]
    labels = [one.number for one in spool.labels_after(0, 9)]
    order = [number for pair in zip(rows, labels, strict=True) for number in pair]
    assert order == sorted(order)


@pytest.fixture(scope="module")
def new_cluster() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


def copied(origin: str, target: Postgres) -> str:
    """A dump of a database, restored in another cluster; returns its URI there."""
    name = f"restored_{free_port()}"
    target.execute(f'CREATE DATABASE "{name}"')
    binaries = postgres_binaries()
    dump = subprocess.run([binaries / "pg_dump", origin], capture_output=True, check=True).stdout
    subprocess.run(
        [binaries / "psql", "-q", "-v", "ON_ERROR_STOP=1", target.uri(name)],
        input=dump, check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return target.uri(name)


def test_a_dump_in_a_new_cluster_is_another_log_that_goes_on_where_it_was_read_to(
    postgres: Postgres, new_cluster: Postgres, opened: Open
) -> None:
    postgres.execute("CREATE DATABASE shop")
    spool = opened(postgres.uri("shop"), "fraud")
    spool.append([answered(name) for name in ("a", "b")])
    spool.label([Feedback(1, "a")])
    first, second = spool.rows_after(0, 9)
    label = spool.labels_after(0, 9)[-1].number
    uri = copied(postgres.uri("shop"), new_cluster)
    identity = spool.identity()
    spool.append([answered("lost")])
    last = spool.rows_after(0, 9)[-1].number
    postgres.drop("shop")

    restored = opened(uri, "fraud")
    assert restored.identity() != identity
    half = Cursor(first.number, 0, label, identity, mark_of("a", 1.0))
    for was, left in ((half, ["b"]), (Cursor(last, 0, label, identity, mark_of("lost", 1.0)), [])):
        cursor = restored.here(was)
        assert cursor is not None and restored.holds(cursor)
        assert [one.request for one in restored.rows_after(cursor.answered, 9)] == left
        assert restored.labels_after(cursor.labels, 9) == []
    restored.append([answered("new")])
    assert [one.request for one in restored.rows_after(second.number, 9)] == ["new"]
    again = opened(uri, "fraud")
    assert (again.identity(), again.here(Cursor(spool=5))) == (restored.identity(), None)


def test_a_log_of_a_later_release_is_refused_in_one_line(in_postgres: Place) -> None:
    database = in_postgres.open()
    assert isinstance(database, PostgresDatabase)
    database.all("UPDATE log SET format = 99")
    with pytest.raises(StorageError, match="format 99, which a later selfheal began") as refused:
        in_postgres.open()
    assert "\n" not in str(refused.value)


def test_no_error_has_the_password(log_uri: str, postgres: Postgres) -> None:
    with pytest.raises(StorageError) as away:
        PostgresDatabase(log_uri.replace(str(postgres.port), str(free_port())), "fraud")
    with pytest.raises(StorageError) as wrong:
        PostgresDatabase(log_uri.replace(PASSWORD, "other-secret"), "fraud")
    with pytest.raises(ConfigurationError) as broken:
        PostgresDatabase(f"postgresql://u:{PASSWORD}@h/db?nonsense=1&password={PASSWORD}", "fraud")
    for refusal in (away, wrong, broken):
        text = str(refusal.value)
        assert PASSWORD not in text and "other-secret" not in text and "\n" not in text


def test_a_role_without_rights_on_the_cluster_keeps_a_log(postgres: Postgres, opened: Open) -> None:
    postgres.execute("CREATE ROLE app LOGIN PASSWORD 'app'")
    postgres.execute("CREATE DATABASE apps OWNER app")
    spool = opened(f"postgresql://app:app@127.0.0.1:{postgres.port}/apps", "fraud")
    spool.append([answered("a")])
    assert [one.request for one in spool.rows_after(0, 9)] == ["a"]
    with psycopg.connect(postgres.uri("postgres")) as other:
        other.execute("CREATE TEMPORARY TABLE idle (a int)")
        spool.append([answered("b")])
        assert "its age is not shown to this role" in spool.held_back()


def test_our_own_writers_have_a_time_limit(in_postgres: Place, postgres: Postgres) -> None:
    database = in_postgres.open()
    assert isinstance(database, PostgresDatabase)
    database.all("SET idle_in_transaction_session_timeout = 50")
    pid = database.all("SELECT pg_backend_pid()")[0][0]
    connected = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
    with (
        psycopg.connect(postgres.uri("postgres"), autocommit=True) as other,
        pytest.raises(StorageError),
        database.writing() as transaction,
    ):
        transaction.execute("UPDATE log SET format = 1")
        until(lambda: not other.execute(connected, (pid,)).fetchone())
        transaction.execute("SELECT 1")
    limits = [database.all(f"SHOW {name}")[0][0] for name in
              ("statement_timeout", "idle_in_transaction_session_timeout")]  # fmt: skip
    assert limits == ["20s", "10s"]


def test_it_goes_on_after_a_connection_was_cut(in_postgres: Place, postgres: Postgres) -> None:
    spool = in_postgres.spool()
    spool.append([answered("a")])
    pid = spool._file.all("SELECT pg_backend_pid()")[0][0]
    postgres.execute(f"SELECT pg_terminate_backend({pid})")
    with pytest.raises(StorageError):
        spool.append([answered("b")])
    spool.append([answered("b")])
    assert [one.request for one in spool.rows_after(0, 9)] == ["a", "b"]


def test_models_have_logs_of_their_own(log_uri: str, opened: Open) -> None:
    names = ['quo"ted', "a" * 80, "a" * 81, "selfheal-ü"]
    for name in names:
        spool = opened(log_uri, name)
        assert spool.rows_after(0, 9) == []
        spool.append([answered(name)])
    assert len({schema_of(name) for name in names}) == 4
