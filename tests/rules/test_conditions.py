"""Rules on whole columns say what a plain reading of each row says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal_cli.errors import RuleError
from selfheal_cli.rules.conditions import (
    And,
    Between,
    Comparison,
    Condition,
    In,
    IsMissing,
    Not,
    Or,
)
from selfheal_cli.rules.ruleset import Rule, RuleSet, parse_rule
from tests.conftest import DEPTH
from tests.rules.test_rules import conditions

NUMBERS = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])
TEXTS = st.sampled_from(["a", "b", "c", ""])
CONDITIONS = conditions(st.sampled_from("xy"), TEXTS, NUMBERS, st.sampled_from("kl"))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            **dict.fromkeys("xy", NUMBERS | st.none()),
            **dict.fromkeys("kl", TEXTS | st.none()),
        }
    ),
    max_size=12,
)
Row = dict[str, Any]


def truth(condition: Condition, row: Row) -> bool | None:  # noqa: PLR0911
    """One row by Kleene's three-valued logic: None is unknown."""
    if isinstance(condition, Not):
        inner = truth(condition.condition, row)
        return None if inner is None else not inner
    if isinstance(condition, And | Or):
        decides = isinstance(condition, Or)
        truths = [truth(part, row) for part in condition.conditions]
        if decides in truths:
            return decides
        return None if None in truths else not decides
    value = row[condition.feature]
    if isinstance(condition, IsMissing):
        return value is None
    if value is None:
        return None
    if isinstance(condition, Between):
        return bool(condition.low <= value <= condition.high)
    if isinstance(condition, In):
        return value in condition.values
    assert isinstance(condition, Comparison)
    return bool(
        {
            "<": lambda a, b: a < b,
            "<=": lambda a, b: a <= b,
            ">": lambda a, b: a > b,
            ">=": lambda a, b: a >= b,
            "==": lambda a, b: a == b,
            "!=": lambda a, b: a != b,
        }[condition.operator](value, condition.value)
    )


def columns(rows: list[Row]) -> dict[str, np.ndarray]:
    """Rows as a source gives them."""
    return {
        **{name: np.array([row[name] for row in rows], dtype=np.float64) for name in "xy"},
        **{name: np.array([row[name] for row in rows], dtype=object) for name in "kl"},
    }


@settings(max_examples=40 * DEPTH)
@given(condition=CONDITIONS, rows=ROWS)
def test_whole_columns_say_what_each_row_says(condition: Condition, rows: list[Row]) -> None:
    rule = Rule(condition, 1)
    expected = [truth(condition, row) is True for row in rows]
    assert rule.fires(columns(rows)).tolist() == expected
    assert rule.fires(pd.DataFrame(columns(rows))).tolist() == expected


@given(
    rules=st.lists(
        st.builds(Rule, CONDITIONS, st.integers(0, 2), st.sampled_from([0.1, 0.2, 0.3, 1.0])),
        min_size=2,
        max_size=5,
    ),
    rows=ROWS.filter(bool),
)
def test_a_vote_is_what_counting_row_by_row_gives(rules: list[Rule], rows: list[Row]) -> None:
    expected = []
    for row in rows:
        votes = [0, 0, 0]
        for rule in rules:
            if truth(rule.condition, row) is True:
                votes[rule.label] += round(10 * rule.confidence)
        won = [label for label in range(3) if votes[label] == max(votes) > 0]
        expected.append(won[0] if len(won) == 1 else -1)
    verdict = RuleSet(rules, classes=3).judge(columns(rows))
    assert verdict.label.tolist() == expected
    assert verdict.fired.tolist() == [label >= 0 for label in expected]
    assert verdict.abstained == expected.count(-1)


@pytest.mark.parametrize(
    ("text", "fired"),
    [
        ("not x > 2 => 1", [True, False, False]),
        ("x > 2 or k == 'b' => 1", [False, True, True]),
        ("x is missing => 1", [False, False, True]),
        ("x is not missing => 1", [True, True, False]),
        ("x not in {1, 2} => 1", [False, True, False]),
        ("x not between 2 and 9 => 1", [True, False, False]),
        ("k not in {'b'} => 1", [True, False, False]),
    ],
)
def test_a_missing_value_is_neither_true_nor_false(text: str, fired: list[bool]) -> None:
    rows = {"x": np.array([1.0, 3.0, np.nan]), "k": np.array(["a", None, "b"], dtype=object)}
    assert parse_rule(text).fires(rows).tolist() == fired


def test_columns_of_pandas_own_kinds_are_read_too() -> None:
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "kind": pd.Categorical(["a", None, "b"]),
            "name": pd.Series(["a", None, "b"]),  # text, as pandas 2 and 3 keep it
        }
    )
    assert parse_rule("whole > 1 => 1").fires(frame).tolist() == [False, False, True]
    assert parse_rule("whole is missing => 1").fires(frame).tolist() == [False, True, False]
    for name in ("kind", "name"):
        assert parse_rule(f"{name} != 'a' => 1").fires(frame).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("amuont > 1 => 1", r"unknown feature 'amuont'; did you mean 'amount'\? known: amount, k"),
        ("k < 2 => 1", "'k' is text; compare it with quoted text"),
        ("k in {1} => 1", "'k' is text"),
        ("amount == 'a' => 1", "'amount' is a number; compare it with numbers"),
        ("amount in {'a'} => 1", "'amount' is a number"),
    ],
)
def test_a_column_that_is_not_there_or_of_the_other_kind_is_refused(
    text: str, message: str
) -> None:
    rows = {"amount": np.array([1.0]), "k": np.array(["a"], dtype=object)}
    with pytest.raises(RuleError, match=message):
        parse_rule(text).fires(rows)
