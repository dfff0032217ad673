"""A file as a source: many classes, labels that are not there yet, and the times of both."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import TableSettings, checked
from selfheal_cli.errors import ConfigurationError, DataError
from selfheal_cli.sources.table_file import CHUNK_ROWS
from tests.sources.test_table import KNOWN_FILES, opened, plain, saved


@pytest.mark.parametrize("suffix", KNOWN_FILES)
def test_more_than_two_classes_are_positions_in_the_labels(tmp_path: Path, suffix: str) -> None:
    frame = plain(80)
    frame["y"] = [(10, 9, 100, 2)[n % 4] for n in range(80)]
    source = opened(saved(tmp_path, frame, f"t.{suffix}"))
    assert source.labels == ("2", "9", "10", "100")
    for rows in (*source.training(), *(batch.rows for batch in source.batches())):
        assert rows.y.dtype == np.int8
        assert rows.y.tolist() == [(2, 1, 3, 0)[int(n) % 4] for n in rows.columns["number"]]


def test_64_classes_are_allowed_and_65_are_not(tmp_path: Path) -> None:
    frame = plain(400)
    frame["y"] = frame["number"] % 64
    source = opened(saved(tmp_path, frame, "few.csv"))
    assert len(source.labels) == 64
    assert max(batch.rows.y.max() for batch in source.batches()) == 63
    frame["y"] = frame["number"] % 65
    with pytest.raises(DataError, match=r"target 'y' has 65 values .*; 2 to 64 are allowed"):
        opened(saved(tmp_path, frame, "many.csv"))


def test_a_positive_of_more_than_two_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--positive 1 is for a target of two values; it has 3"):
        opened(saved(tmp_path, plain(80).assign(y=[0, 1, 2, 1] * 20)), positive="1")


def test_a_class_of_the_stream_that_training_never_saw_is_a_label_that_nobody_knows(
    tmp_path: Path,
) -> None:
    frame = plain(80).astype({"y": "str"})
    frame.loc[70, "y"] = "new"
    source = opened(saved(tmp_path, frame))
    y = np.concatenate([batch.rows.y for batch in source.batches()])
    assert np.flatnonzero(y < 0).tolist() == [50]
    assert source.notes()["labels that training did not have, taken as missing"] == 1


def late(rows: int) -> pd.DataFrame:
    """`plain` rows of one a minute, whose labels come after ten minutes; every fifth has none."""
    frame = plain(rows).astype({"y": "Int64"})
    start = pd.Timestamp("2026-01-01T00:00:00Z")
    frame["at"] = start + pd.to_timedelta(60 * frame["number"], unit="s")
    frame["late"] = frame["at"] + pd.to_timedelta(600, unit="s")
    frame.loc[frame["number"] % 5 == 0, "late"] = pd.NaT
    frame.loc[(frame["number"] % 5 == 0) & (frame["number"] >= rows // 4), "y"] = pd.NA
    return frame


LATE = {"unlabelled": True, "time": "at", "label_time": "late"}


@pytest.mark.parametrize("suffix", KNOWN_FILES)
def test_batches_know_their_time_and_when_each_label_comes(tmp_path: Path, suffix: str) -> None:
    source = opened(saved(tmp_path, late(95), f"t.{suffix}"), **LATE)
    assert source.encoding.names == ["number", "wave", "kind"]
    start = pd.Timestamp("2026-01-01T00:00:00Z").timestamp()
    for batch in source.batches():
        number = batch.rows.columns["number"]
        assert batch.now == start + 60 * number.max()
        assert batch.label_at is not None
        known = number % 5 != 0
        np.testing.assert_array_equal(batch.label_at[known], start + 60 * number[known] + 600)
        assert np.isnan(batch.label_at[~known]).all()
        np.testing.assert_array_equal(batch.rows.y, np.where(known, number % 2, -1))


def test_a_table_without_times_has_batches_without_times(tmp_path: Path) -> None:
    batch = next(opened(saved(tmp_path, plain(80))).batches())
    assert (batch.now, batch.label_at) == (None, None)


def test_a_table_with_times_of_rows_alone_has_no_times_of_labels(tmp_path: Path) -> None:
    batch = next(opened(saved(tmp_path, plain(80).assign(at=range(80))), time="at").batches())
    assert (batch.now, batch.label_at) == (29.0, None)


def test_a_label_that_is_not_in_the_table_never_comes(tmp_path: Path) -> None:
    frame = late(80)
    frame["late"] = frame["at"]
    batch = next(opened(saved(tmp_path, frame), **LATE).batches())
    assert batch.label_at is not None
    np.testing.assert_array_equal(np.isnan(batch.label_at), batch.rows.y == -1)


def test_times_run_across_the_chunks_of_the_file(tmp_path: Path) -> None:
    rows = 2 * CHUNK_ROWS + 500
    frame = plain(rows).assign(at=np.arange(rows), late=np.arange(rows) + 7)
    source = opened(saved(tmp_path, frame), batch_size=3_000, time="at", label_time="late")
    for batch in source.batches():
        number = batch.rows.columns["number"]
        assert batch.now == number.max()
        np.testing.assert_array_equal(batch.label_at, number + 7)


@given(unknown=st.sets(st.integers(0, 59)), batch_size=st.integers(2, 9), start=st.integers(1, 5))
def test_missing_targets_are_unknown_in_the_stream_and_left_out_of_training(
    unknown: set[int], batch_size: int, start: int
) -> None:
    frame = plain(60).astype({"y": "Int64"})
    frame.loc[sorted(unknown), "y"] = pd.NA
    known = [n for n in range(20) if n not in unknown]
    if len({n % 2 for n in known}) < 2:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = saved(Path(folder), frame)
        source = opened(path, unlabelled=True, train_fraction=1 / 3, batch_size=batch_size)
        assert source.labels == ("0", "1")
        assert [n for rows in source.training() for n in rows.columns["number"]] == known
        left_out = source.notes().get("rows of the training part without a label, left out", 0)
        assert left_out == 20 - len(known)
        for batch in source.batches(start):
            expected = [-1 if n in unknown else n % 2 for n in batch.rows.columns["number"]]
            assert batch.rows.y.tolist() == expected


def test_a_missing_target_in_the_stream_is_refused_unless_labels_may_be_missing(
    tmp_path: Path,
) -> None:
    frame = plain(80).astype({"y": "Int64"})
    frame.loc[70, "y"] = pd.NA
    path = saved(tmp_path, frame)
    with pytest.raises(DataError, match="row 71, column 'y': the target is missing; every row"):
        opened(path, reject_misfits=False)
    assert opened(path).notes()["put aside: column 'y' has no label"] == 1
    assert opened(path, unlabelled=True).batch_count == 6


def test_a_time_that_goes_backwards_is_refused_before_anything_is_streamed(tmp_path: Path) -> None:
    frame = plain(80).assign(at=[*range(79), 5])
    with pytest.raises(DataError, match=r"t\.csv: row 80, column 'at': '5' is before the time of"):
        opened(saved(tmp_path, frame), time="at", reject_misfits=False)


def test_a_label_time_without_a_time_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="options: label_time = 'late': it needs time, th"):
        checked(
            TableSettings, {"path": "t.csv", "target": "y", "label_time": "late"}, where="options"
        )
