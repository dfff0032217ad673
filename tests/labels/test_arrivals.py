"""Labels that arrive by themselves: each row comes back once, with its own label."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.labels.queue import LabelJoiner
from selfheal_cli.records import LateLabels
from tests.labels.test_label_queue import check_cut_alike, rows_of, scored_of

ROWS = 4


def late(*labels: tuple[int, int, int]) -> LateLabels:
    """Labels as (batch, place, y)."""
    batch, place, y = (list(column) for column in zip(*labels, strict=True))
    return LateLabels(np.array(batch), np.array(place), np.array(y, dtype=np.int8))


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 8), st.integers(0, ROWS), st.integers(0, 1)), max_size=9),
        min_size=1,
        max_size=8,
    )
)
def test_a_row_comes_back_once_with_the_first_label_that_came_and_the_rest_is_counted(
    arrivals: list[list[tuple[int, int, int]]],
) -> None:
    queue = LabelJoiner(together=1, keep=1_000)
    given_labels: dict[tuple[int, int], set[int]] = {}
    came, unknown = [], 0
    for batch, labels in enumerate(arrivals, 1):
        late_labels = late(*labels) if labels else None
        fresh = {(b, p) for b, p, _ in labels if 1 <= b < batch and p < ROWS} - set(given_labels)
        unknown += len(labels) - len(fresh)
        for key in fresh:
            given_labels[key] = {y for b, p, y in labels if (b, p) == key}
        came += queue.take(scored_of(batch, [-1] * ROWS), None, late_labels)
    assert sorted(rows_of(came)) == sorted(given_labels)
    for part in came:
        check_cut_alike(part)
        for place, y in zip(part.place.tolist(), part.y.tolist(), strict=True):
            assert y in given_labels[part.batch, place]
    assert queue.unknown == unknown


def test_labels_are_handed_on_together_once_there_are_enough() -> None:
    queue = LabelJoiner(together=3, keep=1_000)
    assert queue.take(scored_of(1, [-1] * 4), None, None) == []
    assert queue.take(scored_of(2, [-1] * 4), None, late((1, 0, 1), (1, 3, 0))) == []
    came = queue.take(scored_of(3, [-1, 1, -1, -1]), None, None)
    assert rows_of(came) == [(1, 0), (1, 3), (3, 1)]
    assert [part.y.tolist() for part in came] == [[1, 0], [1]]


def test_labels_that_wait_for_others_are_still_waiting_rows() -> None:
    queue = LabelJoiner(together=3, keep=1_000)
    queue.take(scored_of(1, [-1, 1]), None, None)
    assert sorted(rows_of(list(queue.waiting))) == [(1, 0), (1, 1)]


def test_the_oldest_rows_are_forgotten_when_too_many_wait() -> None:
    queue = LabelJoiner(together=1, keep=8)
    for batch in (1, 2, 3):
        queue.take(scored_of(batch, [-1] * 4), None, None)
    assert {part.batch for part in queue.waiting} == {2, 3}
    came = queue.take(scored_of(4, []), None, late((1, 0, 1), (2, 0, 1)))
    assert rows_of(came) == [(2, 0)]
    assert queue.unknown == 1


def test_where_it_corrects_labels_that_wait_for_others_may_be_told_anew_or_taken_back() -> None:
    queue = LabelJoiner(together=4, keep=1_000, corrects=True)
    queue.take(scored_of(1, [-1] * 4), None, None)
    assert queue.take(scored_of(2, [-1]), None, late((1, 0, 1), (1, 1, 1), (1, 2, 0))) == []
    assert queue.take(scored_of(3, [-1]), None, late((1, 0, 0), (1, 1, -1), (1, 3, -1))) == []
    came = queue.take(scored_of(4, [-1]), None, late((1, 1, 1), (2, 0, 1)))
    assert sorted(rows_of(came)) == [(1, 0), (1, 1), (1, 2), (2, 0)]
    labels = {key: int(y) for part in came for key, y in zip(rows_of([part]), part.y, strict=True)}
    assert labels == {(1, 0): 0, (1, 1): 1, (1, 2): 0, (2, 0): 1}
    for part in came:
        check_cut_alike(part)
