"""The rows that heals learn from: the last arrivals, a share of each held out."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.heal.task import HealRows, Window


def add(window: Window, arrival: int, rows: int = 10) -> None:
    """An arrival whose every column says which it is."""
    features = np.full((rows, 3), arrival, dtype=np.float32)
    y = np.full(rows, arrival % 2, dtype=np.int8)
    window.add(arrival, features, y, np.full(rows, -1, dtype=np.int8))


def held_out(seed: int, arrival: int, rows: int = 100, share: float = 0.2) -> np.ndarray:
    """Which rows of a single arrival are held out."""
    window = Window(1, share, seed)
    add(window, arrival, rows)
    return window.rows().held_out


def row_bytes(rows: HealRows) -> list[bytes]:
    """Every column of the rows as bytes."""
    return [column.tobytes() for column in columns_of(rows)]


def columns_of(rows: HealRows) -> list[Any]:
    """Those that are there: rows that stand for themselves, at once, have no weight and delay."""
    columns = (getattr(rows, name) for name in HealRows.__slots__)
    return [column for column in columns if column is not None]


@given(batches=st.integers(1, 6), arrivals=st.integers(1, 12), rows=st.integers(1, 5))
def test_the_last_arrivals_are_kept_oldest_first(batches: int, arrivals: int, rows: int) -> None:
    window = Window(batches, 0.2, seed=0)
    for arrival in range(1, arrivals + 1):
        add(window, arrival, rows)
    kept = list(range(max(1, arrivals - batches + 1), arrivals + 1))
    in_window = window.rows()
    assert len(window) == len(kept)
    assert in_window.arrival.tolist() == np.repeat(kept, rows).tolist()
    assert in_window.features[:, 0].tolist() == np.repeat(kept, rows).tolist()
    assert in_window.y.tolist() == (np.repeat(kept, rows) % 2).tolist()
    assert set(in_window.rule_label.tolist()) == {-1}


def test_columns_keep_their_types() -> None:
    window = Window(3, 0.2, seed=0)
    for arrival in (1, 2):
        add(window, arrival)
        rows = window.rows()
        types = [column.dtype for column in columns_of(rows)]
        assert types == [np.float32, np.int8, np.int8, np.int32, np.bool_]


@given(
    rows=st.integers(1, 300),
    share=st.floats(0, 0.9),
    seed=st.integers(0, 2**32 - 1),
    arrival=st.integers(0, 10**6),
)
def test_the_share_held_out_is_exact_to_the_row(
    rows: int, share: float, seed: int, arrival: int
) -> None:
    assert int(held_out(seed, arrival, rows, share).sum()) == round(rows * share)


def test_which_rows_are_held_out_is_decided_by_seed_and_arrival() -> None:
    np.testing.assert_array_equal(held_out(7, 3), held_out(7, 3))
    assert (held_out(7, 3) != held_out(7, 4)).any()
    assert (held_out(7, 3) != held_out(8, 3)).any()


def test_what_came_before_has_no_say_in_what_is_held_out() -> None:
    window = Window(1, 0.2, seed=7)
    for arrival in (1, 2, 3):
        add(window, arrival, 100)
    np.testing.assert_array_equal(window.rows().held_out, held_out(7, 3))


def test_every_row_is_held_out_about_as_often() -> None:
    often = np.sum([held_out(0, arrival) for arrival in range(1_000)], axis=0)
    assert often.sum() == 20_000
    assert 150 < often.min() < often.max() < 250


def test_a_share_of_nothing_holds_nothing_out() -> None:
    rows = Window(2, 0.0, seed=0)
    for arrival in (1, 2):
        add(rows, arrival)
    assert not rows.rows().held_out.any()
    assert rows.rows().learnable is not None
    assert len(rows.rows().learnable) == 20


def test_rows_to_learn_from_and_rows_held_out_are_all_rows() -> None:
    window = Window(3, 0.3, seed=0)
    for arrival in (1, 2, 3):
        add(window, arrival)
    rows = window.rows()
    assert len(rows.learnable) == 21
    assert len(rows.where(rows.held_out)) == 9
    assert not rows.learnable.held_out.any()


def test_a_window_that_was_cleared_is_as_new() -> None:
    window, new = Window(3, 0.2, seed=1), Window(3, 0.2, seed=1)
    add(window, 1)
    window.clear()
    assert len(window) == 0
    for one in (window, new):
        add(one, 5)
    assert row_bytes(window.rows()) == row_bytes(new.rows())


def test_parts_that_arrive_in_one_step_are_one_arrival() -> None:
    window = Window(2, 0.2, seed=0)
    for arrival in (1, 2):
        for _ in range(5):  # labels of five batches come at once, two rows of each
            add(window, arrival, 2)
    rows = window.rows()
    assert len(window) == 2
    assert rows.arrival.tolist() == [1] * 10 + [2] * 10
    assert int(rows.held_out.sum()) == 4


def test_no_rows_are_no_arrival() -> None:
    window = Window(2, 0.2, seed=0)
    for arrival in (1, 2):
        add(window, arrival)
    for arrival in (3, 4):  # labels that come alone, batch after batch
        add(window, arrival, 0)
    assert window.rows().arrival.tolist() == [1] * 10 + [2] * 10
