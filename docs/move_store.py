"""Move a tracking store to another database: ``python docs/move_store.py FROM TO OLD NEW``.

FROM and TO are SQLAlchemy URIs of stores of the same MLflow version; TO must hold nothing. OLD and
NEW are what artifact places begin with before and after, as in ``/home/ann/work/mlruns/artifacts``
and ``mlflow-artifacts:``. The files themselves are copied with the tools of where they go.
"""

from __future__ import annotations

import sys

import mlflow
import sqlalchemy
from sqlalchemy import Connection, MetaData, Table, delete, func, insert, inspect, select, text

BLOCK = 1_000
PLACES = ("artifact_location", "artifact_uri", "storage_location")


def main(source_uri: str, target_uri: str, old: str, new: str) -> None:
    """Copy every table, in one transaction."""
    mlflow.MlflowClient(target_uri).search_experiments()  # makes the schema
    source, target = (sqlalchemy.create_engine(uri) for uri in (source_uri, target_uri))
    with source.connect() as reading, target.begin() as writing:
        tables = MetaData()
        tables.reflect(writing)
        _require_movable(reading, writing)
        moving = [table for table in tables.sorted_tables if table.name != "alembic_version"]
        for table in reversed(moving):
            writing.execute(delete(table))  # the rows that a new schema comes with
        for table in moving:
            if inspect(reading).has_table(table.name):
                count = _copy(reading, writing, table, old, new)
                sys.stdout.write(f"{table.name}: {count:,} rows\n")


def _require_movable(reading: Connection, writing: Connection) -> None:
    schema = text("SELECT version_num FROM alembic_version")
    if reading.execute(schema).scalar() != writing.execute(schema).scalar():
        sys.exit("the two stores have different schemas: run 'mlflow db upgrade' on the older one")
    if writing.execute(text("SELECT count(*) FROM runs")).scalar():
        sys.exit("the target holds runs already")


def _copy(reading: Connection, writing: Connection, table: Table, old: str, new: str) -> int:
    there = Table(table.name, MetaData(), autoload_with=reading)
    rows = reading.execution_options(yield_per=BLOCK).execute(select(there)).mappings()
    count = 0
    for block in rows.partitions(BLOCK):
        moved = [{key: _moved(key, value, old, new) for key, value in row.items()} for row in block]
        writing.execute(insert(table), moved)
        count += len(moved)
    _set_counters(writing, table)
    return count


def _moved(column: str, value: object, old: str, new: str) -> object:
    if column in PLACES and isinstance(value, str):
        plain = value.removeprefix("file://")
        return new + plain.removeprefix(old) if plain.startswith(old) else value
    return value


def _set_counters(writing: Connection, table: Table) -> None:
    """PostgreSQL counts on from the highest number that was copied."""
    if writing.dialect.name != "postgresql":
        return
    for column in table.primary_key:
        name = select(func.pg_get_serial_sequence(table.name, column.name))
        counter = writing.execute(name).scalar()
        if counter:
            highest = select(func.coalesce(func.max(column), 0) + 1)
            following = writing.execute(highest).scalar()
            writing.execute(select(func.setval(counter, following, False)))


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
