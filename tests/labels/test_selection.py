"""Rows that may get a label: what was declined never does, unless a lot lets it through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from selfheal_cli.config import LabelSettings, Policy
from selfheal_cli.errors import RuleError
from selfheal_cli.labels.selection import LabelSelection, lots_of, seeded_lots
from selfheal_cli.rules.parser import parse, parse_condition
from tests.labels.test_label_queue import scored_of

P = np.array([0.1, 0.6, 0.9], np.float32)
COLUMNS = {"amount": np.array([5.0, 500.0, np.nan])}


@pytest.mark.parametrize(
    ("condition", "through"),
    [
        ("decision = 0", [True, False, False]),
        ("decision == 0 or amount < 100", [True, False, False]),
        ("not decision = 1", [True, False, False]),
        ("score <= 0.75", [True, True, False]),
        ("decision = 0 or amount > 100", [True, True, False]),
        ("amount is missing", [False, False, True]),
    ],
)
def test_a_condition_is_one_of_rules_and_knows_decision_and_score(
    condition: str, through: list[bool]
) -> None:
    selection = LabelSelection(condition, 0.0, ["amount"])
    assert selection.let_through(COLUMNS, P, 0.5).tolist() == through


def test_a_row_that_was_declined_has_no_label_whoever_knows_it() -> None:
    scored = replace(scored_of(1, [1, 1, 0]), probabilities=P, threshold=0.5)
    chosen, may = LabelSelection("decision = 0", 0.0).select(scored, {}, np.zeros(3))
    assert (chosen.y.tolist(), may.tolist(), chosen.weight) == ([1, -1, -1], [True, False, False],
                                                               None)  # fmt: skip


def test_a_lot_lets_rows_through_that_stand_for_as_many_as_were_in_it() -> None:
    scored = replace(scored_of(1, [1, 1, 0]), probabilities=P, threshold=0.5)
    selection = LabelSelection("decision = 0", 0.02)
    chosen, may = selection.select(scored, {}, np.array([0.9, 0.019, 0.02]))
    assert may.tolist() == [True, True, False]
    assert chosen.y.tolist() == [1, 1, -1]
    assert chosen.weight is not None
    assert chosen.weight.tolist() == [1, 50, 1]


def test_a_lot_is_drawn_by_request_and_place_and_by_seed_and_batch() -> None:
    one = lots_of("order-17", 0, 2_000)
    assert one[5:9].tolist() == lots_of("order-17", 5, 9).tolist()
    assert abs(one.mean() - 0.5) < 0.03
    assert not np.array_equal(one[:5], lots_of("order-18", 0, 5))
    places = np.array([3, 1])
    assert seeded_lots(1, 4, places).tolist() == seeded_lots(1, 4, np.arange(4))[places].tolist()
    assert seeded_lots(1, 4, places).tolist() != seeded_lots(2, 4, places).tolist()


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("decision = ", "a finite number or a quoted text"),
        ("decision = 0 => 1", "the end of the condition"),
        ("__import__('os')", "the condition of a package takes no arguments"),
        ("decision = 0; x", "the end of the condition"),
        ("amuont > 3", "unknown feature 'amuont'; did you mean 'amount'"),
    ],
)
def test_what_is_no_condition_is_refused_and_nothing_is_run(condition: str, says: str) -> None:
    with pytest.raises(RuleError, match=r"condition|only_when") as caught:
        LabelSelection(condition, 0.0, ["amount"])
    assert says in str(caught.value)


def test_a_rule_still_wants_two_signs_of_equality() -> None:
    with pytest.raises(RuleError, match="expected one of < <= > >= == !="):
        parse("a = 1 => 1")
    assert str(parse_condition("a = 1")) == "a == 1.0"


@pytest.mark.parametrize("share", [0.03, 0.3, 1.5, -0.1, True])
def test_a_share_stands_for_a_whole_number_of_rows(share: Any) -> None:
    with pytest.raises(ValueError, match="explore"):
        Policy(explore=share)


def test_who_gets_labels_is_told_with_when() -> None:
    labels = LabelSettings(regime="delayed", delay=3, only_when="decision = 0")
    assert str(labels) == "delayed:3, only when decision = 0"
