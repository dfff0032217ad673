"""Figures called sampled: weighed by the chance to be drawn, of asked rows alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss, recall_score, roc_auc_score

from selfheal_cli.labels.sampled import AskedRows, Sampled, sampled
from selfheal_cli.labels.sampling import AskPlan
from selfheal_cli.labels.selection import lots_of
from selfheal_cli.labels.worth import worth

ROWS = 4_000


def world(middle: float, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Scores that are too low, and labels."""
    draw = np.random.default_rng((seed, 3))
    logit = draw.normal(middle, 1.5, ROWS)
    y = (draw.random(ROWS) < 1 / (1 + np.exp(-(logit + 0.5)))).astype(np.int8)
    return (1 / (1 + np.exp(-logit))).astype(np.float32), y


def asked(p: Any, y: Any, share: float, key: str = "k", told: Any = None) -> AskedRows:
    """The rows that a plan draws, with all their labels."""
    plan = AskPlan.of(key, share, p)
    strata = plan.strata(p)
    drawn = lots_of("r", 0, ROWS, plan.lot_key()) < np.array(plan.chances)[strata]
    told = np.zeros(ROWS, np.bool_) if told is None else told
    counts = np.bincount(strata, minlength=len(plan.chances))
    block = np.arange(ROWS) // 100
    threshold = np.full(int(drawn.sum()), 0.5)
    return AskedRows(
        p[drawn], threshold, y[drawn], told[drawn], block[drawn], strata[drawn], counts
    )


def test_where_all_rows_are_asked_for_the_figures_are_theirs() -> None:
    p, y = world(-0.5)
    result = sampled(asked(p, y, 1.0))
    wide = p.astype(np.float64)
    assert (result.rows, result.asked, result.unanswered) == (ROWS, ROWS, 0)
    assert result.figures["log_loss"].value == pytest.approx(log_loss(y, wide))
    assert result.figures["log_loss"].low == pytest.approx(log_loss(y, wide))
    assert result.figures["recall"].value == pytest.approx(recall_score(y, p >= 0.5))
    assert result.figures["f1"].value == pytest.approx(f1_score(y, p >= 0.5))
    assert result.figures["roc_auc"].value == pytest.approx(roc_auc_score(y, wide))


def test_over_many_draws_means_are_those_of_all_rows_whatever_the_strata() -> None:
    p, y = world(-4.5)
    plan = AskPlan.of("k", 0.1, p)
    assert len(plan.chances) == 3
    assert plan.chances[0] < plan.chances[1] < plan.chances[2]
    assert np.bincount(plan.strata(p)) @ np.array(plan.chances) == pytest.approx(
        0.1 * ROWS, rel=0.1
    )
    results = [sampled(asked(p, y, 0.1, f"k{seed}")) for seed in range(60)]
    for name, truth in (("positive_rate", y.mean()), ("log_loss", log_loss(y, p.astype(float)))):
        values = [one.figures[name].value for one in results]
        assert np.mean(values) == pytest.approx(truth, abs=3 * np.std(values) / 60**0.5)
        inside = [one.figures[name].low <= truth <= one.figures[name].high for one in results]
        assert np.mean(inside) > 0.88


def test_what_was_told_before_stands_by_its_chance_and_answers_for_the_unanswered() -> None:
    told = np.array([True, False, False, False])
    y = np.array([1, 0, -1, 1], np.int8)
    rows = AskedRows(
        np.full(4, 0.5, np.float32), np.full(4, 0.5), y, told, np.arange(4),
        np.zeros(4, np.intp), np.array([40]),
    )  # fmt: skip
    assert rows.weight.tolist() == [10.0, 15.0, 15.0]  # three asked, two answered


def test_few_rows_say_nothing_and_few_positives_nothing_of_recall() -> None:
    p, y = world(-0.5)
    few = sampled(asked(p, y, 0.003))
    assert few.figures == {}
    assert "20 are needed" in few.lacks
    rare = sampled(asked(p, np.where(np.arange(ROWS) % 50 == 0, y, 0).astype(np.int8), 0.2))
    assert {"accuracy", "log_loss", "positive_rate"} == set(rare.figures)
    assert "sampled positives, 20 are needed" in rare.lacks


def test_many_classes_have_accuracy_and_log_loss() -> None:
    draw = np.random.default_rng(0)
    p = draw.dirichlet(np.ones(3), ROWS).astype(np.float32)
    y = p.argmax(axis=1).astype(np.int8)
    result: Sampled = sampled(asked(p, y, 0.1))
    assert set(result.figures) == {"accuracy", "log_loss"}
    assert result.figures["accuracy"].value == pytest.approx(1.0)
    assert result.figures["accuracy"].low < 1.0


def test_lots_of_one_key_are_the_same_for_everybody_and_have_nothing_to_do_with_another() -> None:
    mine, other = lots_of("r", 0, 500, b"a"), lots_of("r", 0, 500, b"b")
    assert np.array_equal(mine, lots_of("r", 0, 500, b"a"))
    assert np.array_equal(mine[100:], lots_of("r", 100, 500, b"a"))
    assert abs(np.corrcoef(mine, other)[0, 1]) < 0.15
    plan = AskPlan.of("k", 0.02, np.full(10, 0.01, np.float32))
    again = AskPlan.from_json(plan.as_json())
    assert again == plan
    assert plan.with_share(0.04).chances[0] > plan.chances[0]


def test_what_more_labels_bring_is_said_with_an_interval_or_not_at_all() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 12)).astype(np.float32)
    y = (x @ np.full(12, 0.6) + draw.logistic(size=400) > 0).astype(np.int8)
    flat = np.full(400, 0.5, np.float32)
    known = worth(x, flat, y, np.ones(400))
    assert known is not None
    assert known.whole < known.half < known.frozen
    assert "as many again bring no more than these did" in str(known)
    best = (1 / (1 + np.exp(-x @ np.full(12, 0.6)))).astype(np.float32)
    perfect = worth(np.empty((400, 0), np.float32), best, y, np.ones(400))
    assert perfect is not None
    assert "cannot be told from chance" in str(perfect)
    assert worth(x[:150], flat[:150], y[:150], np.ones(150)) is None
