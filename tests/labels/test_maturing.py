"""A row without a complaint is a negative once its time is over, and counts from then on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from selfheal_cli.config import LabelSettings
from selfheal_cli.labels.corrections import LabelledRows
from selfheal_cli.labels.maturing import MaturedLabels
from selfheal_cli.labels.queue import Scored
from tests.labels.test_arrivals import late
from tests.labels.test_label_queue import NEVER, check_cut_alike, rows_of, scored_of


def queue(together: int = 1, **changes: Any) -> MaturedLabels:
    return MaturedLabels(LabelSettings(negative_after=10, **changes), together)


def at(batch: int, y: list[int], time: float, label_at: list[float] | None = None) -> Scored:
    """Rows that all came at a time."""
    return replace(scored_of(batch, y, label_at), at=np.full(len(y), float(time)))


def test_a_row_comes_back_when_its_own_time_is_over_and_no_sooner() -> None:
    waiting = queue()
    assert waiting.take(at(1, [-1] * 3, 0), None, None) == []
    assert waiting.take(at(2, [-1], 9.9), None, late((1, 1, 1))) == []
    (part,) = waiting.take(at(3, [-1], 10), None, None)
    assert (rows_of([part]), part.y.tolist()) == ([(1, 0), (1, 1), (1, 2)], [0, 1, 0])
    check_cut_alike(part)
    (told,) = waiting.matured()
    assert (told.batch, told.rows, told.negatives, told.by) == (1, 3, 2, 10.0)
    assert waiting.matured() == []


def test_a_positive_that_is_known_beforehand_waits_for_its_rows_time_too() -> None:
    waiting = queue()
    told = at(1, [1, 0, 1, 1], 0, [2.0, 1.0, 25.0, NEVER])
    assert waiting.take(told, None, None) == []
    (part,) = waiting.take(at(2, [0], 12, [NEVER]), None, None)
    assert part.y.tolist() == [1, 0, 0, 0]
    assert waiting.told_since() is None
    waiting.take(at(3, [0], 25, [NEVER]), None, None)
    since = waiting.told_since()
    assert since is not None
    assert (since.batch.tolist(), since.place.tolist(), since.y.tolist()) == ([1], [2], [1])
    assert waiting.told_since() is None


def test_time_never_goes_back() -> None:
    waiting = queue()
    waiting.take(at(1, [-1], 100), None, None)
    (part,) = waiting.take(at(2, [-1], 50), None, None)
    assert part.batch == 2
    assert rows_of(list(waiting.waiting)) == [(1, 0)]


def test_rows_are_handed_on_together_and_may_still_be_told_until_then() -> None:
    waiting = queue(together=3)
    waiting.take(at(1, [-1, -1], 0), None, None)
    assert waiting.take(at(2, [-1, -1], 10), None, None) == []
    assert rows_of(list(waiting.countable)) == [(1, 0), (1, 1)]
    came = waiting.take(at(3, [-1], 20), None, late((1, 1, 1), (9, 0, 1)))
    assert [part.y.tolist() for part in came] == [[0, 1], [0, 0]]
    assert waiting.unknown == 1


def test_of_more_rows_than_may_wait_the_oldest_go_and_are_counted() -> None:
    waiting = queue(keep=3)
    for batch in (1, 2):
        waiting.take(at(batch, [-1, -1], batch), None, None)
    assert (waiting.lost, rows_of(list(waiting.waiting))) == (2, [(2, 0), (2, 1)])


def test_rows_of_an_earlier_run_come_back_at_once_where_their_time_was_over() -> None:
    waiting = queue(together=100)
    assert waiting.recall(at(-1, [1, -1], 0)) == []
    (part,) = waiting.recall(at(0, [-1, 1], 10))
    assert (part.batch, part.y.tolist(), waiting.matured()) == (-1, [1, 0], [])
    assert rows_of(list(waiting.waiting)) == [(0, 0), (0, 1)]


def test_a_correction_says_what_was_known_and_what_is_and_the_rest_is_somebody_elses() -> None:
    known = LabelledRows(keep=100)
    known.add(scored_of(1, [0, 1, 0]))
    (one,), rest = known.corrections(late((1, 0, 1), (1, 1, 1), (2, 0, 1)))
    assert (one.part.place.tolist(), one.part.y.tolist(), one.y.tolist()) == ([0], [0], [1])
    check_cut_alike(one.part)
    assert rest is not None
    assert (rest.batch.tolist(), rest.y.tolist()) == ([2], [1])
    (again,), rest = known.corrections(late((1, 0, 0)))
    assert (again.part.y.tolist(), again.y.tolist(), rest) == ([1], [0], None)


def test_only_the_latest_rows_can_be_corrected() -> None:
    known = LabelledRows(keep=4)
    for batch in (1, 2, 3):
        known.add(scored_of(batch, [0, 1]))
    corrections, rest = known.corrections(late((1, 0, 1), (2, 0, 1)))
    assert [one.part.batch for one in corrections] == [2]
    assert rest is not None
    assert rest.batch.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "seconds", "told"),
    [("60d", 5_184_000.0, "60d"), ("36h", 129_600.0, "36h"), ("2w", 1_209_600.0, "14d"),
     ("90", 90.0, "90s"), (0.5, 0.5, "0.5")],
)  # fmt: skip
def test_a_time_is_written_as_people_write_it(text: Any, seconds: float, told: str) -> None:
    labels = LabelSettings(regime="timed", negative_after=text)
    assert labels.negative_after == seconds
    assert str(labels) == f"timed, negative after {told}"


@pytest.mark.parametrize("text", ["60 days", "-1d", "0", "d", "nan", "inf", True])
def test_what_is_no_time_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="negative_after"):
        LabelSettings(negative_after=text)


def test_a_record_of_before_stays_what_it_was() -> None:
    assert LabelSettings().model_dump() == {"regime": "full", "delay": 0, "keep": 100_000}
