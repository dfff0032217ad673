"""Rows by the names that callers give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_cli.source.table_file import one_text


def as_key(value: object) -> str:
    """A row's name as text; a number that was read as a float names the same row.

    >>> as_key(17), as_key(17.0), as_key("17")
    ('17', '17', '17')
    """
    return one_text(value).encode("utf-8", "replace").decode()


def keys_of(table: Any, name: str, rows: int) -> tuple[str, ...] | None:
    """The names in a column of a caller's own DataFrame or columns; None where it has none."""
    if not (isinstance(table, Mapping) or hasattr(table, "columns")) or name not in table:
        return None
    values = table[name]
    if not hasattr(values, "__len__") or isinstance(values, str) or len(values) != rows:
        return None
    return tuple(as_key(value) for value in values)
