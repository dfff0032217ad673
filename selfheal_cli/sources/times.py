"""The times of a table's rows and of their labels: numbers as they are, or ISO timestamps."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selfheal_cli.sources.values import as_numbers
from selfheal_cli.sources.violation import SchemaViolation

Seconds = NDArray[np.float64]


class Times:
    """Two columns in one unit: numbers, or seconds since 1970 (UTC) for timestamps.

    The first row's time says which of the two the table has. A timestamp without a zone is UTC.
    """

    def __init__(self, time: str, label_time: str | None) -> None:
        self._time, self._label_time = time, label_time
        self._stamps: bool | None = None
        self._latest = -inf

    def check(self, frame: pd.DataFrame, offset: int) -> list[SchemaViolation]:
        """Look at the rows after the first ``offset``, chunk after chunk, before `of` is asked.

        Returns those whose time is missing, is none, or lies before that of an earlier row.
        """
        if not len(frame):
            return []
        times = frame[self._time]
        if self._stamps is None:
            self._stamps = not _is_number(times.iloc[:1])
        at = self._read(times)
        violations = self._no_times(times, at, _absent(times), offset)
        violations += self._falling(times, at, offset)
        if self._label_time is not None:
            label_times = frame[self._label_time]
            present = ~_absent(label_times)
            label_at = np.where(present, self._read(label_times), 0.0)
            violations += self._no_times(label_times, label_at, ~present, offset)
        return violations

    def of(self, frame: pd.DataFrame) -> tuple[Seconds, Seconds | None]:
        """Times (n,) of rows and of their labels, NaN for a label that never comes."""
        at = self._read(frame[self._time])
        return at, None if self._label_time is None else self._read(frame[self._label_time])

    def _read(self, values: pd.Series[Any]) -> Seconds:
        if self._stamps:
            return as_seconds(values)
        seconds = as_numbers(values) if _holds_numbers(values) else np.full(len(values), nan)
        return np.where(np.isfinite(seconds), seconds, nan)

    def _no_times(
        self, values: pd.Series[Any], at: Seconds, absent: NDArray[np.bool_], offset: int
    ) -> list[SchemaViolation]:
        expected = "an ISO timestamp such as 2026-01-31T08:30:00Z" if self._stamps else "a number"
        violations = []
        for place in np.flatnonzero(np.isnan(at)):
            reason = "the time is missing; every row needs one"
            if not absent[place]:
                reason = (
                    f"{str(values.iloc[place])!r} is no time; {expected} is expected, as in the "
                    f"first row's '{self._time}'"
                )
            row, column = offset + int(place) + 1, f"column '{values.name}'"
            violations.append(
                SchemaViolation(row, f"{column}: {reason}", f"{column} holds no time")
            )
        return violations

    def _falling(self, values: pd.Series[Any], at: Seconds, offset: int) -> list[SchemaViolation]:
        known = np.where(np.isnan(at), -inf, at)
        highest = np.maximum.accumulate(np.concatenate([[self._latest], known]))
        self._latest = float(highest[-1])
        kind = f"column '{self._time}' lies before that of an earlier row"
        return [
            SchemaViolation(
                offset + int(place) + 1,
                f"column '{self._time}': {str(values.iloc[place])!r} is before the time of the "
                "row above it; sort the rows by time",
                kind,
            )
            for place in np.flatnonzero((known < highest[:-1]) & ~np.isnan(at))
        ]


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


def in_seconds(values: pd.Series[Any]) -> Seconds:
    """A column of times (n,): numbers where all that are there are numbers, else timestamps."""
    seconds = as_numbers(values) if _holds_numbers(values) else np.full(len(values), nan)
    return as_seconds(values) if (np.isnan(seconds) & ~_absent(values)).any() else seconds


def _seconds(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _holds_numbers(values: pd.Series[Any]) -> bool:
    """Whether numbers or texts: pandas would make numbers of timestamps and durations too."""
    return pd.api.types.is_numeric_dtype(values) or _holds_texts(values)


def _holds_texts(values: pd.Series[Any]) -> bool:
    """Whether what is not missing are texts: pandas 2 has no type for texts with gaps."""
    return pd.api.types.is_string_dtype(values.dropna() if values.dtype == object else values)


def _is_number(values: pd.Series[Any]) -> bool:
    return _holds_numbers(values) and bool(np.isfinite(as_numbers(values)).all())


def _absent(values: pd.Series[Any]) -> NDArray[np.bool_]:
    absent = values.isna().to_numpy()
    if _holds_texts(values):
        absent = absent | (values.fillna("").astype("str").str.strip() == "").to_numpy()
    return np.asarray(absent, dtype=np.bool_)
