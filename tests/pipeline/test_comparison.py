"""Two versions on the same rows: in the order of scoring, once their labels can be there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from selfheal_cli.anytime import FEWEST, RunningMean
from selfheal_cli.pipeline.stream.comparison import PairedRows, ScoredTwice
from selfheal_cli.records import LateLabels


def scored(batch: int, y: Any, at: float | None = None, weight: Any = None) -> ScoredTwice:
    """Rows on which the champion says 0.5 and the canary 0.25."""
    rows = len(y)
    half = np.full(rows, 0.5, np.float32)
    return ScoredTwice(
        batch, np.arange(rows), np.array(y, np.int8), half, half / 2,
        float(batch) if at is None else at, weight, {"answered": batch},
    )  # fmt: skip


def late(batch: int, place: int, y: int) -> LateLabels:
    return LateLabels(np.array([batch]), np.array([place]), np.array([y], np.int8))


BETTER, WORSE = np.log(0.75 / 0.5), np.log(0.25 / 0.5)  # where the label is 0, where it is 1


def test_rows_enter_in_the_order_of_scoring_and_not_as_their_labels_come() -> None:
    rows = PairedRows(delay=5.0, together=2, keep=100)
    rows.add(scored(1, [0, -1]))
    rows.add(scored(2, [0, 0]))
    assert not list(rows.ripe(5.9))  # batch 2 has all its labels and waits for batch 1
    rows.label(late(1, 1, 1))
    first, second = rows.ripe(5.9)
    assert (first.batch, first.rows, first.positives) == (1, 2, 1)
    assert first.value == pytest.approx((BETTER + WORSE) / 2, abs=1e-6)
    assert second.value == pytest.approx(BETTER, abs=1e-6)
    assert second.through == {"answered": 2}
    assert not len(rows)


def test_a_batch_older_than_the_delay_enters_with_the_labels_that_came() -> None:
    rows = PairedRows(delay=5.0, together=1, keep=100)
    rows.add(scored(1, [0, -1, -1]))
    rows.label(late(1, 2, 1))
    rows.label(late(1, 2, -1))  # taken back
    (one,) = rows.ripe(6.0)
    assert (one.rows, one.positives) == (1, 0)
    matures = PairedRows(delay=5.0, together=1, keep=100, matures=True)
    matures.add(scored(1, [1, -1, -1]))
    (one,) = matures.ripe(6.0)
    assert (one.rows, one.positives) == (3, 1)  # nobody said anything of the others


def test_a_difference_has_a_batch_of_labelled_rows_and_none_that_is_not_believed() -> None:
    rows = PairedRows(delay=1.0, together=3, keep=100)
    rows.add(scored(1, [0, -1, -1]))
    rows.add(scored(2, [0, 1, -1]))
    rows.leave_out(2, np.array([1]))
    rows.add(scored(3, [0, 0, -1]))
    (one,) = rows.ripe(9.0)
    assert (one.batch, one.rows, one.positives) == (3, 4, 0)


def test_rows_count_as_often_as_they_stand_for_others_and_no_single_one_decides() -> None:
    rows = PairedRows(delay=1.0, together=2, keep=100)
    rows.add(scored(1, [0, 1], weight=np.array([1.0, 3.0])))
    (one,) = rows.ripe(9.0)
    assert one.value == pytest.approx((BETTER + 3 * WORSE) / 4, abs=1e-6)
    sure = PairedRows(delay=1.0, together=1, keep=100)
    half = np.array([0.5], np.float32)
    one_row = (np.arange(1), np.array([1], np.int8), half, np.array([0.0], np.float32))
    sure.add(ScoredTwice(1, *one_row, 1.0))
    (one,) = sure.ripe(9.0)
    assert one.value == pytest.approx(np.log(2) - 5.0, abs=1e-6)


def test_no_more_rows_wait_than_are_kept_and_those_that_go_are_counted() -> None:
    rows = PairedRows(delay=100.0, together=1, keep=5)
    for batch in range(1, 4):
        rows.add(scored(batch, [-1, -1]))
    assert (len(rows), rows.lost) == (4, 2)


def test_an_interval_is_given_of_enough_values_and_holds_the_mean_at_every_look() -> None:
    wrong = 0
    for seed in range(200):
        seen, draws = RunningMean(), np.random.default_rng(seed).standard_t(4, 150)
        outside = False
        for count, value in enumerate(draws, 1):
            seen = seen.plus(float(value))
            bounds = seen.interval(0.95)
            assert (bounds is None) == (count < FEWEST)
            outside |= bounds is not None and not bounds[0] <= 0.0 <= bounds[1]
        wrong += outside
        assert seen.mean == pytest.approx(draws.mean())
    assert wrong <= 10  # of 200, at level 0.95 over all looks
