"""What SQLAlchemy compiles and MLflow looks up for each store, once for all stores of a process."""

from __future__ import annotations

import functools
import gc
from typing import Any

STATEMENTS = 5_000


def share_compiled() -> None:
    """Each test has a store of its own; the statements that MLflow asks it are the same ones.

    SQLAlchemy keeps a compiled statement with the engine and by the identity of its dialect, so
    that each new store would compile all of them again.
    """
    import sqlalchemy
    from mlflow.store.db import utils
    from mlflow.utils import requirements_utils
    from sqlalchemy.util import LRUCache

    made = sqlalchemy.create_engine
    donor = made("sqlite://")
    donor.connect().close()  # which tells the dialect what this SQLite can do
    statements: LRUCache[Any, Any] = LRUCache(STATEMENTS)

    def create_engine(*given: Any, **settings: Any) -> sqlalchemy.Engine:
        engine = made(*given, **settings)
        if engine.dialect.name == "sqlite":
            engine.dialect = engine.pool._dialect = donor.dialect
            engine._compiled_cache = statements
        return engine

    sqlalchemy.create_engine = create_engine
    utils._get_latest_schema_revision = functools.cache(utils._get_latest_schema_revision)
    requirements_utils._get_installed_version = functools.cache(
        requirements_utils._get_installed_version
    )
    gc.collect()
    gc.freeze()  # a million objects of libraries, which no collection need go through again
