"""Rules that are learned: what is found, in which words, and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from selfheal_cli.errors import RuleError
from selfheal_cli.rules.conditions import And, Comparison, In, IsMissing
from selfheal_cli.rules.ruleset import parse_rule
from selfheal_cli.rules.search import lower_bound, suggest_rules

ROWS = 4_000


def drawn(seed: int = 0) -> tuple[dict[str, np.ndarray], np.random.Generator]:
    """Columns of noise, with texts and missing values."""
    draw = np.random.default_rng(seed)
    kind = draw.choice(["a", "b", "c", "d"], ROWS).astype(object)
    age = draw.uniform(0, 1, ROWS)
    age[draw.random(ROWS) < 0.1] = np.nan
    return {
        "x": draw.normal(size=ROWS),
        "z": draw.normal(size=ROWS),
        "age": age,
        "kind": kind,
    }, draw


def labelled(truth: np.ndarray, draw: np.random.Generator, noise: float = 0.02) -> np.ndarray:
    """Labels that are now and then wrong."""
    return (truth ^ (draw.random(len(truth)) < noise)).astype(np.int8)


def test_two_conditions_are_found_in_one_short_rule() -> None:
    columns, draw = drawn()
    y = labelled((columns["x"] > 0.5) & (columns["z"] <= 0), draw)
    suggestions = suggest_rules(columns, ["x", "z", "age"], ["kind"], y)
    rule = next(one.rule for one in suggestions if one.rule.label == 1)
    assert isinstance(rule.condition, And)
    asked = {part.feature: part for part in rule.leaves if isinstance(part, Comparison)}
    assert set(asked) == {"x", "z"} == {part.feature for part in rule.leaves}
    assert (asked["x"].operator, asked["z"].operator) == (">", "<=")
    assert float(asked["x"].value) == pytest.approx(0.5, abs=0.05)
    assert float(asked["z"].value) == pytest.approx(0.0, abs=0.05)


def test_texts_become_a_set_and_a_missing_value_a_question() -> None:
    columns, draw = drawn()
    y = labelled(np.isin(columns["kind"], ["b", "d"]), draw)
    suggestions = suggest_rules(columns, ["x"], ["kind"], y)
    assert {one.rule.label: one.rule.condition for one in suggestions} == {
        1: In("kind", ("b", "d")),
        0: In("kind", ("a", "c")),
    }
    y = labelled(np.isnan(columns["age"]), draw)
    rules = [one.rule for one in suggest_rules(columns, ["x", "age"], [], y)]
    assert IsMissing("age") in [rule.condition for rule in rules if rule.label == 1]


def test_each_of_several_classes_may_have_a_rule() -> None:
    columns, _ = drawn()
    y = np.digitize(columns["x"], [-0.5, 0.5]).astype(np.int8)
    suggestions = suggest_rules(columns, ["x"], [], y)
    assert {one.rule.label for one in suggestions} == {0, 1, 2}
    assert all(one.held_out.precision == pytest.approx(1, abs=0.02) for one in suggestions)


def test_what_held_only_at_first_is_not_suggested() -> None:
    columns, draw = drawn()
    early = np.arange(ROWS) < 0.7 * ROWS
    y = labelled(np.where(early, columns["x"] > 0, columns["z"] > 0), draw)
    assert suggest_rules(columns, ["x"], [], y) == ()
    assert len(suggest_rules(columns, ["x"], [], labelled(columns["x"] > 0, draw))) == 2


@pytest.mark.parametrize("seed", range(5))
def test_noise_gives_no_rule(seed: int) -> None:
    columns, draw = drawn(seed)
    y = (draw.random(ROWS) < 0.3).astype(np.int8)
    assert suggest_rules(columns, ["x", "z", "age"], ["kind"], y, depth=4) == ()


def test_suggestions_are_few_differ_and_can_be_read_back() -> None:
    columns, draw = drawn()
    truth = (columns["x"] > 1) | (columns["z"] > 1) | (columns["kind"] == "a")
    suggestions = suggest_rules(columns, ["x", "z"], ["kind"], labelled(truth, draw), max_rules=2)
    assert len(suggestions) == 2
    for one in suggestions:
        assert parse_rule(str(one.rule)) == one.rule
        assert one.rule.confidence == pytest.approx(one.held_out.precision, abs=0.005)
    first, second = (one.rule.fires(columns) for one in suggestions)
    assert (first & second).sum() <= 0.55 * second.sum()


def test_unlabelled_rows_teach_and_judge_nothing() -> None:
    columns, draw = drawn()
    y = labelled(columns["x"] > 0, draw)
    y[::2] = -1
    for one in suggest_rules(columns, ["x"], [], y):
        assert one.learned.known == one.learned.rows == 1_400
        assert (one.held_out.rows, one.held_out.known) == (1_200, 600)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full(ROWS, -1), "0 labelled rows are too few .*at least 60 to learn from and 30"),
        (np.ones(ROWS), "hold one label only"),
    ],
)
def test_rows_that_teach_nothing_are_refused(y: np.ndarray, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        suggest_rules(drawn()[0], ["x"], [], y.astype(np.int8))


def test_the_lower_bound_is_wilsons() -> None:
    from scipy.stats import binomtest

    for right, of in ((0, 5), (3, 7), (40, 40), (500, 900)):
        expected = binomtest(right, of).proportion_ci(0.95, method="wilson").low
        assert lower_bound(right, of) == pytest.approx(expected, abs=1e-4)
