"""Several rules: who wins, who abstains, and where they conflict with the network."""

from __future__ import annotations

import numpy as np
import pytest

from selfheal_cli.errors import RuleError
from selfheal_cli.records import Conflicts
from selfheal_cli.rules.ruleset import MAX_RULES, RuleSet, RuleVerdict, parse_rule


def judged(values: list[float], *texts: str) -> RuleVerdict:
    """What these rules say of a column ``x``."""
    return RuleSet([parse_rule(text) for text in texts]).judge({"x": np.array(values)})


def test_where_the_only_rule_does_not_fire_it_implies_the_other_label() -> None:
    verdict = judged([1.0, 5.0], "x > 3 => 1")
    assert (verdict.fired.tolist(), verdict.label.tolist()) == ([False, True], [0, 1])
    verdict = judged([1.0, 5.0], "x > 3 => 0 @ 0.2")
    assert (verdict.fired.tolist(), verdict.label.tolist()) == ([False, True], [1, 0])
    assert verdict.label.dtype == np.int8
    assert verdict.abstained == 0


@pytest.mark.parametrize("second", ["x > 4 => 1", "x < 1 => 0"])
def test_where_none_of_several_rules_fires_they_abstain(second: str) -> None:
    verdict = judged([2.5, 5.0], "x > 3 => 1", second)
    assert verdict.fired.tolist() == [False, True]
    assert verdict.label.tolist() == [-1, 1]
    assert verdict.abstained == 1


def test_several_rules_vote_and_the_majority_wins() -> None:
    verdict = judged([5.0], "x > 3 => 0", "x > 2 => 1", "x > 1 => 1")
    assert verdict.label.tolist() == [1]
    verdict = judged([5.0], "x > 3 => 1", "x > 2 => 0", "x > 1 => 0")
    assert verdict.label.tolist() == [0]


def test_confidence_weighs_a_vote() -> None:
    assert judged([5.0], "x > 3 => 0 @ 0.9", "x > 2 => 1 @ 0.5").label.tolist() == [0]
    texts = ("x > 3 => 0 @ 0.9", "x > 2 => 1 @ 0.5", "x > 1 => 1 @ 0.5")
    assert judged([5.0], *texts).label.tolist() == [1]
    # a rule that does not fire has no vote
    assert judged([5.0], "x > 9 => 1", "x > 2 => 0 @ 0.1").label.tolist() == [0]


def test_a_tie_abstains_and_confidences_add_up_exactly() -> None:
    verdict = judged([5.0, 1.5], "x > 1 => 1 @ 0.3", "x > 2 => 0 @ 0.1", "x > 2 => 0 @ 0.2")
    assert (verdict.fired.tolist(), verdict.label.tolist()) == ([False, True], [-1, 1])
    assert verdict.abstained == 1


def test_the_last_of_several_rules_implies_nothing_that_it_did_not_before() -> None:
    rules = RuleSet([parse_rule("x > 3 => 1"), parse_rule("x > 9 => 0")])
    left = rules.with_rules(rules.rules[:1])
    assert left.judge({"x": np.array([1.0, 5.0])}).label.tolist() == [-1, 1]
    alone = RuleSet(rules.rules[:1])
    moved = alone.with_rules([parse_rule("x > 4 => 1")])
    assert moved.judge({"x": np.array([1.0, 5.0])}).label.tolist() == [0, 1]


def test_no_rule_at_all_is_refused_unless_all_have_become_stale() -> None:
    with pytest.raises(RuleError, match="no rule given"):
        RuleSet([])
    none = RuleSet([parse_rule("x > 4 => 1")]).with_rules([])
    verdict = none.judge({"x": np.array([1.0, 2.0])})
    assert (verdict.fired.tolist(), verdict.label.tolist()) == ([False, False], [-1, -1])


def test_more_rules_than_anyone_reads_are_refused() -> None:
    with pytest.raises(RuleError, match=f"{MAX_RULES + 1} rules; at most {MAX_RULES}"):
        RuleSet([parse_rule("x > 4 => 1")] * (MAX_RULES + 1))


def test_a_label_that_the_target_does_not_have_is_refused() -> None:
    with pytest.raises(RuleError, match=r"'x > 1\.0 => 2': the label 2 is not one of 0 to 1"):
        RuleSet([parse_rule("x > 1 => 2")])
    assert RuleSet([parse_rule("x > 1 => 2")], classes=3).classes == 3


def test_rules_of_several_classes_vote_and_imply_nothing() -> None:
    texts = ["x > 0 => 1", "x > 2 => 2", "x > 2 => 2", "x > 4 => 0", "x > 4 => 0", "x > 4 => 0"]
    rules = RuleSet([parse_rule(text) for text in texts], classes=3)
    verdict = rules.judge({"x": np.array([-1.0, 1.0, 3.0, 5.0])})
    assert verdict.fired.tolist() == [False, True, True, True]
    assert verdict.label.tolist() == [-1, 1, 2, 0]
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
        conflicts = verdict.conflicts_with(probabilities, np.array(y, dtype=np.int8), 0.30)
        assert conflicts == Conflicts(3, share)


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
