"""Shifts by feature: in training standard deviations, or the share of rows of other categories."""

from __future__ import annotations

import numpy as np
import pytest

from selfheal_cli.drift.features import MOST, Feature, ShiftRows

RNG = np.random.default_rng(7)


def number(name: str) -> Feature:
    return Feature(name, "numeric", 1)


def test_a_number_moves_by_its_own_training_spread_whatever_the_blocks() -> None:
    x = RNG.normal([5.0, -2.0], [2.0, 0.1], size=(1_000, 2)).astype(np.float32)
    rows = ShiftRows([number("a"), number("b")], "a")
    for block in np.split(x, [10, 400, 401]):
        rows.add(block)
    rows.add(x[:0])
    moved = x + np.array([3.0, -0.2], dtype=np.float32)
    expected = np.array([3.0, -0.2]) / x.std(axis=0, dtype=np.float64)
    assert rows.shifts().of(moved) == pytest.approx(list(expected), abs=1e-3)
    assert rows.shifts().of(x) == [0.0, 0.0]


def test_a_text_moves_by_the_rows_that_would_have_to_change() -> None:
    train = np.repeat(np.eye(3, dtype=np.float32), [6, 4, 0], axis=0)
    rows = ShiftRows([Feature("site", "categorical", 3)], "")
    rows.add(train)
    now = np.repeat(np.eye(3, dtype=np.float32), [3, 4, 1], axis=0)
    unseen = np.zeros((2, 3), dtype=np.float32)
    assert rows.shifts().of(np.concatenate([now, unseen])) == [0.3]
    assert rows.shifts().of(unseen) == [1.0]


def test_a_constant_tells_how_many_rows_left_it() -> None:
    rows = ShiftRows([number("flag")], "flag")
    rows.add(np.zeros((50, 1), dtype=np.float32))
    now = np.array([[1.0], [1.0], [0.0], [-1.0]], dtype=np.float32)
    assert rows.shifts().of(now) == [0.25]


def test_of_very_many_features_the_sensitive_one_is_among_those_kept() -> None:
    features = [number(f"f{place}") for place in range(200)]
    rows = ShiftRows(features, "f150")
    rows.add(RNG.normal(size=(30, 200)).astype(np.float32))
    shifts = rows.shifts()
    assert len(shifts.described()) == len(shifts.of(np.zeros((5, 200), dtype=np.float32))) == MOST
    assert [one["name"] for one in shifts.described()][:2] == ["f150", "f0"]
