"""The rows of a SQL query as a table: asked once, by a server-side cursor, and kept in a file.

A run reads its rows several times, and a database may change in between.
"""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import IO, Any

from selfheal_cli.config_sources import SqlSettings
from selfheal_cli.errors import DataError
from selfheal_cli.masking import has_bare_at, masked
from selfheal_cli.sources.ndjson import NdjsonTable
from selfheal_cli.sources.table_file import require_names
from selfheal_cli.sources.values import RowContract, without_halves

FETCHED = 1_000  # rows that the cursor brings at once
PASSWORD = "SELFHEAL_SQL_PASSWORD"  # noqa: S105 (the variable's name)


def open_query(settings: SqlSettings, contract: RowContract = 2) -> NdjsonTable:
    """Ask the query and keep its rows in a temporary file, which goes with the table.

    Raises `DataError` for a query that fails, naming database and reason, never the password.
    """
    return spooled(partial(_fetch, settings), _where(settings), contract)


def spooled(fetch: Callable[[IO[str]], None], where: str, contract: RowContract = 2) -> NdjsonTable:
    """What ``fetch`` writes, a JSON object a line, as a table whose file goes with it.

    Raises `DataError` where it writes nothing.
    """
    descriptor, name = tempfile.mkstemp(prefix="selfheal-rows-", suffix=".ndjson")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as spool:
            fetch(spool)
        if not path.stat().st_size:
            raise DataError(f"{where} gives no rows")
        table = NdjsonTable(path, where, contract=contract)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    weakref.finalize(table, path.unlink, missing_ok=True)
    return table


def _fetch(settings: SqlSettings, spool: IO[str]) -> None:
    if find_spec("sqlalchemy") is None:
        raise DataError("--sql needs SQLAlchemy: pip install 'selfheal-cli[sql]'")
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    with _translated(settings):
        engine = create_engine(_address(settings), poolclass=NullPool, hide_parameters=True)
        with engine.connect() as connection:
            streamed = connection.execution_options(stream_results=True, max_row_buffer=FETCHED)
            # a colon is the query's own: it has no parameters
            cursor = streamed.execute(text(settings.query.replace(":", r"\:")))
            if not cursor.returns_rows:
                raise DataError(f"{_where(settings)}: the query gives no rows; give a SELECT")
            columns = list(cursor.keys())
            require_names(columns, where=_where(settings))
            for row, values in enumerate(cursor, 1):
                spool.write(as_line(columns, values, partial(_place, settings, row)))


def as_line(columns: list[str], values: Iterable[Any], place: Callable[[], str]) -> str:
    """A row as a line of JSON; raises `DataError` for a value of another type than JSON's."""
    fields = {}
    for name, value in zip(columns, values, strict=True):
        try:
            fields[name] = _plain(value)
        except TypeError as exc:
            raise DataError(
                f"{place()}, column '{name}': it holds {exc}; numbers, texts and times are "
                "supported: cast it there"
            ) from exc
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """A value as JSON has it; raises TypeError naming a type that it has not."""
    if isinstance(value, str):
        return without_halves(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)  # an id of more digits than a float holds
    if isinstance(value, float | Decimal):
        return float(value) if isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _address(settings: SqlSettings) -> Any:
    from sqlalchemy import make_url

    address = settings.address.get_secret_value()
    if has_bare_at(address):
        raise DataError(f"{_where(settings)}: write an '@' in the user's name or password as %40")
    url = make_url(address)
    if url.password is None and PASSWORD in os.environ:
        url = url.set(password=os.environ[PASSWORD])
    return url


@contextmanager
def _translated(settings: SqlSettings) -> Iterator[None]:
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    where = _where(settings)
    try:
        yield
    except (NoSuchModuleError, ArgumentError) as exc:
        raise DataError(
            f"--sql {settings.url}: not a database URL that SQLAlchemy knows; "
            "give one such as sqlite:///shop.db or postgresql://USER@HOST/DATABASE"
        ) from exc
    except ModuleNotFoundError as exc:
        raise DataError(
            f"{where}: the driver {exc.name} is not installed; for PostgreSQL: "
            "pip install 'selfheal-cli[postgres]'"
        ) from exc
    except (SQLAlchemyError, OverflowError) as exc:
        reason = str(getattr(exc, "orig", None) or exc).splitlines()[0]
        raise DataError(f"{where}: {_without_secret(reason, settings)}") from exc


def _without_secret(reason: str, settings: SqlSettings) -> str:
    """A driver's message; some repeat the address."""
    password = _address(settings).password
    return masked(reason.replace(str(password), "***") if password else reason)


def _where(settings: SqlSettings) -> str:
    return f"query on {settings.url}"


def _place(settings: SqlSettings, row: int) -> str:
    return f"{_where(settings)}: row {row}"
