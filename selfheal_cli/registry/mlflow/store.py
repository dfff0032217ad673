"""Which tracking store, and can it be used? Asked before MLflow, which retries for an hour."""

from __future__ import annotations

import gc
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit

import mlflow
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.db.utils import create_sqlalchemy_engine
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from selfheal_cli.errors import NoStore, NotAllowed, RegistryError, RegistryUnreachable, one_line
from selfheal_cli.forks import at_work
from selfheal_cli.masking import has_bare_at, masked, masked_uri

# scheme of the URI: what it needs, and the extra that brings it
DRIVERS = {
    "postgresql": ("psycopg", "postgres"),
    "postgresql+psycopg": ("psycopg", "postgres"),
    "s3": ("boto3", "s3"),
}


def require_driver(uri: str) -> None:
    """Raises `RegistryError` with what to install where a store's library is missing."""
    scheme = urlsplit(uri).scheme
    if scheme not in DRIVERS:
        return
    module, extra = DRIVERS[scheme]
    if find_spec(module) is None:
        raise RegistryError(
            f"a store at {scheme}:// needs the library {module}, which is not installed here: "
            f"pip install 'selfheal-cli[{extra}]'"
        )


def away_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """``others``, and what boto3 raises once MLflow has loaded it whole."""
    if sys.modules.get("boto3.exceptions") is None or sys.modules.get("boto3") is None:
        return others
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return (*others, Boto3Error, BotoCoreError, ClientError)


PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "PGCONNECT_TIMEOUT": "10",
}
# what a store says when it is away or busy; the same call may succeed later
TRANSIENT = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}
)
NOT_KNOWN = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
DATABRICKS = ("databricks", "databricks-uc", "uc")
HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d+(/.*)?")
DATABASE_FILES = (".db", ".sqlite", ".sqlite3")
KNOWN_STORES = (
    "sqlite:///FILE, postgresql://USER@HOST/DATABASE, mysql+pymysql://..., mssql+pyodbc://..., "
    "http://HOST:PORT and https://HOST are"
)
_used: set[sqlalchemy.URL] = set()  # databases, by this process


def resolve(uri: str | None) -> str:
    """The given URI, else MLflow's own choice; raises `RegistryError` for what is no store."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    chosen = uri or _own_choice()
    _require_supported(chosen)
    return (_plain(chosen) if chosen.startswith("sqlite:///") else None) or chosen


def require_reachable(uri: str, *, create: bool = False) -> None:
    """Connect once; raises `RegistryUnreachable`, or `RegistryError` without its driver.

    A store that is not there yet raises `NoStore`, unless the caller is to ``create`` it.
    """
    scheme = urlsplit(uri).scheme
    require_driver(uri)
    if scheme in ("http", "https"):
        _require_server(uri)
    elif scheme.startswith(tuple(DATABASE_ENGINES)) and not (
        scheme.startswith("sqlite") and _to_be_created(uri, create=create)
    ):
        _require_database(uri, create=create)
    if scheme.startswith(tuple(DATABASE_ENGINES)):
        _used.add(sqlalchemy.engine.make_url(uri))


@contextmanager
def made_at_once(uri: str) -> Iterator[None]:
    """Within it MLflow makes a SQLite file that is not there yet without waiting for the disk after
    each of some hundred statements: nothing is in it that could be lost.
    """
    path = _file_of(uri) if uri.startswith("sqlite:///") else None
    if path is None or path.exists():
        yield
        return
    opened: list[sqlite3.Connection] = []

    def hasten(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            files = [row[2] for row in connection.execute("PRAGMA database_list")]
            if files == [str(path.absolute())]:
                connection.execute("PRAGMA synchronous = OFF")
                opened.append(connection)

    sqlalchemy.event.listen(sqlalchemy.pool.Pool, "connect", hasten)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.pool.Pool, "connect", hasten)
        for connection in opened:
            with suppress(sqlite3.Error):  # closed since
                connection.execute("PRAGMA synchronous = FULL")
        if path.exists():
            with path.open("rb") as made:
                os.fsync(made)


@contextmanager
def translated(doing: str, uri: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into `RegistryError`."""
    try:
        with at_work():
            yield
    except MlflowException as exc:
        raise _translation(exc, doing, uri) from exc
    except away_errors(sqlalchemy.exc.SQLAlchemyError, OSError) as exc:
        raise RegistryUnreachable(
            f"{doing}: {told(exc, uri)} (store: {masked_uri(uri)}); see 'selfheal doctor'"
        ) from exc


def told(exc: Exception, uri: str = "") -> str:
    """What a foreign exception says, in one line and without the secrets of ``uri`` or others."""
    text = one_line(exc)
    return masked(text.replace(uri, masked_uri(uri)) if uri else text)[:300]


def _translation(exc: MlflowException, doing: str, uri: str) -> RegistryError:
    where = f"{doing}: {told(exc, uri)} (store: {masked_uri(uri)})"
    if exc.error_code in NOT_KNOWN:
        return NotAllowed(
            f"{where}; say who you are with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or with MLFLOW_TRACKING_TOKEN"
        )
    if exc.error_code == "PERMISSION_DENIED":
        return NotAllowed(
            f"{where}; you may not do this there: ask whoever runs the server for EDIT on the "
            "experiment and on the registered model, or look only"
        )
    return (RegistryUnreachable if _is_passing(exc) else RegistryError)(where)


def _is_passing(exc: BaseException | None) -> bool:
    """Whether the store was away or busy, also where MLflow wrapped that into another error."""
    while exc is not None:
        if isinstance(exc, sqlalchemy.exc.OperationalError):
            return True
        if isinstance(exc, MlflowException) and exc.error_code in TRANSIENT:
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def _own_choice() -> str:
    """As MLflow chooses, in a folder of any name."""
    chosen: str = mlflow.get_tracking_uri()
    if mlflow.is_tracking_uri_set() or not chosen.startswith("sqlite:"):  # type: ignore[no-untyped-call]
        return chosen
    return _plain(f"sqlite:///{quote(str(Path('mlflow.db').absolute()))}") or "sqlite:///mlflow.db"


def _plain(uri: str) -> str | None:
    """The URI of a SQLite file without percent-encoding, if it can be written so.

    MLflow makes the folder of the encoded name, ``my%20app``, beside the one that is meant.
    """
    url = sqlalchemy.engine.make_url(uri)
    plain = f"sqlite:///{url.database or ''}"
    return plain if sqlalchemy.engine.make_url(plain) == url else None


def _require_supported(uri: str) -> None:
    scheme = urlsplit(uri).scheme
    shown = masked_uri(uri)
    if HOST_AND_PORT.fullmatch(uri):
        raise RegistryError(f"'{shown}' has no scheme; give http://{shown} or https://{shown}")
    if uri in DATABRICKS or scheme in DATABRICKS:
        raise RegistryError(
            f"'{shown}': Databricks is not supported, since its registry has neither the tags nor "
            "the searches that selfheal stands on; use a store of MLflow's own"
        )
    if not scheme and uri.endswith(DATABASE_FILES):
        raise RegistryError(f"'{shown}' is the name of a file; give sqlite:///{shown}")
    if scheme in ("", "file") or len(scheme) == 1:
        raise RegistryError(
            f"'{shown}' is an MLflow file store, which MLflow has given up and which cannot rank "
            "versions; use --tracking-uri sqlite:///mlflow.db, or bring it over with "
            "'mlflow migrate-filestore', or move the old mlruns folder away"
        )
    plugins = {point.name for point in entry_points(group="mlflow.tracking_store")}
    if not scheme.startswith((*DATABASE_ENGINES, "http")) and scheme not in plugins:
        raise RegistryError(f"'{shown}' is no store that MLflow knows; {KNOWN_STORES}")
    if scheme.startswith(tuple(DATABASE_ENGINES)) and has_bare_at(uri):
        raise RegistryError(f"'{shown}': write an '@' in the user's name or password as %40")


def _require_server(uri: str) -> None:
    """Any answer will do: MLflow's client judges it, with its own certificates and headers."""
    try:
        http_request(  # type: ignore[no-untyped-call]
            get_default_host_creds(uri),  # type: ignore[no-untyped-call]
            "/health",
            "GET",
            backoff_factor=0.1,
            backoff_jitter=0,
            retry_codes=frozenset(),
            raise_on_status=False,
        )
    except (MlflowException, OSError, ValueError) as exc:
        raise _unreachable(uri, told(exc, uri)) from exc


def _file_of(uri: str) -> Path:
    return Path(sqlalchemy.engine.make_url(uri).database or ":memory:")


def _to_be_created(uri: str, *, create: bool) -> bool:
    """Whether a SQLite file is not there yet and may be made."""
    try:
        name = str(_file_of(uri))
    except sqlalchemy.exc.ArgumentError as exc:
        raise _unreachable(uri, told(exc, uri)) from exc
    path = Path(name).absolute()
    if path.exists() or name.startswith((":memory:", "file:")):
        return False
    if not create:
        raise _no_store(f"{path} does not exist")
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise _unreachable(uri, f"{folder} is not writable")
    return True


def _require_database(uri: str, *, create: bool) -> None:
    try:
        engine = create_sqlalchemy_engine(uri)  # type: ignore[no-untyped-call]
        with at_work(), engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, MlflowException, ImportError, ValueError) as exc:
        raise _unreachable(uri, told(exc, uri)) from exc
    if not create and "experiments" not in tables:
        raise _no_store(f"{masked_uri(uri)} holds none of MLflow's tables")


def _no_store(reason: str) -> NoStore:
    return NoStore(
        f"no store here: {reason}; 'selfheal run' makes one, or name another with --tracking-uri "
        "or MLFLOW_TRACKING_URI"
    )


def _unreachable(uri: str, reason: str) -> RegistryUnreachable:
    return RegistryUnreachable(
        f"tracking store {masked_uri(uri)} is out of reach: {reason}; start it, or name "
        "another with --tracking-uri or MLFLOW_TRACKING_URI"
    )


def close_connections() -> None:
    """Before a fork: close what MLflow has open; it opens it again.

    MLflow keeps the engines by address for the whole process, so that they are looked for.
    """
    for one in gc.get_objects():
        if issubclass(type(one), sqlalchemy.engine.Engine) and one.url in _used:
            one.dispose()
