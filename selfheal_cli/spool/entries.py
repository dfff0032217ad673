"""What a log holds: answered requests, labels told of them, and up to where it was read."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray, LabelArray

_HEAD = struct.Struct("<I")
Corrects = Callable[[str], bool]  # whether who told a label is corrected by who tells it now
REVOKED = " (revoked)"  # behind the name of who told a label that was taken back
NOBODY_ASKED = -1.0  # threshold of rows without an answer


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """The rows of one request with their answers.

    ``columns`` are raw, (n,) each: float64 numbers or texts, None where missing.
    ``probabilities`` (n,) or (n, K) by ``snapshot``, which decided at ``threshold``. ``keys`` name
    the rows for labels that come later, where rows have keys; ``at`` is in seconds since 1970.
    ``number`` is its place in the spool, 0 before it is there. ``y`` (n,) are labels that come
    with the rows, -1 where unknown. `unanswered` rows are answered by whoever reads them.
    """

    request: str
    columns: Columns
    probabilities: FloatArray
    snapshot: str
    threshold: float
    at: float
    keys: tuple[str, ...] | None = None
    number: int = 0
    y: LabelArray | None = None

    @classmethod
    def unanswered(
        cls, request: str, columns: Columns, rows: int, classes: int, at: float, y: LabelArray
    ) -> LoggedRequest:
        """Rows that somebody shows, with their labels, and nobody asked about."""
        nothing = np.zeros(rows if classes == 2 else (rows, classes), dtype=np.float32)
        return cls(request, columns, nothing, "", NOBODY_ASKED, at, y=y)

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
        columns = dict(zip(header["numbers"], matrix, strict=True))
        columns |= {
            name: np.array(values, dtype=object) for name, values in header["texts"].items()
        }
        return {name: columns[name] for name in header["order"]}
    except (struct.error, ValueError, KeyError, TypeError) as exc:
        raise DataError(f"rows in the spool cannot be read ({exc})") from exc


@dataclass(frozen=True, slots=True)
class Feedback:
    """A row's class: the row by ``key``, or by ``request`` and its ``place`` in it."""

    y: int
    request: str | None = None
    place: int = 0
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """Counts of labels: ``joined`` to their rows; ``repeated`` for rows that have one already,
    ``other`` of them another one that does not count, ``corrected`` one that counts from now on;
    ``unknown``, whose row never came or was removed. ``strangers`` are the keys of the latter.
    """

    joined: int
    repeated: int
    unknown: int
    other: int = 0
    strangers: tuple[str, ...] = ()
    corrected: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """Counts of appended requests: ``new`` ones, and ``conflicting`` rows that were not kept,
    because their request's id belongs to other rows already.
    """

    new: int
    conflicting: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to where a spool was read: all requests up to ``answered``, ``place`` rows of the next
    one, and the labels up to ``labels``.

    ``spool`` is the identity of its file, and ``mark`` that of the request that was read last (see
    `mark_of`); both are 0 where they were not recorded.
    """

    answered: int = 0
    place: int = 0
    labels: int = 0
    spool: int = 0
    mark: int = 0

    @property
    def last(self) -> int:
        """Number of the request that was read last, if only in part."""
        return self.answered + (self.place > 0)

    def is_beyond(self, other: Cursor) -> bool:
        """Whether more rows were read."""
        return (self.answered, self.place) > (other.answered, other.place)

    def as_dict(self) -> dict[str, int]:
        """The offsets that are recorded with a batch."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Label:
    """A joined label of row ``place`` of the request ``answered``; ``number`` counts labels. A
    label that was taken back is -1.
    """

    number: int
    answered: int
    place: int
    y: int


def mark_of(request: str, at: float) -> int:
    """A hash by which a request is recognised, by its id and its time in seconds."""
    text = f"{request}\n{at!r}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest())
