"""Domain rules: what parses, what is refused and where, what they say of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
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
from selfheal_cli.rules.parser import MAX_DEPTH, MAX_LENGTH
from selfheal_cli.rules.ruleset import Rule, check_features, parse_rule

FEATURES = st.text(min_size=1, max_size=12) | st.sampled_from(["and", "is", "NOT", "missing", "`"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=12) | st.sampled_from(["it's", 'a "b"', """'"'""", "=>", "\n"])
OPERATORS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


def conditions(
    features: st.SearchStrategy[str],
    texts: st.SearchStrategy[str],
    numbers: st.SearchStrategy[float],
    text_features: st.SearchStrategy[str] | None = None,
) -> st.SearchStrategy[Condition]:
    """Trees of every kind of condition over these features and values."""
    named = features if text_features is None else text_features
    leaf: st.SearchStrategy[Condition] = st.one_of(
        st.builds(Comparison, features, OPERATORS, numbers),
        st.builds(Comparison, named, st.sampled_from(["==", "!="]), texts),
        st.tuples(features, numbers, numbers).map(lambda t: Between(t[0], *sorted(t[1:]))),
        st.builds(In, features, st.lists(numbers, min_size=1, max_size=3).map(tuple)),
        st.builds(In, named, st.lists(texts, min_size=1, max_size=3).map(tuple)),
        st.builds(IsMissing, features | named),
    )

    def deeper(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
        several = st.lists(inner, min_size=2, max_size=3).map(tuple)
        return st.builds(Not, inner) | st.builds(And, several) | st.builds(Or, several)

    return st.recursive(leaf, deeper, max_leaves=6)


RULES = st.builds(
    Rule,
    condition=conditions(FEATURES, TEXTS, NUMBERS),
    label=st.integers(0, 1),
    confidence=st.integers(1, 10_000).map(lambda parts: parts / 10_000),
)
PIECES = st.sampled_from(
    ["V14", "and", "=>", "<", "==", "=", "1", "0", "-1.5", "1e999", "'a'", '"b', "`x y`", "`", " "]
) | st.sampled_from(
    ["or", "not", "in", "between", "is", "missing", "(", ")", "{", "}", ",", "@", "x < 1 => 1"]
)


@given(rule=RULES)
def test_a_rule_written_out_parses_to_the_same_rule(rule: Rule) -> None:
    assert parse_rule(str(rule)) == rule


def test_a_rule_on_a_feature_named_and_parses_when_written_out() -> None:
    rule = parse_rule("`and` < 1 => 1")
    assert rule.leaves[0].feature == "and"
    assert parse_rule(str(rule)) == rule


@given(text=st.text() | st.lists(PIECES, max_size=8).map(" ".join))
def test_any_text_parses_or_is_a_rule_error(text: str) -> None:
    try:
        rule = parse_rule(text)
    except RuleError as error:
        assert "write it like: V14 < -1.5" in str(error)
    else:
        assert parse_rule(str(rule)) == rule


def test_spaces_make_no_difference_where_words_stay_apart() -> None:
    tight = parse_rule("V14<-1.5 and`a b`=='x'=>1")
    assert tight == parse_rule("  V14  <  -1.5\tand  `a b`  ==  'x'  =>  1  ")
    assert tight == Rule(And((Comparison("V14", "<", -1.5), Comparison("a b", "==", "x"))), 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), ("+1", 1.0), ("-.5", -0.5), ("1.", 1.0), ("1e3", 1000.0), ("2.5E-3", 0.0025)],
)
def test_numbers_may_be_written_in_the_usual_ways(text: str, value: float) -> None:
    assert parse_rule(f"x >= {text} => 0") == Rule(Comparison("x", ">=", value), 0)


def test_and_may_be_written_in_capitals() -> None:
    assert len(parse_rule("x > 1 AND x < 3 => 1").leaves) == 2


@pytest.mark.parametrize(
    ("text", "position", "expected", "found"),
    [
        ("", 1, "a feature name, 'not' or '('", "the end"),
        ("   ", 4, "a feature name, 'not' or '('", "the end"),
        ("< 1 => 1", 1, "a feature name, 'not' or '('", "'<'"),
        ("and < 1 => 1", 1, "a feature name, 'not' or '('", "'and'"),
        ("V14", 4, "one of < <= > >= == !=, or in, between, is", "the end"),
        ("V14 1.5 => 1", 5, "one of < <= > >= == !=, or in, between, is", "'1.5'"),
        ("V14 = 1 => 1", 5, "one of < <= > >= == !=, or in, between, is", "'='"),
        ("V14 < => 1", 7, "a finite number or a quoted text", "'=>'"),
        ("V14 < abc => 1", 7, "a finite number or a quoted text", "'abc'"),
        ("V14 < 1e999 => 1", 7, "a finite number or a quoted text", "'1e999'"),
        ("V14 < 1x => 1", 7, "a finite number or a quoted text", "'1x'"),
        ("k < 'web' => 1", 5, "a number (text compares with == and != only)", "''web''"),
        ("V14 < 1 xor V2 < 3 => 1", 9, "'and', 'or' or '=>'", "'xor'"),
        ("(V14 < 1 => 1", 10, "'and', 'or' or ')'", "'=>'"),
        ("V14 < 1) => 1", 8, "'and', 'or' or '=>'", "')'"),
        ("not => 1", 5, "a feature name, 'not' or '('", "'=>'"),
        ("k in ('a') => 1", 6, "'{'", "'('"),
        ("k in {} => 1", 7, "a finite number or a quoted text", "'}'"),
        ("k in {'a', 2} => 1", 12, "a quoted text, as before", "'2'"),
        ("k in {2, 'a'} => 1", 10, "a number, as before", "''a''"),
        ("k in {2 3} => 1", 9, "',' or '}'", "'3'"),
        ("k not < 2 => 1", 7, "'in' or 'between'", "'<'"),
        ("x between 'a' and 2 => 1", 11, "a finite number", "''a''"),
        ("x between 1, 2 => 1", 12, "'and' with the upper end", "','"),
        ("x between 3 and 2 => 1", 17, "a number not below 3.0", "'2'"),
        ("x is 3 => 1", 6, "'missing' or 'not missing'", "'3'"),
        ("x is not 3 => 1", 10, "'missing'", "'3'"),
        ("x < 1 => 1 @ 1.5", 14, "a confidence above 0 and up to 1", "'1.5'"),
        ("x < 1 => 1 @ 0", 14, "a confidence above 0 and up to 1", "'0'"),
        ("x < 1 => 1 @ 0.12345", 14, "a confidence above 0 and up to 1", "'0.12345'"),
        ("x < 1 => 1 @", 13, "a confidence above 0 and up to 1", "the end"),
        ("x < 1 => 1 @ 0.5 @ 0.5", 18, "the end of the rule", "'@ 0.5'"),
        ("V14 < 1", 8, "'and', 'or' or '=>'", "the end"),
        ("V14 < 1 and => 1", 13, "a feature name, 'not' or '('", "'=>'"),
        ("V14 < 1 => 100", 12, "the label, such as 0 or 1", "'100'"),
        ("V14 < 1 => -1", 12, "the label, such as 0 or 1", "'-1'"),
        ("V14 < 1 => 1.0", 12, "the label, such as 0 or 1", "'1.0'"),
        ("V14 < 1 => yes", 12, "the label, such as 0 or 1", "'yes'"),
        ("V14 < 1 =>", 11, "the label, such as 0 or 1", "the end"),
        ("V14 < 1 => 1  ; more", 15, "'@' with a confidence, or the end of the rule", "'; more'"),
    ],
)
def test_an_error_gives_the_position_of_the_first_thing_that_is_wrong(
    text: str, position: int, expected: str, found: str
) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rule(text)
    assert f"position {position}: expected {expected}" in str(caught.value)
    assert f", found {found}; write it like" in str(caught.value)


def test_a_rule_of_several_lines_is_told_by_line_and_column() -> None:
    with pytest.raises(RuleError, match=r"line 2, column 7: expected .*, found '=>'"):
        parse_rule("x < 1\n  and => 1")


def test_conditions_within_one_another_have_a_limit() -> None:
    fits = "(" * (MAX_DEPTH - 1) + "x < 1" + ")" * (MAX_DEPTH - 1)
    assert parse_rule(f"{fits} => 1").condition == Comparison("x", "<", 1.0)
    for text in (f"({fits}) => 1", "not " * MAX_DEPTH + "x < 1 => 1"):
        with pytest.raises(RuleError, match=f"at most {MAX_DEPTH} conditions within one another"):
            parse_rule(text)


def test_and_binds_closer_than_or_and_not_closest() -> None:
    x, y, z = (Comparison(name, ">", 1.0) for name in "xyz")
    assert parse_rule("x > 1 or y > 1 and not z > 1 => 1").condition == Or((x, And((y, Not(z)))))
    assert parse_rule("not (x > 1 or y > 1) and z > 1 => 1").condition == And((Not(Or((x, y))), z))


def test_a_rule_that_is_too_long_is_refused() -> None:
    text = "x < 1" + " and x < 1" * (MAX_LENGTH // 10) + " => 1"
    with pytest.raises(RuleError, match=f"rule of {len(text)} characters; at most {MAX_LENGTH}"):
        parse_rule(text)


def test_an_unknown_feature_offers_the_nearest_and_lists_all() -> None:
    with pytest.raises(
        RuleError,
        match=r"unknown feature 'amout'; did you mean 'amount'\? known: V14, amount, kind$",
    ):
        check_features([parse_rule("V14 < 1 and amout > 3 => 1")], ["V14", "amount"], ["kind"])


def test_a_feature_is_compared_with_its_own_kind_only() -> None:
    check_features([parse_rule("V14 < 1 and kind == 'web' => 1")], ["V14"], ["kind"])
    with pytest.raises(RuleError, match=r"'kind' is text, 3\.0 is not"):
        check_features([parse_rule("kind == 3 => 1")], ["V14"], ["kind"])
    with pytest.raises(RuleError, match="'V14' is a number, 'web' is not"):
        check_features([parse_rule("V14 != 'web' => 1")], ["V14"], ["kind"])


@pytest.mark.parametrize(
    ("operator", "fired"),
    [
        ("<", [True, False, False]),
        ("<=", [True, True, False]),
        (">", [False, False, True]),
        (">=", [False, True, True]),
        ("==", [False, True, False]),
        ("!=", [True, False, True]),
    ],
)
def test_numbers_compare_as_they_say(operator: str, fired: list[bool]) -> None:
    rule = parse_rule(f"x {operator} 2 => 1")
    assert rule.fires({"x": np.array([1.0, 2.0, 3.0])}).tolist() == fired


def test_all_comparisons_of_a_rule_must_hold() -> None:
    rule = parse_rule("x > 1 and x < 4 and kind == 'web' => 1")
    columns = {
        "x": np.array([1.0, 2.0, 3.0, 4.0]),
        "kind": np.array(["web", "web", "shop", "web"], dtype=object),
    }
    assert rule.fires(columns).tolist() == [False, True, False, False]


def test_texts_are_equal_or_not() -> None:
    kind = np.array(["web", "shop", "Web", None, float("nan")], dtype=object)
    equal = parse_rule('kind == "web" => 1').fires({"kind": kind})
    other = parse_rule("kind != 'web' => 1").fires({"kind": kind})
    assert equal.tolist() == [True, False, False, False, False]
    assert other.tolist() == [False, True, True, False, False]


@given(
    operator=st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    value=NUMBERS,
    label=st.integers(0, 1),
)
def test_a_missing_value_never_fires(operator: str, value: float, label: int) -> None:
    rule = Rule(Comparison("x", operator, value), label)
    assert rule.fires({"x": np.array([np.nan, np.nan])}).tolist() == [False, False]
