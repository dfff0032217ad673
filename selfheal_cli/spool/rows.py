"""Raw columns as bytes and back: a JSON header, then the numbers. No pickle."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray

_HEAD = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Answered:
    """The rows of one request and what they were answered.

    ``columns`` are raw, (n,) each: float64 numbers or texts, None where missing.
    ``probabilities`` (n,) or (n, K); ``snapshot`` is what decided, at ``threshold``. ``keys``
    names each row for labels that come later, where rows have names; ``at`` is in seconds since
    1970. ``number`` is its place in the spool, 0 before it is there.
    """

    request: str
    columns: Columns
    probabilities: FloatArray
    snapshot: str
    threshold: float
    at: float
    keys: tuple[str, ...] | None = None
    number: int = 0

    def __len__(self) -> int:
        return len(self.probabilities)


def pack_columns(columns: Columns) -> bytes:
    """Columns (n,) to bytes; the inverse of `unpack_columns`."""
    numbers = [name for name, values in columns.items() if values.dtype.kind != "O"]
    texts = {name: values.tolist() for name, values in columns.items() if name not in numbers}
    matrix = np.stack([columns[name] for name in numbers]) if numbers else np.empty((0, 0))
    header = {"order": list(columns), "numbers": numbers, "texts": texts, "rows": matrix.shape[1]}
    text = json.dumps(header).encode()
    return _HEAD.pack(len(text)) + text + matrix.astype("<f8", copy=False).tobytes()


def unpack_columns(data: bytes) -> Columns:
    """Bytes to columns (n,); raises `DataError` for what `pack_columns` did not write."""
    try:
        (length,) = _HEAD.unpack_from(data)
        header: dict[str, Any] = json.loads(data[_HEAD.size : _HEAD.size + length])
        matrix = np.frombuffer(data, "<f8", offset=_HEAD.size + length)
        matrix = matrix.reshape(len(header["numbers"]), header["rows"])
        found = dict(zip(header["numbers"], matrix, strict=True))
        found |= {name: np.array(values, dtype=object) for name, values in header["texts"].items()}
        return {name: found[name] for name in header["order"]}
    except (struct.error, ValueError, KeyError, TypeError) as exc:
        raise DataError(f"rows in the spool cannot be read ({exc})") from exc
