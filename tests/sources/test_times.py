"""Times of rows and labels: numbers, timestamps, and the first mistake in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.errors import DataError
from selfheal_cli.sources.times import Times, as_seconds
from selfheal_cli.sources.violation import SchemaViolation

ZONES = st.none() | st.integers(-14 * 60, 14 * 60).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)
DAY = 86_400.0


def require_none(violations: list[SchemaViolation]) -> None:
    """As a table of which no row may be put aside."""
    for one in sorted(violations, key=lambda violation: violation.row):
        raise DataError(one.message(f"t.csv: row {one.row}"))


def looked_at(
    at: list[object], late: list[object] | None = None, *, chunk: int = 1_000, dtype: object = "str"
) -> tuple[list[float], list[float] | None]:
    """What is made of columns ``at`` and ``late``, checked in chunks."""
    columns = {"at": at} if late is None else {"at": at, "late": late}
    frame = pd.DataFrame(columns, dtype=dtype)
    times = Times("at", None if late is None else "late")
    for start in range(0, len(frame), chunk):
        require_none(times.check(frame.iloc[start : start + chunk], start))
    seconds, label_found = times.of(frame)
    return seconds.tolist(), None if label_found is None else label_found.tolist()


def test_numbers_are_taken_as_they_are() -> None:
    assert looked_at(["-1", "2.5", " 2.5", "1e18"])[0] == [-1.0, 2.5, 2.5, 1e18]
    assert looked_at([1, 2, 3], dtype="int64")[0] == [1.0, 2.0, 3.0]


def test_timestamps_are_seconds_since_1970_in_utc() -> None:
    stamps = ["1970-01-02", "1970-01-02 01:00", "1970-01-02T03:00:00+01:00", "1970-01-02T02:00:00Z"]
    assert looked_at(stamps)[0] == [DAY, DAY + 3600, DAY + 7200, DAY + 7200]


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Vienna"])
def test_columns_of_a_timestamp_type_are_as_their_texts(zone: str | None) -> None:
    days = pd.Series(pd.date_range("2026-03-28", periods=4, freq="12h", tz=zone))
    frame = pd.DataFrame({"at": days})
    times = Times("at", None)
    times.check(frame, 0)
    np.testing.assert_array_equal(times.of(frame)[0], [day.timestamp() for day in days])
    np.testing.assert_array_equal(as_seconds(days.dt.date), as_seconds(days.dt.strftime("%F")))


@given(moment=st.datetimes(timezones=ZONES))
def test_every_timestamp_that_python_writes_is_read(moment: datetime) -> None:
    known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    expected = (known - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    assert as_seconds(pd.Series([moment.isoformat(), str(moment)])).tolist() == [expected] * 2


@given(text=st.text(max_size=30))
def test_any_text_is_read_or_is_no_time(text: str) -> None:
    (seconds,) = as_seconds(pd.Series([text], dtype="object"))
    assert np.isnan(seconds) or np.isfinite(seconds)


def test_words_that_mean_another_time_each_day_are_no_times() -> None:
    assert np.isnan(as_seconds(pd.Series(["now", "today", "NaT", ""]))).all()


def test_a_label_that_never_comes_has_no_time() -> None:
    seconds = looked_at(["1", "2", "3"], ["4", None, "  "], dtype="object")[1]
    np.testing.assert_array_equal(seconds, [4.0, np.nan, np.nan])


def test_label_times_may_come_in_any_order() -> None:
    assert looked_at(["1", "2", "3"], ["9", "4", "5"])[1] == [9.0, 4.0, 5.0]


def test_without_a_label_column_there_are_no_label_times() -> None:
    assert looked_at(["1", "2"]) == ([1.0, 2.0], None)


def test_rows_of_the_same_time_are_in_order() -> None:
    assert looked_at(["1", "1", "2"], chunk=1)[0] == [1.0, 1.0, 2.0]


@given(row=st.integers(2, 12), chunk=st.integers(1, 13))
def test_a_time_that_goes_backwards_names_row_column_and_value(row: int, chunk: int) -> None:
    at: list[object] = [str(number) for number in range(100, 112)]
    at[row - 1] = "99.5"
    with pytest.raises(
        DataError,
        match=rf"t\.csv: row {row}, column 'at': '99\.5' is before the time of the row above it; "
        "sort the rows by time",
    ):
        looked_at(at, chunk=chunk)


@given(row=st.integers(1, 12), chunk=st.integers(1, 13))
def test_a_missing_time_names_row_and_column(row: int, chunk: int) -> None:
    at: list[object] = [f"2026-01-{day:02}" for day in range(1, 13)]
    at[row - 1] = None
    with pytest.raises(DataError, match=rf"t\.csv: row {row}, column 'at': the time is missing"):
        looked_at(at, chunk=chunk)


@pytest.mark.parametrize("value", ["soon", "31.01.2026", "2026-02-30", "2026-01-01T25:00", "now"])
def test_a_text_that_is_no_timestamp_names_row_column_and_value(value: str) -> None:
    with pytest.raises(
        DataError,
        match=rf"t\.csv: row 2, column 'at': '{value}' is no time; an ISO timestamp such as 2026-",
    ):
        looked_at(["2026-01-01", value])


@pytest.mark.parametrize("value", ["soon", "inf", "1e400", "2026-01-01", "0x10", "True"])
def test_a_text_that_is_no_number_names_row_column_and_value(value: str) -> None:
    with pytest.raises(
        DataError, match=rf"t\.csv: row 2, column 'at': '{value}' is no time; a number is expected"
    ):
        looked_at(["1", value])


@pytest.mark.parametrize(
    ("at", "late", "wanted"),
    [("2026-01-01", "17e8", "an ISO timestamp"), ("1", "2026-01-01", "a number")],
)
def test_a_label_time_in_another_unit_is_refused(at: str, late: str, wanted: str) -> None:
    with pytest.raises(
        DataError, match=rf"t\.csv: row 1, column 'late': '{late}' is no time; {wanted}"
    ):
        looked_at([at], [late])


def test_durations_are_no_times() -> None:
    frame = pd.DataFrame({"at": pd.to_timedelta([1, 2], unit="s")})
    with pytest.raises(DataError, match="row 1, column 'at': '0 days 00:00:01' is no time"):
        require_none(Times("at", None).check(frame, 0))


def test_numbers_in_a_table_of_timestamps_of_another_kind_are_refused() -> None:
    frame = pd.DataFrame({"at": [1, 2], "late": pd.to_datetime(["2026-01-01", "2026-01-02"])})
    with pytest.raises(DataError, match=r"row 1, column 'late': '2026-01-01 .* a number is"):
        require_none(Times("at", "late").check(frame, 0))


def test_an_empty_chunk_says_nothing() -> None:
    times = Times("at", None)
    times.check(pd.DataFrame({"at": []}), 0)
    times.check(pd.DataFrame({"at": [1.0]}), 0)
