"""Segments of a stream: which of them are named, and when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal_cli.drift.monitor import TrainingSample
from selfheal_cli.drift.segment_evidence import CELLS, SegmentEvidence
from selfheal_cli.drift.segments import (
    MISSING,
    NEW,
    OTHER,
    ColumnCells,
    SegmentReference,
    SegmentWatch,
    keys_of,
)
from selfheal_cli.records import Rows
from tests.conftest import DEPTH

TEXTS = tuple(f"t{place}" for place in range(12))


def rows(draw: np.random.Generator, count: int, segments: int = 20) -> dict[str, Any]:
    """Columns of segments that differ, but do not drift."""
    codes = draw.integers(0, segments, count)
    return {
        "amount": draw.normal(codes % 3, 1 + codes % 2),
        "rate": np.where(draw.random(count) < 0.05, np.nan, draw.random(count)),
        "kind": np.array([*TEXTS, None], dtype=object)[draw.integers(0, 13, count)],
        "shop": np.array([f"s{code}" for code in codes], dtype=object),
    }


def sample_of(columns: dict[str, Any]) -> TrainingSample:
    count = len(columns["shop"])
    none = np.zeros((count, 0), np.float32), np.zeros(count, np.int8)
    known = {"kind": TEXTS}
    return TrainingSample(Rows(*none, columns), none[0], none[1], 0, ("no", "yes"),
                          ("amount", "rate"), known, {})  # fmt: skip


def reference_of(columns: dict[str, Any]) -> SegmentReference:
    cells = {name: ColumnCells.of(sample_of(columns), name) for name in ("amount", "rate", "kind")}
    none = SegmentReference("shop", (), cells, np.zeros((0, 3, CELLS), np.int32))
    return none.with_rows(columns)


def watch(seed: int = 0, count: int = 2_000, **changes: Any) -> SegmentWatch:
    columns = rows(np.random.default_rng([seed, 1]), count)
    given: dict[str, Any] = {"window": 100, "threshold": 0.1, "rate": 0.05, "most": 100, "seed": 3}
    return SegmentWatch(reference_of(columns), **given | changes)


def named(one: SegmentWatch, batches: int, seed: int = 0, **shift: float) -> list[tuple[Any, ...]]:
    """What is named in a stream whose segment s7 is shifted by so much in these columns."""
    draw, told = np.random.default_rng([seed, 2]), []
    for batch in range(1, batches + 1):
        columns = rows(draw, 400)
        for name, by in shift.items():
            columns[name] = columns[name] + by * (columns["shop"] == "s7")
        one.observe(batch, columns, np.arange(400))
        told += [(batch, row["segment"], row["column"]) for row in one.newly_named(batch)]
    return told


def test_segments_that_differ_and_do_not_drift_are_not_named() -> None:
    assert [named(watch(seed), 30, seed) for seed in range(3)] == [[], [], []]


def test_the_one_that_drifts_is_named_with_its_column_and_once() -> None:
    told = named(watch(), 20, amount=3.0)
    assert [one[1:] for one in told] == [("s7", "amount")]
    assert told[0][0] <= 6  # of 20 rows of its own each


def test_a_segment_that_training_lacks_is_compared_with_its_own_first_rows() -> None:
    one, draw, told = watch(), np.random.default_rng(5), []
    for batch in range(1, 21):
        columns = rows(draw, 400)
        columns["shop"] = np.where(columns["shop"] == "s7", "new", columns["shop"])
        columns["amount"] = columns["amount"] + 3 * (columns["shop"] == "new") * (batch > 10)
        one.observe(batch, columns, np.arange(400))
        told += [(batch, row["segment"]) for row in one.newly_named(batch)]
    assert [name for _, name in told] == ["new"]
    assert 10 < told[0][0] <= 18


def test_it_is_the_same_each_time_and_however_the_batch_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = named(watch(), 12, amount=3.0)
    assert whole == named(watch(), 12, amount=3.0)
    monkeypatch.setattr("selfheal_cli.drift.segment_evidence.AT_ONCE", 1_000)
    assert named(watch(), 12, amount=3.0) == whole


def test_rows_without_a_key_and_of_too_many_segments_are_counted_and_of_none() -> None:
    one = watch(most=20)
    columns = rows(np.random.default_rng(1), 400)
    columns["shop"][:7], columns["shop"][7:10] = None, "beyond"
    one.observe(1, columns, np.arange(400))
    assert (one.unkeyed, one.beyond, one.segments) == (7, 3, 20)
    del columns["shop"]
    one.observe(2, columns, np.arange(400))
    assert one.unkeyed == 407


def test_labels_say_which_segment_the_frozen_model_is_wrong_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, draw = watch(), np.random.default_rng(3)
    for batch in range(1, 31):
        columns = rows(draw, 400)
        one.observe(batch, columns, np.arange(400))
        chance = np.where((columns["shop"] == "s3") & (batch > 12), 0.7, 0.1)
        wrong = draw.random(400) < chance
        labelled = np.arange(0, 400, 2)
        one.learn(batch, labelled, wrong[labelled] & False, wrong[labelled])
        one.newly_named(batch)
    assert {(row["segment"], row["column"]) for row in one.drifted()} == {("s3", "errors")}
    first = one.slices()[0]
    assert (first["segment"], first["wrong"], first["drifted"]) == ("s3", 0, ["errors"])
    assert first["labelled"] < first["rows"]
    assert 0.2 < first["shadow_wrong"] / first["labelled"] < 0.6
    monkeypatch.setattr("selfheal_cli.drift.segments.KEPT", 500)
    one.observe(31, rows(draw, 400), np.arange(400))
    before = one.slices()
    one.learn(30, np.arange(3), np.ones(3, bool), np.ones(3, bool))  # too late to know whose
    assert one.slices() == before


def test_the_whole_is_the_sum_over_the_segments() -> None:
    one, draw = watch(window=100_000), np.random.default_rng(4)
    training = rows(np.random.default_rng([0, 1]), 2_000)
    stream = [rows(draw, 400) for _ in range(3)]
    for batch, columns in enumerate(stream, start=1):
        columns["amount"] += 1.0
        one.observe(batch, columns, np.arange(400))
    cells = ColumnCells.of(sample_of(training), "amount")
    before, now = (
        np.cumsum(np.bincount(cells.place(values), minlength=CELLS)) / len(values)
        for values in (training["amount"], np.concatenate([one["amount"] for one in stream]))
    )
    assert one.whole()["amount"] == pytest.approx(np.abs(before - now).max(), abs=1e-6)


@settings(max_examples=10 * DEPTH)
@given(sizes=st.lists(st.integers(1, 90), min_size=1, max_size=6), segments=st.integers(1, 4))
def test_counts_do_not_hang_on_how_rows_come_in_batches(sizes: list[int], segments: int) -> None:
    total, draw = sum(sizes), np.random.default_rng(sum(sizes))
    codes = draw.integers(0, segments, total)
    cells = draw.integers(0, CELLS, (total, 2)).astype(np.int8)
    lots = draw.random(total)
    parts, whole = SegmentEvidence(2, 20), SegmentEvidence(2, 20)
    for one in (parts, whole):
        one.grow(segments)
    whole.update(codes, cells, lots)
    at = 0
    for size in sizes:
        parts.update(*(each[at : at + size] for each in (codes, cells, lots)))
        at += size
    assert (
        parts.rows.tolist()
        == whole.rows.tolist()
        == np.bincount(codes, minlength=segments).tolist()
    )
    assert parts.window.tolist() == whole.window.tolist()
    assert parts.window.sum(axis=2).max() <= 20
    assert np.allclose(parts.won, whole.won, atol=1e-9)


def test_bets_against_rows_that_do_not_drift_win_a_factor_of_twenty_in_one_case_of_twenty() -> None:
    """However often they are looked at (Ville 1939)."""
    evidence, draw = SegmentEvidence(1, 100), np.random.default_rng(0)
    evidence.grow(400)
    largest = np.zeros(400)
    for _ in range(60):
        codes = np.repeat(np.arange(400), 5)
        cells = draw.choice(CELLS, (2_000, 1), p=np.arange(1, 12) / 66).astype(np.int8)
        evidence.update(codes, cells, draw.random(2_000))
        largest = np.maximum(largest, evidence.won[:, 0])
    assert np.mean(largest >= np.log(20)) <= 0.05


def test_each_value_has_a_cell() -> None:
    columns = rows(np.random.default_rng(1), 3_000)
    amount, kind = (ColumnCells.of(sample_of(columns), name) for name in ("amount", "kind"))
    assert amount.place(np.array([-9.0, 9.0, np.nan])).tolist() == [0, 9, MISSING]
    known, rare = kind.texts[0], next(iter(kind.rare - {*kind.texts}))
    told = kind.place(np.array([known, rare, "new", None], dtype=object))
    assert told.tolist() == [0, OTHER, NEW, MISSING]


def test_numbers_are_keys_as_they_are_written() -> None:
    assert keys_of(np.array([49.0, 0.5, np.nan])).tolist() == ["49", "0.5", None]
    assert keys_of(np.array(["DE", None, np.nan], dtype=object)).tolist() == ["DE", None, None]
