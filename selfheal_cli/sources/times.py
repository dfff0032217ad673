"""The times of a table's rows and of their labels: numbers as they are, or ISO timestamps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selfheal_cli.errors import DataError
from selfheal_cli.sources.files import as_numbers

Seconds = NDArray[np.float64]


class Times:
    """Two columns in one unit: numbers, or seconds since 1970 (UTC) for timestamps.

    The first row's time says which of the two the table has. A timestamp without a zone is UTC.
    """

    def __init__(
        self,
        where: str,
        time: str,
        label_time: str | None,
        *,
        place: Callable[[int], str] | None = None,
    ) -> None:
        self._place = place or (lambda row: f"{where}: row {row}")
        self._time, self._label_time = time, label_time
        self._stamps: bool | None = None
        self._latest: float | None = None

    def check(self, frame: pd.DataFrame, offset: int) -> None:
        """Look at the rows after the first ``offset``, chunk after chunk, before `of` is asked.

        Raises `DataError` naming file, row, column and value of a time that is missing, is none,
        or lies before that of an earlier row.
        """
        if not len(frame):
            return
        times = frame[self._time]
        if self._stamps is None:
            self._stamps = not _is_number(times.iloc[:1])
        at = self._read(times)
        self._require(times, at, _absent(times), offset)
        self._require_rising(times, at, offset)
        if self._label_time is not None:
            label_times = frame[self._label_time]
            present = ~_absent(label_times)
            label_at = np.where(present, self._read(label_times), 0.0)
            self._require(label_times, label_at, ~present, offset)

    def of(self, frame: pd.DataFrame) -> tuple[Seconds, Seconds | None]:
        """Times (n,) of rows and of their labels, NaN for a label that never comes."""
        at = self._read(frame[self._time])
        return at, None if self._label_time is None else self._read(frame[self._label_time])

    def _read(self, values: pd.Series[Any]) -> Seconds:
        if self._stamps:
            return as_seconds(values)
        seconds = as_numbers(values) if _holds_numbers(values) else np.full(len(values), nan)
        return np.where(np.isfinite(seconds), seconds, nan)

    def _require(
        self, values: pd.Series[Any], at: Seconds, absent: NDArray[np.bool_], offset: int
    ) -> None:
        bad = np.isnan(at)
        if not bad.any():
            return
        place = int(np.flatnonzero(bad)[0])
        where = f"{self._place(offset + place + 1)}, column '{values.name}'"
        if absent[place]:
            raise DataError(f"{where}: the time is missing; every row needs one")
        wanted = "an ISO timestamp such as 2026-01-31T08:30:00Z" if self._stamps else "a number"
        raise DataError(
            f"{where}: {str(values.iloc[place])!r} is no time; {wanted} is expected, "
            f"as in the first row's '{self._time}'"
        )

    def _require_rising(self, values: pd.Series[Any], at: Seconds, offset: int) -> None:
        before = np.concatenate([[at[0] if self._latest is None else self._latest], at[:-1]])
        falls = at < before
        if falls.any():
            place = int(np.flatnonzero(falls)[0])
            raise DataError(
                f"{self._place(offset + place + 1)}, column '{self._time}': "
                f"{str(values.iloc[place])!r} is before the time of the row above it; "
                "sort the rows by time"
            )
        self._latest = float(at[-1])


def as_seconds(values: pd.Series[Any]) -> Seconds:
    """ISO timestamps (n,) as seconds since 1970 (UTC); NaN where there is none.

    >>> as_seconds(pd.Series(["1970-01-02", "1970-01-01T01:00:00+01:00", "soon", None])).tolist()
    [86400.0, 0.0, nan, nan]
    """
    seconds = np.full(len(values), nan)
    held = values.to_numpy(dtype=object)
    for place in np.flatnonzero(values.notna().to_numpy()):
        seconds[place] = _seconds(str(held[place]))
    return seconds


def _seconds(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _holds_numbers(values: pd.Series[Any]) -> bool:
    """Whether numbers or texts: pandas would make numbers of timestamps and durations too."""
    return pd.api.types.is_numeric_dtype(values) or pd.api.types.is_string_dtype(values)


def _is_number(values: pd.Series[Any]) -> bool:
    return _holds_numbers(values) and bool(np.isfinite(as_numbers(values)).all())


def _absent(values: pd.Series[Any]) -> NDArray[np.bool_]:
    absent = values.isna().to_numpy()
    if pd.api.types.is_string_dtype(values):
        absent = absent | (values.fillna("").astype("str").str.strip() == "").to_numpy()
    return np.asarray(absent, dtype=np.bool_)
