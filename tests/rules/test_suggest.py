"""The rule with one split that is suggested where the user names none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.errors import RuleError
from selfheal_cli.records import Rows
from selfheal_cli.rules.conditions import Comparison
from selfheal_cli.rules.ruleset import parse_rule
from selfheal_cli.rules.search import suggest_rule
from selfheal_cli.sources.synthetic import NAMES, SyntheticSource


def labelled(y: np.ndarray, **columns: np.ndarray) -> Rows:
    """Rows with these raw columns; the inputs play no part."""
    return Rows(np.zeros((len(y), 1), dtype=np.float32), y.astype(np.int8), columns)


def test_the_feature_that_tells_the_classes_apart_is_found() -> None:
    (rows,) = SyntheticSource(SyntheticSettings(), seed=1, batch_size=10, batches=1).training()
    (comparison,) = suggest_rule(rows, NAMES).leaves
    assert isinstance(comparison, Comparison)
    assert (comparison.feature, comparison.operator) == ("V14", "<=")
    assert -2.0 < float(comparison.value) < -1.0


@given(
    cut=st.integers(5, 55), below=st.booleans(), scale=st.floats(0.01, 100), shift=st.floats(-9, 9)
)
def test_a_split_that_separates_is_found_and_fires_on_the_positives_alone(
    cut: int, below: bool, scale: float, shift: float
) -> None:
    noise = np.random.default_rng(0).normal(size=60)
    x = np.arange(60) * scale + shift
    y = (np.arange(60) < cut) == below
    rule = suggest_rule(labelled(y, noise=noise, x=x), ["noise", "x"])
    (comparison,) = rule.leaves
    assert isinstance(comparison, Comparison)
    assert (comparison.feature, comparison.operator) == ("x", "<=" if below else ">")
    assert rule.label == 1
    np.testing.assert_array_equal(rule.fires({"x": x}), y)
    assert parse_rule(str(rule)) == rule


def test_rare_positives_weigh_as_much_as_the_rest() -> None:
    draw = np.random.default_rng(3)
    y = np.arange(1_000) < 30
    x = draw.normal(np.where(y, 3.0, 0.0))
    rule = suggest_rule(labelled(y, x=x), ["x"])
    fired = rule.fires({"x": x})
    assert fired[y].mean() > 0.8
    assert fired[~y].mean() < 0.15


def test_missing_values_count_as_the_mean() -> None:
    x = np.array([0.0, 1.0, 2.0, np.nan, 8.0, 9.0, 10.0] * 20)
    y = np.nan_to_num(x) > 6
    rule = suggest_rule(labelled(y, x=x), ["x"])
    (comparison,) = rule.leaves
    assert isinstance(comparison, Comparison)
    assert 5.0 < float(comparison.value) < 8.0
    np.testing.assert_array_equal(rule.fires({"x": x}), y)


def test_a_column_without_values_is_never_chosen() -> None:
    x = np.arange(20.0)
    rows = labelled(x > 9, empty=np.full(20, np.nan), x=x)
    assert suggest_rule(rows, ["empty", "x"]).leaves[0].feature == "x"


def test_of_texts_alone_the_category_that_tells_most_is_the_rule() -> None:
    country = np.array(["AT", "DE"] * 10, dtype=object)
    rows = labelled(np.array([1, 0] * 10), country=country)
    assert str(suggest_rule(rows, [], ["country"])) == "country == 'AT' => 1"
    with pytest.raises(RuleError, match=r"no single category .*give a rule with --rule"):
        suggest_rule(labelled(np.array([0, 1])), [])


def test_features_that_do_not_split_are_a_rule_error() -> None:
    rows = labelled(np.array([0, 1] * 10), x=np.full(20, 3.0))
    with pytest.raises(RuleError, match="no single split tells the classes apart"):
        suggest_rule(rows, ["x"])


def test_the_same_rows_give_the_same_rule() -> None:
    x = np.arange(40.0)
    rows = labelled(x > 19, a=x, b=x, c=x)
    assert suggest_rule(rows, ["a", "b", "c"]) == suggest_rule(rows, ["a", "b", "c"])


def test_a_split_far_from_nought_still_separates() -> None:
    x = 10_000_000 + np.arange(100.0)
    y = x > 10_000_050
    rule = suggest_rule(labelled(y, x=x), ["x"])
    np.testing.assert_array_equal(rule.fires({"x": x}), y)


def test_a_value_beyond_float32_does_not_stop_the_split_of_the_rest() -> None:
    x = np.arange(100.0)
    x[-1] = 1e99
    rule = suggest_rule(labelled(x > 50, x=x), ["x"])
    np.testing.assert_array_equal(rule.fires({"x": x}), x > 50)
