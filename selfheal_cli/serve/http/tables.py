"""The ordinary JSON table, read without a DataFrame: the same numbers as MLflow's way gives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.registry.layout import OUTPUTS
from selfheal_cli.sources.encoding import TEXTS, Encoding
from selfheal_cli.sources.first_contract import one_text
from selfheal_cli.sources.values import one_number
from selfheal_cli.sources.values import one_text as values_text

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray


def as_key(value: object) -> str:
    """A row's name as text that any log takes; a number that was read as a float names the same
    row.

    >>> as_key(17), as_key(17.0), as_key("17"), as_key("a\\0b")
    ('17', '17', '17', 'a?b')
    """
    return one_text(value).encode("utf-8", "replace").decode().replace("\0", "?")


def keys_of(table: Any, name: str, rows: int) -> tuple[str, ...] | None:
    """The names in a column of a caller's own DataFrame or columns; None where it has none."""
    if not (isinstance(table, Mapping) or hasattr(table, "columns")) or name not in table:
        return None
    values = table[name]
    if not hasattr(values, "__len__") or isinstance(values, str) or len(values) != rows:
        return None
    return tuple(as_key(value) for value in values)


SPLIT, RECORDS = "dataframe_split", "dataframe_records"
PARAMS = [{"output": name} for name in OUTPUTS]
DEFAULT = PARAMS[0]
NUMBERS = {int, float, type(None)}
PLAIN = NUMBERS | {str, bool}


@dataclass(frozen=True, slots=True)
class Table:
    """Raw columns (n,) each; ``matrix`` (n, columns) where all of them are numbers.

    ``keys`` names the rows; ``output`` is the one that the caller asked for.
    """

    columns: Columns
    matrix: FloatArray | None
    rows: int
    keys: tuple[str, ...] | None
    output: str


def read(body: bytes, encoding: Encoding, key: str | None) -> Table | None:
    """A table of plain numbers and texts; None for anything else, which is MLflow's to judge."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if type(document) is not dict:
        return None
    params = document.pop("params", DEFAULT)
    if params not in PARAMS or len(document) != 1:
        return None
    output = params["output"]
    if SPLIT in document:
        return _split(document[SPLIT], encoding, key, output)
    return _records(document.get(RECORDS), encoding, key, output)


def _split(content: Any, encoding: Encoding, key: str | None, output: str) -> Table | None:
    if type(content) is not dict or content.keys() != {"columns", "data"}:
        return None
    names, data = content["columns"], content["data"]
    if type(names) is not list or set(map(type, names)) != {str} or type(data) is not list:
        return None
    if not data or set(map(type, data)) != {list} or set(map(len, data)) != {len(names)}:
        return None
    places = {name: place for place, name in enumerate(names)}
    if len(places) != len(names) or not places.keys() >= set(encoding.names):
        return None
    if names == encoding.names and len(encoding.numeric) == len(names):
        return _numbers(list(chain.from_iterable(data)), len(data), encoding, None, output)
    turned = list(zip(*data, strict=True))
    return _table({n: turned[p] for n, p in places.items()}, len(data), encoding, key, output)


def _records(content: Any, encoding: Encoding, key: str | None, output: str) -> Table | None:
    if type(content) is not list or not content or set(map(type, content)) != {dict}:
        return None
    names = content[0].keys()
    if not names >= set(encoding.names) or any(row.keys() != names for row in content):
        return None
    wanted = [*encoding.names, *([key] if key in names else [])]
    columns = {str(name): [row[name] for row in content] for name in wanted}
    return _table(columns, len(content), encoding, key, output)


def _table(
    values: Mapping[str, Sequence[Any]],
    rows: int,
    encoding: Encoding,
    key: str | None,
    output: str,
) -> Table | None:
    keys = None
    if key is not None and key in values:
        if not set(map(type, values[key])) <= {str, int}:
            return None
        keys = tuple(map(as_key, values[key]))
    numeric = encoding.numeric
    if len(numeric) == len(encoding.columns):
        flat = list(chain.from_iterable(zip(*(values[name] for name in numeric), strict=True)))
        return _numbers(flat, rows, encoding, keys, output)
    columns: dict[str, Any] = {}
    for column in encoding.columns:
        given = values[column.name]
        if column.kind in TEXTS:
            held = _as_texts(given, encoding)
            if held is None:
                return None
            columns[column.name] = held
        else:
            floats = _as_floats(given, encoding)
            if floats is None:
                return None
            columns[column.name] = floats
    return Table(columns, None, rows, keys, output)


def _numbers(
    flat: list[Any],
    rows: int,
    encoding: Encoding,
    keys: tuple[str, ...] | None,
    output: str,
) -> Table | None:
    floats = _as_floats(flat, encoding)
    if floats is None:
        return None
    matrix = floats.reshape(rows, len(encoding.columns))
    columns = dict(zip(encoding.names, matrix.T, strict=True))
    return Table(columns, matrix, rows, keys, output)


def _as_floats(values: Sequence[Any], encoding: Encoding) -> Any:
    if set(map(type, values)) <= NUMBERS:
        with suppress(OverflowError):  # a whole number that no float holds
            return np.array(values, dtype=np.float64)
    if encoding.contract == 1 or not set(map(type, values)) <= PLAIN:
        return None
    read = [one_number(value) for value in values]
    return None if None in read else np.array(read, dtype=np.float64)


def _as_texts(values: Sequence[Any], encoding: Encoding) -> Any:
    if encoding.contract == 2 and set(map(type, values)) <= PLAIN:
        return np.array([values_text(value) for value in values], dtype=object)
    if encoding.contract == 2 or set(map(type, values)) != {str} or not _is_text(values):
        return None
    return np.array([one_text(value) for value in values], dtype=object)


def _is_text(values: Sequence[str]) -> bool:
    try:
        "".join(values).encode()
    except UnicodeEncodeError:  # half of a pair, which pandas refuses
        return False
    return True
