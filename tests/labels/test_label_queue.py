"""Where scored rows wait: they come back once, when their labels have come, cut alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import LabelSettings
from selfheal_cli.labels.queue import DelayedLabels, Scored

COLUMNS = ("place", "x", "features", "probabilities", "shadow", "rule_label", "y", "label_at")
NEVER = float("nan")


def scored_of(
    batch: int, y: list[int], label_at: list[float] | None = None, classes: int = 2
) -> Scored:
    """Rows whose every column says which batch and which place they are of."""
    mark = 100 * batch + np.arange(len(y))
    wide = mark if classes == 2 else np.repeat(mark[:, None], classes, axis=1)
    return Scored(
        batch=batch,
        place=np.arange(len(y)),
        x=np.repeat(mark[:, None], 3, axis=1).astype(np.float32),
        features=np.repeat(mark[:, None], 5, axis=1).astype(np.float32),
        probabilities=wide.astype(np.float32),
        threshold=0.5,
        shadow=wide.astype(np.float32),
        shadow_threshold=0.4,
        rule_label=(mark % 2).astype(np.int8),
        y=np.array(y, dtype=np.int8),
        label_at=None if label_at is None else np.array(label_at),
    )


def queue(regime: Any, delay: int = 0) -> DelayedLabels:
    """A queue for labels that come like this."""
    return DelayedLabels(LabelSettings(regime=regime, delay=delay))


def rows_of(parts: list[Scored]) -> list[tuple[int, int]]:
    """(batch, place) of every row."""
    return [(part.batch, int(place)) for part in parts for place in part.place]


def check_cut_alike(part: Scored) -> None:
    """Every column holds the rows that ``place`` names."""
    mark = 100 * part.batch + part.place
    for name in ("x", "features", "probabilities", "shadow"):
        column = getattr(part, name)
        np.testing.assert_array_equal(column.reshape(len(part), -1)[:, 0], mark)
        np.testing.assert_array_equal(column.reshape(len(part), -1)[:, -1], mark)
    np.testing.assert_array_equal(part.rule_label, mark % 2)
    assert (part.threshold, part.shadow_threshold) == (0.5, 0.4)


def test_full_labels_come_back_at_once() -> None:
    at, scored = queue("full"), scored_of(1, [0, 1, 0])
    (part,) = at.take(scored, None)
    assert part is scored
    assert at.waiting == ()


@pytest.mark.parametrize("regime", ["full", "delayed"])
def test_rows_whose_label_nobody_knows_are_cut_out_of_every_column(regime: str) -> None:
    (part,) = queue(regime).take(scored_of(2, [0, -1, 1, -1], classes=3), None)
    assert part.place.tolist() == [0, 2]
    assert part.y.tolist() == [0, 1]
    check_cut_alike(part)
    assert {len(getattr(part, name)) for name in COLUMNS if name != "label_at"} == {2}


@pytest.mark.parametrize("regime", ["full", "delayed", "timed"])
def test_a_batch_without_any_known_label_never_comes_back(regime: str) -> None:
    at = queue(regime)
    assert at.take(scored_of(1, [-1, -1], [0.0, 0.0]), 10.0) == []
    assert at.take(scored_of(2, [0], [0.0]), 10.0)[0].batch == 2
    assert at.waiting == ()


def test_without_labels_nothing_comes_back_and_nothing_is_kept() -> None:
    at = queue("none")
    for batch in range(1, 5):
        assert at.take(scored_of(batch, [0, 1]), float(batch)) == []
    assert at.waiting == ()


@given(
    delay=st.integers(0, 6),
    batches=st.lists(st.lists(st.integers(-1, 1), min_size=1, max_size=4), max_size=12),
)
def test_delayed_by_k_batch_b_comes_back_at_step_b_plus_k(
    delay: int, batches: list[list[int]]
) -> None:
    at = queue("delayed", delay)
    for step, y in enumerate(batches, start=1):
        parts = at.take(scored_of(step, y), None)
        due = step - delay
        y_due = batches[due - 1] if due >= 1 else []
        known = [place for place, label in enumerate(y_due) if label >= 0]
        assert rows_of(parts) == [(due, place) for place in known]
        for part in parts:
            check_cut_alike(part)
        assert [one.batch for one in at.waiting] == list(range(max(1, due + 1), step + 1))


def test_after_a_gap_in_the_batches_all_that_are_due_come_back_oldest_first() -> None:
    at = queue("delayed", 2)
    assert at.take(scored_of(1, [0]), None) == []
    assert at.take(scored_of(2, [1]), None) == []
    assert rows_of(at.take(scored_of(6, [0]), None)) == [(1, 0), (2, 0)]
    assert rows_of(at.take(scored_of(8, [0]), None)) == [(6, 0)]


def test_timed_rows_come_back_when_their_time_has_come_cut_alike() -> None:
    at = queue("timed")
    assert at.take(scored_of(1, [0, 1, 0, 1], [5.0, 2.0, NEVER, 3.0]), 1.0) == []
    (part,) = at.take(scored_of(2, [1, 0], [9.0, NEVER]), 3.0)
    assert rows_of([part]) == [(1, 1), (1, 3)]
    assert part.label_at is not None
    assert part.label_at.tolist() == [2.0, 3.0]
    check_cut_alike(part)
    assert rows_of(list(at.waiting)) == [(1, 0), (2, 0)]
    assert rows_of(at.take(scored_of(3, [1], [9.5]), 9.5)) == [(1, 0), (2, 0), (3, 0)]
    assert at.waiting == ()


def test_without_a_time_timed_rows_wait() -> None:
    at = queue("timed")
    assert at.take(scored_of(1, [0], [-5.0]), None) == []
    assert rows_of(list(at.waiting)) == [(1, 0)]


def test_timed_rows_that_have_no_time_never_come_back_and_are_not_kept() -> None:
    at = queue("timed")
    assert at.take(scored_of(1, [0, 1]), 10.0) == []
    assert at.waiting == ()


ROW = st.tuples(st.integers(-1, 1), st.integers(0, 12).map(float) | st.just(NEVER))


@given(batches=st.lists(st.lists(ROW, min_size=1, max_size=5), min_size=1, max_size=10))
def test_timed_rows_come_back_once_at_the_first_step_from_their_time_on(
    batches: list[list[tuple[int, float]]],
) -> None:
    at, came = queue("timed"), dict[tuple[int, int], int]()
    for step, rows in enumerate(batches, start=1):
        y, label_at = [label for label, _ in rows], [time for _, time in rows]
        parts = at.take(scored_of(step, y, label_at), float(step))
        assert [part.batch for part in parts] == sorted(part.batch for part in parts)
        for part in parts:
            check_cut_alike(part)
        for row in rows_of(parts):
            assert row not in came
            came[row] = step
    expected = {
        (batch, place): max(batch, int(time))
        for batch, rows in enumerate(batches, start=1)
        for place, (label, time) in enumerate(rows)
        if label >= 0 and not np.isnan(time) and max(batch, time) <= len(batches)
    }
    assert came == expected


def test_rows_that_are_all_chosen_are_the_rows_themselves() -> None:
    scored = scored_of(1, [0, 1, 0])
    assert scored.where(np.ones(3, dtype=bool)) is scored
    assert len(scored.where(np.zeros(3, dtype=bool))) == 0
