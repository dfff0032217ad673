"""Every source x every check: the same rows come out of each form of the same table."""

from __future__ import annotations

import string
import tempfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import DEPTH
from tests.sources.kinds import BOUNDED, as_lines, numbers, opened, plain, stream, written
from tests.sources.test_table import same, same_rows

Open = Callable[[pd.DataFrame], Any]
# a text that CSV does not read as a number or as a missing value
WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=4).map(lambda text: f"x{text}")
NUMBERS = st.floats(-1e9, 1e9) | st.integers(-(10**9), 10**9).map(float)


@pytest.fixture(params=[*BOUNDED, "stream"])
def open_frame(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a frame in this form; a third of its rows train, batches of 10 stream."""

    def open_it(frame: pd.DataFrame) -> Any:
        if request.param == "stream":
            lines = as_lines(frame)
            return stream([lines[:50], 0.1, lines[50:]], train_rows=len(frame) // 3)
        named = written(request.param, frame, tmp_path)
        return opened(named.model_copy(update={"train_fraction": 1 / 3}))

    return open_it


def test_every_row_is_trained_on_or_streamed_in_order(open_frame: Open) -> None:
    source = open_frame(plain(96))
    trained = np.concatenate([rows.columns["number"] for rows in source.training()])
    assert trained.tolist() == list(range(32))
    assert list(chain.from_iterable(numbers(source.batches()))) == list(range(32, 96))


def test_batches_are_full_but_the_last_and_counted_from_one(open_frame: Open) -> None:
    batches = list(open_frame(plain(96)).batches())
    assert [batch.index for batch in batches] == list(range(1, 8))
    assert [len(batch.rows) for batch in batches] == [10] * 6 + [4]


def test_inputs_labels_and_columns_have_their_types(open_frame: Open) -> None:
    source = open_frame(plain(96))
    (rows, *_) = (batch.rows for batch in source.batches())
    assert source.labels == ("no", "yes")
    assert (rows.x.dtype, rows.y.dtype) == (np.float32, np.int8)
    assert rows.x.shape == (10, source.encoding.width) == (10, 6)
    assert rows.y.tolist() == [0, 1] * 5
    assert rows.columns["wave"].dtype == np.float64
    assert rows.columns["kind"][:2].tolist() == ["phone", "web"]


def test_what_was_not_as_in_training_is_counted(open_frame: Open) -> None:
    frame = plain(96)
    frame.loc[frame.index >= 90, "kind"] = "fax"
    frame.loc[95, "wave"] = 40.0
    source = open_frame(frame)
    assert source.notes() == {}
    list(source.batches())
    wave, later = frame["wave"][:32], frame.iloc[32:]
    outside = int(((later["wave"] < wave.min()) | (later["wave"] > wave.max())).sum())
    assert outside >= 1
    assert source.notes() == {
        "missing values": later[["wave", "kind"]].isna().to_numpy().sum(),
        "unseen categories": 6,
        "values out of the training range": 64 + outside,
    }
    assert source.departures() == {
        "number": {"values out of the training range": 64},
        "kind": {"unseen categories": 6},
        "wave": {"values out of the training range": outside},
    }


def test_the_contract_says_what_training_rows_held(open_frame: Open) -> None:
    contract = open_frame(plain(96)).contract
    number, wave, kind = contract.columns
    assert (number.low, number.high, number.optional) == (0.0, 31.0, False)
    assert wave.optional
    assert (kind.categories, kind.optional) == (("phone", "shop", "web"), True)


@pytest.mark.parametrize("form", BOUNDED)
def test_from_any_batch_on_the_same_rows_come(form: str, tmp_path: Path) -> None:
    source = opened(written(form, plain(95), tmp_path))
    whole = list(source.batches())
    for start in (1, 3, len(whole), len(whole) + 1):
        assert same(list(source.batches(start)), whole[start - 1 :])


@pytest.mark.parametrize("form", BOUNDED)
def test_fewer_batches_can_be_asked_for(form: str, tmp_path: Path) -> None:
    source = opened(written(form, plain(95), tmp_path), batches=2)
    assert source.batch_count == len(list(source.batches())) == 2


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(24, 40))

    def column(values: st.SearchStrategy[Any]) -> Any:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    return pd.DataFrame(
        {
            "number": column(NUMBERS),
            "wave": pd.Series(column(NUMBERS | st.none()), dtype="float64"),
            "kind": pd.Series(column(WORDS | st.none()), dtype="str"),
            "y": ["no", "yes"] * (rows // 2) + ["no"] * (rows % 2),
        }
    )


@settings(max_examples=4 * DEPTH)
@given(frame=tables())
def test_csv_parquet_ndjson_and_sql_give_the_same_rows(frame: pd.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as name:
        sources = [opened(written(form, frame, Path(name)), batch_size=5) for form in BOUNDED]
        lines = as_lines(frame)
        streamed = stream([lines], batch_size=5, train_rows=len(frame) // 4)
        (first, *others) = sources
        for other in (*others, streamed):
            assert other.encoding == first.encoding
            assert other.contract == first.contract
            assert other.labels == first.labels
            trained = zip(first.training(), other.training(), strict=True)
            assert all(same_rows(one, two) for one, two in trained)
        for other in others:
            assert same(list(first.batches()), list(other.batches()))
