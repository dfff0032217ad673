"""Who is ahead in a comparison is said only beyond chance."""

from __future__ import annotations

import numpy as np
import pytest

from selfheal_cli.config import Objective
from selfheal_cli.metrics import confusion
from selfheal_cli.pipeline.offline.winner import FEWEST, SEEDS, rank, rank_over_seeds, total
from selfheal_cli.scores import Scores

ACCURACY = Objective()


def parts(right: float, *, seed: int, batches: int = 100, rows: int = 50) -> list[Scores]:
    """Batches of answers of which this share is right."""
    draw = np.random.default_rng(seed)
    y = draw.random((batches, rows)) < 0.3
    wrong = draw.random((batches, rows)) > right
    return [confusion(a ^ b, a.astype(np.int8)) for a, b in zip(y, wrong, strict=True)]


def test_the_better_of_many_is_named_with_an_interval_that_excludes_zero() -> None:
    poor = {f"poor {seed}": parts(0.80, seed=seed) for seed in range(6)}
    order = rank({**poor, "good": parts(0.90, seed=9)}, ACCURACY)
    assert order.winner == order.leader == "good"
    assert all(0 < other.low < other.lead < other.high for other in order.others)
    assert str(order).startswith("Ahead by accuracy: good 0.9")


def test_of_equals_none_is_ahead() -> None:
    named = 0
    for seed in range(40):
        equals = {f"c{place}": parts(0.8, seed=100 * seed + place) for place in range(6)}
        named += rank(equals, ACCURACY).winner is not None
    assert named <= 4


def test_two_that_err_on_other_rows_need_more_than_two_that_err_on_the_same() -> None:
    first = parts(0.85, seed=1)
    same = [Scores(s.tp, s.tn - 1, s.fp + 1, s.fn) if s.tn else s for s in first]
    order = rank({"first": first, "same": same, "other": parts(0.83, seed=2)}, ACCURACY)
    reach = {one.title: one.high - one.lead for one in order.others}
    assert reach["same"] < reach["other"]


def test_a_lower_cost_is_ahead_and_is_told_as_a_cost() -> None:
    dear = Objective(kind="cost", fn=10, fp=1)
    order = rank({"poor": parts(0.8, seed=1), "good": parts(0.95, seed=2)}, dear)
    assert order.winner == "good"
    assert 0 < order.value < order.others[0].value
    assert "Ahead by cost per 100 rows" in str(order)


def test_too_few_parts_give_no_interval_and_no_winner() -> None:
    few = FEWEST - 1
    order = rank(
        {"a": parts(0.9, seed=1, batches=few), "b": parts(0.5, seed=2, batches=few)}, ACCURACY
    )
    assert order.winner is None
    assert order.others[0].low is None
    assert "too few rows to tell it from chance" in str(order)


@pytest.mark.parametrize("kind", ["accuracy", "f1", "cost"])
def test_no_labels_at_all_name_nobody(kind: str) -> None:
    order = rank({"a": [], "b": []}, Objective(kind=kind))
    assert order.winner is None
    assert str(order)


def streams(right: float, *, seed: int, count: int = 8) -> list[Scores]:
    return [total(parts(right, seed=seed + place, batches=10)) for place in range(count)]


def test_over_streams_of_a_generator_each_seed_counts_once() -> None:
    order = rank_over_seeds({"a": streams(0.9, seed=1), "b": streams(0.8, seed=50)}, ACCURACY)
    assert (order.winner, order.stretches, order.over) == ("a", 8, SEEDS)
    assert "8 streams of the generator" in str(order)
    named = 0
    for seed in range(40):
        equals = {f"c{k}": streams(0.8, seed=1_000 * seed + 20 * k) for k in range(4)}
        named += rank_over_seeds(equals, ACCURACY).winner is not None
    assert named <= 4


def test_one_stream_of_a_generator_names_nobody() -> None:
    one = {"a": streams(0.9, seed=1, count=1), "b": streams(0.5, seed=50, count=1)}
    order = rank_over_seeds(one, ACCURACY)
    assert order.winner is None
    assert "more --seeds" in str(order)
