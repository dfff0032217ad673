"""JSON objects, one a line: as a file that is a table, and as lines that come one by one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from selfheal_cli.errors import DataError
from selfheal_cli.sources.first_contract import as_text
from selfheal_cli.sources.table_file import CHUNK_ROWS, MOST_COLUMNS, Broken, require_names
from selfheal_cli.sources.values import RowContract, parsed, without_halves
from selfheal_cli.sources.violation import MOST_SHOWN, UNREADABLE, at

LONGEST_LINE = 1_000_000  # bytes
MARK = b"\xef\xbb\xbf"  # that some programs put before UTF-8
EXACT = 2**53  # float64 holds whole numbers up to it exactly
Object = dict[str, Any]


def parse_object(line: bytes, contract: RowContract = 2) -> Object:
    """A line as an object; raises ValueError saying what is wrong with it.

    NaN and Infinity, which Python and others write and JSON has not, are missing values.

    >>> parse_object(b'{"amount": 1.5}')
    {'amount': 1.5}
    """
    if len(line) > LONGEST_LINE:
        raise ValueError(f"longer than {LONGEST_LINE:,} bytes")
    try:
        text = line.removeprefix(MARK).decode("utf-8")
        row = (_DECODER if contract == 2 else _STRICT).decode(text)
    except UnicodeDecodeError as exc:
        raise ValueError(f"not UTF-8 text ({exc.reason} at byte {exc.start + 1})") from exc
    except json.JSONDecodeError as exc:
        raise ValueError(f"not JSON ({exc.msg} at character {exc.colno})") from exc
    except _NoNumber as exc:
        raise ValueError(str(exc)) from exc
    except ValueError as exc:  # Python does not read whole numbers of thousands of digits
        raise ValueError("a number of too many digits") from exc
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object is expected, not {_shown(row)}")
    if len(row) > MOST_COLUMNS:
        raise ValueError(f"{len(row):,} columns; at most {MOST_COLUMNS:,} are read")
    nested = next((name for name, value in row.items() if isinstance(value, dict | list)), None)
    if nested is not None:
        raise ValueError(
            f"column '{nested}' holds {_shown(row[nested])}; a number or a text is read"
        )
    return _whole(row) if b"\\u" in line else row


def as_frame(
    objects: Sequence[Object], columns: Sequence[str], contract: RowContract = 2
) -> pd.DataFrame:
    """Objects as rows; by contract 1 a column of numbers as float64, any other as text."""
    if contract == 2:
        held = {name: [fields.get(name) for fields in objects] for name in columns}
        return pd.DataFrame({n: pd.Series(v, dtype="object") for n, v in held.items()})
    return pd.DataFrame(
        {name: _column([fields.get(name) for fields in objects]) for name in columns}
    )


def as_floats(values: pd.Series[Any]) -> pd.Series[float]:
    """A column as float64; raises ValueError for a text that is no number."""
    return pd.to_numeric(values).astype("float64")


class NdjsonTable:
    """A file with a JSON object a line; blank lines are passed over.

    Its columns are those of its first `CHUNK_ROWS` rows. One that each of these has must not be
    absent later; null is a missing value, and so is an absent one that some of them lack too.
    """

    def __init__(
        self,
        path: Path,
        where: str | None = None,
        place: Callable[[int], str] | None = None,
        contract: RowContract = 2,
    ) -> None:
        name = where or str(path)
        self.path, self.where, self.contract = path, name, contract
        self._place = place or (lambda row: f"{name}: row {row}")
        if not path.is_file():
            raise DataError(f"{self.where}: no such file; give a JSON object a line")
        self._broken: dict[int, Broken] = {}
        self._late: dict[str, int] = {}  # columns that the first rows lack, with their first row
        first = [one for row, one in islice(self._objects(), CHUNK_ROWS) if row not in self._broken]
        self.columns = list(dict.fromkeys(name for fields in first for name in fields))
        if not first:
            raise DataError(self._nothing())
        self.required = frozenset(first[0]).intersection(*first)
        require_names(self.columns, where=self.where)

    def place(self, row: int) -> str:
        """Where the row is found; blank lines are not counted."""
        return self._place(row)

    def keep(self, path: Path) -> None:
        """Write all of it to a file."""
        shutil.copyfile(self.path, path)

    def chunks(self, numeric: Sequence[str] | None, skip: int = 0) -> Iterator[pd.DataFrame]:
        """Frames of rows, as in `TableFile.chunks`."""
        objects = self._objects()
        for _ in islice(objects, skip):
            pass
        while pending := list(islice(objects, CHUNK_ROWS)):
            first, rows = pending[0][0], [one for _, one in pending]
            self._check_columns(rows, first)
            self._require_most(first, len(rows))
            frame = as_frame(rows, self.columns, self.contract)
            for name in numeric or ():
                frame[name] = self._numbers(frame[name], first)
            yield frame

    def notes(self) -> dict[str, int]:
        """Counts of rows that are left out, by reason."""
        first = ", ".join(f"'{name}' in row {row}" for name, row in self._late.items())
        left_out = f"columns that the first {CHUNK_ROWS:,} rows lack, left out ({first})"
        return {left_out: len(self._late)} if self._late else {}

    def broken(self) -> Mapping[int, Broken]:
        """Rows that cannot be read, by number, among those read so far."""
        return self._broken

    def _nothing(self) -> str:
        if self._broken:
            row = min(self._broken)
            return f"{self.place(row)}: {self._broken[row].reason}"
        return f"{self.where}: the file is empty; it needs a JSON object a line"

    def _objects(self) -> Iterator[tuple[int, Object]]:
        """Each row's number and object."""
        row = 0
        with self.path.open("rb") as stream:
            while line := stream.readline(LONGEST_LINE + 2):
                if not line.strip():
                    continue
                row += 1
                rest = line
                while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
                    rest = stream.readline(LONGEST_LINE + 2)  # one line is one row
                try:
                    yield row, parse_object(line.rstrip(b"\r\n"), self.contract)
                except ValueError as exc:
                    if self.contract == 1:
                        raise DataError(f"{self.place(row)}: {exc}") from exc
                    text = line.decode("utf-8", "replace")[:MOST_SHOWN]
                    self._broken[row] = Broken(str(exc), UNREADABLE, text)
                    yield row, {}

    def _check_columns(self, rows: Sequence[Object], first: int) -> None:
        known = frozenset(self.columns)
        for number, one in enumerate(rows, first):
            keys = one.keys()
            if self.required <= keys <= known or number in self._broken:
                continue
            absent = sorted(self.required - keys)
            if absent:
                reason = f"column '{absent[0]}' is missing"
                hint = "; the rows before have it: give null where nothing is known"
                if self.contract == 1:
                    raise DataError(f"{self.place(number)}: {reason}{hint}")
                text = json.dumps(one, ensure_ascii=False)[:MOST_SHOWN]
                self._broken[number] = Broken(reason + hint, reason, text)
            for new in sorted(keys - known):
                if self.contract == 1:
                    raise DataError(
                        f"{self.place(number)}: column '{new}' first occurs here, after more than "
                        f"{CHUNK_ROWS:,} rows: give it from the start, as null"
                    )
                self._late.setdefault(new, number)

    def _require_most(self, first: int, count: int) -> None:
        """Raise `DataError` for the first of the rows that are broken where most of them are."""
        broken = [row for row in range(first, first + count) if row in self._broken]
        if len(broken) > count / 2:
            raise DataError(at(self.place(broken[0]), self._broken[broken[0]].reason))

    def _numbers(self, values: pd.Series[Any], first: int) -> pd.Series[float]:
        if self.contract == 2:
            numbers, texts = parsed(values)
            if texts.any():
                at = int(np.argmax(texts))
                raise DataError(
                    f"{self.place(first + at)}, column '{values.name}': {values.iloc[at]!r} is "
                    "not a number"
                )
            return pd.Series(numbers, index=values.index)
        try:
            return as_floats(values)
        except ValueError as exc:
            bad = values.notna() & pd.to_numeric(values, errors="coerce").isna()
            at = int(np.flatnonzero(bad.to_numpy())[0])
            raise DataError(
                f"{self.place(first + at)}, column '{values.name}': {values.iloc[at]!r} is not a "
                "number"
            ) from exc


def _column(values: list[Any]) -> pd.Series[Any]:
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {int, float} and not _inexact(values, kinds):
        return pd.Series(values, dtype="float64")
    return as_text(pd.Series(values, dtype="object"))


def _inexact(values: list[Any], kinds: set[type]) -> bool:
    """Whether there are whole numbers that float64 does not tell apart."""
    return int in kinds and any(type(value) is int and abs(value) > EXACT for value in values)


def _shown(value: Any) -> str:
    kinds = {list: "a list", dict: "an object", str: "a text", bool: "true or false"}
    return "null" if value is None else kinds.get(type(value), "a number")


class _NoNumber(ValueError):
    """A constant that Python's reader knows and JSON does not."""


def _refuse(constant: str) -> float:
    raise _NoNumber(f"not JSON ({constant} is no JSON number)")


def _whole(row: Object) -> Object:
    """Texts without half a surrogate pair, which is no Unicode and cannot be written."""
    return {
        without_halves(name): without_halves(value) if isinstance(value, str) else value
        for name, value in row.items()
    }


_STRICT: json.JSONDecoder = json.JSONDecoder(parse_constant=_refuse)
_DECODER = json.JSONDecoder()
