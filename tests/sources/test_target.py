"""A target's values: their order as classes, and where they are missing."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.errors import DataError
from selfheal_cli.sources.profile import (
    MOST_CLASSES,
    MOST_COUNTED,
    Target,
    as_classes,
    in_order,
    listed,
    order_labels,
)

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)


def seen(*values: object, missing_allowed: bool = False, chunk: int = 1_000) -> Target:
    """A target that held these values, read in chunks."""
    target = Target("t.csv", "y", missing_allowed=missing_allowed)
    for start in range(0, len(values), chunk):
        target.add(pd.Series(values[start : start + chunk], dtype="str"), start)
    for violation in target.violations():
        raise DataError(violation.message(f"t.csv: row {violation.row}"))
    return target


def test_one_class_is_refused_and_named() -> None:
    with pytest.raises(
        DataError, match=r"t\.csv: target 'y' has 1 value \('no'\); 2 to 64 are allowed"
    ):
        seen("no", "no").require_classes()


def test_no_class_is_refused() -> None:
    with pytest.raises(DataError, match=r"target 'y' has 0 values; 2 to 64 are allowed"):
        seen(None, missing_allowed=True).require_classes()


def test_two_to_64_classes_are_allowed() -> None:
    for count in (2, 3, MOST_CLASSES):
        seen(*map(str, range(count))).require_classes()


def test_of_too_many_classes_only_a_few_are_listed() -> None:
    with pytest.raises(
        DataError, match=r"has 65 values \('0', '1', '2', '3', '4', and 60 more\); 2 to 64"
    ):
        seen(*map(str, range(MOST_CLASSES + 1))).require_classes()


def test_a_target_of_ever_new_values_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(DataError, match=r"has more than 1,000 values .*; 2 to 64 are allowed"):
        seen(*map(str, range(MOST_COUNTED + 1)), chunk=400)


@given(
    values=st.lists(st.sampled_from(["a", "b", "c", None]), max_size=30), chunk=st.integers(1, 9)
)
def test_counts_do_not_depend_on_how_the_file_is_cut(values: list[str | None], chunk: int) -> None:
    target = seen(*values, missing_allowed=True, chunk=chunk)
    assert target.counts == Counter(value for value in values if value is not None)


def test_a_missing_target_is_refused_unless_it_is_allowed() -> None:
    with pytest.raises(
        DataError, match=r"t\.csv: row 3, column 'y': the target is missing; every row needs one"
    ):
        seen("a", "b", None)
    seen("a", "b", None, missing_allowed=True).require_trained(3)


def test_a_blank_is_a_missing_target_and_no_class() -> None:
    with pytest.raises(DataError, match="row 3, column 'y': the target is missing"):
        seen("a", "b", "  ")
    assert seen("a", "b", "  ", missing_allowed=True).labels(None) == ("b", "a")
    assert as_classes(pd.Series(["a", "  "], dtype="str"), ("a", "b")).tolist() == [0, -1]


def test_a_training_part_of_one_class_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"the first 2 rows hold only 'a' in 'y'; .*a larger source.train_fraction"
    ):
        seen("a", "a", "b", "c").require_trained(2)


@given(rows=st.integers(2, 30), place=st.integers(0, 29), chunk=st.integers(1, 9))
def test_a_class_that_training_never_saw_is_no_class(rows: int, place: int, chunk: int) -> None:
    values = ["a", "b", *["a"] * 28, "c"]
    values[2 + place % 28] = "c"
    first = values.index("c") + 1
    target = seen(*values, chunk=chunk)
    if first <= rows:
        target.require_trained(rows)
        return
    target.require_trained(rows)
    assert target.labels(None) == ("b", "a") or target.labels(None) == ("a", "b")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ({"0": 1, "1": 9}, ("0", "1")),
        ({"no": 1, "yes": 9}, ("no", "yes")),
        ({"False": 1, "TRUE": 9}, ("False", "TRUE")),
        ({"DOWN": 1, "UP": 9}, ("DOWN", "UP")),
        ({"normal": 1, "Fraud": 9}, ("normal", "Fraud")),
    ],
)
def test_a_word_for_true_is_positive_even_where_it_is_the_more_frequent(
    values: dict[str, int], labels: tuple[str, str]
) -> None:
    assert order_labels(Counter(values), None, where="t.csv") == labels


def test_words_of_other_languages_are_none_to_rows_as_0_1_0_read_them() -> None:
    counts = Counter(ja=9, nein=1)
    assert order_labels(counts, None, where="t.csv") == ("nein", "ja")
    assert order_labels(counts, None, where="t.csv", contract=1) == ("ja", "nein")


def test_without_a_word_for_true_the_rarer_value_is_positive() -> None:
    assert order_labels(Counter(a=3, b=9), None, where="t.csv") == ("b", "a")
    assert order_labels(Counter(a=9, b=3), None, where="t.csv") == ("a", "b")


def test_two_words_for_true_are_decided_by_the_rarer() -> None:
    assert order_labels(Counter({"1": 9, "yes": 3}), None, where="t.csv") == ("1", "yes")


def test_a_named_positive_wins() -> None:
    assert order_labels(Counter({"0": 1, "1": 9}), "0", where="t.csv") == ("1", "0")


def test_a_named_positive_that_the_target_has_not_is_refused_with_what_it_has() -> None:
    with pytest.raises(
        DataError, match=r"t\.csv: 'yep' is not a value of the target; it has 'no', 'yes'"
    ):
        order_labels(Counter(no=1, yes=1), "yep", where="t.csv")


@given(
    counts=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=4),
        st.integers(1, 5),
        min_size=2,
        max_size=2,
    )
)
def test_the_choice_of_the_positive_does_not_depend_on_the_order_of_the_rows(
    counts: dict[str, int],
) -> None:
    backwards = dict(reversed(counts.items()))
    first = order_labels(Counter(counts), None, where="t.csv")
    assert set(first) == set(counts)
    assert order_labels(Counter(backwards), None, where="t.csv") == first


def test_more_than_two_numbers_are_ordered_by_size() -> None:
    assert seen("10", "9", "-1", "2.5").labels(None) == ("-1", "2.5", "9", "10")


def test_more_than_two_texts_are_ordered_by_alphabet() -> None:
    assert seen("sit", "10", "walk", "9").labels(None) == ("10", "9", "sit", "walk")
    assert in_order(["nan", "2", "10"]) == ["10", "2", "nan"]


def test_a_positive_of_more_than_two_values_is_refused() -> None:
    with pytest.raises(
        DataError,
        match=r"t\.csv: --positive b is for a target of two values; it has 3 \('a', 'b', 'c'\)",
    ):
        seen("a", "b", "c").labels("b")


@given(values=st.lists(TEXTS, min_size=3, max_size=9, unique=True), turn=st.integers(0, 8))
def test_the_order_of_many_classes_does_not_depend_on_the_order_of_the_rows(
    values: list[str], turn: int
) -> None:
    turned = values[turn:] + values[:turn]
    ordered = order_labels(Counter(values), None, where="t.csv")
    assert sorted(ordered) == sorted(values)
    assert order_labels(Counter(turned), None, where="t.csv") == ordered


@given(
    values=st.lists(st.sampled_from(["0", "1", "1.0", " 2 ", None]), min_size=1, max_size=20),
)
def test_a_class_is_its_position_in_the_labels_and_unknown_where_it_is_missing(
    values: list[str | None],
) -> None:
    classes = as_classes(pd.Series(values, dtype="str"), ("0", "1", "2"))
    assert classes.dtype == "int8"
    assert classes.tolist() == [-1 if value is None else int(float(value)) for value in values]


def test_a_list_of_names_ends_with_how_many_more_there_are() -> None:
    assert listed(["b", "a"]) == "'a', 'b'"
    assert listed(map(str, range(7))) == "'0', '1', '2', '3', '4', and 2 more"
