"""Domain rules: what parses, what is refused and where, what they say of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal_cli.errors import RuleError
from selfheal_cli.monitor.rules import (
    MAX_LENGTH,
    Comparison,
    Rule,
    RuleSet,
    RuleVerdict,
    check_features,
    parse_rule,
)
from selfheal_cli.records import Conflicts

PROPERTY = settings(deadline=None, derandomize=True, max_examples=200)
FEATURES = st.text(st.characters(codec="utf-8", exclude_characters="`"), min_size=1, max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=12).filter(lambda text: not ("'" in text and '"' in text))
COMPARISONS = st.builds(
    Comparison,
    feature=FEATURES.filter(lambda name: name.lower() != "and"),
    operator=st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    value=NUMBERS,
) | st.builds(
    Comparison,
    feature=FEATURES.filter(lambda name: name.lower() != "and"),
    operator=st.sampled_from(["==", "!="]),
    value=TEXTS,
)
RULES = st.builds(
    Rule,
    comparisons=st.lists(COMPARISONS, min_size=1, max_size=4).map(tuple),
    label=st.integers(0, 1),
)
PIECES = st.sampled_from(
    ["V14", "and", "=>", "<", "==", "=", "1", "0", "-1.5", "1e999", "'a'", '"b', "`x y`", "`", " "]
)


def judged(values: list[float], *texts: str) -> RuleVerdict:
    """What these rules say of a column ``x``."""
    return RuleSet([parse_rule(text) for text in texts]).judge({"x": np.array(values)})


@PROPERTY
@given(rule=RULES)
def test_a_rule_written_out_parses_to_the_same_rule(rule: Rule) -> None:
    assert parse_rule(str(rule)) == rule


def test_a_rule_on_a_feature_named_and_parses_when_written_out() -> None:
    rule = parse_rule("`and` < 1 => 1")
    assert rule.comparisons[0].feature == "and"
    assert parse_rule(str(rule)) == rule


@PROPERTY
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
    assert tight == Rule((Comparison("V14", "<", -1.5), Comparison("a b", "==", "x")), 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), ("+1", 1.0), ("-.5", -0.5), ("1.", 1.0), ("1e3", 1000.0), ("2.5E-3", 0.0025)],
)
def test_numbers_may_be_written_in_the_usual_ways(text: str, value: float) -> None:
    assert parse_rule(f"x >= {text} => 0") == Rule((Comparison("x", ">=", value),), 0)


def test_and_may_be_written_in_capitals() -> None:
    assert len(parse_rule("x > 1 AND x < 3 => 1").comparisons) == 2


@pytest.mark.parametrize(
    ("text", "position", "expected", "found"),
    [
        ("", 1, "a feature name", "the end"),
        ("   ", 4, "a feature name", "the end"),
        ("< 1 => 1", 1, "a feature name", "'<'"),
        ("and < 1 => 1", 1, "a feature name", "'and'"),
        ("V14", 4, "one of < <= > >= == !=", "the end"),
        ("V14 1.5 => 1", 5, "one of < <= > >= == !=", "'1.5'"),
        ("V14 = 1 => 1", 5, "one of < <= > >= == !=", "'='"),
        ("V14 < => 1", 7, "a finite number or a quoted text", "'=>'"),
        ("V14 < abc => 1", 7, "a finite number or a quoted text", "'abc'"),
        ("V14 < 1e999 => 1", 7, "a finite number or a quoted text", "'1e999'"),
        ("V14 < 1x => 1", 7, "a number or a quoted text", "'1x'"),
        ("k < 'web' => 1", 5, "a number (text compares with == and != only)", "''web''"),
        ("V14 < 1 or V2 < 3 => 1", 9, "'and' or '=>'", "'or'"),
        ("V14 < 1", 8, "'and' or '=>'", "the end"),
        ("V14 < 1 and => 1", 13, "a feature name", "'=>'"),
        ("V14 < 1 => 100", 12, "the label, such as 0 or 1", "'100'"),
        ("V14 < 1 => -1", 12, "the label, such as 0 or 1", "'-1'"),
        ("V14 < 1 => 1.0", 12, "the label, such as 0 or 1", "'1.0'"),
        ("V14 < 1 => yes", 12, "the label, such as 0 or 1", "'yes'"),
        ("V14 < 1 =>", 11, "the label, such as 0 or 1", "the end"),
        ("V14 < 1 => 1  ; more", 15, "the end of the rule", "'; more'"),
    ],
)
def test_an_error_gives_the_position_of_the_first_thing_that_is_wrong(
    text: str, position: int, expected: str, found: str
) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rule(text)
    assert f"position {position}: expected {expected}, found {found};" in str(caught.value)


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


@PROPERTY
@given(
    operator=st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    value=NUMBERS,
    label=st.integers(0, 1),
)
def test_a_missing_value_never_fires(operator: str, value: float, label: int) -> None:
    rule = Rule((Comparison("x", operator, value),), label)
    assert rule.fires({"x": np.array([np.nan, np.nan])}).tolist() == [False, False]


def test_where_no_rule_fires_rules_of_one_label_imply_the_other() -> None:
    verdict = judged([1.0, 5.0], "x > 3 => 1")
    assert (verdict.fired.tolist(), verdict.label.tolist()) == ([False, True], [0, 1])
    verdict = judged([1.0, 5.0], "x > 3 => 0", "x > 4 => 0")
    assert (verdict.fired.tolist(), verdict.label.tolist()) == ([False, True], [1, 0])
    assert verdict.label.dtype == np.int8


def test_where_no_rule_fires_rules_of_both_labels_abstain() -> None:
    verdict = judged([0.0, 2.5, 5.0], "x > 3 => 1", "x < 1 => 0")
    assert verdict.fired.tolist() == [True, False, True]
    assert verdict.label.tolist() == [0, -1, 1]


def test_several_rules_vote_and_the_majority_wins() -> None:
    verdict = judged([5.0], "x > 3 => 0", "x > 2 => 1", "x > 1 => 1")
    assert verdict.label.tolist() == [1]
    verdict = judged([5.0], "x > 3 => 1", "x > 2 => 0", "x > 1 => 0")
    assert verdict.label.tolist() == [0]


def test_a_tie_goes_to_the_rule_named_first() -> None:
    assert judged([5.0], "x > 1 => 1", "x > 2 => 0").label.tolist() == [1]
    assert judged([5.0], "x > 2 => 0", "x > 1 => 1").label.tolist() == [0]
    # a rule that does not fire has no vote, though it was named first
    assert judged([5.0], "x > 9 => 1", "x > 2 => 0", "x > 1 => 1").label.tolist() == [0]


def test_a_tie_of_many_rules_goes_to_the_rule_named_first() -> None:
    first_is_1 = ["x > 0 => 1", "x > 0 => 0", "x > 0 => 0", "x > 0 => 0", "x > 0 => 1"]
    assert judged([5.0], *first_is_1, "x > 0 => 1").label.tolist() == [1]
    assert judged([5.0], *first_is_1[:3], "x > 0 => 1").label.tolist() == [1]


@pytest.mark.parametrize("rules", [12, 40])
def test_a_tie_goes_to_the_rule_named_first_however_many_there_are(rules: int) -> None:
    half = rules // 2
    labels = [1, *[0] * half, *[1] * (half - 1)]
    texts = [f"x > 0 => {label}" for label in labels]
    assert judged([5.0], *texts).label.tolist() == [1]


def test_no_rule_at_all_is_refused_unless_all_have_become_stale() -> None:
    with pytest.raises(RuleError, match="no rule given"):
        RuleSet([])
    verdict = RuleSet([], allow_none=True).judge({"x": np.array([1.0, 2.0])})
    assert (verdict.fired.tolist(), verdict.label.tolist()) == ([False, False], [-1, -1])


def test_a_label_that_the_target_does_not_have_is_refused() -> None:
    with pytest.raises(RuleError, match=r"'x > 1\.0 => 2': the label 2 is not one of 0 to 1"):
        RuleSet([parse_rule("x > 1 => 2")])
    assert RuleSet([parse_rule("x > 1 => 2")], classes=3).classes == 3


def test_rules_of_several_classes_vote_and_imply_nothing() -> None:
    texts = ["x > 0 => 1", "x > 2 => 2", "x > 2 => 2", "x > 4 => 0", "x > 4 => 0"]
    rules = RuleSet([parse_rule(text) for text in texts], classes=3)
    verdict = rules.judge({"x": np.array([-1.0, 1.0, 3.0, 5.0])})
    assert verdict.fired.tolist() == [False, True, True, True]
    assert verdict.label.tolist() == [-1, 1, 2, 2]
    one = RuleSet([parse_rule("x > 0 => 1")], classes=3).judge({"x": np.array([-1.0, 1.0])})
    assert one.label.tolist() == [-1, 1]


def test_a_conflict_of_several_classes_is_a_label_that_the_network_finds_improbable() -> None:
    rules = RuleSet([parse_rule("x > 3 => 2")], classes=3)
    verdict = rules.judge({"x": np.array([5.0, 5.0, 1.0])})
    probabilities = np.array([[0.6, 0.2, 0.2], [0.1, 0.4, 0.5], [0.9, 0.1, 0.0]], dtype=np.float32)
    y = np.array([1, 2, 2], dtype=np.int8)
    assert verdict.conflicts_with(probabilities, y, 0.30) == Conflicts(1, 1.0)


def test_a_conflict_counts_before_its_label_is_known_but_has_no_share_in_the_positives() -> None:
    verdict = judged([5.0, 5.0, 5.0], "x > 3 => 1")
    probabilities = np.zeros(3, dtype=np.float32)
    for y, share in (([1, -1, 0], 0.5), ([-1, 1, -1], 1.0), ([-1, -1, -1], 0.0)):
        found = verdict.conflicts_with(probabilities, np.array(y, dtype=np.int8), 0.30)
        assert found == Conflicts(3, share)


def test_a_rule_set_is_written_rule_by_rule() -> None:
    assert str(RuleSet([parse_rule("x > 1 => 1"), parse_rule("k == 'a' => 0")])) == (
        "x > 1.0 => 1; k == 'a' => 0"
    )


def test_a_conflict_is_a_rule_s_positive_that_the_network_finds_improbable() -> None:
    verdict = judged([5.0, 5.0, 5.0, 1.0], "x > 3 => 1")
    probabilities = np.array([0.29, 0.30, 0.1, 0.0], dtype=np.float32)
    y = np.array([1, 1, 0, 1], dtype=np.int8)
    assert verdict.conflicts_with(probabilities, y, 0.30) == Conflicts(2, 0.5)


def test_a_rule_s_negative_conflicts_with_a_confident_network() -> None:
    verdict = judged([5.0, 5.0, 1.0], "x > 3 => 0")
    probabilities = np.array([0.9, 0.5, 0.9], dtype=np.float32)
    y = np.array([1, 0, 1], dtype=np.int8)
    assert verdict.conflicts_with(probabilities, y, 0.30) == Conflicts(1, 1.0)


def test_an_implied_label_is_no_conflict() -> None:
    verdict = judged([1.0, 1.0], "x > 3 => 1")
    probabilities = np.array([0.99, 0.01], dtype=np.float32)
    assert verdict.conflicts_with(probabilities, np.array([1, 0], dtype=np.int8), 0.3) == (
        Conflicts(0, 0.0)
    )
