"""How large a table is that a body stands for, asked before anybody makes it.

A short text can name a large table: records of which each has another key, a header with rows that
leave most of it out, a Parquet file of one value ten million times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from io import BytesIO
from typing import Any

from selfheal_cli.errors import RequestRefused
from selfheal_cli.serve.http.tables import RECORDS, SPLIT

FORMATS = (SPLIT, RECORDS, "instances", "inputs")
OTHERS = 1_000  # columns that a table may have beside those of the model
FEWEST_CELLS = 1_000_000  # that are always allowed
UNPACKED_BYTES = 200_000_000
QUOTED = re.compile(rb'"[^"]*"')


def require_extent(body: bytes, content_type: str | None, inputs: int, most_rows: int) -> None:
    """Raise `RequestRefused` for a table that is too large: more than ``most_rows`` rows, far more
    columns than the model's ``inputs``, or too many cells. What is no table at all is MLflow's to
    judge.
    """
    kind = (content_type or "").partition(";")[0].strip()
    if kind == "application/json":
        rows, columns = _of_json(body)
    elif kind == "text/csv":
        rows, columns = _of_csv(body)
    elif kind == "application/vnd.apache.parquet":
        rows, columns = _of_parquet(body)
    else:
        return
    require_rows(rows, most_rows)
    _require_columns(columns, inputs + OTHERS)
    most_cells = max(FEWEST_CELLS, 2 * most_rows * inputs)
    if rows * columns > most_cells:
        raise _too_large(
            f"{rows} rows of {columns} columns; at most {most_cells} values a request are allowed",
            "values",
        )


def require_rows(rows: int, most: int) -> None:
    """Raise `RequestRefused` where a request has too many."""
    if rows > most:
        raise _too_large(
            f"{rows} rows; at most {most} a request are allowed: send them in parts", "rows"
        )


def _require_columns(columns: int, most: int) -> None:
    if columns > most:
        raise _too_large(f"{columns} columns; at most {most} are allowed", "columns")


def _too_large(message: str, reason: str) -> RequestRefused:
    return RequestRefused(message, status=413, code="REQUEST_LIMIT_EXCEEDED", reason=reason)


def _of_json(body: bytes) -> tuple[int, int]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return 0, 0
    if not isinstance(document, dict):
        return 0, 0
    extents = [_of(document[name], split=name == SPLIT) for name in FORMATS if name in document]
    return max(extents, default=(0, 0))


def _of(content: Any, *, split: bool) -> tuple[int, int]:
    """Rows and columns of a table in JSON."""
    if split and isinstance(content, dict):
        rows, columns = _of(content.get("data"), split=False)
        names = (content.get("index"), content.get("columns"))
        more = [len(one) if isinstance(one, Collection) else 0 for one in names]
        return max(rows, more[0]), max(columns, more[1])
    if isinstance(content, list):
        return len(content), _widest(content)
    if isinstance(content, dict):
        return _widest(content.values()), len(content)
    return 0, 0


def _widest(parts: Collection[Any]) -> int:
    """How many places parts of a table need beside one another: a dict's keys have one each."""
    keys: set[str] = set().union(*(one for one in parts if isinstance(one, dict)))
    longest = max((len(one) for one in parts if isinstance(one, list)), default=1)
    return max(len(keys), longest)


def _of_csv(body: bytes) -> tuple[int, int]:
    """Rows below the header, and fields of the widest line; what is in quotes holds neither."""
    lines = [line for line in QUOTED.sub(b"", body).splitlines() if line.strip()]
    return max(len(lines) - 1, 0), max((line.count(b",") for line in lines), default=0) + 1


def _of_parquet(body: bytes) -> tuple[int, int]:
    """By the file's footer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        footer = pq.ParquetFile(BytesIO(body)).metadata
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
        unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
        repeated = {
            chunk.path_in_schema: chunk.total_uncompressed_size * footer.num_rows
            for chunk in chunks
            if chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page
        }
        if unpacked <= UNPACKED_BYTES and footer.num_rows and _is_long(repeated):
            unpacked = _text_bytes(body, repeated)
    except (pa.ArrowException, OSError, ValueError):
        return 0, 0
    if unpacked > UNPACKED_BYTES:
        raise _too_large(
            f"{unpacked} bytes when unpacked; at most {UNPACKED_BYTES} are allowed", "values"
        )
    return footer.num_rows, footer.num_columns


def _is_long(repeated: Mapping[str, int]) -> bool:
    return sum(repeated.values()) > UNPACKED_BYTES


def _text_bytes(body: bytes, names: Collection[str]) -> int:
    """Bytes of the texts that stand in a file once each and are used in many rows."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = sorted(names)
    table = pq.read_table(BytesIO(body), columns=wanted, read_dictionary=wanted)
    total = 0
    for column in table.columns:
        for chunk in column.chunks:
            if hasattr(chunk, "dictionary"):
                lengths = pc.take(pc.binary_length(chunk.dictionary), chunk.indices)
                total += pc.sum(pc.cast(lengths, "int64")).as_py() or 0
    return total
