"""Raw columns to inputs, and the encoding to JSON and back."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selfheal_cli.moments import Moments
from selfheal_cli.sources.encoding import (
    CLIP,
    CategoricalColumn,
    Column,
    Encoding,
    NumericColumn,
    constant_sd,
    occurred,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(max_size=8)
NUMERIC = st.builds(NumericColumn, name=NAMES, mean=FINITE, sd=FINITE, constant=st.booleans())
CATEGORICAL = st.builds(
    CategoricalColumn,
    name=NAMES,
    categories=st.lists(st.text(max_size=6), max_size=5, unique=True).map(tuple),
)
ENCODINGS = st.lists(NUMERIC | CATEGORICAL, max_size=5).map(
    lambda columns: Encoding(columns=tuple(columns))
)
AMOUNT = NumericColumn(name="amount", mean=10.0, sd=4.0)
KIND = CategoricalColumn(name="kind", categories=("shop", "web"))


def encoded(column: Column, values: list[object]) -> tuple[list[list[float]], dict[str, int]]:
    """What one column makes of values, and the counts."""
    dtype = np.float64 if column.kind == "numeric" else object
    counts: Counter[str] = Counter()
    raw = {column.name: np.array(values, dtype=dtype)}
    x = Encoding(columns=(column,)).encode(raw, counts)
    assert x.dtype == np.float32
    return x.tolist(), dict(counts)


@given(encoding=ENCODINGS)
def test_json_there_and_back_is_the_same_encoding(encoding: Encoding) -> None:
    assert Encoding.model_validate_json(encoding.model_dump_json()) == encoding


def test_json_with_an_unknown_key_or_kind_is_refused() -> None:
    for document in (
        '{"columns": [], "more": 1}',
        '{"columns": [{"kind": "ordinal", "name": "a"}]}',
        '{"columns": [{"kind": "numeric", "name": "a", "mean": 0, "sd": 1, "min": 0}]}',
    ):
        with pytest.raises(ValidationError):
            Encoding.model_validate_json(document)


def test_an_encoding_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        AMOUNT.mean = 3.0


def test_a_number_is_its_distance_from_the_mean_in_sd() -> None:
    assert encoded(AMOUNT, [10.0, 14.0, 2.0])[0] == [[0.0], [1.0], [-2.0]]


def test_a_missing_number_is_the_mean_and_is_counted() -> None:
    assert encoded(AMOUNT, [np.nan, 14.0]) == ([[0.0], [1.0]], {"missing values": 1})


def test_a_far_away_number_stays_finite() -> None:
    assert encoded(AMOUNT, [1e300, -1e300])[0] == [[CLIP], [-CLIP]]


def test_a_column_that_never_moved_in_training_says_only_in_which_direction_it_moved() -> None:
    same = NumericColumn(name="same", mean=7.25, sd=1.0, constant=True)
    rows, counts = encoded(same, [7.25, 871.0, 7.3, 7.2, -1e300, np.nan])
    assert rows == [[0.0], [1.0], [1.0], [-1.0], [-1.0], [0.0]]
    assert counts == {"missing values": 1}


@given(value=st.floats(-1e100, 1e100), chunks=st.lists(st.integers(1, 50), min_size=1, max_size=9))
def test_a_value_that_never_moved_stays_zero_whatever_its_mean_was_rounded_to(
    value: float, chunks: list[int]
) -> None:
    moments = Moments()
    for rows in chunks:
        moments.add(np.full(rows, value))
    assert moments.sd <= constant_sd(moments.mean)
    same = NumericColumn(name="same", mean=moments.mean, sd=1.0, constant=True)
    assert encoded(same, [value])[0] == [[0.0]]


def test_a_document_of_before_there_were_constants_still_loads() -> None:
    document = '{"columns": [{"kind": "numeric", "name": "amount", "mean": 10.0, "sd": 4.0}]}'
    assert Encoding.model_validate_json(document) == Encoding(columns=(AMOUNT,))


def test_each_category_has_its_own_input_and_so_has_a_missing_one() -> None:
    rows, counts = encoded(KIND, ["web", "shop", None, float("nan")])
    assert rows == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert counts == {"missing values": 2, "unseen categories": 0}


def test_a_category_that_training_never_saw_is_all_zero_and_is_counted() -> None:
    rows, counts = encoded(KIND, ["pigeon", "web", "pigeon"])
    assert rows == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert counts == {"missing values": 0, "unseen categories": 2}


def test_a_column_without_categories_is_one_input() -> None:
    empty = CategoricalColumn(name="kind", categories=())
    assert empty.width == 1
    assert encoded(empty, ["web", None])[0] == [[0.0], [1.0]]


@given(
    values=st.lists(
        st.tuples(
            st.floats(-1e9, 1e9) | st.just(float("nan")),
            st.sampled_from(["web", "shop", "pigeon", None]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_inputs_stand_in_the_order_of_the_columns_and_counts_add_up(
    values: list[tuple[float, str | None]],
) -> None:
    amounts, kinds = zip(*values, strict=True)
    encoding = Encoding(columns=(KIND, AMOUNT))
    assert (encoding.names, encoding.numeric, encoding.width) == (["kind", "amount"], ["amount"], 4)
    counts: Counter[str] = Counter()
    raw = {"amount": np.array(amounts), "kind": np.array(kinds, dtype=object)}
    x = encoding.encode(raw, counts)
    np.testing.assert_array_equal(x[:, :3], encoded(KIND, list(kinds))[0])
    np.testing.assert_array_equal(x[:, 3:], encoded(AMOUNT, list(amounts))[0])
    assert counts["missing values"] == sum(map(np.isnan, amounts)) + kinds.count(None)
    assert counts["unseen categories"] == kinds.count("pigeon")
    assert np.isfinite(x).all()


def test_identity_takes_numbers_as_they_are() -> None:
    encoding = Encoding.identity(["a", "b"])
    x = encoding.encode({"b": np.array([2.5, -3.0]), "a": np.array([1.0, 0.5])})
    assert x.tolist() == [[1.0, 2.5], [0.5, -3.0]]


def test_raw_takes_the_columns_that_it_knows_from_a_frame() -> None:
    frame = pd.DataFrame({"more": [0], "kind": ["web"], "amount": [14]})
    encoding = Encoding(columns=(AMOUNT, KIND))
    raw = encoding.raw(frame)
    assert list(raw) == ["amount", "kind"]
    assert encoding.encode(raw).tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_raw_takes_the_missing_values_of_every_kind_of_column() -> None:
    encoding = Encoding(columns=(AMOUNT, KIND))
    for amount in ([14, None], pd.array([14, None], dtype="Int64")):
        for kind in (["web", None], pd.array(["web", None], dtype="string")):
            raw = encoding.raw(pd.DataFrame({"amount": amount, "kind": kind}))
            assert encoding.encode(raw).tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]


def test_raw_takes_the_numbers_of_a_categorical_column_as_the_texts_they_were_in_training() -> None:
    encoding = Encoding(columns=(CategoricalColumn(name="zone", categories=("1", "2")),))
    raw = encoding.raw(pd.DataFrame({"zone": [2, 1]}))
    assert encoding.encode(raw).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_raw_names_every_column_that_is_missing() -> None:
    with pytest.raises(KeyError, match=r"missing columns: amount, kind; expected: \['amount', 'k"):
        Encoding(columns=(AMOUNT, KIND)).raw(pd.DataFrame({"a": [1]}))


def test_summaries_leave_out_what_did_not_occur() -> None:
    assert occurred({"missing values": 0, "unseen categories": 3}) == {"unseen categories": 3}
