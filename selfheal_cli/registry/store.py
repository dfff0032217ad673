"""Which tracking store, and can it be used? Asked before MLflow, which retries for an hour."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import mlflow
import sqlalchemy
from mlflow.exceptions import MlflowException

from selfheal_cli.errors import RegistryError, RegistryUnreachable
from selfheal_cli.registry.drivers import away_errors, require_driver

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
CONNECT_SECONDS = 5
# what a store says when it is away or busy; the same call may succeed later
TRANSIENT = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}
)


def resolve(uri: str | None) -> str:
    """The given URI, else MLflow's own choice; raises `RegistryError` for a file store."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    found = uri or mlflow.get_tracking_uri()
    scheme = urlsplit(found).scheme
    if scheme in ("", "file") or not scheme[1:]:
        raise RegistryError(
            f"'{found}' is an MLflow file store, which MLflow has given up and which cannot rank "
            "versions; use --tracking-uri sqlite:///mlflow.db, or bring it over with "
            "'mlflow migrate-filestore', or move the old mlruns folder away"
        )
    return found


def require_reachable(uri: str) -> None:
    """Connect once; raises `RegistryUnreachable`, or `RegistryError` without its driver."""
    scheme = urlsplit(uri).scheme
    require_driver(uri)
    if scheme in ("http", "https"):
        _require_server(uri)
    elif scheme.startswith("sqlite"):
        _require_sqlite(uri)
    else:
        _require_database(uri)


@contextmanager
def translated(doing: str, uri: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into `RegistryError`."""
    try:
        yield
    except MlflowException as exc:
        kind = RegistryUnreachable if exc.error_code in TRANSIENT else RegistryError
        raise kind(f"{doing}: {_line(exc)} (store: {without_password(uri)})") from exc
    except away_errors(sqlalchemy.exc.SQLAlchemyError, OSError) as exc:
        raise RegistryUnreachable(
            f"{doing}: {_line(exc)} (store: {without_password(uri)}); see 'selfheal doctor'"
        ) from exc


def without_password(uri: str) -> str:
    """The URI as it may be shown.

    >>> without_password("postgresql://ann:secret@db/mlflow")
    'postgresql://ann:***@db/mlflow'
    """
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return uri.replace(f":{parts.password}@", ":***@", 1)


def _require_server(uri: str) -> None:
    try:
        with urlopen(Request(f"{uri.rstrip('/')}/health"), timeout=CONNECT_SECONDS):  # noqa: S310
            return
    except HTTPError as exc:
        if exc.code in (401, 403, 404):  # there, but guarded, or without this page
            return
        raise _unreachable(uri, f"answers {exc.code}") from exc
    except (URLError, OSError, ValueError) as exc:
        raise _unreachable(uri, _line(exc)) from exc


def _require_sqlite(uri: str) -> None:
    database = sqlalchemy.engine.make_url(uri).database
    path = Path(database or ":memory:").absolute()
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    target = path if path.exists() else folder
    if not os.access(target, os.W_OK):
        raise _unreachable(uri, f"{target} is not writable")
    if path.exists():
        _require_database(uri)


def _require_database(uri: str) -> None:
    timeout = {} if uri.startswith("sqlite") else {"connect_timeout": CONNECT_SECONDS}
    try:
        engine = sqlalchemy.create_engine(uri, connect_args=timeout)
        with engine.connect() as connection:
            sqlalchemy.inspect(connection).get_table_names()
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as exc:
        raise _unreachable(uri, _line(exc)) from exc


def _unreachable(uri: str, reason: str) -> RegistryUnreachable:
    return RegistryUnreachable(
        f"tracking store {without_password(uri)} is out of reach: {reason}; start it, or name "
        "another with --tracking-uri or MLFLOW_TRACKING_URI"
    )


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300]
